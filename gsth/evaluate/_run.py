"""From a path to scores on disk."""

from __future__ import annotations

import json
import math
import os
import resource
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsth import artifacts, errors, provenance
from gsth.avatar import Avatar
from gsth.errors import InputError
from gsth.evaluate import _cross, _foreign, _html, _sheet, _subject
from gsth.evaluate._config import EvalConfig
from gsth.evaluate._exam import UNCHANGED, Results, examine
from gsth.evaluate._measures import losses, table
from gsth.evaluate._views import novel_views
from gsth.types import Clip, Done, Event, Notice, Saved

FRAMES_KIND = "frames"
NO_PLATE = "the avatar has no background plate: it is drawn over mid grey, and full-frame figures count that"


@dataclass
class Found:
    """Filled while ``results_of`` passes events on."""

    results: Results
    about: dict[str, Any]


def run(avatar_path: Path, config: EvalConfig) -> Iterator[Event]:
    """See ``gsth.evaluate.run``."""
    check_outputs(config)
    check_stamps(config)
    avatar = Avatar.load(avatar_path)
    _subject.check_holdout(avatar, avatar_path)
    clip = _subject.source_clip(avatar, config.clip)
    if avatar.plate is None:
        yield Notice(NO_PLATE)
    found = Found(Results(), about(avatar, avatar_path, config))
    with ExitStack() as stack:
        yield from results_of(avatar, clip, avatar_path, config, found, stack)
    results = found.results
    results.who = provenance.about([avatar.meta])
    results.speed |= _speed(results.speed["latency_ms"], avatar_path)
    if config.frames is not None:
        yield Saved(config.frames)
    if config.sheet is not None:
        _sheet.sheet(avatar, clip, config.sheet)
        yield Saved(config.sheet)
    yield from write(results, found.about, config, f"{avatar_path.name}, scored")
    yield Done(config.json or config.html or config.frames or avatar_path, flat(results))


def results_of(
    avatar: Avatar, clip: Clip, path: Path, config: EvalConfig, found: Found, stack: ExitStack
) -> Iterator[Event]:
    """Pass the events of the examination on and put what it found into ``found``."""
    if config.foreign:
        steps = _cross.cross(avatar, clip, config)
    else:
        frames = _subject.scored_frames(avatar, clip, config, path)
        motion = _subject.tracked_motion(avatar) if config.driven == "track" else _subject.self_driven(avatar, clip)
        out = _frames_folder(stack, avatar, frames, config)
        found.about["scored_frames"] = len(frames)
        steps = examine(avatar, clip, motion, frames, config, out)
    for step in steps:
        if isinstance(step, Results):
            found.results = step
        else:
            yield step
    if config.views:
        for step in novel_views(avatar, clip, _subject.scored_frames(avatar, clip, config, path), config):
            if isinstance(step, dict):
                found.results.rows |= step
            else:
                yield step


def score_pictures(pictures: Path, reference: Path, config: EvalConfig) -> Iterator[Event]:
    """See ``gsth.evaluate.score_pictures``."""
    check_outputs(config)
    for name in ("frames", "sheet", "split", "audio", "motion", "clip"):
        if getattr(config, name) is not None:
            raise InputError(f"--{name} belongs to avatars; leave it out when pictures are scored")
    results = Results()
    for step in _foreign.score(pictures, reference, config):
        if isinstance(step, Results):
            results = step
        else:
            yield step
    told = {"pictures": str(pictures), "reference": str(reference), "scored_frames": len(results.frames)}
    yield from write(results, told, config, f"{pictures.name} against {reference.name}")
    values = {m: v for m, v in results.rows["pictures"].items() if v is not None}
    yield Done(config.json or config.html or pictures, values)


def check_outputs(config: EvalConfig) -> None:
    """Refuse what cannot be written before the work begins."""
    for path, endings in ((config.json, None), (config.html, (".html", ".htm")), (config.sheet, (".png", ".jpg"))):
        if path is None:
            continue
        if not path.absolute().parent.is_dir():
            raise InputError(f"{path}: its folder does not exist; make it, or choose another file")
        if endings and path.suffix.lower() not in endings:
            raise InputError(f"{path}: want a name that ends in {' or '.join(endings)}")
    if config.frames is not None:
        artifacts.check_out(config.frames, FRAMES_KIND)
    if config.weights is not None and not config.weights.is_dir():
        raise InputError(f"{config.weights}: there is no such folder of weights")


def check_stamps(config: EvalConfig) -> None:
    """Refuse before the work what shows avatars and cannot be signed."""
    if config.frames is not None or config.sheet is not None or config.html is not None:
        provenance.check(UNCHANGED)


def about(avatar: Avatar, path: Path, config: EvalConfig) -> dict[str, Any]:
    """What is scored and how."""
    s = avatar.source
    return {
        "avatar": str(path),
        "driven": str(config.audio or config.motion or config.driven),
        "clip": {"name": s.clip_path.name, "sha256": s.sha256, "fps": s.fps, "crop_px": list(s.crop_px)},
        "size": [avatar.cameras.width, avatar.cameras.height],
        "splats": len(avatar.splats.face_ids),
        "background": "plate" if avatar.plate is not None else "mid grey",
        "train_frames": s.train_frames,
        "held_out_frames": len(s.frame_ids) - s.train_frames,
        "split": config.split,
    }


def write(results: Results, told: Mapping[str, Any], config: EvalConfig, heading: str) -> Iterator[Event]:
    """Write the files that were asked for; the table comes last."""
    if config.json is not None:
        _whole(config.json, json.dumps(_report(results, told), indent=1) + "\n")
        yield Saved(config.json)
    if config.html is not None:
        _whole(config.html, _html.page(results, told, heading))
        yield Saved(config.html)
    yield Notice(table(results.rows, results.absent))


def flat(results: Results) -> dict[str, float]:
    """The avatar's figures, the generalisation gap and the speed; what is unknown is left out."""
    values = {m: v for m, v in results.rows["avatar"].items() if v is not None}
    train = results.rows.get("train", {}).get("psnr_db")
    if train is not None and "psnr_db" in values:
        values["gap_db"] = train - values["psnr_db"]
    return values | results.speed


def _report(results: Results, told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **told,
        "frames": results.frames,
        "rows": {name: {m: _finite(v) for m, v in row.items()} for name, row in results.rows.items()},
        "beaten_by": losses(results.rows),
        "absent": results.absent,
        "speed": results.speed,
        "series": {name: [_finite(v) for v in values] for name, values in results.series.items()},
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _speed(latency_ms: float, folder: Path) -> dict[str, float]:
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else 0
    return {
        "latency_ms": latency_ms,
        "fps": 1000 / latency_ms,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "avatar_mb": size / 1e6,
    }


def _frames_folder(stack: ExitStack, avatar: Avatar, frames: list[int], config: EvalConfig) -> Path | None:
    """The temporary folder that becomes ``config.frames`` when the stack closes, with its frames.json."""
    if config.frames is None:
        return None
    s = avatar.source
    told = {
        "crop_px": list(s.crop_px),
        "size": [avatar.cameras.width, avatar.cameras.height],
        "fps": s.fps,
        "frames": s.frame_ids[frames].tolist(),
        "driven": config.driven,
        "clip": s.clip_path.name,
        "sha256": s.sha256,
    }
    folder: Path = stack.enter_context(artifacts.writing(config.frames, FRAMES_KIND, {"source": told}))
    (folder / "frames.json").write_text(json.dumps(told, indent=1))
    return folder


def _whole(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    with errors.writes(path):
        try:
            part.write_text(text)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
