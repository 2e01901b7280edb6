"""The report of a track: report.html, which needs nothing beside it, and overlay.mp4."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from gsth import media
from gsth.errors import GsthError
from gsth.track import _points
from gsth.track._fit import Fitted
from gsth.track._quality import ENOUGH, GOOD, PITCH_EDGES_DEG, YAW_EDGES_DEG, BadFrame, Quality
from gsth.track._series import HELD, let_go
from gsth.types import Event, Notice, Step, Track

SEEN_COLOUR, FIT_COLOUR = (80, 220, 120), (255, 80, 60)
CONTOURS = (
    _points.OVAL, _points.LIPS_OUTER, _points.LIPS_INNER, _points.EYE_LEFT, _points.EYE_RIGHT,
)  # fmt: skip
SAMPLES, THUMBS, THUMB_PX = 6, 12, 160
"""Frames shown in the page, bad frames shown at most, and their size."""
INLINE_MB = 24.0
"""An overlay up to this size is put into the page, a larger one stays beside it."""
PLOT = (900, 160)
ACTIVE = 0.1
"""Expressions that never reach this are not listed."""
TITLES = {
    "error_pct": "error, % of the inter-ocular distance",
    "lips_error_pct": "of the lips, %",
    "jitter_pct": "trembling of the face where it is calm, % per frame",
    "calm_step_pct": "trembling and movement there together, % per frame",
    "bad_share": "share of bad frames",
    "face_px": "size of the face, px between the outer eye corners",
    "light": "light on the face, 0 to 255",
    "side": "brighter over darker cheek",
    "sharpness": "sharpness of the face",
    "seconds": "length, s",
    "yaw_deg": "turn of the head to the sides, degrees from end to end",
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
th { text-align: left; padding-right: 2rem; font-weight: 600; vertical-align: top; }
.samples img { width: 32%; margin-right: 1%; } video, svg { width: 100%; } 
figure { display: inline-block; margin: 4px; }
figcaption { font-size: 12px; width: 160px; } .verdict { padding: .6rem 1rem; border-radius: 6px; }
.good { background: #dff3e3; } .usable { background: #fff3cd; } .poor { background: #fbdede; }
.grid td { width: 5.2rem; height: 2rem; text-align: center; font-size: 13px; }
.bar { background: #246; height: .7rem; display: inline-block; } .mean { background: #8ab; }
"""


def write(folder: Path, track: Track, fitted: Fitted, quality: Quality, train_frames: int) -> Iterator[Event]:
    """Write overlay.mp4 and report.html into ``folder``."""
    detected, projected = track.landmarks_px.numpy(), fitted.projected.numpy()

    def drawn(i: int) -> np.ndarray:
        if i % HELD == HELD - 1:
            let_go(track.images)
        return overlay(np.array(track.images[i]), detected[i], projected[i])

    try:
        sound = None if track.clip.wav is None else media.sound(track.clip.wav, 48_000)
    except GsthError as error:
        sound = None
        yield Notice(f"the overlay video has no sound: {error}")
    count = len(detected)
    video = folder / "overlay.mp4"
    media.write_video(video, (drawn(i) for i in range(count)), track.clip.fps, sound, 48_000, media.DRAFT_CRF)
    yield Step("report", 1, 2)
    samples = [drawn(i) for i in np.linspace(0, count - 1, min(SAMPLES, count)).astype(int)]
    text = "".join(_page(track, fitted, quality, train_frames, (samples, video)))
    (folder / "report.html").write_text(text, encoding="utf-8")
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


def _page(
    track: Track, fitted: Fitted, quality: Quality, train_frames: int, shown: tuple[list[np.ndarray], Path]
) -> Iterator[str]:
    """The page, part by part; ``shown`` are sample pictures and the overlay video."""
    name = html.escape(track.clip.path.name)
    samples, video = shown
    pictures = "".join(f'<img src="data:image/jpeg;base64,{_jpeg(s)}" alt="frame">' for s in samples)
    advice = "".join(f"<li>{html.escape(a)}</li>" for a in quality.advice)
    yield f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Track of {name}</title><style>{STYLE}</style>'
    yield f"<h1>Track of {name}</h1>"
    yield f'<div class="verdict {quality.verdict}"><b>This track is {quality.verdict}.</b><ul>{advice}</ul></div>'
    yield _table(track, fitted, quality, train_frames)
    yield "<h2>Overlay</h2><p>Green: detected points. Red: the fitted model.</p>"
    yield f'<video src="{_source(video)}" controls></video><p class="samples">{pictures}</p>'
    yield "<h2>Error of each frame</h2>"
    yield "<p>Mean over the face points, % of the inter-ocular distance; shaded: held out; red: bad.</p>"
    yield _plot(track.error_pct.numpy(), quality.bad, train_frames)
    yield f"<h2>Bad frames</h2>{_bad(track, quality.bad)}"
    yield "<h2>Views that the avatar will know</h2>"
    yield f"<p>Frames by the turn of the head; green has enough ({ENOUGH}). Rows: chin up to chin down.</p>"
    yield _poses(quality.poses)
    yield f"<h2>Mouth and eye shapes</h2>{_shapes(quality.shapes)}"
    yield "<h2>Expressions</h2><p>Mean (light) and highest (dark) activation.</p>"
    yield f"{_activity(quality.activity)}</html>\n"


def _table(track: Track, fitted: Fitted, quality: Quality, train_frames: int) -> str:
    found = track.found
    held_out = track.error_pct[train_frames:][found[train_frames:]]
    rows = {
        "frames": f"{len(found)} at {track.clip.fps:.4g}/s, {int(found.sum())} used, "
        f"the first {train_frames} for training",
        "crop": f"{track.crop_px} px of {track.clip.width} x {track.clip.height}",
        "focal length": f"{fitted.focal:.0f} px of the crop",
        **{
            TITLES[n]: f"{v:.3g}" + (f" (good: up to {GOOD[n]:g})" if n in GOOD else "")
            for n, v in quality.figures.items()
        },
        "error of the held-out part, %": f"{held_out.median():.2f}" if len(held_out) else "no held-out part",
        "background plate": "none" if track.plate is None else "yes",
    }
    cells = (f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in rows.items())
    return f"<table>{''.join(cells)}</table>"


def _source(video: Path) -> str:
    if video.stat().st_size > INLINE_MB * 1e6:
        return video.name
    return f"data:video/mp4;base64,{base64.b64encode(video.read_bytes()).decode()}"


def _bad(track: Track, bad: Sequence[BadFrame]) -> str:
    if not bad:
        return "<p>none</p>"
    figures = []
    for k in np.unique(np.linspace(0, len(bad) - 1, min(THUMBS, len(bad))).astype(int)):
        picture = cv2.resize(np.array(track.images[bad[k].row]), (THUMB_PX, THUMB_PX), interpolation=cv2.INTER_AREA)
        figures.append(
            f'<figure><img src="data:image/jpeg;base64,{_jpeg(picture)}" alt="bad frame">'
            f"<figcaption>{bad[k].row}: {html.escape(bad[k].reason)}</figcaption></figure>"
        )
    lines = "".join(f"<li>{_ranges(rows)}: {html.escape(r)}</li>" for r, rows in _by_reason(bad).items())
    return f"<p>{len(bad)} frames.</p><ul>{lines}</ul>{''.join(figures)}"


def _by_reason(bad: Sequence[BadFrame]) -> dict[str, list[int]]:
    """Rows by reason, without the figures in it."""
    out: dict[str, list[int]] = {}
    for b in bad:
        out.setdefault(b.reason.split(" by ")[0], []).append(b.row)
    return out


def _ranges(rows: Sequence[int]) -> str:
    """``3-7, 12`` for rising numbers."""
    groups: list[list[int]] = []
    for row in rows:
        if groups and groups[-1][1] == row - 1:
            groups[-1][1] = row
        else:
            groups.append([row, row])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in groups)


def _poses(counts: np.ndarray) -> str:
    def spans(edges: Sequence[int]) -> list[str]:
        inner = [f"{a} to {b}" for a, b in zip(edges, edges[1:], strict=False)]
        return [f"under {edges[0]}", *inner, f"over {edges[-1]}"]

    heading = "".join(f"<th>{s}&deg;</th>" for s in spans(YAW_EDGES_DEG))
    rows = []
    for title, row in zip(spans(PITCH_EDGES_DEG), counts, strict=True):
        cells = "".join(f'<td style="background:{_tint(int(n))}">{n or ""}</td>' for n in row)
        rows.append(f"<tr><th>{title}&deg;</th>{cells}</tr>")
    return f'<table class="grid"><tr><th></th>{heading}</tr>{"".join(rows)}</table>'


def _tint(count: int) -> str:
    return "#eee" if count == 0 else "#fff3cd" if count < ENOUGH else "#bfe3c7"


def _shapes(shapes: dict[str, int]) -> str:
    cells = "".join(
        f'<tr><th>{html.escape(name)}</th><td style="background:{_tint(n)}">{n} frames</td></tr>'
        for name, n in shapes.items()
    )
    return f"<table>{cells}</table>"


def _activity(activity: dict[str, tuple[float, float]]) -> str:
    rows = "".join(
        f'<tr><th>{html.escape(name)}</th><td><span class="bar mean" style="width:{300 * mean:.0f}px"></span>'
        f'<span class="bar" style="width:{300 * (top - mean):.0f}px"></span> {top:.2f}</td></tr>'
        for name, (mean, top) in sorted(activity.items(), key=lambda item: -item[1][1])
        if top >= ACTIVE
    )
    return f"<table>{rows}</table>"


def _plot(error: np.ndarray, bad: Sequence[BadFrame], train_frames: int) -> str:
    width, height = PLOT
    # one wild frame must not flatten the rest
    top = max(2.0, min(float(error.max()), 4 * float(np.median(error))) * 1.1)
    x = np.arange(len(error)) / max(len(error) - 1, 1) * width
    y = np.clip(height * (1 - error / top), 0, height)
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    start = x[min(train_frames, len(x) - 1)]
    dots = "".join(f'<circle cx="{x[b.row]:.1f}" cy="{y[b.row]:.1f}" r="3" fill="#c00"/>' for b in bad)
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


def _jpeg(image: np.ndarray) -> str:
    coded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return base64.b64encode(coded.tobytes()).decode()
