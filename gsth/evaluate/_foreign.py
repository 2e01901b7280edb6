"""Pictures of anybody's making against a reference: a folder or a video each, measured by the same code.

How frames are paired is the heart of it, so it is strict, and what does not fit is said and counted:

* a folder holds one picture a frame, its number in the name (``0161.png``); numbers need not be complete;
* two videos are paired by time, a folder and a video by number;
* a frame that only one side has is not scored; it is counted, and more of them than paired ones is an error;
* another size of the same shape is resized to the reference's; another shape is an error.

A ``frames.json`` as ``gsth eval --frames`` writes it says which part of the reference's frames is shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gsth import audio, head, media
from gsth.errors import InputError
from gsth.evaluate import _subject
from gsth.evaluate._config import EvalConfig
from gsth.evaluate._exam import FILM_FRAMES, SHIFT_PX, Results, side_by_side
from gsth.evaluate._measures import Figures
from gsth.evaluate._pictures import reference_picture, resized
from gsth.evaluate._retrack import retrack
from gsth.evaluate._score import SLOW_FRAMES, Reference, Row, Talk
from gsth.evaluate._tools import Tools
from gsth.metrics import Picture
from gsth.types import Clip, Event, Identity, Notice, Step

STILLS = (".png", ".jpg", ".jpeg", ".webp")
FOV_RAD = 0.52
"""Vertical field of view that is assumed of unknown cameras: phones and interviews lie between 20 and 40 degrees."""


@dataclass(frozen=True)
class Series:
    """Numbered pictures: a folder of stills or a video."""

    path: Path
    stills: dict[int, Path]
    clip: Clip | None
    about: dict[str, Any]
    """What frames.json says."""

    @property
    def numbers(self) -> list[int]:
        """Numbers of its frames, rising."""
        return sorted(self.stills) if self.clip is None else list(range(self.clip.frames))

    @property
    def fps(self) -> float | None:
        """Its rate, where it is known."""
        return self.clip.fps if self.clip is not None else self.about.get("fps")

    def pictures(self, numbers: list[int]) -> Iterator[Picture]:
        """Some of its frames; the numbers must not fall, and may repeat."""
        if self.clip is None:
            yield from (media.read_image(self.stills[n]) for n in numbers)
            return
        frames = media.frames(self.clip, numbers[0], numbers[-1] + 1)
        at, picture = numbers[0], next(frames)
        for n in numbers:
            while at < n:
                at, picture = at + 1, next(frames)
            yield picture


def series(path: Path) -> Series:
    """Open a folder of stills or a video.

    Raises:
        InputError: It is neither, or two stills carry the same number.
    """
    if not path.is_dir():
        return Series(path, {}, media.probe(path), {})
    stills: dict[int, Path] = {}
    for file in sorted(p for p in path.iterdir() if p.suffix.lower() in STILLS):
        digits = re.findall(r"\d+", file.stem)
        if not digits:
            raise InputError(f"{file}: has no frame number in its name; want for example 0161.png")
        number = int(digits[-1])
        if number in stills:
            raise InputError(f"{file}: frame {number} is there twice (also {stills[number].name}); keep one of both")
        stills[number] = file
    if not stills:
        raise InputError(f"{path}: holds no pictures ({', '.join(STILLS)})")
    return Series(path, stills, None, _about(path))


def _about(folder: Path) -> dict[str, Any]:
    file = folder / "frames.json"
    if not file.exists():
        return {}
    try:
        about = json.loads(file.read_text())
        crop, size = [int(v) for v in about["crop_px"]], [int(v) for v in about["size"]]
        if len(crop) != 4 or len(size) != 2:
            raise ValueError(f"crop_px {crop} and size {size} want four and two numbers")
        return {"crop_px": tuple(crop), "size": tuple(size), "fps": float(about["fps"])}
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{file}: does not say crop_px, size and fps ({error}); remove it, or write it anew"
        ) from error


def paired(mine: Series, reference: Series) -> tuple[list[tuple[int, int]], list[str]]:
    """Pairs of frame numbers (mine, reference's), and what has to be told about them.

    Raises:
        InputError: Fewer frames can be paired than stay alone.
    """
    told: list[str] = []
    known = set(mine.numbers)
    pairs = [(n, n) for n in reference.numbers if n in known]
    total = len(reference.numbers) if mine.clip is not None else len(known)
    if mine.clip is not None and reference.clip is not None and abs(mine.clip.fps - reference.clip.fps) > 0.01:
        ratio = mine.clip.fps / reference.clip.fps
        times = ((int((n + 0.5) * ratio), n) for n in reference.numbers)
        pairs = [(m, n) for m, n in times if m in known]
        told.append(
            f"paired by time: {mine.path.name} has {mine.fps:g} frames a second, the reference {reference.fps:g}"
        )
    if mine.clip is None and reference.clip is None:
        total = max(len(known), len(reference.numbers))
    alone = total - len(pairs)
    if alone > len(pairs):
        raise InputError(
            f"{mine.path}: {len(pairs)} of its {len(known)} frames can be paired with the {len(reference.numbers)} of "
            f"{reference.path}; number both alike, from the same first frame"
        )
    if alone:
        told.append(f"{alone} of {total} frames have no counterpart and are not scored")
    return pairs, told


def score(frames_of: Path, reference: Path, config: EvalConfig) -> Iterator[Event | Results]:
    """Score pictures against a reference; yields events, then the results with the rows ``pictures`` and ``truth``.

    Raises:
        InputError: The frames cannot be paired, or have another shape.
    """
    mine, theirs = series(frames_of), series(reference)
    pairs, told = paired(mine, theirs)
    yield from (Notice(f"{frames_of}: {text}") for text in told)
    rate = theirs.fps or mine.fps or 25.0
    slow = set(np.linspace(0, len(pairs) - 1, SLOW_FRAMES).round().astype(int).tolist())
    film: list[Picture] = []
    with Tools(config) as tools:
        rows = {n: Row(tools, talks=True) for n in ("pictures", "truth")}
        size: tuple[int, int] = (0, 0)
        stream = zip(mine.pictures([m for m, _ in pairs]), theirs.pictures([n for _, n in pairs]), strict=True)
        for i, (picture, raw) in enumerate(stream):
            raw, picture, note = _fitted(mine, raw, picture, first=i == 0)
            yield from (Notice(n) for n in note)
            size = raw.shape[:2]
            truth = Reference(raw, tools, slow=i in slow)
            rows["truth"].detected(tools.landmarks(np.roll(raw, SHIFT_PX, (0, 1))) - SHIFT_PX, truth)
            rows["pictures"].see(picture, truth)
            if len(film) < FILM_FRAMES:
                film.append(side_by_side(raw, picture))
            yield Step("evaluate", i + 1, len(pairs), {"psnr_db": rows["pictures"].mean("psnr_db") or 0.0})
        found = _figures(rows, _talk(theirs, pairs, rate), size, thorough=config.thorough)
    curves = {"PSNR, dB|pictures": rows["pictures"].scores["psnr_db"]}
    yield Results(found, tools.absent, [n for _, n in pairs], curves, {}, film, rate)


def _fitted(mine: Series, raw: Picture, picture: Picture, *, first: bool) -> tuple[Picture, Picture, list[str]]:
    """Both at one size: the reference's, or that of frames.json."""
    if mine.about:
        raw = reference_picture(raw, mine.about["crop_px"], *mine.about["size"])
    (h, w), (rh, rw) = picture.shape[:2], raw.shape[:2]
    if (h, w) == (rh, rw):
        return raw, picture, []
    if abs(w * rh - h * rw) > max(w, h, rw, rh):
        raise InputError(
            f"{mine.path}: its pictures are {w} x {h}, the reference's {rw} x {rh}: another shape; crop one like the "
            "other, or say crop_px, size and fps in frames.json"
        )
    return raw, resized(picture, rw, rh), [f"{mine.path}: {w} x {h} resized to {rw} x {rh}"] if first else []


def _talk(reference: Series, pairs: list[tuple[int, int]], rate: float) -> Talk:
    if reference.clip is None or reference.clip.wav is None:
        return Talk(rate)
    sound = media.sound(reference.clip.wav, audio.RATE)
    spoken, loudness = _subject.heard(sound, rate, reference.clip.frames)
    numbers = [n for _, n in pairs]
    start = round(numbers[0] / rate * audio.RATE)
    return Talk(rate, spoken[numbers], None, sound[start:], loudness[numbers])


def _figures(rows: dict[str, Row], talk: Talk, size: tuple[int, int], *, thorough: bool) -> dict[str, Figures]:
    """Pose and expression are found with the mean head and an assumed camera: nobody knows the person."""
    if not thorough:
        return {n: row.figures(rows["truth"], talk) for n, row in rows.items()}
    height, width = size
    focal = height / 2 / np.tan(FOV_RAD / 2)
    K = np.array(((focal, 0, width / 2), (0, focal, height / 2), (0, 0, 1)))
    model = head.load()
    person = model.shaped(Identity(model.id, torch.zeros(len(model.shape_basis))))
    wanted = retrack(person, K, np.array(rows["truth"].true_landmarks))
    moves = {n: (retrack(person, K, np.array(row.landmarks)), wanted) for n, row in rows.items()}
    return {n: row.figures(rows["truth"], talk, moves[n]) for n, row in rows.items()}
