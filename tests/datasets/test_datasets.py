"""Readers on made-up samples in each set's own layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gsth import datasets, media
from gsth.datasets import Sample
from gsth.errors import InputError

FILES: dict[str, tuple[list[str], dict[str, object]]] = {
    "mead": (
        ["M003/video/front/happy/level_2/007.mp4", "M003/audio/happy/level_2/007.m4a"],
        {"identity": "M003", "labels": {"view": "front", "emotion": "happy", "level": "2"}, "sound": 1},
    ),
    "voxceleb2": (
        ["dev/mp4/id00012/21Uxsk56VDQ/00001.mp4"],
        {"identity": "id00012", "labels": {"split": "dev", "video": "21Uxsk56VDQ"}},
    ),
    "lrs2": (["main/5535415699068794046/00001.mp4"], {"identity": "5535415699068794046"}),
    "lrs3": (["trainval/0Fi83BHQsMA/50001.mp4"], {"identity": "0Fi83BHQsMA", "labels": {"split": "trainval"}}),
    "lrw": (["lipread_mp4/ABOUT/val/ABOUT_00001.mp4"], {"text": "ABOUT", "labels": {"split": "val"}}),
    "grid": (["s1/video/mpg_6000/bbaf2n.mpg"], {"identity": "s1"}),
    "crema_d": (
        ["VideoFlash/1001_DFA_ANG_XX.flv", "AudioWAV/1001_DFA_ANG_XX.wav"],
        {"identity": "1001", "labels": {"sentence": "DFA", "emotion": "ANG"}, "sound": 1},
    ),
    "talkinghead_1kh": (
        ["train/cropped_clips/--Y9imYnfBw_0000_S0_E271_L504_T63_R792_B351.mp4"],
        {"identity": "--Y9imYnfBw", "labels": {"split": "train"}},
    ),
    "mmface4d": (["actor01/happy/s01.mp4", "actor01/happy/s01.wav"], {"identity": "actor01", "sound": 1}),
    "nersemble": (
        ["030/sequences/EMO-1-shout+laugh/images/cam_222200037.mp4"],
        {"identity": "030", "labels": {"sequence": "EMO-1-shout+laugh", "camera": "222200037"}},
    ),
    "insta": (["nf_01/nf_01.mp4"], {"identity": "nf_01"}),
    "vfhq": (
        ["Clip+-0F7Dyg-9bA+P0+C1+F3126-3264/00000000.png", "Clip+-0F7Dyg-9bA+P0+C1+F3126-3264/00000001.png"],
        {"identity": "-0F7Dyg-9bA_P0", "fps": 25.0},
    ),
    "vocaset": (
        [
            "unposedcleaneddata/FaceTalk_170725_00137_TA/sentence01/sentence01.000001.ply",
            "audio/FaceTalk_170725_00137_TA/sentence01.wav",
        ],
        {"identity": "FaceTalk_170725_00137_TA", "fps": 60.0, "sound": 1},
    ),
    "multiface": (
        [
            "m--20180227--0000--6795937--GHS/images/E001_Neutral/400002/000220.png",
            "m--20180227--0000--6795937--GHS/audio/E001_Neutral.wav",
            "m--20180227--0000--6795937--GHS/tracked_mesh/E001_Neutral/000220.obj",
        ],
        {"identity": "6795937", "fps": 30.0, "sound": 1},
    ),
}


def _lay(root: Path, files: list[str]) -> None:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_layout_is_read(name: str, tmp_path: Path) -> None:
    files, wanted = FILES[name]
    _lay(tmp_path, [*files, "readme.txt", "other/noise.mp4"])
    (sample,) = datasets.read(name, tmp_path)
    assert sample.dataset == name and "/" not in sample.name
    first = {sample.video, *sample.stills, *sample.meshes}
    assert tmp_path / files[0] in first
    for field, value in wanted.items():
        assert getattr(sample, field) == (tmp_path / files[1] if field == "sound" else value), field


def test_every_reader_has_a_made_up_sample() -> None:
    assert set(datasets.names()) == {*FILES, "hdtf", "celebv_hq"}


def test_what_is_said_is_read(tmp_path: Path) -> None:
    _lay(tmp_path, ["main/1/00001.mp4", "s1/bbaf2n.mpg"])
    (tmp_path / "main/1/00001.txt").write_text("Text:  WHEN YOU'RE COOKING\nConf:  4\n")
    (tmp_path / "s1/align").mkdir()
    (tmp_path / "s1/align/bbaf2n.align").write_text("0 23750 sil\n23750 29500 bin\n29500 34000 blue\n34000 35500 sp\n")
    assert datasets.read("lrs2", tmp_path)[0].text == "WHEN YOU'RE COOKING"
    assert datasets.read("grid", tmp_path)[0].text == "bin blue"


def test_hdtf_lists_give_stretches_and_crops(tmp_path: Path) -> None:
    _lay(tmp_path, ["WDA/AmyKlobuchar1.mp4"])
    (tmp_path / "WDA_annotion_time.txt").write_text("AmyKlobuchar1.mp4 00:35-02:45 03:25-04:00\nGone.mp4 00:01-00:02\n")
    (tmp_path / "WDA_crop_wh.txt").write_text("AmyKlobuchar1_0.mp4 480 960 0 540\n")
    (tmp_path / "WDA_resolution.txt").write_text("AmyKlobuchar1.mp4 1080\n")
    first, second = datasets.read("hdtf", tmp_path)
    assert (first.name, first.identity) == ("WDA_AmyKlobuchar1_0", "AmyKlobuchar")
    assert (first.start_s, first.stop_s) == (35.0, 165.0) and (second.start_s, second.stop_s) == (205.0, 240.0)
    assert first.box == pytest.approx((0.25, 0.0, 0.75, 0.5)) and second.box is None


def test_celebv_hq_takes_cut_clips_or_raw_videos(tmp_path: Path) -> None:
    clip = {
        "ytb_id": "M2Ohb0FAaJU",
        "duration": {"start_sec": 81.6, "end_sec": 86.1},
        "attributes": {"emotion": "happy"},
    }
    clip["bbox"] = {"top": 0.1, "bottom": 0.8, "left": 0.3, "right": 0.7}
    (tmp_path / "celebvhq_info.json").write_text(
        json.dumps({"clips": {"a_1": clip, "b_2": clip, "c_3": clip | {"ytb_id": "gone"}}})
    )
    _lay(tmp_path, ["35666/a_1.mp4", "raw/M2Ohb0FAaJU.mp4"])
    cut, raw = datasets.read("celebv_hq", tmp_path)
    assert cut.name == "a_1" and cut.box is None and cut.labels == {"emotion": "happy"}
    assert (raw.start_s, raw.stop_s, raw.box) == (81.6, 86.1, (0.3, 0.1, 0.7, 0.8))
    (tmp_path / "celebvhq_info.json").write_text("{")
    with pytest.raises(InputError, match="celebvhq_info.json"):
        datasets.read("celebv_hq", tmp_path)


def test_an_unknown_set_and_an_empty_folder_say_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'faces'.*mead"):
        datasets.read("faces", tmp_path)
    with pytest.raises(InputError, match="VideoFlash"):
        datasets.read("crema_d", tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        datasets.read("mead", tmp_path / "gone")


def test_a_stretch_becomes_a_clip_with_its_own_sound(tmp_path: Path) -> None:
    def picture(i: int) -> np.ndarray:
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[:, 32:] = 4 * i
        return frame

    rate = 16000
    sound = np.concatenate((np.zeros(rate, np.float32), 0.5 * np.sin(np.arange(rate) / 5).astype(np.float32)))
    media.write_video(tmp_path / "long.mp4", (picture(i) for i in range(50)), 25.0, sound, rate)
    sample = Sample("made_up", "me", "me_0", tmp_path / "long.mp4", start_s=1.0, stop_s=1.8, box=(0.5, 0, 1, 1))
    datasets.write_clip(sample, tmp_path / "cut.mp4")
    clip = media.probe(tmp_path / "cut.mp4")
    assert (clip.frames, clip.width, clip.height) == (20, 32, 48)
    shown = [int(f.mean()) for f in media.frames(clip)]
    assert shown[0] == pytest.approx(100, abs=4) and shown[-1] == pytest.approx(176, abs=4)
    heard = media.sound(tmp_path / "cut.mp4")
    assert np.abs(heard[2000:10000]).mean() > 0.2 and len(heard) == pytest.approx(0.8 * rate, abs=600)
    with pytest.raises(InputError, match="is not in"):
        datasets.write_clip(
            Sample("made_up", "me", "x", tmp_path / "long.mp4", start_s=9, stop_s=10), tmp_path / "x.mp4"
        )


def test_stills_become_a_clip_and_meshes_do_not(tmp_path: Path) -> None:
    for i in range(3):
        media.write_image(tmp_path / f"{i}.png", np.full((20, 20, 3), 80 * i, np.uint8))
    stills = tuple(tmp_path / f"{i}.png" for i in range(3))
    datasets.write_clip(Sample("made_up", "me", "s", stills=stills, fps=30.0), tmp_path / "s.mp4")
    clip = media.probe(tmp_path / "s.mp4")
    assert clip.frames == 3 and clip.fps == 30 and clip.wav is None
    with pytest.raises(InputError, match="no pictures"):
        datasets.write_clip(Sample("made_up", "me", "m", meshes=(tmp_path / "a.ply",)), tmp_path / "m.mp4")
