"""The clips of a training: each is tracked into the work folder, the further ones as the person of the first."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gsth.errors import InputError, MissingExtraError
from gsth.types import Clip, Done, Event, Notice, Saved

if TYPE_CHECKING:
    from gsth.track import TrackConfig
    from gsth.types import Identity, Track

_FACES = 5
"""Faces of each clip that are compared."""
ONE_PERSON = 0.6
"""Distance of two faces of one person at most, as dlib's makers have it."""


def tracked(clips: Sequence[Path], work: Path, config: TrackConfig) -> Iterator[Event]:
    """Track every clip, unless that is done.

    Identity comes from the first, less what it holds out. All frames of the others are for training, and their lenses
    are their own, so ``config.holdout`` and ``config.focal_px`` are not for them.

    Raises:
        InputError: A clip cannot be used, is given twice, or shows another person than the first.
    """
    from gsth import artifacts, media

    found = [media.probe(path) for path in clips]
    hashes = [artifacts.sha256(clip.path) for clip in found]
    for i, digest in enumerate(hashes):
        if digest in hashes[:i]:
            raise InputError(f"{clips[i]}: is the same video as {clips[hashes.index(digest)]}; give every clip once")
    yield from _one(found[0], _folder(work, 0), config, hashes[0])
    for i, clip in enumerate(found[1:], 1):
        own = tracks(work)[0]
        theirs = replace(config, holdout=0.0, focal_px=None)
        yield from _one(clip, _folder(work, i), theirs, hashes[i], own.identity)
        yield from _check_person(own, tracks(work)[i])
    for left in range(len(found), len(tracks(work))):  # of an earlier command with more clips
        shutil.rmtree(_folder(work, left))


def tracks(work: Path) -> list[Track]:
    """What ``tracked`` made, in its order."""
    from gsth import artifacts
    from gsth.types import Track

    out: list[Track] = []
    while (folder := _folder(work, len(out))).exists():
        out.append(artifacts.load(Track, folder))
    return out


def _folder(work: Path, clip: int) -> Path:
    return work / ("track" if clip == 0 else f"track-{clip + 1}")


def _one(clip: Clip, folder: Path, config: TrackConfig, sha256: str, who: Identity | None = None) -> Iterator[Event]:
    from gsth import track

    key = {"sha256": sha256, "config": json.dumps(asdict(config), sort_keys=True, default=str)}
    if who is not None:
        parts = (who.shape, *(() if who.offsets is None else (who.offsets,)))
        key["who"] = hashlib.sha256(b"".join(p.numpy().tobytes() for p in parts)).hexdigest()
    note = folder.with_name(f"{folder.name}.json")
    if folder.exists() and note.exists() and json.loads(note.read_text()) == key:
        yield Notice(f"going on with the track in {folder}")
        return
    shutil.rmtree(folder, ignore_errors=True)
    for event in track.track(clip, config, folder, who):
        if not isinstance(event, Done):
            yield event
    note.write_text(json.dumps(key))
    yield Saved(folder)


def _check_person(own: Track, other: Track) -> Iterator[Event]:
    """Refuse a clip of somebody else."""
    import numpy as np

    from gsth import metrics

    try:
        embed = metrics.dlib_embedder()
    except MissingExtraError as error:
        yield Notice(f"{other.clip.path}: whether it shows the person of {own.clip.path} is not checked; {error}")
        return
    faces = []
    for track in (own, other):
        rows = track.found.nonzero()[:, 0].numpy()
        rows = rows[np.linspace(0, len(rows) - 1, _FACES).round().astype(int)]
        faces.append(np.stack([embed(track.images[row], track.landmarks_px[row].numpy()) for row in rows]))
    apart = float(np.median(np.linalg.norm(faces[0][:, None] - faces[1], axis=-1)))
    if apart > ONE_PERSON:
        raise InputError(
            f"{other.clip.path}: shows another person than {own.clip.path} (their faces are {apart:.2f} apart, "
            f"{ONE_PERSON} at most for one person); an avatar is made of clips of one person"
        )
