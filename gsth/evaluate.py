"""Scores an avatar on the part of its clip that training never saw.

The reference is the raw video: decoded, cropped and resized, never what tracking stored. What is scored is what is
written: 8-bit pictures. Beside the avatar stand two things that cost nothing (its last training frame repeated, the
mean training frame) and the noise of the landmark detector, so that every figure can be read against something.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gsth.errors import InputError, MissingExtraError
from gsth.types import Clip, Done, Event, Motion, Notice, Saved, Step

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from gsth.avatar import Avatar

    Picture = NDArray[np.uint8]
    Points = NDArray[np.float64]

FRAMES_KIND = "frames"
TRAIN_SAMPLES = 8
"""Training frames, evenly spread, on which the generalisation gap is measured."""
SHIFT_PX = 3
"""The raw picture is moved by this much to see how repeatable the landmark detector is."""
MEASURES: Mapping[str, str] = {
    "psnr_db": "PSNR dB",
    "ssim": "SSIM",
    "face_psnr_db": "face dB",
    "mouth_psnr_db": "mouth dB",
    "landmarks_pct_iod": "landm. %",
    "lips_pct_iod": "lips %",
    "lip_correlation": "lip corr",
    "lip_lag_frames": "lag",
    "lip_ratio": "lip ratio",
    "faces_found": "faces",
}
"""Keys of the figures of one row, and their titles in the table."""

Figures = dict[str, float | None]


@dataclass(frozen=True)
class EvalConfig:
    """What to score, and what to write."""

    driven: Literal["track", "audio"] = "track"
    """track: the tracked motion of the held-out frames. audio: expressions from the clip's sound alone, head pose and
    gaze from the track."""
    json: Path | None = None
    """Write the figures to this file."""
    frames: Path | None = None
    """Write every held-out frame, as rendered, into this folder: <frame number in the clip>.png and frames.json."""
    clip: Path | None = None
    """The source video, where it has moved since training; it must be the very same file."""


def run(avatar_path: Path, config: EvalConfig) -> Iterator[Event]:
    """Score an avatar on its held-out frames.

    The last event is ``Done``; its values are the avatar's row under the names of ``MEASURES``, the baselines' under
    ``last_frame.*`` and ``mean_frame.*``, the detector's noise under ``detector.*``, the training frames' under
    ``train.*``, and ``gap_db``: PSNR on training frames less PSNR on held-out ones. What could not be measured is
    absent (and null in the JSON file).

    Raises:
        InputError: the avatar kept no frames for scoring, the clip is gone or is another one, it has no sound to be
            driven by, or an output cannot be written there.
        MissingExtraError: mediapipe is absent.
    """
    from gsth import artifacts
    from gsth.avatar import Avatar

    avatar = Avatar.load(avatar_path)
    if config.json is not None and not config.json.absolute().parent.is_dir():
        raise InputError(f"{config.json}: its folder does not exist; make it, or choose another file")
    if config.frames is not None:
        artifacts.check_out(config.frames, FRAMES_KIND)
    _check_holdout(avatar, avatar_path)
    clip = _source_clip(avatar, config.clip)
    motion = _motion(avatar, clip, config.driven)
    if avatar.plate is None:
        yield Notice("the avatar has no background plate: it is drawn over mid grey, and full-frame figures count that")

    with ExitStack() as stack:
        out = _frames_folder(stack, avatar, config)
        spoken = _spoken(avatar, clip) if config.driven == "audio" else None
        exam = stack.enter_context(_Exam(avatar, motion, out, spoken))
        for t, reference in enumerate(_references(avatar, clip)):
            exam.see(t, reference)
            yield Step("evaluate", t + 1, exam.total, exam.so_far())
    rows = exam.rows()
    if config.frames is not None:
        yield Saved(config.frames)
    if config.json is not None:
        _write_json(config.json, _report(avatar, avatar_path, config, rows))
        yield Saved(config.json)
    yield Notice(table(rows))
    yield Done(config.json or config.frames or avatar_path, _flat(rows))


def table(rows: Mapping[str, Figures]) -> str:
    """The rows as aligned text, one line each under a line of titles; a dash where nothing could be measured."""
    names = {
        "avatar": "avatar, held-out frames",
        "landmark_track": "same, landmark tracking only",
        "last_frame": "last training frame repeated",
        "mean_frame": "mean training frame",
        "detector": "video itself, detector noise",
        "train": f"avatar, {TRAIN_SAMPLES} training frames",
    }
    width = max(map(len, names.values()))
    lines = [" " * width + "".join(f"{title:>11}" for title in MEASURES.values())]
    for key, figures in rows.items():
        cells = (figures.get(m) for m in MEASURES)
        lines.append(f"{names[key]:<{width}}" + "".join(f"{'-' if c is None else f'{c:.3f}':>11}" for c in cells))
    return "\n".join(lines)


def reference_picture(frame: Picture, crop_px: tuple[int, int, int, int], width: int, height: int) -> Picture:
    """The part of a clip frame that an avatar's camera shows, at the camera's size.

    Args:
        frame: uint8 [h w 3].
        crop_px: x0, y0, x1, y1 in px of the frame; what lies outside the frame is black.
        width: Of the result. Smaller than the crop: area average; larger: bicubic.
        height: Likewise.
    """
    import numpy as np

    x0, y0, x1, y1 = crop_px
    h, w = frame.shape[:2]
    inside = frame[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    pad = ((max(-y0, 0), max(y1 - h, 0)), (max(-x0, 0), max(x1 - w, 0)), (0, 0))
    part = np.pad(inside, pad)
    if part.shape[:2] == (height, width):
        return np.ascontiguousarray(part)
    cv2 = _import("cv2")
    how = cv2.INTER_AREA if width < x1 - x0 else cv2.INTER_CUBIC
    resized: Picture = cv2.resize(part, (width, height), interpolation=how)
    return resized


def _check_holdout(avatar: Avatar, path: Path) -> None:
    tracked, trained = len(avatar.source.frame_ids), avatar.source.train_frames
    if trained >= tracked:
        raise InputError(
            f"{path}: all {tracked} frames were trained on, none is left to score; train with a holdout above 0"
        )


def _source_clip(avatar: Avatar, moved_to: Path | None) -> Clip:
    """The avatar's own clip, checked by its digest."""
    from gsth import artifacts, media

    path = moved_to or avatar.source.clip_path
    if not path.exists():
        where = "does not exist" if moved_to else "is gone; name where the clip is now: --clip PATH"
        raise InputError(f"{path}: the clip that the avatar was trained on {where}")
    found = artifacts.sha256(path)
    if found != avatar.source.sha256:
        raise InputError(
            f"{path}: is not the clip that the avatar was trained on (sha256 {found[:12]}..., wanted "
            f"{avatar.source.sha256[:12]}...); name the original: --clip PATH"
        )
    return media.probe(path)


def _motion(avatar: Avatar, clip: Clip, driven: str) -> Motion:
    """What moves the avatar in each tracked frame."""
    if driven == "track":
        return avatar.motion
    if clip.wav is None:
        raise InputError(f"{clip.path}: has no sound to drive the avatar; score it with --driven track")
    from gsth import drive
    from gsth.drive import audio

    heard = drive.offline(audio.Config(wav=clip.wav).build(avatar))
    # The sound may end a little before the picture: its last frame is held.
    ids = avatar.source.frame_ids.clamp(max=len(heard) - 1)
    return avatar.motion.replace(expr=heard.expr[ids], audio=None if heard.audio is None else heard.audio[ids])


def _spoken(avatar: Avatar, clip: Clip) -> NDArray[np.bool_]:
    """In which tracked frames something is said, [t]."""
    from gsth import audio, media

    activity = audio.activity(media.sound(clip.path, audio.RATE), clip.fps, clip.frames)
    spoken: NDArray[np.bool_] = (activity[avatar.source.frame_ids] >= 0.5).numpy()
    return spoken


def _references(avatar: Avatar, clip: Clip) -> Iterator[Picture]:
    """The raw picture of every tracked frame, in order, in one pass over the video."""
    from gsth import media

    ids = avatar.source.frame_ids.tolist()
    size = avatar.cameras.width, avatar.cameras.height
    wanted = set(ids)
    for i, frame in enumerate(media.frames(clip, ids[0], ids[-1] + 1), ids[0]):
        if i in wanted:
            yield reference_picture(frame, avatar.source.crop_px, *size)


def _frames_folder(stack: ExitStack, avatar: Avatar, config: EvalConfig) -> Path | None:
    """The temporary folder that becomes ``config.frames`` when the stack closes, with its frames.json."""
    from gsth import artifacts

    if config.frames is None:
        return None
    s = avatar.source
    about = {
        "crop_px": list(s.crop_px),
        "size": [avatar.cameras.width, avatar.cameras.height],
        "fps": s.fps,
        "frames": s.frame_ids[s.train_frames :].tolist(),
        "driven": config.driven,
        "clip": s.clip_path.name,
        "sha256": s.sha256,
    }
    folder: Path = stack.enter_context(artifacts.writing(config.frames, FRAMES_KIND, {"source": about}))
    (folder / "frames.json").write_text(json.dumps(about, indent=1))
    return folder


class _Exam:
    """Sees the raw frames in order; renders and scores those that count. A context manager: it holds the detector."""

    def __init__(self, avatar: Avatar, motion: Motion, out: Path | None, spoken: NDArray[np.bool_] | None) -> None:
        import numpy as np

        self._avatar, self._motion, self._out, self._spoken = avatar, motion, out, spoken
        self._trained = avatar.source.train_frames
        self.total = len(avatar.source.frame_ids)
        self._samples = set(np.linspace(0, self._trained - 1, TRAIN_SAMPLES).round().astype(int).tolist())
        self._sum = np.zeros((avatar.cameras.height, avatar.cameras.width, 3))
        self._still: dict[str, tuple[Picture, Points]] = {}
        # Refined against the raw frames or by landmarks alone: both are told.
        self._before = avatar.landmark_motion if motion is avatar.motion else None
        names = ["avatar", "last_frame", "mean_frame", "detector", "train"]
        self._rows = {name: _Row() for name in (*names, *(["landmark_track"] if self._before else []))}

    def __enter__(self) -> _Exam:
        self._detector = _Detector()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._detector.close()

    def see(self, t: int, reference: Picture) -> None:
        """Take the raw picture of tracked frame ``t``; frames must come in order."""
        if t >= self._trained:
            self._score(t, reference)
            return
        self._sum += reference
        if t in self._samples:
            picture = self._render(t)
            self._rows["train"].compare(picture, self._detector(picture), reference, self._detector(reference))
        if t == self._trained - 1:
            mean_frame = (self._sum / self._trained).round().astype("uint8")
            for name, picture in (("last_frame", reference), ("mean_frame", mean_frame)):
                self._still[name] = picture, self._detector(picture)

    def so_far(self) -> dict[str, float]:
        """PSNR up to now, for the progress line."""
        held_out = self._rows["avatar"].scores["psnr_db"]
        return {"psnr_db": sum(held_out) / len(held_out)} if held_out else {}

    def rows(self) -> dict[str, Figures]:
        """The figures of every row."""
        spoken = None if self._spoken is None else self._spoken[self._trained :]
        return {
            name: row.figures() if name in ("detector", "train") else row.figures() | row.lips(spoken)
            for name, row in self._rows.items()
        }

    def _score(self, t: int, reference: Picture) -> None:
        import numpy as np

        from gsth import media

        truth = self._detector(reference)
        picture = self._render(t)
        if self._out is not None:
            media.write_image(self._out / f"{int(self._avatar.source.frame_ids[t])}.png", picture)
        self._rows["avatar"].compare(picture, self._detector(picture), reference, truth)
        if self._before is not None:
            by_landmarks = self._render(t, self._before)
            self._rows["landmark_track"].compare(by_landmarks, self._detector(by_landmarks), reference, truth)
        for name, (still, landmarks) in self._still.items():
            self._rows[name].compare(still, landmarks, reference, truth)
        moved = self._detector(np.roll(reference, SHIFT_PX, (0, 1)))
        self._rows["detector"].compare_landmarks(moved - SHIFT_PX, truth)

    def _render(self, t: int, motion: Motion | None = None) -> Picture:
        import torch

        from gsth import render

        avatar, motion = self._avatar, self._motion if motion is None else motion
        with torch.no_grad():
            drawn = render.render(avatar.pose(motion[t]), avatar.cameras, background=avatar.background())
        picture: Picture = (drawn.rgb[0].clamp(0, 1) * 255).round().byte().cpu().numpy()
        return picture


@dataclass
class _Row:
    """The scores of one series of pictures, frame by frame; NaN where a frame could not be measured."""

    scores: dict[str, list[float]] = field(
        default_factory=lambda: {m: [] for m in MEASURES if not m.startswith("lip_")}
    )
    opening: list[float] = field(default_factory=list)
    true_opening: list[float] = field(default_factory=list)

    def compare(self, picture: Picture, landmarks: Points, reference: Picture, truth: Points) -> None:
        """One frame; landmarks are NaN where no face was found."""
        import numpy as np

        from gsth import metrics

        self.scores["psnr_db"].append(metrics.psnr(picture, reference))
        self.scores["ssim"].append(metrics.ssim(picture, reference))
        h, w = reference.shape[:2]
        for name, bounds in (("face_psnr_db", metrics.face_box), ("mouth_psnr_db", metrics.mouth_box)):
            box = None if np.isnan(truth).any() else bounds(truth, w, h)
            score = metrics.psnr(metrics.cut(picture, box), metrics.cut(reference, box)) if box else math.nan
            self.scores[name].append(score)
        self.compare_landmarks(landmarks, truth)

    def compare_landmarks(self, landmarks: Points, truth: Points) -> None:
        """One frame, of which only the landmarks count."""
        import numpy as np

        from gsth import metrics

        self.scores["landmarks_pct_iod"].append(float(metrics.landmark_distance_pct(landmarks, truth)))
        self.scores["lips_pct_iod"].append(float(metrics.landmark_distance_pct(landmarks, truth, lips=True)))
        self.scores["faces_found"].append(float(not np.isnan(landmarks).any()))
        self.opening.append(float(metrics.mouth_opening(landmarks)))
        self.true_opening.append(float(metrics.mouth_opening(truth)))

    def figures(self) -> Figures:
        """Means over the frames."""
        from gsth import metrics

        return {name: metrics.mean(values) for name, values in self.scores.items()}

    def lips(self, spoken: NDArray[np.bool_] | None) -> Figures:
        """How the mouth's opening follows the true one, only where ``spoken`` [t] if that is given."""
        import numpy as np

        from gsth import metrics

        truth = np.array(self.true_opening)
        if spoken is not None:
            # People open the mouth to breathe between words, which no sound can tell.
            truth[~spoken] = np.nan
        fit = metrics.best_lag(np.array(self.opening), truth)
        if fit is None:
            return {}
        return {"lip_correlation": fit.correlation, "lip_lag_frames": float(fit.lag), "lip_ratio": fit.ratio}


class _Detector:
    """MediaPipe's face mesh, each picture for itself: what one frame gives must not depend on the one before."""

    def __init__(self) -> None:
        self._mesh = _import("mediapipe").solutions.face_mesh.FaceMesh(
            static_image_mode=True, refine_landmarks=True, max_num_faces=1
        )

    def __call__(self, picture: Picture) -> Points:
        """Landmarks [478 2], px; all NaN where no face is found."""
        import numpy as np

        faces = self._mesh.process(picture).multi_face_landmarks
        if not faces:
            return np.full((478, 2), np.nan)
        size = np.array((picture.shape[1], picture.shape[0]), dtype=np.float64)
        return np.array([(p.x, p.y) for p in faces[0].landmark]) * size

    def close(self) -> None:
        self._mesh.close()


def _import(package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as e:
        raise MissingExtraError(package, "eval", "scoring an avatar against its video") from e


def _flat(rows: Mapping[str, Figures]) -> dict[str, float]:
    values = {
        name if row == "avatar" else f"{row}.{name}": value
        for row, figures in rows.items()
        for name, value in figures.items()
        if value is not None
    }
    values["gap_db"] = values["train.psnr_db"] - values["psnr_db"]
    return values


def _report(avatar: Avatar, path: Path, config: EvalConfig, rows: Mapping[str, Figures]) -> dict[str, Any]:
    s = avatar.source
    return {
        "avatar": str(path),
        "driven": config.driven,
        "clip": {"name": s.clip_path.name, "sha256": s.sha256, "fps": s.fps, "crop_px": list(s.crop_px)},
        "size": [avatar.cameras.width, avatar.cameras.height],
        "splats": len(avatar.splats.face_ids),
        "background": "plate" if avatar.plate is not None else "mid grey",
        "train_frames": s.train_frames,
        "held_out_frames": len(s.frame_ids) - s.train_frames,
        "rows": {
            name: {m: v if v is None or math.isfinite(v) else None for m, v in figures.items()}
            for name, figures in rows.items()
        },
    }


def _write_json(path: Path, report: Mapping[str, Any]) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(part, path)
