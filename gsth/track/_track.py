"""The road from clip to Track: detect, judge, crop, cut out, fit, write, report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event as Flag
from typing import TypeVar

import numpy as np
import torch

from gsth import artifacts, head, media, registry
from gsth.errors import InputError, writes
from gsth.head import HeadModel, flame
from gsth.track import _crop, _landmarks, _lens, _mattes, _points, _preflight, _quality, _report, _signs, _tongue
from gsth.track._config import TrackConfig
from gsth.track._fit import Fit, Fitted, Observed
from gsth.track._known import known
from gsth.track._photo import Photometric
from gsth.track._series import HELD, let_go, series
from gsth.track.importers import bring
from gsth.types import Clip, Done, Event, Identity, Notice, Step, Track

T = TypeVar("T")
CHECK_S = 5.0
"""``check`` looks at no further frame after this, once it has seen the first stretch: all of it takes up to 10 s."""
FOV_RAD = 0.52
"""Prior of the vertical field of view: webcams, phones and interview cameras lie between 20 and 40 degrees."""


def run(clip_path: Path | str, out: Path | str, config: TrackConfig | None = None) -> Iterator[Event]:
    """``track`` for a file; a folder is taken for somebody else's track and imported."""
    config = config or TrackConfig()
    if Path(clip_path).is_dir():
        yield from bring(Path(clip_path), Path(out), config)
    else:
        yield from track(media.probe(clip_path), config, Path(out))


def check(clip_path: Path | str, config: TrackConfig | None = None) -> Iterator[Event]:
    """Look at stretches of a clip for some seconds and say whether it can be used; writes nothing.

    Yields Notices, then Done with ``frames`` looked at. Raises InputError as ``track`` does.
    """
    until = time.monotonic() + CHECK_S
    clip = media.probe(clip_path)
    windows = _preflight.windows(clip.frames)
    seen = _landmarks.glance(clip, _detector(config or TrackConfig()), windows, lambda: time.monotonic() > until)
    yield from _preflight.judge(clip, seen)
    yield from _lens.known(clip, config or TrackConfig())
    yield Notice(f"{clip.path}: can be tracked, as far as {len(seen.found)} of its {clip.frames} frames tell")
    yield Done(clip.path, {"frames": float(len(seen.found)), "found": float(seen.found.mean())})


def track(clip: Clip, config: TrackConfig, out: Path, who: Identity | None = None) -> Iterator[Event]:
    """Track a clip and write the Track artifact ``out``; streams Step, Notice and a last Done.

    With ``who``, from another clip of the same person, only the lens and the motion are fitted.

    What the detectors found is kept beside ``out``, in chunks, until the track is whole: the run after a stopped one
    looks at no such frame again. What comes after begins anew.

    Done's values: ``error_pct`` and ``lips_error_pct`` (medians over frames, % of the inter-ocular distance),
    ``held_out_error_pct`` where there is a held-out part, ``focal_px`` (clip px), ``found`` (share of frames),
    ``jitter_pct``, ``calm_step_pct`` (``_quality.calm_pct``) and ``bad_frames``.

    Raises:
        InputError: The clip cannot be used (see ``_preflight``), or ``out`` is something else than a track.
        MissingExtraError: mediapipe is not installed.
    """
    model = head_model(config)
    if model.id.name == "flame":
        yield Notice(flame.LICENCE)
    with artifacts.writing(out, "track") as folder:
        seen = yield from seen_in(clip, config, out)
        crop = _crop.choose(seen.points[seen.found], clip.width, clip.height, config.size)
        train_frames = config.train_frames(clip.frames)
        _preflight.refuse_untaught(clip, seen, train_frames)
        person = model if who is None else known(model, who)
        focal_px = yield from _lens.known(clip, config)
        fit = Fit(person, observed(clip, crop, seen, model.expression_names, focal_px), train_frames)
        images, mattes = yield from _alongside(pictures(clip, crop, config, folder), fit.run())
        plate = yield from plate_of(clip.path, (images, mattes), config, train_frames)
        fitted = fit.result()
        if config.photometric:
            refined = Photometric(fit, images)
            yield from refined.run()
            fitted = refined.result()
        fitted = with_tongue(fitted, fit.observed, seen, model.expression_names)
        if who is not None:
            fitted = replace(fitted, identity=who)
        result = assembled(clip, crop, seen, fitted, (images, mattes, plate))
        quality = _quality.assess(result, fitted, seen, config.drop_bad_frames)
        yield from told(folder, result, fitted, quality, config)
        values = values_of(fitted, result, quality, train_frames)
        if config.drop_bad_frames:
            result = dropped(result, quality, clip.path)
        artifacts.save_into(result, folder, config=config, clip_sha256=artifacts.sha256(clip.path), quality=values)
    shutil.rmtree(_cache(out), ignore_errors=True)
    yield Done(out, values)


def head_model(config: TrackConfig) -> HeadModel:
    """The head that was asked for."""
    if config.flame_path is None:
        return head.load(config.head)
    return registry.plugin("head", config.head)(path=config.flame_path).build()


def _detector(config: TrackConfig) -> _landmarks.Build:
    if config.face_landmarker is None:
        return registry.plugin("track.detectors", "builtin")().build
    return registry.plugin("track.detectors", "task")(path=config.face_landmarker).build


def _cache(out: Path) -> Path:
    """Where the detections of an unfinished run lie."""
    out = out.absolute()
    return out.with_name(f".{out.name}.seen")


def seen_in(
    clip: Clip, config: TrackConfig, out: Path | None, called: Path | None = None
) -> Generator[Event, None, _landmarks.Detections]:
    """Detections of the clip, judged; with ``out``, finished chunks of an earlier run over it are taken over.

    What is said of the clip names ``called`` where that is given: its file may be none of the user's.
    """
    cache = None if out is None else _cache(out)
    if cache is not None:
        key = f"{artifacts.sha256(clip.path)} {config.face_landmarker} {' '.join(_signs.Signs._fields)}"
        if not (cache / "key").is_file() or (cache / "key").read_text() != key:
            shutil.rmtree(cache, ignore_errors=True)
            with writes(cache):
                cache.mkdir()
                (cache / "key").write_text(key)
    try:
        seen = None
        for event in _landmarks.detect(clip, _detector(config), cache):
            if isinstance(event, _landmarks.Detections):
                seen = event
            else:
                yield event
        assert seen is not None  # the last that detect gives
        yield from _preflight.judge(clip if called is None else replace(clip, path=called), seen)
    except InputError:  # the same clip would be refused again
        if cache is not None:
            shutil.rmtree(cache, ignore_errors=True)
        raise
    return seen


def told(
    folder: Path, result: Track, fitted: Fitted, quality: _quality.Quality, config: TrackConfig
) -> Iterator[Event]:
    """Write the report and say the verdict."""
    if config.report:
        yield from _report.write(folder, result, fitted, quality, config.train_frames(len(result.found)))
    advice = "".join(f"\n  {a}" for a in quality.advice)
    yield Notice(f"this track is {quality.verdict}" + (f"; for the next recording:{advice}" if advice else ""))


def dropped(result: Track, quality: _quality.Quality, called: Path) -> Track:
    """The track with its bad frames marked as not found, and bridged: rows stay, so that sound and time still agree.

    Raises InputError that names what the track was made of, ``called``, where every frame is bad.
    """
    keep = result.found.numpy().copy()
    keep[[b.row for b in quality.bad]] = False
    if not keep.any():
        raise InputError(f"{called}: every frame is bad, nothing would be left; track without dropping them")
    return result.replace(found=torch.from_numpy(keep), motion=_quality.bridged(result.motion, keep))


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


def pictures(
    clip: Clip, crop: _crop.Crop, config: TrackConfig, folder: Path
) -> Generator[Event, None, tuple[np.ndarray, np.ndarray]]:
    """Write every frame's crop and matte to memory-mapped files (returned): memory stays small for any length."""
    shape = (clip.frames, config.size, config.size)
    images = series(folder / artifacts.SERIES["images"], (*shape, 3))
    mattes = series(folder / artifacts.SERIES["mattes"], shape)
    if not config.matte:
        mattes[:] = 255
    done = 0
    # without mattes their models need not be there
    with _mattes.Matter(config.size) if config.matte else nullcontext() as matter:
        for i, frame in enumerate(media.frames(clip)):
            images[i] = crop.image(frame)
            for matte in () if matter is None else matter.push(images[i]):
                mattes[done] = matte
                done += 1
            if i % HELD == HELD - 1:
                let_go(images, mattes)
            yield Step("mattes", i + 1, clip.frames)
        for matte in () if matter is None else matter.flush():
            mattes[done] = matte
    return images, mattes


def plate_of(
    called: Path, pictures: tuple[np.ndarray, np.ndarray], config: TrackConfig, train_frames: int
) -> Generator[Notice, None, np.ndarray | None]:
    """The background of crops and their mattes; None without mattes, and, with a Notice, where it moves."""
    if not config.matte:
        return None
    plate, shift = _mattes.plate(*pictures, train_frames)
    if shift <= _mattes.STILL_PX:
        return plate
    yield Notice(
        f"{called}: the background is not still (its edges wander by {shift:.1f} px): the camera or something behind "
        f"the person moves; there will be no background plate; film from a tripod"
    )
    return None


def observed(
    clip: Clip, crop: _crop.Crop, seen: _landmarks.Detections, names: tuple[str, ...], focal_px: float | None = None
) -> Observed:
    """What the fit explains; ``names`` are the head's expressions, ``focal_px`` where the camera is known."""
    shoulders = seen.shoulders.copy()
    shoulders[..., :2] = crop.points(seen.shoulders[..., :2])
    camera = crop.cameras(focal_px or clip.height / 2 / np.tan(FOV_RAD / 2), clip.width, clip.height)
    return Observed(
        points=torch.from_numpy(_points.with_shut_lids(crop.points(seen.points), seen.found)),
        found=torch.from_numpy(seen.found),
        shoulders=torch.from_numpy(shoulders),
        principal=camera.Ks[0, :2, 2],
        focal=float(camera.Ks[0, 0, 0]),
        frame_side=max(clip.width, clip.height) * crop.scale,
        fps=clip.fps,
        focal_known=focal_px is not None,
        scores=_scores(seen, names),
    )


def with_tongue(fitted: Fitted, observed: Observed, seen: _landmarks.Detections, names: tuple[str, ...]) -> Fitted:
    """With the tongue as the pictures show it; landmarks tell nothing about it."""
    return replace(fitted, motion=_tongue.told(fitted.motion, names, seen.sign("tongue"), observed.scores))


def _scores(seen: _landmarks.Detections, names: tuple[str, ...]) -> torch.Tensor | None:
    """The detector's activations in the head's order, nan where unknown; None where it tells none."""
    if not len(seen.score_names):
        return None
    theirs = {str(name): seen.scores[:, i] for i, name in enumerate(seen.score_names)}
    unknown = np.full(len(seen.found), np.nan, np.float32)
    return torch.from_numpy(np.stack([theirs.get(name, unknown) for name in names], 1))


def assembled(
    clip: Clip,
    crop: _crop.Crop,
    seen: _landmarks.Detections,
    fitted: Fitted,
    pictures: tuple[np.ndarray, np.ndarray, np.ndarray | None],
) -> Track:
    """All of it as a Track."""
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


def values_of(fitted: Fitted, result: Track, quality: _quality.Quality, train_frames: int) -> dict[str, float]:
    """The figures of Done and of meta.json."""
    found = result.found
    scale = result.cameras.width / (result.crop_px[2] - result.crop_px[0])
    values = {name: quality.figures[name] for name in ("error_pct", "lips_error_pct", "jitter_pct", "calm_step_pct")}
    values |= {
        "focal_px": fitted.focal / scale,
        "found": float(found.float().mean()),
        "bad_frames": float(len(quality.bad)),
    }
    if found[train_frames:].any():
        values["held_out_error_pct"] = float(fitted.error_pct[train_frames:][found[train_frames:]].median())
    return values
