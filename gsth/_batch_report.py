"""What a batch made of each identity: the record, the table on the terminal, and the page."""

from __future__ import annotations

import html
import statistics
import urllib.parse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

OPEN, DONE, REFUSED, FAILED = "open", "done", "refused", "failed"
PAGE = "batch.html"
SHOWN = ("psnr_db", "ssim", "lips_pct_iod")
"""Scores in the tables, where the last stage gave them; the records hold all."""
_TERMINAL_ROWS = 30

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto }
td, th { padding: .2em .7em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child, td:last-child { text-align: left }
tr.failed td:nth-child(2), tr.refused td:nth-child(2) { background: #c1121f; color: #fff }
"""


@dataclass
class Record:
    """One identity; kept as ``NAME.json`` beside its avatar."""

    name: str
    clip: str
    key: str
    """What it stands for: settings, size and time of the clip."""
    state: str = OPEN
    reason: str = ""
    """Why there is no avatar."""
    machine: str = ""
    """Where the last stage ran."""
    crashes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """Stages that are done, s each."""
    values: dict[str, float] = field(default_factory=dict)
    """Figures of the stages."""


def table(records: Sequence[Record], stages: Sequence[str]) -> str:
    """Rows for a terminal: those without an avatar first, a count of what does not fit, and sums."""
    order = sorted(records, key=lambda r: (r.state == DONE, r.name))
    rows = [_heads(records, stages), *(_cells(r, records, stages) for r in order[:_TERMINAL_ROWS])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    if len(order) > _TERMINAL_ROWS:
        lines.append(f"and {len(order) - _TERMINAL_ROWS} more in {PAGE}")
    return "\n".join((*lines, *_sums(records, stages)))


def write(out: Path, records: Sequence[Record], stages: Sequence[str]) -> Path:
    """Write the page; everything in it that came from outside is escaped. Returns its path."""
    from gsth.media import whole_file  # only now: it brings PyAV

    heads = "".join(f"<th>{html.escape(h)}</th>" for h in (*_heads(records, stages), "reason"))
    rows = []
    for r in records:
        first, *cells = (html.escape(cell) for cell in _cells(r, records, stages))
        log = html.escape(f"./{urllib.parse.quote(r.name)}.log")  # else a name may look like another scheme
        inside = "".join(f"<td>{cell}</td>" for cell in (f'<a href="{log}">{first}</a>', *cells, html.escape(r.reason)))
        rows.append(f"<tr class={r.state}>{inside}</tr>")
    page = (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>gsth batch</title><style>{_STYLE}</style>"
        f"</head><body><h1>{len(records)} identities</h1>"
        + "".join(f"<p>{html.escape(line)}</p>" for line in _sums(records, stages))
        + f"<table><tr>{heads}</tr>\n"
        + "\n".join(rows)
        + "</table></body></html>\n"
    )
    with whole_file(out / PAGE) as temporary:
        temporary.write_text(page)
    return out / PAGE


def _scores(records: Sequence[Record]) -> list[str]:
    return [name for name in SHOWN if any(name in r.values for r in records)]


def _heads(records: Sequence[Record], stages: Sequence[str]) -> list[str]:
    return ["name", "state", *(f"{s} s" for s in stages), "crashes", *_scores(records)]


def _cells(record: Record, records: Sequence[Record], stages: Sequence[str]) -> list[str]:
    return [
        record.name,
        record.state,
        *(f"{record.seconds[s]:.1f}" if s in record.seconds else "" for s in stages),
        str(record.crashes),
        *(f"{record.values[v]:.4g}" if v in record.values else "" for v in _scores(records)),
    ]


def _sums(records: Sequence[Record], stages: Sequence[str]) -> list[str]:
    """How many of each state, and the median time of each stage."""
    counts = Counter(r.state for r in records)
    lines = [", ".join(f"{counts[s]} {s}" for s in (DONE, OPEN, REFUSED, FAILED) if counts[s])]
    known = {s: [r.seconds[s] for r in records if s in r.seconds] for s in stages}
    if medians := [f"{s} {statistics.median(times):.1f} s" for s, times in known.items() if times]:
        lines.append("median of a stage: " + ", ".join(medians))
    return lines
