from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from gsth import evaluate, media, metrics
from gsth.errors import GsthError, InputError
from gsth.evaluate import EvalConfig
from gsth.head import JOINTS, HeadModel
from gsth.types import Cameras, Done, HeadId, Identity, Motion, Notice, RiggedSplats

if TYPE_CHECKING:
    from gsth.avatar import Avatar

pytest.importorskip("mediapipe", reason="mediapipe is absent: pip install 'gsth[track]'")

HEAD = HeadId("madeup", "1", "0" * 16)
CROP = (8, -4, 56, 44)
TRAINED, TOTAL, SIZE = 12, 18, 36


def _head() -> HeadModel:
    """One triangle in front of the camera."""
    weights = torch.zeros(3, len(JOINTS))
    weights[:, 2] = 1
    return HeadModel(
        id=HEAD,
        template=torch.tensor([[-0.1, -0.1, 0.0], [0.1, -0.1, 0.0], [0.0, 0.1, 0.0]]),
        faces=torch.tensor([[0, 1, 2]]),
        uvs=torch.zeros(3, 2),
        shape_basis=torch.zeros(1, 3, 3),
        expr_basis=torch.zeros(2, 3, 3),
        weights=weights,
        pivots=torch.zeros(len(JOINTS), 3),
        pivot_basis=torch.zeros(1, len(JOINTS), 3),
        expression_names=("jawOpen", "browInnerUp"),
        parts={},
        landmark_faces=torch.zeros(478, dtype=torch.int64),
        landmark_bary=torch.full((478, 3), 1 / 3),
    )


def _motion(frames: int, fps: float) -> Motion:
    joints = torch.zeros(frames, len(JOINTS), 4)
    joints[..., 0] = 1
    place = torch.tensor((1.0, 0, 0, 0, 0, 0, 1.0)).repeat(frames, 1)
    return Motion(HEAD, fps, torch.zeros(frames, 2), joints, place)


def _avatar_of(clip_path: Path, crop_px: tuple[int, int, int, int], size: int, trained: int, first: int = 0) -> Avatar:
    """An avatar whose one splat cannot be seen and whose plate is the last training frame: what it shows is known.

    Tracked is the clip from frame ``first`` on.
    """
    from gsth import artifacts
    from gsth.avatar import Avatar, Source

    clip = media.probe(clip_path)
    last = next(media.frames(clip, first + trained - 1, first + trained))
    tracked = clip.frames - first
    source = Source(
        clip_path=clip_path,
        sha256=artifacts.sha256(clip_path),
        fps=clip.fps,
        crop_px=crop_px,
        train_frames=trained,
        frame_ids=torch.arange(first, clip.frames),
        landmarks_px=torch.zeros(tracked, 478, 2),
        found=torch.ones(tracked, dtype=torch.bool),
        error_pct=torch.zeros(tracked),
    )
    return Avatar(
        head=_head(),
        identity=Identity(HEAD, torch.zeros(1)),
        splats=RiggedSplats(
            face_ids=torch.zeros(1, dtype=torch.int64),
            means_tri=torch.zeros(1, 3),
            quats_tri=torch.tensor([[1.0, 0, 0, 0]]),
            log_scales=torch.full((1, 3), -2.0),
            logit_opacities=torch.full((1,), -20.0),
            sh=torch.zeros(1, 1, 3),
        ),
        cameras=Cameras(torch.eye(4)[None], torch.tensor([[[50.0, 0, 18], [0, 50, 18], [0, 0, 1]]]), size, size),
        motion=_motion(tracked, clip.fps),
        source=source,
        plate=torch.from_numpy(evaluate.reference_picture(last, crop_px, size, size)).float() / 255,
    )


@pytest.fixture
def clip_path(tmp_path: Path) -> Path:
    """A wandering colour wave, 64 x 48, with sound."""
    y, x = np.mgrid[:48, :64]
    waves = (
        np.stack([np.sin(x / 9 + t / 3), np.cos(y / 7 - t / 5), np.sin((x + y) / 11 + t / 4)], -1) for t in range(TOTAL)
    )
    sound = np.sin(np.arange(int(16000 * TOTAL / 25)) / 9).astype(np.float32) / 3
    media.write_video(tmp_path / "clip.mp4", ((127 + 100 * w).astype(np.uint8) for w in waves), 25.0, sound, 16000)
    return tmp_path / "clip.mp4"


@pytest.fixture
def avatar(clip_path: Path) -> Avatar:
    return _avatar_of(clip_path, CROP, SIZE, TRAINED)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, avatar: Avatar) -> Callable[..., list[Any]]:
    """``evaluate.run`` on the made-up avatar, or on another one."""
    from gsth.avatar import Avatar

    def scored(config: EvalConfig | None = None, made: Avatar = avatar) -> list[Any]:
        monkeypatch.setattr(Avatar, "load", lambda path: made)
        return list(evaluate.run(Path("made_up.avatar"), config or EvalConfig()))

    return scored


def test_figures_are_means_over_the_held_out_raw_frames(run: Callable[..., list[Any]], clip_path: Path) -> None:
    done = run()[-1]
    raw = [evaluate.reference_picture(f, CROP, SIZE, SIZE) for f in media.frames(media.probe(clip_path))]
    held_out, shown = raw[TRAINED:], raw[TRAINED - 1]
    assert isinstance(done, Done)
    assert done.values["psnr_db"] == pytest.approx(np.mean([metrics.psnr(shown, r) for r in held_out]))
    assert done.values["ssim"] == pytest.approx(np.mean([metrics.ssim(shown, r) for r in held_out]))
    mean_frame = np.mean(raw[:TRAINED], 0).round().astype(np.uint8)
    assert done.values["mean_frame.psnr_db"] == pytest.approx(np.mean([metrics.psnr(mean_frame, r) for r in held_out]))
    # This avatar is the last training frame, so the two rows must agree.
    for name in ("psnr_db", "ssim"):
        assert done.values[f"last_frame.{name}"] == done.values[name]


def test_without_a_face_nothing_is_made_up_for_it(run: Callable[..., list[Any]]) -> None:
    *_, notice, done = run()
    assert done.values["faces_found"] == 0
    assert not any(word in name for name in done.values for word in ("face_psnr", "mouth", "landmarks", "lip"))
    assert isinstance(notice, Notice)
    held_out, last_frame = (line.split()[-10:] for line in notice.text.splitlines()[1:3])
    assert held_out == last_frame
    assert held_out[:2] == [f"{done.values['psnr_db']:.3f}", f"{done.values['ssim']:.3f}"]
    assert held_out[2:] == ["-"] * 7 + ["0.000"]


def test_the_gap_compares_with_training_frames(run: Callable[..., list[Any]], avatar: Avatar, clip_path: Path) -> None:
    brighter = replace(avatar, plate=(avatar.plate + 0.05).clamp(0, 1))
    values = run(made=brighter)[-1].values
    raw = [evaluate.reference_picture(f, CROP, SIZE, SIZE) for f in media.frames(media.probe(clip_path), 0, TRAINED)]
    shown = (brighter.plate.numpy() * 255).round().astype(np.uint8)
    want = np.mean([metrics.psnr(shown, raw[t]) for t in (0, 2, 3, 5, 6, 8, 9, 11)])
    assert values["train.psnr_db"] == pytest.approx(want)
    assert values["gap_db"] == pytest.approx(want - values["psnr_db"])


def test_frames_and_json_are_written(run: Callable[..., list[Any]], tmp_path: Path, avatar: Avatar) -> None:
    out, report = tmp_path / "frames", tmp_path / "scores.json"
    done = run(EvalConfig(frames=out, json=report))[-1]
    assert done.path == report
    about = json.loads((out / "frames.json").read_text())
    assert about["crop_px"] == list(CROP) and about["size"] == [SIZE, SIZE] and about["fps"] == 25
    assert about["frames"] == list(range(TRAINED, TOTAL))
    assert sorted(p.stem for p in out.glob("*.png")) == sorted(map(str, about["frames"]))
    picture = media.read_image(out / f"{TRAINED}.png")
    assert np.array_equal(picture, (avatar.plate.numpy() * 255).round().astype(np.uint8))
    rows = json.loads(report.read_text())["rows"]
    assert rows["avatar"]["psnr_db"] == pytest.approx(done.values["psnr_db"])
    # One of the training frames is the plate itself: an infinite PSNR has no place in JSON.
    assert rows["avatar"]["landmarks_pct_iod"] is None and rows["train"]["psnr_db"] is None
    assert json.loads(report.read_text())["held_out_frames"] == TOTAL - TRAINED


def test_another_folder_is_not_overwritten_and_nothing_is_left_half_written(
    run: Callable[..., list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "diary.txt").write_text("dear")
    with pytest.raises(GsthError, match="mine"):
        run(EvalConfig(frames=mine))
    assert (mine / "diary.txt").read_text() == "dear"

    def broken(self: Any, t: int) -> Any:
        raise GsthError("the renderer broke")

    monkeypatch.setattr(evaluate._Exam, "_render", broken)
    with pytest.raises(GsthError, match="broke"):
        run(EvalConfig(frames=tmp_path / "frames", json=tmp_path / "scores.json"))
    assert not (tmp_path / "frames").exists() and not (tmp_path / "scores.json").exists()


def test_the_clip_must_be_the_very_one(run: Callable[..., list[Any]], clip_path: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "clip.mp4"
    moved.parent.mkdir()
    shutil.move(clip_path, moved)
    with pytest.raises(InputError, match=r"clip\.mp4.*gone.*--clip"):
        run()
    assert run(EvalConfig(clip=moved))[-1].values["psnr_db"] > 0
    with pytest.raises(InputError, match="does not exist"):
        run(EvalConfig(clip=tmp_path / "nothing.mp4"))
    other = tmp_path / "other.mp4"
    media.write_video(other, (np.zeros((48, 64, 3), np.uint8) for _ in range(TOTAL)), 25.0, None, 16000)
    with pytest.raises(InputError, match=r"is not the clip.*sha256.*--clip"):
        run(EvalConfig(clip=other))


def test_an_avatar_that_saw_everything_cannot_be_scored(run: Callable[..., list[Any]], avatar: Avatar) -> None:
    greedy = replace(avatar, source=avatar.source.replace(train_frames=TOTAL))
    with pytest.raises(InputError, match="all 18 frames were trained on.*holdout"):
        run(made=greedy)


def test_an_impossible_report_is_refused_before_the_work(run: Callable[..., list[Any]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its folder does not exist"):
        run(EvalConfig(json=tmp_path / "no" / "scores.json"))


def test_without_a_plate_it_says_so_and_draws_over_grey(run: Callable[..., list[Any]], avatar: Avatar) -> None:
    events = run(made=replace(avatar, plate=None))
    assert any(isinstance(e, Notice) and "grey" in e.text for e in events[:1])


def test_driven_by_sound_takes_the_face_from_it_and_the_pose_from_the_track(
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
            yield _motion(TOTAL - 1, 25.0).replace(expr=torch.arange(TOTAL - 1.0)[:, None].repeat(1, 2) / 100)

    posed: list[Motion] = []
    pose = AvatarClass.pose
    monkeypatch.setattr(audio, "Config", Voice)
    monkeypatch.setattr(AvatarClass, "pose", lambda self, motion: (posed.append(motion), pose(self, motion))[1])
    tracked = avatar.motion.replace(T_world_head=avatar.motion.T_world_head + 0.001)
    run(EvalConfig(driven="audio"), replace(avatar, motion=tracked))
    held_out = posed[-(TOTAL - TRAINED) :]
    # The sound is one frame short of the picture: its last frame is held.
    assert [round(float(m.expr[0, 0]) * 100) for m in held_out] == [12, 13, 14, 15, 16, 16]
    assert all(torch.equal(m.T_world_head[0], tracked.T_world_head[0]) for m in held_out)


def test_a_silent_clip_cannot_drive(run: Callable[..., list[Any]], tmp_path: Path) -> None:
    pictures = (np.full((48, 64, 3), 9 * i, np.uint8) for i in range(TOTAL))
    media.write_video(tmp_path / "silent.mp4", pictures, 25.0, None, 16000)
    silent = _avatar_of(tmp_path / "silent.mp4", CROP, SIZE, TRAINED)
    with pytest.raises(InputError, match="no sound.*--driven track"):
        run(EvalConfig(driven="audio"), silent)


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


@pytest.mark.real
@pytest.mark.slow
def test_lips_and_landmarks_are_measured_on_a_real_face(
    run: Callable[..., list[Any]], clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A made-up avatar that shows the true video two frames late."""
    path = clips / "hill.mp4"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    crop, size = (0, 0, 512, 512), 256
    avatar = _avatar_of(path, crop, size, trained=10, first=160)
    video = [evaluate.reference_picture(f, crop, size, size) for f in media.frames(media.probe(path), 160)]
    monkeypatch.setattr(evaluate._Exam, "_render", lambda self, t: video[max(t - 2, 0)])
    values = run(made=avatar)[-1].values
    assert values["faces_found"] == 1 and values["last_frame.faces_found"] == 1
    assert values["lip_lag_frames"] == 2
    assert values["lip_correlation"] > 0.98 and values["lip_ratio"] == pytest.approx(1, abs=0.1)
    assert values["detector.landmarks_pct_iod"] < 1.5 < values["last_frame.landmarks_pct_iod"]
    assert values["landmarks_pct_iod"] < values["last_frame.landmarks_pct_iod"]
    assert values["face_psnr_db"] > values["last_frame.face_psnr_db"]
    assert "last_frame.lip_correlation" not in values
