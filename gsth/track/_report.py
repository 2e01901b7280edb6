"""What a person looks at to trust a track: report.html (one file, no network) and overlay.mp4."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from gsth import media
from gsth.errors import GsthError
from gsth.track import _points
from gsth.track._fit import Fitted
from gsth.types import Event, Notice, Step, Track

BAD = 2.5
"""A frame is bad from so many times the median error on (and from 2 % on)."""
SEEN_COLOUR, FIT_COLOUR = (80, 220, 120), (255, 80, 60)
CONTOURS = (
    _points.OVAL, _points.LIPS_OUTER, _points.LIPS_INNER, _points.EYE_LEFT, _points.EYE_RIGHT,
)  # fmt: skip
SAMPLES = 6
"""Frames shown in the page."""
PLOT = (900, 160)


def bad_frames(track: Track) -> list[int]:
    """Rows of the track that should not be trained on: not found, or fitted far worse than the others."""
    error = track.error_pct.numpy()
    found = track.found.numpy()
    limit = max(2.0, BAD * float(np.median(error[found])))
    return [int(i) for i in np.flatnonzero(~found | (error > limit))]


def write(folder: Path, track: Track, fitted: Fitted, train_frames: int) -> Iterator[Event]:
    """Write overlay.mp4 and report.html into ``folder``."""
    detected, projected = track.landmarks_px.numpy(), fitted.projected.numpy()

    def drawn(i: int) -> np.ndarray:
        return overlay(np.array(track.images[i]), detected[i], projected[i])

    try:
        sound = None if track.clip.wav is None else media.sound(track.clip.wav, 48_000)
    except GsthError as error:
        sound = None
        yield Notice(f"the overlay video has no sound: {error}")
    count = len(detected)
    media.write_video(folder / "overlay.mp4", (drawn(i) for i in range(count)), track.clip.fps, sound, 48_000)
    yield Step("report", 1, 2)
    samples = [drawn(i) for i in np.linspace(0, count - 1, min(SAMPLES, count)).astype(int)]
    (folder / "report.html").write_text(_page(track, fitted, train_frames, samples), encoding="utf-8")
    yield Step("report", 2, 2)


def overlay(image: np.ndarray, detected: np.ndarray, projected: np.ndarray) -> np.ndarray:
    """A frame [h w 3] with detected points and the contours of the fitted model; points in px [478 2]."""
    for x, y in detected:
        cv2.circle(image, (round(float(x)), round(float(y))), 1, SEEN_COLOUR, -1)
    shift = 4
    for contour in CONTOURS:
        line = np.round(projected[list(contour)] * 2**shift).astype(np.int32)
        cv2.polylines(image, [line], True, FIT_COLOUR, 1, cv2.LINE_AA, shift)
    return image


def _page(track: Track, fitted: Fitted, train_frames: int, samples: list[np.ndarray]) -> str:
    found = track.found
    bad = bad_frames(track)
    rows = {
        "clip": html.escape(track.clip.path.name),
        "frames": f"{len(found)} at {track.clip.fps:.4g}/s, {int(found.sum())} with a face, "
        f"the first {train_frames} for training",
        "crop": f"{track.crop_px} px of {track.clip.width} x {track.clip.height}",
        "focal length": f"{fitted.focal:.0f} px of the crop",
        "median error": f"{_median(track.error_pct, found)} % of the inter-ocular distance",
        "of the lips": f"{_median(fitted.lips_error_pct, found)} %",
        "held-out part": f"{_median(track.error_pct[train_frames:], found[train_frames:])} %",
        "background plate": "none" if track.plate is None else "yes",
        "bad frames": ", ".join(map(str, bad)) or "none",
    }
    table = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows.items())
    pictures = "".join(f'<img src="data:image/jpeg;base64,{_jpeg(s)}" alt="frame">' for s in samples)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Track of {rows["clip"]}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
th {{ text-align: left; padding-right: 2rem; font-weight: 600; vertical-align: top; }}
img {{ width: 32%; margin-right: 1%; }} video, svg {{ width: 100%; }}
</style>
<h1>Track of {rows["clip"]}</h1>
<table>{table}</table>
<h2>Error of each frame</h2>
<p>Mean over the face points, % of the inter-ocular distance; shaded: held out; red: bad.</p>
{_plot(track.error_pct.numpy(), bad, train_frames)}
<h2>Overlay</h2>
<p>Green: detected points. Red: the fitted model.</p>
<video src="overlay.mp4" controls></video>
<p>{pictures}</p>
</html>
"""


def _plot(error: np.ndarray, bad: list[int], train_frames: int) -> str:
    width, height = PLOT
    top = max(2.0, float(error.max()) * 1.1)
    x = np.arange(len(error)) / max(len(error) - 1, 1) * width
    y = height * (1 - error / top)
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    start = x[min(train_frames, len(x) - 1)]
    dots = "".join(f'<circle cx="{x[i]:.1f}" cy="{y[i]:.1f}" r="3" fill="#c00"/>' for i in bad)
    levels = "".join(
        f'<line x1="0" x2="{width}" y1="{height * (1 - level / top):.1f}" y2="{height * (1 - level / top):.1f}" '
        f'stroke="#ccc"/><text x="2" y="{height * (1 - level / top) - 2:.1f}" font-size="11">{level} %</text>'
        for level in range(1, int(top) + 1)
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="error of each frame">'
        f'<rect x="{start:.1f}" y="0" width="{width - start:.1f}" height="{height}" fill="#eef"/>{levels}'
        f'<polyline points="{line}" fill="none" stroke="#246" stroke-width="1.5"/>{dots}</svg>'
    )


def _median(values: object, found: object) -> str:
    chosen = np.asarray(values)[np.asarray(found)]
    return f"{np.median(chosen):.2f}" if chosen.size else "no"


def _jpeg(image: np.ndarray) -> str:
    coded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return base64.b64encode(coded.tobytes()).decode()
