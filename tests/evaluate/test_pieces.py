"""Pairing of foreign frames, pose found again, the table and the page: each by itself."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from made_up_avatar import QUICK, film_in

from gsth import evaluate, head, math3d, media, metrics, provenance
from gsth.errors import InputError
from gsth.evaluate import _foreign, _html, _measures, _tools
from gsth.evaluate._exam import Results
from gsth.evaluate._retrack import retrack
from gsth.types import Identity, Motion, Notice

pytest.importorskip("mediapipe", reason="mediapipe is absent: pip install 'gsth[eval]'")


def _picture(i: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    return (127 + 100 * np.sin(np.stack([x / 9 + i / 3, y / 7 - i / 5, (x + y) / 11], -1))).astype(np.uint8)


def _folder(path: Path, numbers: list[int], size: tuple[int, int] = (48, 64), noise: int = 0) -> Path:
    path.mkdir()
    for n in numbers:
        media.write_image(
            path / f"f_{n:04d}.png", (_picture(n, size).astype(int) + noise).clip(0, 255).astype(np.uint8)
        )
    return path


def _score(mine: Path, reference: Path, folder: Path) -> tuple[dict, list[str]]:
    events = list(evaluate.score_pictures(mine, reference, replace(QUICK, json=folder / "s.json")))
    told = json.loads((folder / "s.json").read_text())
    return told, [e.text for e in events if isinstance(e, Notice)][:-1]


def test_two_folders_are_paired_by_number_and_missing_frames_are_told(tmp_path: Path) -> None:
    mine = _folder(tmp_path / "mine", [1, 2, 3, 5, 6], noise=10)
    reference = _folder(tmp_path / "reference", list(range(1, 8)))
    told, notices = _score(mine, reference, tmp_path)
    assert told["frames"] == [1, 2, 3, 5, 6] and told["scored_frames"] == 5
    assert notices == [f"{mine}: 2 of 7 frames have no counterpart and are not scored"]
    want = np.mean(
        [
            metrics.psnr(_picture(n), (_picture(n).astype(int) + 10).clip(0, 255).astype(np.uint8))
            for n in (1, 2, 3, 5, 6)
        ]
    )
    assert told["rows"]["pictures"]["psnr_db"] == pytest.approx(want)
    assert told["rows"]["pictures"]["faces_found"] == 0 and told["rows"]["pictures"]["lips_pct_iod"] is None


def test_frames_that_hardly_overlap_are_refused(tmp_path: Path) -> None:
    mine, reference = _folder(tmp_path / "a", [1, 2, 3, 4]), _folder(tmp_path / "b", [4, 5, 6, 7])
    with pytest.raises(InputError, match="1 of its 4 frames can be paired"):
        _score(mine, reference, tmp_path)


def test_videos_of_another_length_and_rate_are_paired_by_time(tmp_path: Path) -> None:
    media.write_video(tmp_path / "slow.mp4", (_picture(2 * i) for i in range(10)), 25.0)
    media.write_video(tmp_path / "fast.mp4", (_picture(i) for i in range(18)), 50.0)
    told, notices = _score(tmp_path / "fast.mp4", tmp_path / "slow.mp4", tmp_path)
    assert told["scored_frames"] == 9 and "paired by time" in notices[0]
    assert [m for m, _ in _foreign.paired(*(_foreign.series(tmp_path / n) for n in ("fast.mp4", "slow.mp4")))[0]] == [
        *range(1, 18, 2)
    ]
    # frames of 50 Hz lie one step of the pattern later; with the frame beside it a pair would score 6 dB less or exact
    apart = [np.square(_picture(2 * i + 1) / 255 - _picture(2 * i) / 255).mean() for i in range(9)]
    want = np.mean(-10 * np.log10(apart))
    assert told["rows"]["pictures"]["psnr_db"] == pytest.approx(want, abs=0.5)  # both went through H.264


def test_another_size_is_resized_and_another_shape_refused(tmp_path: Path) -> None:
    reference = _folder(tmp_path / "reference", [0, 1, 2])
    small = tmp_path / "small"
    small.mkdir()
    for n in range(3):
        media.write_image(small / f"{n}.png", _picture(n)[::2, ::2])
    told, notices = _score(small, reference, tmp_path)
    assert notices == [f"{small}: 32 x 24 resized to 64 x 48"] and told["rows"]["pictures"]["psnr_db"] > 15
    with pytest.raises(InputError, match=r"40 x 48, the reference's 64 x 48: another shape"):
        _score(_folder(tmp_path / "narrow", [0, 1, 2], (48, 40)), reference, tmp_path)


def test_folders_that_cannot_be_frames_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="holds no pictures"):
        _foreign.series(empty)
    media.write_image(empty / "face.png", _picture(0))
    with pytest.raises(InputError, match="no frame number"):
        _foreign.series(empty)
    twice = _folder(tmp_path / "twice", [1])
    media.write_image(twice / "1.png", _picture(1))
    with pytest.raises(InputError, match="twice"):
        _foreign.series(twice)
    (twice / "1.png").unlink()
    (twice / "frames.json").write_text('{"crop_px": [1, 2]}')
    with pytest.raises(InputError, match=r"frames\.json"):
        _foreign.series(twice)
    with pytest.raises(InputError, match="--sheet"):
        list(evaluate.score_pictures(twice, twice, replace(QUICK, sheet=tmp_path / "s.png")))


def test_pose_and_expression_are_found_again() -> None:
    model = head.load()
    person = model.shaped(Identity(model.id, torch.zeros(len(model.shape_basis))))
    names = model.expression_names
    expr = torch.zeros(3, len(names))
    expr[1, names.index("jawOpen")], expr[2, names.index("mouthSmileLeft")] = 0.6, 0.8
    turn = math3d.rotvec_to_quat(torch.tensor([[0.0, 0, 0], [0.1, 0.3, 0.05], [-0.1, -0.25, 0]]))
    place = torch.cat((turn, torch.tensor([[0.0, 0.05, 1.2]]).repeat(3, 1)), 1)
    motion = Motion(model.id, 25.0, expr, math3d.quat_identity(3, 5), place)
    K = np.array(((1000.0, 0, 256), (0, 1000, 256), (0, 0, 1)))
    pixels = math3d.project(model.landmarks(person.posed(motion).verts), torch.from_numpy(K).float()).double().numpy()
    found = retrack(person, K, pixels)
    assert found.expr[1, names.index("jawOpen")] == pytest.approx(0.6, abs=0.1)
    assert found.expr[2, names.index("mouthSmileLeft")] == pytest.approx(0.8, abs=0.2)
    for t in range(3):
        relative = found.turns[t].T @ math3d.quat_to_mat(turn[t]).double().numpy()
        assert np.degrees(np.arccos(np.clip((np.trace(relative) - 1) / 2, -1, 1))) < 1.0
    assert found.errors(found) == {"aed": 0.0, "apd_deg": pytest.approx(0, abs=1e-4)}
    # a frame against another one: 18.2 degrees apart
    other = replace(found, expr=found.expr[[1]], turns=found.turns[[1]])
    apart = replace(found, expr=found.expr[[0]], turns=found.turns[[0]]).errors(other)
    assert apart["apd_deg"] == pytest.approx(np.degrees(np.linalg.norm((0.1, 0.3, 0.05))), abs=1.0)
    assert apart["aed"] > 0.005
    gone = retrack(person, K, np.full_like(pixels, np.nan))
    assert gone.errors(found) == {"aed": None, "apd_deg": None}


ROWS = {
    "avatar": {"psnr_db": 24.0, "ssim": 0.8, "niqe": 5.0},
    "last_frame": {"psnr_db": 25.0, "ssim": 0.7, "niqe": 4.0},
    "truth": {"psnr_db": float("inf"), "ssim": 1.0, "niqe": 3.0},
}


def test_a_baseline_that_wins_is_said_and_shown_in_red() -> None:
    assert _measures.losses(ROWS) == {"psnr_db": ["last_frame"]}
    text = _measures.table(ROWS, {"fid": "weights absent: none", "lse_c": "weights absent: none"})
    assert "WORSE THAN A BASELINE: PSNR, dB (last_frame)" in text
    assert "FID, LSE-C: weights absent: none" in text and "inf" in text
    page = _html.page(Results(ROWS, {"fid": "weights absent"}), {}, "t")
    assert page.count("class=lost>") == 3  # the line on top, the avatar's cell, the baseline's
    assert "<td class=lost>24.000</td>" in page and "<td class=lost>25.000</td>" in page
    assert "FID: weights absent" in page
    better = ROWS | {"avatar": {"psnr_db": 26.0, "ssim": 0.8, "niqe": 5.0}}
    assert "WORSE" not in _measures.table(better) and "class=lost" not in _html.page(Results(better), {}, "t")


def test_a_correlation_stands_beside_its_lag_and_the_end_of_the_search_is_marked() -> None:
    lips = {"lip_correlation": 0.731, "lip_lag_frames": 5.0, "sound_correlation": 0.5, "sound_lag_frames": -2.0}
    rows = {"avatar": lips, "refined": {"lip_correlation": 0.95, "lip_lag_frames": 0.0}, "last_frame": {}}
    head, lip_line, sound_line, told = _measures.table(rows).splitlines()
    assert lip_line.split() == ["lip", "correlation", "(lag)", "0.731", "(+5!)", "0.950", "(+0)", "-"]
    assert sound_line.split()[-4:] == ["0.500", "(-2)", "-", "-"]
    assert len(head) == len(lip_line) == len(sound_line) and told.startswith("! the best lag")
    page = _html.page(Results(rows), {}, "t")
    assert "0.731 (+5!)" in page and "0.500 (-2)" in page and told in page
    early = rows | {"avatar": lips | {"lip_lag_frames": 4.0}}
    for text in (_measures.table(early), _html.page(Results(early), {}, "t")):
        assert "0.731 (+4)" in text and "!" not in text.replace("<!doctype", "")
    assert "0.731 (-5!)" in _measures.table({"avatar": lips | {"lip_lag_frames": -5.0}})


def test_the_page_escapes_what_it_is_told() -> None:
    evil = "<script>alert(1)</script>"
    page = _html.page(
        Results({evil: {"psnr_db": 1.0}}, series={f"{evil}|{evil}": [1.0, 2.0]}, frames=[1, 2]), {evil: evil}, evil
    )
    assert "<script" not in page and page.count("&lt;script&gt;") >= 6


def test_a_mediapipe_without_models_says_which_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", SimpleNamespace(__version__="1.2.2"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"mediapipe 1\.2\.2 ships no models.*0\.10\.14"):
        _tools.Tools(QUICK)


def test_plots_leave_gaps_where_nothing_was_measured() -> None:
    drawn = _html.svg({"a": [1.0, 2.0, float("nan"), 3.0, float("inf"), 2.0]}, [1, 2, 3, 4, 5, 6])
    assert drawn.count("<polyline") == 3
    assert "nothing to plot" in _html.svg({"a": [float("nan")]}, [1])


def test_the_film_says_where_it_comes_from_unless_its_pictures_are_others(tmp_path: Path) -> None:
    pytest.importorskip("c2pa", reason="needs the extra 'trust'")
    y, x = np.mgrid[:256, :512]
    waves = [np.stack([np.sin(x / 19 + t / 3), np.cos(y / 17), np.sin((x + y) / 31)], -1) for t in range(8)]
    film = [(127 + 90 * w).astype(np.uint8) for w in waves]
    said = []
    for who in (provenance.About(0x12345678, ("person",)), None):
        (tmp_path / "film.mp4").write_bytes(film_in(_html.page(Results(ROWS, film=film, who=who), {}, "t")))
        said.append(provenance.verify(tmp_path / "film.mp4"))
    ours, theirs = said
    assert "intact; AI-generated" in ours[0] and "consent: person" in ours[0]
    assert ours[1] == "watermark: made by gsth from avatar 12345678"
    assert theirs[0].startswith("content credentials: none") and "none can be read" in theirs[1] and len(theirs) == 2
