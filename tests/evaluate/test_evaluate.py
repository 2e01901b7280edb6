from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from made_up_avatar import CROP, QUICK, SIZE, TOTAL, TRAINED, avatar_of, film_in, motion_of

from gsth import evaluate, media, metrics, provenance
from gsth.errors import GsthError, InputError
from gsth.evaluate import EvalConfig, _subject
from gsth.evaluate._textured import TexturedMesh
from gsth.metrics import _perceptual
from gsth.provenance import _watermark
from gsth.types import Motion, Notice

if TYPE_CHECKING:
    from gsth.avatar import Avatar

pytest.importorskip("mediapipe", reason="mediapipe is absent: pip install 'gsth[eval]'")


def _rows(run: Callable[..., list[Any]], path: Path, **options: Any) -> dict[str, Any]:
    """The rows of a report."""
    run(replace(QUICK, json=path), **options)
    return json.loads(path.read_text())["rows"]


def test_figures_are_means_over_the_held_out_raw_frames(
    run: Callable[..., list[Any]], clip_path: Path, tmp_path: Path
) -> None:
    rows = _rows(run, tmp_path / "s.json")
    raw = [evaluate.reference_picture(f, CROP, SIZE, SIZE) for f in media.frames(media.probe(clip_path))]
    held_out, shown = raw[TRAINED:], raw[TRAINED - 1]
    assert rows["avatar"]["psnr_db"] == pytest.approx(np.mean([metrics.psnr(shown, r) for r in held_out]))
    assert rows["avatar"]["ssim"] == pytest.approx(np.mean([metrics.ssim(shown, r) for r in held_out]))
    mean_frame = np.mean(raw[:TRAINED], 0).round().astype(np.uint8)
    assert rows["mean_frame"]["psnr_db"] == pytest.approx(np.mean([metrics.psnr(mean_frame, r) for r in held_out]))
    # This avatar is the last training frame, so the two rows must agree.
    assert rows["last_frame"] == rows["avatar"]
    assert rows["truth"]["psnr_db"] is None and rows["truth"]["ssim"] == 1


def test_the_first_row_moves_by_tracking_alone_and_the_refined_one_stands_beside_it(
    run: Callable[..., list[Any]], avatar: Avatar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from gsth.avatar import Avatar as AvatarClass

    posed: list[float] = []
    pose = AvatarClass.pose
    monkeypatch.setattr(
        AvatarClass, "pose", lambda self, motion: (posed.append(float(motion.expr[0, 0])), pose(self, motion))[1]
    )
    by_landmarks = avatar.motion.replace(expr=torch.full((TOTAL, 2), 0.25))
    refined = avatar.motion.replace(expr=torch.full((TOTAL, 2), 0.5))
    both = replace(avatar, motion=refined, landmark_motion=by_landmarks)
    assert list(_rows(run, tmp_path / "s.json", made=both))[:2] == ["avatar", "refined"]
    assert posed[-2:] == [0.25, 0.5] and posed[0] == 0.5  # training frames as they were learned
    assert "refined" not in _rows(run, tmp_path / "t.json")


def test_nearest_frames_are_training_frames_of_the_same_expression_and_pose() -> None:
    motion = motion_of(8, 25.0)
    expr = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 0.41, 0.79, 0.0])[:, None].repeat(1, 2)
    joints = motion.joints.clone()
    joints[3, 2] = -joints[3, 2]  # the same rotation by its other quaternion
    place = motion.T_world_head.clone()
    place[7, 4] = place[4, 4] = 0.05  # 5 cm aside counts more than the expression
    moved = motion.replace(expr=expr, joints=joints, T_world_head=place)
    assert _subject.nearest_frames(moved, 5, [5, 6, 7]) == [2, 3, 4]


def test_the_textured_mesh_wears_the_colours_of_training_frames(avatar: Avatar) -> None:
    black = replace(avatar, plate=torch.zeros_like(avatar.plate))
    mesh = TexturedMesh(black)
    for t, colour in enumerate(((200, 40, 0), (100, 60, 0))):
        mesh.learn(black.motion, t, np.full((SIZE, SIZE, 3), colour, np.uint8))
    picture = mesh.draw(black.motion, 2)
    # corners at 0.1 m, 1 m away, focal length 50 px: 5 px around the middle
    drawn = picture.any(-1)
    assert drawn[15, 18] and not drawn[:12].any() and not drawn[:, :12].any() and 20 < drawn.sum() < 80
    assert (picture[drawn] == (150, 50, 0)).all()
    untaught = TexturedMesh(black).draw(black.motion, 2)[drawn].astype(int)
    assert np.abs(untaught - 127.5).max() <= 0.5  # never seen: mid grey


def test_what_is_absent_is_listed_with_its_reason_and_the_rest_is_measured(
    run: Callable[..., list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "stlpips_pytorch" else found(name))
    _perceptual.st_lpips.cache_clear()
    run(EvalConfig(json=tmp_path / "s.json", weights=tmp_path))
    told = json.loads((tmp_path / "s.json").read_text())
    assert "stlpips-pytorch" in told["absent"]["st_lpips"] and "gsth[eval]" in told["absent"]["st_lpips"]
    for measure, file in {"lse_c": "syncnet_v2.model", "fid": "pt_inception", "csim_arcface": "arcface.onnx"}.items():
        assert file in told["absent"][measure]
    row = told["rows"]["avatar"]
    assert row["st_lpips"] is None and row["fid"] is None and row["psnr_db"] > 0 and row["foreground_psnr_db"] is None


def test_without_a_face_nothing_is_made_up_for_it(run: Callable[..., list[Any]]) -> None:
    *_, notice, done = run()
    assert done.values["faces_found"] == 0
    measured = {name for name in done.values if name in evaluate.MEASURES}
    assert measured == {"psnr_db", "ssim", "flicker_levels", "faces_found"}
    assert isinstance(notice, Notice)
    lines = {line.split("  ")[0]: line.split() for line in notice.text.splitlines()}
    assert lines["PSNR, dB"][2] == lines["PSNR, dB"][3] == f"{done.values['psnr_db']:.3f}"
    assert not any("lips" in title or "landmarks" in title for title in lines)


def test_the_gap_compares_with_training_frames(
    run: Callable[..., list[Any]], avatar: Avatar, clip_path: Path, tmp_path: Path
) -> None:
    brighter = replace(avatar, plate=(avatar.plate + 0.05).clamp(0, 1))
    values = run(replace(QUICK, json=tmp_path / "s.json"), made=brighter)[-1].values
    raw = [evaluate.reference_picture(f, CROP, SIZE, SIZE) for f in media.frames(media.probe(clip_path), 0, TRAINED)]
    shown = (brighter.plate.numpy() * 255).round().astype(np.uint8)
    want = np.mean([metrics.psnr(shown, raw[t]) for t in (0, 2, 3, 5, 6, 8, 9, 11)])
    assert json.loads((tmp_path / "s.json").read_text())["rows"]["train"]["psnr_db"] == pytest.approx(want)
    assert values["gap_db"] == pytest.approx(want - values["psnr_db"])


def test_frames_and_json_are_written(run: Callable[..., list[Any]], tmp_path: Path, avatar: Avatar) -> None:
    out, report = tmp_path / "frames", tmp_path / "scores.json"
    done = run(replace(QUICK, frames=out, json=report))[-1]
    assert done.path == report
    about = json.loads((out / "frames.json").read_text())
    assert about["crop_px"] == list(CROP) and about["size"] == [SIZE, SIZE] and about["fps"] == 25
    assert about["frames"] == list(range(TRAINED, TOTAL))
    assert sorted(p.stem for p in out.glob("*.png")) == sorted(map(str, about["frames"]))
    picture = media.read_image(out / f"{TRAINED}.png")
    assert np.array_equal(picture, (avatar.plate.numpy() * 255).round().astype(np.uint8))
    assert "intact; AI-generated" in provenance.verify(out / f"{TRAINED}.png")[0]
    told = json.loads(report.read_text())
    assert told["rows"]["avatar"]["psnr_db"] == pytest.approx(done.values["psnr_db"])
    # One of the training frames is the plate itself: an infinite PSNR has no place in JSON.
    assert told["rows"]["avatar"]["landmarks_pct_iod"] is None and told["rows"]["train"]["psnr_db"] is None
    assert told["held_out_frames"] == told["scored_frames"] == TOTAL - TRAINED
    assert told["speed"]["latency_ms"] > 0 and done.values["fps"] == pytest.approx(1000 / done.values["latency_ms"])


def test_the_pictures_it_wrote_score_the_same_as_anybodys(
    run: Callable[..., list[Any]], tmp_path: Path, clip_path: Path
) -> None:
    done = run(replace(QUICK, frames=tmp_path / "frames"))[-1]
    again = list(evaluate.score_pictures(tmp_path / "frames", clip_path, QUICK))[-1]
    for measure in ("psnr_db", "ssim", "flicker_levels", "faces_found"):
        assert again.values[measure] == pytest.approx(done.values[measure])


def test_another_folder_is_not_overwritten_and_nothing_is_left_half_written(
    run: Callable[..., list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "diary.txt").write_text("dear")
    with pytest.raises(GsthError, match="mine"):
        run(replace(QUICK, frames=mine))
    assert (mine / "diary.txt").read_text() == "dear"

    def broken(self: Any, motion: Motion, t: int) -> Any:
        raise GsthError("the renderer broke")

    monkeypatch.setattr(_subject.Drawer, "__call__", broken)
    with pytest.raises(GsthError, match="broke"):
        run(replace(QUICK, frames=tmp_path / "frames", json=tmp_path / "scores.json"))
    assert not (tmp_path / "frames").exists() and not (tmp_path / "scores.json").exists()


def test_the_clip_must_be_the_very_one(run: Callable[..., list[Any]], clip_path: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "clip.mp4"
    moved.parent.mkdir()
    shutil.move(clip_path, moved)
    with pytest.raises(InputError, match=r"clip\.mp4.*gone.*--clip"):
        run()
    assert run(replace(QUICK, clip=moved))[-1].values["psnr_db"] > 0
    with pytest.raises(InputError, match="does not exist"):
        run(replace(QUICK, clip=tmp_path / "nothing.mp4"))
    other = tmp_path / "other.mp4"
    media.write_video(other, (np.zeros((48, 64, 3), np.uint8) for _ in range(TOTAL)), 25.0, None, 16000)
    with pytest.raises(InputError, match=r"is not the clip.*sha256.*--clip"):
        run(replace(QUICK, clip=other))


def test_an_avatar_that_saw_everything_cannot_be_scored(run: Callable[..., list[Any]], avatar: Avatar) -> None:
    greedy = replace(avatar, source=avatar.source.replace(train_frames=TOTAL))
    with pytest.raises(InputError, match="all 18 frames were trained on.*holdout"):
        run(made=greedy)


def test_an_impossible_report_is_refused_before_the_work(run: Callable[..., list[Any]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its folder does not exist"):
        run(replace(QUICK, json=tmp_path / "no" / "scores.json"))


def test_without_a_plate_it_says_so_and_draws_over_grey(run: Callable[..., list[Any]], avatar: Avatar) -> None:
    events = run(made=replace(avatar, plate=None))
    assert any(isinstance(e, Notice) and "grey" in e.text for e in events[:1])


def test_driven_by_sound_takes_the_face_from_it_and_pose_and_blinks_from_the_track(
    run: Callable[..., list[Any]], avatar: Avatar, monkeypatch: pytest.MonkeyPatch, clip_path: Path
) -> None:
    audio = pytest.importorskip("gsth.drive.audio")
    from gsth.avatar import Avatar as AvatarClass

    class Voice:
        def __init__(self, wav: Path) -> None:
            assert wav == clip_path

        def build(self, avatar: Any) -> Voice:
            return self

        def stream(self) -> Iterator[Motion]:
            yield motion_of(TOTAL - 1, 25.0).replace(expr=torch.arange(TOTAL - 1.0)[:, None].repeat(1, 2) / 100)

    posed: list[Motion] = []
    pose = AvatarClass.pose
    monkeypatch.setattr(audio, "Config", Voice)
    monkeypatch.setattr(AvatarClass, "pose", lambda self, motion: (posed.append(motion), pose(self, motion))[1])
    seen = torch.stack((torch.full((TOTAL,), 0.9), torch.linspace(0, 1, TOTAL)), 1)
    tracked = avatar.motion.replace(T_world_head=avatar.motion.T_world_head + 0.001, expr=seen)
    blinks = replace(avatar.head, expression_names=("jawOpen", "eyeBlinkLeft"))
    run(replace(QUICK, driven="audio"), replace(avatar, head=blinks, motion=tracked))
    held_out = posed[-(TOTAL - TRAINED) :]
    # The sound is one frame short of the picture: its last frame is held.
    assert [round(float(m.expr[0, 0]) * 100) for m in held_out] == [12, 13, 14, 15, 16, 16]
    assert [m.expr[0, 1] for m in held_out] == seen[TRAINED:, 1].tolist()
    assert all(torch.equal(m.T_world_head[0], tracked.T_world_head[0]) for m in held_out)


def test_a_silent_clip_cannot_drive(run: Callable[..., list[Any]], tmp_path: Path) -> None:
    pictures = (np.full((48, 64, 3), 9 * i, np.uint8) for i in range(TOTAL))
    media.write_video(tmp_path / "silent.mp4", pictures, 25.0, None, 16000)
    silent = avatar_of(tmp_path / "silent.mp4", CROP, SIZE, TRAINED)
    with pytest.raises(InputError, match="no sound.*--driven track"):
        run(replace(QUICK, driven="audio"), silent)


def test_reference_is_cropped_padded_black_and_resized() -> None:
    frame = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    part = evaluate.reference_picture(frame, (6, -1, 10, 3), 4, 4)
    assert np.array_equal(part[1:, :2], frame[:3, 6:])
    assert not part[0].any() and not part[:, 2:].any()
    assert not evaluate.reference_picture(frame, (20, 20, 24, 24), 4, 4).any()
    stripes = np.tile(np.array([[[0], [200]]], np.uint8), (4, 2, 3))
    assert (evaluate.reference_picture(stripes, (0, 0, 4, 4), 2, 2) == 100).all()
    flat = evaluate.reference_picture(np.full((4, 4, 3), 77, np.uint8), (0, 0, 4, 4), 8, 8)
    assert flat.shape == (8, 8, 3) and (flat == 77).all()


@pytest.mark.parametrize(
    ("split", "first"), [("last 4", 14), ("10/11", 16), ("2/3", 12), ("first 0.52 s", 13), ("first 0.6s", 15)]
)
def test_a_split_scores_its_test_part(run: Callable[..., list[Any]], tmp_path: Path, split: str, first: int) -> None:
    run(replace(QUICK, json=tmp_path / "s.json", split=split))
    assert json.loads((tmp_path / "s.json").read_text())["frames"] == list(range(first, TOTAL))


def test_a_split_that_training_saw_is_refused_with_the_holdout_to_train_with(run: Callable[..., list[Any]]) -> None:
    with pytest.raises(InputError, match=r"saw 3 of the 9 test frames.*--track\.holdout 0\.500000"):
        run(replace(QUICK, split="last 9"))
    with pytest.raises(InputError, match="last 350"):
        run(replace(QUICK, split="some"))
    with pytest.raises(InputError, match="leaves nothing"):
        run(replace(QUICK, split="last 18"))


def test_options_that_exclude_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not both"):
        EvalConfig(audio=tmp_path, motion=tmp_path)
    with pytest.raises(InputError, match="own sound"):
        EvalConfig(audio=tmp_path, driven="audio")
    with pytest.raises(InputError, match="held-out"):
        EvalConfig(motion=tmp_path, split="last 9")


def test_side_views_need_a_known_truth(run: Callable[..., list[Any]]) -> None:
    with pytest.raises(InputError, match="--views"):
        run(replace(QUICK, views=True))


def test_a_report_of_one_file_holds_video_and_plots_and_nothing_from_outside(
    run: Callable[..., list[Any]], tmp_path: Path, avatar: Avatar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_watermark, "embed", lambda picture, id: picture)  # grain over what is compared below
    run(replace(QUICK, html=tmp_path / "r.html", sheet=tmp_path / "s.png"))
    page = (tmp_path / "r.html").read_text()
    assert "data:video/mp4;base64," in page and "<polyline" in page
    assert "http" not in page and "src=" in page and page.count("src=") == 1
    (tmp_path / "film.mp4").write_bytes(film_in(page))
    for shows_avatar in (tmp_path / "film.mp4", tmp_path / "s.png"):
        assert "intact; AI-generated" in provenance.verify(shows_avatar)[0]
    # the avatar equals the last training frame here, and the nearest one is not worse: that must be seen
    sheet = media.read_image(tmp_path / "s.png")
    assert sheet.shape == (11 * 320, 4 * 320, 3)
    assert np.abs(sheet[330:630, 10:310].astype(float) - sheet[330:630, 330:630]).mean() < 1  # the plate, twice


def test_two_avatars_of_one_clip_are_compared_on_frames_that_none_saw(
    avatar: Avatar, clip_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from gsth.avatar import Avatar as AvatarClass

    later = replace(avatar, source=avatar.source.replace(train_frames=TRAINED + 2))
    black = replace(avatar, plate=torch.zeros_like(avatar.plate))
    shelf = {"a.avatar": later, "b.avatar": black}
    monkeypatch.setattr(AvatarClass, "load", lambda path: shelf[path.name])
    *_, done = evaluate.compare([Path("a.avatar"), Path("b.avatar")], replace(QUICK, json=tmp_path / "s.json"))
    told = json.loads((tmp_path / "s.json").read_text())
    assert told["frames"] == list(range(TRAINED + 2, TOTAL))
    assert list(told["rows"])[:3] == ["a", "b", "last_frame"]
    assert done.values["a.psnr_db"] > done.values["b.psnr_db"]
    shelf["b.avatar"] = replace(black, source=replace(black.source, sha256="0" * 64))
    with pytest.raises(InputError, match="another clip"):
        list(evaluate.compare([Path("a.avatar"), Path("b.avatar")], QUICK))
    with pytest.raises(InputError, match="two avatars or more"):
        list(evaluate.compare([Path("a.avatar")], QUICK))


def test_a_foreign_sound_is_scored_without_a_reference(
    run: Callable[..., list[Any]], avatar: Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = pytest.importorskip("gsth.drive.audio")

    class Voice:
        def __init__(self, wav: Path) -> None:
            self.wav = wav

        def build(self, avatar: Any) -> Voice:
            return self

        def stream(self) -> Iterator[Motion]:
            yield motion_of(10, 25.0)

    monkeypatch.setattr(audio, "Config", Voice)
    media.write_sound(tmp_path / "other.wav", np.sin(np.arange(6400) / 9).astype(np.float32), 16000)
    rows = _foreign_rows(run, tmp_path)
    assert list(rows) == ["avatar", "truth"] and rows["avatar"]["psnr_db"] is None
    assert rows["avatar"]["faces_found"] == 0


def _foreign_rows(run: Callable[..., list[Any]], folder: Path) -> dict[str, Any]:
    run(replace(QUICK, audio=folder / "other.wav", json=folder / "s.json"))
    return json.loads((folder / "s.json").read_text())["rows"]


@pytest.mark.real
@pytest.mark.slow
def test_lips_and_landmarks_are_measured_on_a_real_face(
    run: Callable[..., list[Any]], clips: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A made-up avatar that shows the true video two frames late."""
    path = clips / "hill.mp4"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    crop, size = (0, 0, 512, 512), 256
    avatar = avatar_of(path, crop, size, trained=10, first=160)
    video = [evaluate.reference_picture(f, crop, size, size) for f in media.frames(media.probe(path), 160)]
    monkeypatch.setattr(
        _subject.Drawer, "__call__", lambda self, motion, t: (self.seconds.append(1), video[max(t - 2, 0)])[1]
    )
    rows = _rows(run, tmp_path / "s.json", made=avatar)
    mine, last = rows["avatar"], rows["last_frame"]
    assert mine["faces_found"] == 1 and last["faces_found"] == 1
    assert mine["lip_lag_frames"] == 2
    assert mine["lip_correlation"] > 0.98 and mine["lip_ratio"] == pytest.approx(1, abs=0.1)
    assert rows["truth"]["landmarks_pct_iod"] < 1.5 < last["landmarks_pct_iod"]
    assert mine["landmarks_pct_iod"] < last["landmarks_pct_iod"]
    assert mine["face_psnr_db"] > last["face_psnr_db"]
    assert last["lip_correlation"] is None
