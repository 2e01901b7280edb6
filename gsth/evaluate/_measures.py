"""What is measured: names, titles, and which way is better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gsth.metrics import MAX_LAG

Figures = dict[str, float | None]
"""One row: measure to value; None where it could not be measured."""
Rows = Mapping[str, Figures]


@dataclass(frozen=True)
class Measure:
    """One figure of a row."""

    title: str
    better: Literal["high", "low", "none"]
    """none: to be read against the truth, or against 0 or 1."""


MEASURES: Mapping[str, Measure] = {
    "psnr_db": Measure("PSNR, dB", "high"),
    "ssim": Measure("SSIM", "high"),
    "ms_ssim": Measure("MS-SSIM", "high"),
    "st_lpips": Measure("ST-LPIPS", "low"),
    "lpips": Measure("LPIPS", "low"),
    "flip": Measure("FLIP", "low"),
    "fid": Measure("FID", "low"),
    "niqe": Measure("NIQE", "none"),
    "face_psnr_db": Measure("face PSNR, dB", "high"),
    "face_ssim": Measure("face SSIM", "high"),
    "face_st_lpips": Measure("face ST-LPIPS", "low"),
    "face_flip": Measure("face FLIP", "low"),
    "mouth_psnr_db": Measure("mouth PSNR, dB", "high"),
    "mouth_ssim": Measure("mouth SSIM", "high"),
    "mouth_flip": Measure("mouth FLIP", "low"),
    "foreground_psnr_db": Measure("person PSNR, dB", "high"),
    "foreground_ssim": Measure("person SSIM", "high"),
    "foreground_flip": Measure("person FLIP", "low"),
    "landmarks_pct_iod": Measure("landmarks, % IOD", "low"),
    "lips_pct_iod": Measure("lips, % IOD", "low"),
    "lmd_px": Measure("LMD, px", "low"),
    "lip_correlation": Measure("lip correlation", "high"),
    "lip_lag_frames": Measure("lip lag, frames", "none"),
    "lip_ratio": Measure("lip ratio", "none"),
    "closure_recall": Measure("lip closures made", "high"),
    "bilabial_closure": Measure("p, b, m closed", "high"),
    "sound_correlation": Measure("lips with sound", "high"),
    "sound_lag_frames": Measure("lag to sound, frames", "none"),
    "rest_opening_pct": Measure("gap in silence, % IOD", "low"),
    "lse_c": Measure("LSE-C", "high"),
    "lse_d": Measure("LSE-D", "low"),
    "word_accuracy": Measure("lip-read words", "high"),
    "blink_recall": Measure("blinks made", "high"),
    "csim": Measure("CSIM (dlib)", "high"),
    "identity_distance": Measure("identity distance", "low"),
    "csim_arcface": Measure("CSIM (ArcFace)", "high"),
    "aed": Measure("AED", "low"),
    "apd_deg": Measure("APD, degrees", "low"),
    "jitter_pct_iod": Measure("jitter, % IOD", "none"),
    "flicker_levels": Measure("flicker, of 255", "low"),
    "faces_found": Measure("faces found", "high"),
}
"""Keys of the figures of one row."""
LAGS: Mapping[str, str] = {"lip_correlation": "lip_lag_frames", "sound_correlation": "sound_lag_frames"}
"""A correlation is that at its best lag: the two are shown in one cell."""
AT_THE_END = f"! the best lag is the last one searched ({MAX_LAG} frames): the true one may lie beyond it"

ROWS: Mapping[str, str] = {
    "avatar": "avatar, motion from tracking alone",
    "refined": "avatar, motion refined against the avatar",
    "last_frame": "last training frame repeated",
    "mean_frame": "mean training frame",
    "nearest_frame": "nearest training frame by expression and pose",
    "textured_mesh": "head mesh with texture only",
    "truth": "the video itself (landmarks: detector noise)",
    "train": "avatar on training frames",
    "pictures": "the pictures to score",
}
"""Keys of the rows, and what they are. Rows of side views are called view_<degrees>."""
SHORT: Mapping[str, str] = {
    "last_frame": "last",
    "mean_frame": "mean",
    "nearest_frame": "nearest",
    "textured_mesh": "mesh",
}
BASELINES = ("last_frame", "mean_frame", "nearest_frame", "textured_mesh")
"""Rows that cost nothing: an avatar that does not beat them has learned nothing."""
DECISIVE = ("psnr_db", "ssim", "st_lpips", "face_psnr_db", "mouth_psnr_db", "landmarks_pct_iod", "lips_pct_iod")
"""The measures in which the avatar must beat every baseline."""


def wins(measure: str, value: float | None, other: float | None) -> bool:
    """Whether ``value`` is strictly better than ``other``; False where one is unknown or no way is better."""
    if value is None or other is None or MEASURES[measure].better == "none":
        return False
    return value > other if MEASURES[measure].better == "high" else value < other


def losses(rows: Rows) -> dict[str, list[str]]:
    """The decisive measures in which a baseline is better than the avatar, and which baselines are."""
    mine = rows.get("avatar", {})
    found = {m: [b for b in BASELINES if wins(m, rows.get(b, {}).get(m), mine.get(m))] for m in DECISIVE}
    return {m: names for m, names in found.items() if names}


def known(rows: Rows) -> list[str]:
    """The measures with a line of their own that at least one row has, in order."""
    own = (m for m in MEASURES if m not in LAGS.values())
    return [m for m in own if any(row.get(m) is not None for row in rows.values())]


def title(row: str) -> str:
    """What a row is, in words."""
    if row.startswith("view_"):
        return f"side view, {row[len('view_') :]} degrees"
    return ROWS.get(row, row)


def table(rows: Rows, absent: Mapping[str, str] | None = None) -> str:
    """The rows side by side as aligned text, one line for each measure; a dash where nothing could be measured.

    What is absent, where a lag lies at the end of its search, and where a baseline wins, is said below.
    """
    heads = {key: SHORT.get(key, key) for key in rows}
    texts = {m: {key: cell(row, m) for key, row in rows.items()} for m in known(rows)}
    width = max((len(line_head(m)) for m in texts), default=0)
    columns = {
        key: max(9, *(len(text) + 2 for text in (head, *(line[key] for line in texts.values()))))
        for key, head in heads.items()
    }
    lines = [" " * width + "".join(f"{head:>{columns[key]}}" for key, head in heads.items())]
    lines += [
        f"{line_head(m):<{width}}" + "".join(f"{text:>{columns[key]}}" for key, text in line.items())
        for m, line in texts.items()
    ]
    lines += ends_of_search(rows)
    lines += [f"{m}: {reason}" for m, reason in _by_reason(absent or {})]
    lines += [f"WORSE THAN A BASELINE: {MEASURES[m].title} ({', '.join(names)})" for m, names in losses(rows).items()]
    return "\n".join(lines)


def line_head(measure: str) -> str:
    """What stands before a measure's figures."""
    return f"{MEASURES[measure].title} (lag)" if measure in LAGS else MEASURES[measure].title


def cell(row: Mapping[str, float | None], measure: str) -> str:
    """A figure of a row as text; a correlation with its lag, which is marked where it is the last one searched."""
    value, lag = row.get(measure), row.get(LAGS.get(measure, ""))
    if value is None:
        return "-"
    text = "inf" if math.isinf(value) else f"{value:.3f}"
    return text if lag is None else f"{text} ({lag:+.0f}{'!' if at_the_end(lag) else ''})"


def at_the_end(lag: float) -> bool:
    """Whether the search for a lag ended there."""
    return abs(lag) >= MAX_LAG


def ends_of_search(rows: Rows) -> list[str]:
    """What the mark of a lag means, where a row has one."""
    lags = (row.get(lag) for row in rows.values() for lag in LAGS.values())
    return [AT_THE_END] if any(lag is not None and at_the_end(lag) for lag in lags) else []


def _by_reason(absent: Mapping[str, str]) -> Sequence[tuple[str, str]]:
    """The same reason is given once, for all measures that it holds for."""
    reasons: dict[str, list[str]] = {}
    for measure, reason in absent.items():
        reasons.setdefault(reason, []).append(MEASURES[measure].title)
    return [(", ".join(titles), reason) for reason, titles in reasons.items()]
