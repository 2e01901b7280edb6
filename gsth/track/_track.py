"""The road from clip to Track: detect, judge, crop, cut out, fit, write, report."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event as Flag
from typing import TypeVar

import numpy as np
import torch

from gsth import artifacts, head, media
from gsth.track import _crop, _landmarks, _mattes, _points, _preflight, _report
from gsth.track._config import TrackConfig
from gsth.track._fit import Fit, Fitted, Observed
from gsth.track._photo import Photometric
from gsth.types import Clip, Done, Event, Notice, Step, Track

T = TypeVar("T")
FOV_RAD = 0.52
"""Prior of the vertical field of view: webcams, phones and interview cameras lie between 20 and 40 degrees."""


def run(clip_path: Path | str, out: Path | str, config: TrackConfig | None = None) -> Iterator[Event]:
    """``track`` for a file."""
    yield from track(media.probe(clip_path), config or TrackConfig(), Path(out))


def track(clip: Clip, config: TrackConfig, out: Path) -> Iterator[Event]:
    """Track a clip and write the Track artifact ``out``; streams Step, Notice and a last Done.

    Done's values: ``error_pct`` and ``lips_error_pct`` (medians over frames, % of the inter-ocular distance),
    ``held_out_error_pct`` where there is a held-out part, ``focal_px`` (clip px), ``found`` (share of frames).

    Raises:
        InputError: The clip cannot be used (see ``_preflight``), or ``out`` is something else than a track.
        MissingExtraError: mediapipe is not installed.
    """
    with artifacts.writing(out, "track") as folder:
        seen = _landmarks.Detections.empty(clip)
        yield from _landmarks.detect(clip, seen)
        yield from _preflight.judge(clip, seen)
        crop = _crop.choose(seen.points[seen.found], clip.width, clip.height, config.size)
        train_frames = config.train_frames(clip.frames)
        fit = Fit(head.load(config.head), _observed(clip, crop, seen), train_frames)
        images, mattes = yield from _alongside(_pictures(clip, crop, config, folder), fit.run())
        plate = None
        if config.matte:
            plate, shift = _mattes.plate(images, mattes, train_frames)
            if shift > _mattes.STILL_PX:
                plate = None
                yield Notice(
                    f"{clip.path}: the background is not still (its edges wander by {shift:.1f} px): the camera or "
                    f"something behind the person moves; there will be no background plate; film from a tripod"
                )
        fitted = fit.result()
        if config.photometric:
            refined = Photometric(fit, images)
            yield from refined.run()
            fitted = refined.result()
        result = _assembled(clip, crop, seen, fitted, (images, mattes, plate))
        values = _values(fitted, crop, seen, train_frames)
        artifacts.save_into(result, folder, config=config, clip_sha256=artifacts.sha256(clip.path), quality=values)
        if config.report:
            yield from _report.write(folder, result, fitted, train_frames)
    yield Done(out, values)


def _alongside(first: Generator[Event, None, T], second: Iterator[Event]) -> Generator[Event, None, T]:
    """Run both at once, the first in a thread of its own; gives back what the first returns.

    The second keeps to one thread meanwhile: the other core is taken, and two OpenMP teams on it would stall both.
    """
    events: SimpleQueue[Event] = SimpleQueue()
    abandoned = Flag()

    def drained() -> T:
        while not abandoned.is_set():
            try:
                events.put(next(first))
            except StopIteration as end:
                return end.value
        raise InterruptedError("tracking was stopped")

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - 1))
    try:
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(drained)
            try:
                for event in second:
                    yield event
                    while not events.empty():
                        yield events.get()
                while not (job.done() and events.empty()):
                    with suppress(Empty):
                        yield events.get(timeout=0.1)
            finally:
                abandoned.set()
            return job.result()
    finally:
        torch.set_num_threads(threads)


def _series(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A memory-mapped uint8 array on disk whose space is taken at once: a full disk must say so here, not by SIGBUS."""
    series = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return series


def _pictures(
    clip: Clip, crop: _crop.Crop, config: TrackConfig, folder: Path
) -> Generator[Event, None, tuple[np.ndarray, np.ndarray]]:
    """Write every frame's crop and matte to memory-mapped files (returned): memory stays small for any length."""
    shape = (clip.frames, config.size, config.size)
    images = _series(folder / artifacts.SERIES["images"], (*shape, 3))
    mattes = _series(folder / artifacts.SERIES["mattes"], shape)
    if not config.matte:
        mattes[:] = 255
    done = 0
    with _mattes.Matter(config.size) as matter:
        for i, frame in enumerate(media.frames(clip)):
            images[i] = crop.image(frame)
            for matte in matter.push(images[i]) if config.matte else ():
                mattes[done] = matte
                done += 1
            yield Step("mattes", i + 1, clip.frames)
        for matte in matter.flush():
            mattes[done] = matte
    return images, mattes


def _observed(clip: Clip, crop: _crop.Crop, seen: _landmarks.Detections) -> Observed:
    shoulders = seen.shoulders.copy()
    shoulders[..., :2] = crop.points(seen.shoulders[..., :2])
    camera = crop.cameras(clip.height / 2 / np.tan(FOV_RAD / 2), clip.width, clip.height)
    return Observed(
        points=torch.from_numpy(_points.with_shut_lids(crop.points(seen.points), seen.found)),
        found=torch.from_numpy(seen.found),
        shoulders=torch.from_numpy(shoulders),
        principal=camera.Ks[0, :2, 2],
        focal=float(camera.Ks[0, 0, 0]),
        frame_side=max(clip.width, clip.height) * crop.scale,
        fps=clip.fps,
    )


def _assembled(
    clip: Clip,
    crop: _crop.Crop,
    seen: _landmarks.Detections,
    fitted: Fitted,
    pictures: tuple[np.ndarray, np.ndarray, np.ndarray | None],
) -> Track:
    images, mattes, plate = pictures
    return Track(
        clip=clip,
        frame_ids=torch.arange(clip.frames),
        crop_px=crop.box,
        cameras=crop.cameras(fitted.focal / crop.scale, clip.width, clip.height),
        identity=fitted.identity,
        motion=fitted.motion,
        landmarks_px=torch.from_numpy(crop.points(seen.points)),
        found=torch.from_numpy(seen.found),
        error_pct=fitted.error_pct,
        images=images,
        mattes=mattes,
        plate=None if plate is None else torch.from_numpy(plate),
    )


def _values(fitted: Fitted, crop: _crop.Crop, seen: _landmarks.Detections, train_frames: int) -> dict[str, float]:
    found = torch.from_numpy(seen.found)
    values = {
        "error_pct": float(fitted.error_pct[found].median()),
        "lips_error_pct": float(fitted.lips_error_pct[found].median()),
        "focal_px": fitted.focal / crop.scale,
        "found": float(found.float().mean()),
    }
    if found[train_frames:].any():
        values["held_out_error_pct"] = float(fitted.error_pct[train_frames:][found[train_frames:]].median())
    return values
