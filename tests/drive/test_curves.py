"""Face curves in and out of files, as other tools write them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from gsth import math3d
from gsth.drive import _curves, motion, offline, save_curves
from gsth.errors import InputError
from gsth.speech import ARKIT_NAMES


@pytest.fixture(scope="module")
def made(person):
    return person(torch.rand(30, 52, generator=torch.Generator().manual_seed(1)), 30)


def _live_link(path: Path, fps: int = 60, skip: tuple[int, ...] = ()) -> Path:
    names = [n[0].upper() + n[1:] for n in ARKIT_NAMES]
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["Timecode", "BlendShapeCount", *names, "HeadYaw", "HeadPitch", "HeadRoll"])
        for t in (t for t in range(90) if t not in skip):
            code = f"15:04:{10 + t // fps:02}:{t % fps:02}.250"
            jaw = names.index("JawOpen")
            table.writerow([code, 52, *(t / 90 if i == jaw else 0.0 for i in range(52)), 0.1, 0.0, 0.0])
    return path


def test_what_is_written_is_read_again(tmp_path: Path, made) -> None:
    file = tmp_path / "out.csv"
    save_curves(made.motion, made, file)
    again = offline(motion.Config(file).build(made))
    assert again.fps == made.motion.fps and len(again) == 30
    torch.testing.assert_close(again.expr, made.motion.expr, atol=1e-5, rtol=0)
    skull, other = (math3d.quat_mul(m.joints[:, 1], m.joints[:, 2]) for m in (made.motion, again))
    assert float((skull * other).sum(-1).abs().min()) > 0.999999
    eyes = (made.motion.joints[:, 3:] * again.joints[:, 3:]).sum(-1)
    assert float(eyes.abs().min()) > 0.999999


def test_a_hand_that_edits_is_obeyed(tmp_path: Path, made) -> None:
    file = tmp_path / "out.csv"
    save_curves(made.motion, made, file)
    rows = list(csv.reader(file.open()))
    rows[5][rows[0].index("JawOpen")] = "0,75"  # as a German spreadsheet has it
    with file.open("w", newline="") as out:
        csv.writer(out, delimiter=";").writerows(rows)
    again = offline(motion.Config(file).build(made))
    assert float(again.expr[4, made.head.expression_names.index("jawOpen")]) == pytest.approx(0.75)


def test_live_link_face_with_dropped_frames(tmp_path: Path, made) -> None:
    got = offline(motion.Config(_live_link(tmp_path / "a.csv", 60, skip=(20, 21, 50))).build(made))
    assert got.fps == 60 and len(got) == 90
    jaw = got.expr[:, made.head.expression_names.index("jawOpen")]
    torch.testing.assert_close(jaw, torch.arange(90) / 90, atol=2e-3, rtol=0)


def test_positive_yaw_turns_the_face_to_the_pictures_right(tmp_path: Path, made) -> None:
    got = offline(motion.Config(_live_link(tmp_path / "a.csv")).build(made))
    mean = offline(
        motion.Config(_write_json(tmp_path / "b.json", {"frames": [{"weights": {"jawOpen": 0.1}}]})).build(made)
    )
    nose = torch.tensor((0.0, 0.0, -1.0))
    turned, straight = (math3d.quat_rotate(math3d.quat_mul(m.joints[0, 1], m.joints[0, 2]), nose) for m in (got, mean))
    assert float(turned[0] - straight[0]) == pytest.approx(0.1, abs=0.01)


def test_angles_there_and_back() -> None:
    turns = math3d.rotvec_to_quat(torch.randn(50, 3, generator=torch.Generator().manual_seed(2)) * 0.5)
    back = _curves._quats(_curves._euler(turns))
    assert float((turns * back).sum(-1).abs().min()) > 0.99999


def _write_json(path: Path, data: object) -> Path:
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    ("data", "fps"),
    [
        ({"fps": 25, "frames": [{"weights": {"jawOpen": 0.5}}, {"weights": {"jawOpen": 1.0}}]}, 25),
        ({"exportFps": 30, "facsNames": ["jawOpen", "browInnerUp"], "weightMat": [[0.5, 0], [1.0, 0.1]]}, 30),
        ([{"time": 0.0, "jawOpen": 0.5}, {"time": 0.05, "jawOpen": 1.0}], 20),
        ({"frames": [{"timestamp": 40 * i, "blendshapes": {"jawOpen": w}} for i, w in enumerate((0.5, 1))]}, 25),
        ({"fps": 24, "frames": [{"categories": [{"categoryName": "jawOpen", "score": s}]} for s in (0.5, 1.0)]}, 24),
        ({"fps": 50, "frames": [[s if n == "jawOpen" else 0 for n in ARKIT_NAMES] for s in (0.5, 1.0)]}, 50),
    ],
)  # fmt: skip
def test_json_of_many_tools(tmp_path: Path, made, data: object, fps: float) -> None:
    got = offline(motion.Config(_write_json(tmp_path / "a.json", data)).build(made))
    assert got.fps == fps and len(got) == 2
    assert got.expr[:, made.head.expression_names.index("jawOpen")].tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.csv", "", "no column of an ARKit"),
        ("a.csv", "Timecode,Foo\n00:00:00:00.0,1\n", "no column of an ARKit"),
        ("a.csv", "JawOpen\n1\n", "Timecode or Seconds"),
        ("a.csv", "Timecode,JawOpen\nnow,1\n", "row 2"),
        ("a.csv", "Seconds,JawOpen\n0,1\n1,wide\n", "row 3, column jawOpen: 'wide'"),
        ("a.csv", "Seconds,JawOpen\n0,1\n1,nan\n", "not finite"),
        ("a.csv", "Seconds,JawOpen\n1,1\n0,1\n", "not later"),
        ("a.csv", "JawOpen,Timecode\n1\n", "row 2: want a timecode"),
        ("a.csv", "Seconds,JawOpen\n0,1\n0.04,1\n1e12,1\n", "spans 1e"),
        ("a.csv", "Seconds,JawOpen\n0,1\n1e5,1\n", "spans 100000 s"),
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", '{"fps": "fast", "frames": [{"jawOpen": 1}]}', "column fps: 'fast'"),
        ("a.json", '{"fps": null, "frames": [{"jawOpen": 1}]}', "column fps"),
        (
            "a.json",
            f'{{"frames": [{{"time": 0, "jawOpen": 1}}, {{"time": 1{"0" * 400}, "jawOpen": 1}}]}}',
            "not finite",
        ),
        ("a.json", "{}", "no frames"),
        ("a.json", '{"frames": [[1, 2]]}', "frame 0"),
        ("a.json", '{"frames": [{"weights": {"eyebrow": 1}}]}', "weights by ARKit name"),
        ("a.json", '{"fps": 0, "frames": [{"jawOpen": 1}]}', "fps is 0"),
        ("a.json", '{"fps": 25, "frames": [{"jawOpen": "x"}]}', "no number"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, made, name: str, text: str, reason: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=reason):
        motion.Config(tmp_path / name).build(made)
