"""The report: one HTML file without anything from outside, with tables, plots and a side-by-side video."""

from __future__ import annotations

import base64
import html
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsth import media, provenance
from gsth.evaluate._measures import (
    MEASURES,
    SHORT,
    Rows,
    cell,
    ends_of_search,
    known,
    line_head,
    losses,
    title,
    wins,
)

if TYPE_CHECKING:
    from gsth.evaluate._exam import Results

COLOURS = ("#1b6ac9", "#d1495b", "#3a9d5d", "#8a6fc1", "#c98a1b", "#777777")
WIDTH, HEIGHT, LEFT = 760, 200, 46
FILM_CRF = 23
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto }
td, th { padding: .2em .7em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
td.lost { background: #c1121f; color: #fff } td.best { font-weight: 700 }
p.lost { color: #c1121f; font-weight: 700 } video { max-width: 100% } svg { max-width: 100%; height: auto }
"""


def page(results: Results, about: Mapping[str, Any], heading: str) -> str:
    """The whole file.

    Args:
        results: What was found.
        about: What was scored and how; shown as a list.
        heading: Title; like every text in ``about``, it is escaped.
    """
    lost = losses(results.rows)
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        f"<title>{html.escape(heading)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(heading)}</h1>",
        *(f"<p class=lost>Worse than a baseline: {html.escape(text)}</p>" for text in _lost_texts(lost)),
        _video(results),
        "<h2>Figures</h2>",
        _table(results.rows, lost),
        *(f"<p>{text}</p>" for text in ends_of_search(results.rows)),
        "<ul>",
        *(f"<li><b>{html.escape(SHORT.get(k, k))}</b>: {html.escape(title(k))}</li>" for k in results.rows),
        "</ul>",
        _absent(results.absent),
        *_plots(results.series, results.frames),
        "<h2>What was scored</h2><ul>",
        *(f"<li>{html.escape(str(k))}: {html.escape(str(v))}</li>" for k, v in about.items()),
        "</ul></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _lost_texts(lost: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{MEASURES[m].title} ({', '.join(SHORT.get(n, n) for n in names)})" for m, names in lost.items()]


def _table(rows: Rows, lost: Mapping[str, Sequence[str]]) -> str:
    heads = "".join(f"<th>{html.escape(SHORT.get(k, k))}</th>" for k in rows)
    lines = [f"<table><tr><th></th>{heads}</tr>"]
    contest = [k for k in rows if k not in ("truth", "train") and not k.startswith("view_")]
    for m in known(rows):
        cells = []
        for key, row in rows.items():
            value = row.get(m)
            best = key in contest and value is not None and not any(wins(m, rows[o].get(m), value) for o in contest)
            kind = "lost" if key in lost.get(m, ()) or (key == "avatar" and m in lost) else "best" if best else ""
            mark = f" class={kind}" if kind and MEASURES[m].better != "none" else ""
            cells.append(f"<td{mark}>{cell(row, m)}</td>")
        arrow = {"high": " ↑", "low": " ↓", "none": ""}[MEASURES[m].better]
        lines.append(f"<tr><td>{html.escape(line_head(m))}{arrow}</td>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</table>"])


def _absent(absent: Mapping[str, str]) -> str:
    if not absent:
        return ""
    items = "".join(f"<li>{html.escape(MEASURES[m].title)}: {html.escape(why)}</li>" for m, why in absent.items())
    return f"<h2>Not measured</h2><ul>{items}</ul>"


def _video(results: Results) -> str:
    """The film, with all that pictures of avatars carry; the pictures of others are not ours to sign."""
    film, fps, who = results.film, results.fps, results.who
    if not film:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        if who is None:
            media.write_video(path, film, fps, crf=FILM_CRF)
        else:
            provenance.write_video(path, film, fps, (None, 16_000), who, provenance.STAMPED, FILM_CRF)
        data = base64.b64encode(path.read_bytes()).decode()
    words = "<p>Left the video, right what is scored.</p>"
    return f'<video controls loop muted src="data:video/mp4;base64,{data}"></video>{words}'


def _plots(series: Mapping[str, Sequence[float]], frames: Sequence[int]) -> list[str]:
    """One plot for each name before the bar, with one curve for each name after it."""
    plots: dict[str, dict[str, Sequence[float]]] = {}
    for name, values in series.items():
        plot, _, curve = name.partition("|")
        plots.setdefault(plot, {})[curve] = values
    return [f"<h2>{html.escape(plot)}</h2>{svg(curves, frames)}" for plot, curves in plots.items()]


def svg(curves: Mapping[str, Sequence[float]], frames: Sequence[int]) -> str:
    """Curves over frame numbers as an inline picture; values that are not finite leave gaps."""
    finite = [v for values in curves.values() for v in values if math.isfinite(v)]
    if not finite or len(frames) < 2:
        return "<p>nothing to plot</p>"
    low, high = min(finite), max(finite)
    span = high - low or 1.0
    first, last = frames[0], frames[-1]

    def at(frame: int, value: float) -> str:
        x = LEFT + (WIDTH - LEFT) * (frame - first) / (last - first)
        return f"{x:.1f},{HEIGHT - 20 - (HEIGHT - 30) * (value - low) / span:.1f}"

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 20}" width="{WIDTH}">']
    parts += [f'<text x="0" y="{y}" font-size="12">{v:.3g}</text>' for y, v in ((HEIGHT - 16, low), (14, high))]
    parts.append(f'<text x="{LEFT}" y="{HEIGHT}" font-size="12">frame {first}</text>')
    parts.append(f'<text x="{WIDTH}" y="{HEIGHT}" font-size="12" text-anchor="end">{last}</text>')
    for k, (name, values) in enumerate(curves.items()):
        colour = COLOURS[k % len(COLOURS)]
        for run in _whole(list(zip(frames, values, strict=True))):
            points = " ".join(at(f, v) for f, v in run)
            parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>')
        label = html.escape(SHORT.get(name, name))
        parts.append(f'<text x="{LEFT + 120 * k}" y="{HEIGHT + 16}" font-size="13" fill="{colour}">{label}</text>')
    return "".join([*parts, "</svg>"])


def _whole(points: list[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    """The runs of finite values."""
    runs: list[list[tuple[int, float]]] = [[]]
    for frame, value in points:
        if math.isfinite(value):
            runs[-1].append((frame, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
