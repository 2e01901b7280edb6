"""Several avatars of one clip, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gsth import provenance
from gsth.avatar import Avatar
from gsth.errors import InputError
from gsth.evaluate import _run, _subject
from gsth.evaluate._config import EvalConfig
from gsth.evaluate._exam import Results, examine
from gsth.evaluate._measures import BASELINES
from gsth.types import Done, Event, Notice


def compare(paths: Sequence[Path], config: EvalConfig) -> Iterator[Event]:
    """See ``gsth.evaluate.compare``."""
    _run.check_outputs(config)
    _run.check_stamps(config)
    avatars = _same_clip(paths, config)
    names = _names(paths)
    clip = _subject.source_clip(avatars[0], config.clip)
    scored = [_subject.scored_frames(a, clip, config, p) for a, p in zip(avatars, paths, strict=True)]
    ids = [a.source.frame_ids[frames].tolist() for a, frames in zip(avatars, scored, strict=True)]
    common = set(ids[0]).intersection(*ids[1:])
    if not common:
        raise InputError(f"{', '.join(names)}: no frame was held out by all of them; train them with the same holdout")
    if len({(a.source.crop_px, a.cameras.width) for a in avatars}) > 1:
        yield Notice("the avatars show different parts or sizes of the picture: full-frame figures are not comparable")
    merged = Results(frames=sorted(common), fps=clip.fps, who=provenance.about([a.meta for a in avatars]))
    for name, avatar, frames, numbers in zip(names, avatars, scored, ids, strict=True):
        kept = [t for t, n in zip(frames, numbers, strict=True) if n in common]
        yield Notice(f"{name}: {len(kept)} frames")
        motion = _subject.tracked_motion(avatar) if config.driven == "track" else _subject.self_driven(avatar, clip)
        for step in examine(avatar, clip, motion, kept, config, None):
            if isinstance(step, Results):
                _merge(merged, step, name)
            else:
                yield step
    told = {"avatars": [str(p) for p in paths], "driven": config.driven, "scored_frames": len(common)}
    yield from _run.write(merged, told, config, " and ".join(names))
    values = {f"{n}.{m}": v for n in names for m, v in merged.rows[n].items() if v is not None}
    yield Done(config.json or config.html or paths[0], values)


def _same_clip(paths: Sequence[Path], config: EvalConfig) -> list[Avatar]:
    if len(paths) < 2:
        raise InputError(f"--compare wants two avatars or more, got {len(paths)}")
    if config.foreign or config.frames is not None or config.sheet is not None or config.views:
        raise InputError(
            "--compare compares held-out frames; leave out --audio, --motion, --frames, --sheet and --views"
        )
    avatars = [Avatar.load(p) for p in paths]
    for avatar, path in zip(avatars, paths, strict=True):
        _subject.check_holdout(avatar, path)
        if avatar.source.sha256 != avatars[0].source.sha256:
            raise InputError(
                f"{path}: was trained on {avatar.source.clip_path.name}, {paths[0]} on another clip; only avatars of "
                "one clip can be compared"
            )
    return avatars


def _names(paths: Sequence[Path]) -> list[str]:
    """Short names, numbered where two are the same."""
    names = [p.name.removesuffix(".avatar") for p in paths]
    return [n if names.count(n) == 1 else f"{n}_{i + 1}" for i, n in enumerate(names)]


def _merge(merged: Results, found: Results, name: str) -> None:
    """Add one avatar's row and curves; baselines and truth are those of the first."""
    first = not merged.rows
    rows = {name: found.rows["avatar"]}
    if first:
        rows |= {b: found.rows[b] for b in (*BASELINES, "truth")}
    # avatars stand before what they share
    mine = {n: r for n, r in merged.rows.items() if n not in (*BASELINES, "truth")}
    shared = {n: r for n, r in (merged.rows | rows).items() if n in (*BASELINES, "truth")}
    merged.rows = mine | {name: rows[name]} | shared
    merged.absent |= found.absent
    for curve, values in found.series.items():
        plot, _, row = curve.partition("|")
        if row == "avatar" or (first and row == "truth"):
            merged.series[f"{plot}|{name if row == 'avatar' else row}"] = values
    right = [p[:, p.shape[1] // 2 :] for p in found.film]
    if first:
        merged.film = found.film
    elif right and merged.film and right[0].shape[0] == merged.film[0].shape[0]:
        merged.film = [np.concatenate(pair, 1) for pair in zip(merged.film, right, strict=True)]
    merged.speed |= {f"{name}_{k}": v for k, v in found.speed.items()}
