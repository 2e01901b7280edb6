"""Face curves in the files of other tools: Live Link Face CSV (read and written), 52-weight JSON (read).

Rotations in a CSV are yaw, pitch and roll in radians as ARKit has them: about axes x right, y up, z towards the camera,
applied in the order yaw, pitch, roll. Positive yaw turns the face to the picture's right, positive pitch down.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsth import math3d
from gsth.errors import InputError, writes
from gsth.speech import ARKIT_NAMES

_TO_HOUSE = torch.tensor((1.0, -1.0, -1.0))
"""From ARKit's axes to the house's: half a turn about x."""
_BONES = ("Head", "LeftEye", "RightEye")
_ANGLES = ("Yaw", "Pitch", "Roll")
_TIMECODE = re.compile(r"(\d{1,9}):(\d{1,9}):(\d{1,9})[:;](\d{1,9})(?:\.(\d{1,18}))?")
MAX_FRAMES = 1_000_000
"""Four hours at 60 rows/s. Time stamps can claim any length."""
_FRAME_RATES = (24, 25, 30, 50, 60, 120)
_NAME_KEYS = ("names", "facsNames", "blendShapeNames", "blendshapeNames")
_FRAME_KEYS = ("frames", "weightMat", "blendShapes", "blendshapes")
_WEIGHT_KEYS = ("weights", "blendshapes", "blendShapes", "values", "categories")


@dataclass(frozen=True, eq=False)
class Curves:
    """A face over time, of no particular head model."""

    fps: float
    names: tuple[str, ...]
    """ARKit names."""
    values: Tensor
    """[t n]."""
    turns: Tensor | None = None
    """Rotations of head, left and right eye from their rest, house axes, wxyz [t 3 4]."""


def read(path: Path) -> Curves:
    """Read a .csv or .json.

    Raises:
        InputError: It is neither, holds no face curves, or numbers that are none.
    """
    return _read_csv(path) if path.suffix.lower() == ".csv" else _read_json(path)


def write(path: Path, curves: Curves) -> None:
    """Write a CSV as Live Link Face does, whole or not at all; what spreadsheets change, ``read`` reads again."""
    turns = math3d.quat_identity(len(curves.values), 3) if curves.turns is None else curves.turns
    angles = _euler(turns).reshape(len(turns), -1).numpy()
    order = [curves.names.index(n) if n in curves.names else None for n in ARKIT_NAMES]
    values = curves.values.numpy()
    part = path.with_name(f".{path.name}.part")
    with writes(path), part.open("w", newline="") as file:
        table = csv.writer(file)
        head = [n[0].upper() + n[1:] for n in ARKIT_NAMES]
        table.writerow(["Timecode", "BlendShapeCount", *head, *(b + a for b in _BONES for a in _ANGLES), "Seconds"])
        for t, (row, turn) in enumerate(zip(values, angles, strict=True)):
            weights = [0.0 if i is None else float(row[i]) for i in order]
            numbers = [f"{x:.5f}" for x in (*weights, *turn.tolist())]
            table.writerow([_timecode(t, curves.fps), len(ARKIT_NAMES), *numbers, f"{t / curves.fps:.6f}"])
    part.replace(path)


def _timecode(frame: int, fps: float) -> str:
    whole = max(round(fps), 1)
    seconds, rest = divmod(frame, whole)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}:{rest:02}.000"


def _read_csv(path: Path) -> Curves:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: cannot be read as CSV: {e}") from e
    # Spreadsheets of many countries write semicolons.
    first = text.partition("\n")[0]
    rows = list(csv.DictReader(text.splitlines(), delimiter=";" if first.count(";") > first.count(",") else ","))
    columns = {c[0].lower() + c[1:]: c for c in (rows[0] if rows else {}) if c}
    names = tuple(n for n in ARKIT_NAMES if n in columns)
    if not names:
        raise InputError(f"{path}: has no column of an ARKit expression (EyeBlinkLeft, JawOpen, ...) or no row")
    values = np.array([[_number(r[columns[n]], path, i, n) for n in names] for i, r in enumerate(rows)], np.float32)
    turns = None
    if "headYaw" in columns:
        wanted = [b[0].lower() + b[1:] + a for b in _BONES for a in _ANGLES]
        flat = [
            [_number(r[columns[n]], path, i, n) if n in columns else 0.0 for n in wanted] for i, r in enumerate(rows)
        ]
        turns = _quats(torch.tensor(flat).reshape(len(rows), 3, 3))
    return _even(path, _times(path, rows, columns), names, torch.from_numpy(values), turns)


def _number(text: str | None, path: Path, row: int, column: str) -> float:
    try:
        value = float((text or "0").replace(",", "."))
    except ValueError as e:
        raise InputError(f"{path}: row {row + 2}, column {column}: {text!r} is no number") from e
    if not math.isfinite(value):
        raise InputError(f"{path}: row {row + 2}, column {column}: {text!r} is not finite")
    return value


def _times(path: Path, rows: Sequence[Mapping[str, str]], columns: Mapping[str, str]) -> np.ndarray:
    """Seconds of each row, [t]."""
    if "seconds" in columns:
        return np.array([_number(r[columns["seconds"]], path, i, "Seconds") for i, r in enumerate(rows)])
    if "timecode" not in columns:
        raise InputError(f"{path}: has no column Timecode or Seconds to tell the time of a row")
    found = [_TIMECODE.fullmatch((r[columns["timecode"]] or "").strip()) for r in rows]
    if not all(found):
        raise InputError(f"{path}: row {found.index(None) + 2}: want a timecode HH:MM:SS:FF.fff")
    parts = [(int(m[1]) * 3600 + int(m[2]) * 60 + int(m[3]), float(f"{m[4]}.{m[5] or 0}")) for m in found if m]
    largest = max(frames for _, frames in parts)
    rate = next((r for r in _FRAME_RATES if largest < r), 120)
    return np.array([seconds + frames / rate for seconds, frames in parts])


def _even(path: Path, times: np.ndarray, names: tuple[str, ...], values: Tensor, turns: Tensor | None) -> Curves:
    """At a constant rate, linear between rows: recorders drop frames."""
    if len(times) < 2:
        return Curves(30.0, names, values, turns)
    steps = np.diff(times)
    if steps.min() <= 0:
        raise InputError(f"{path}: row {int(steps.argmin()) + 3} is not later than the row before it")
    fps = float(1 / np.median(steps))
    fps = next((float(r) for r in _FRAME_RATES if abs(r - fps) < 0.02 * r), round(fps, 3))
    span = times[-1] - times[0]
    if not (1 <= fps <= 1000 and span * fps < MAX_FRAMES):
        raise InputError(f"{path}: spans {span:g} s at {fps:g} rows/s; want 1 to 1000 rows/s and at most {MAX_FRAMES}")
    wanted = times[0] + np.arange(round(span * fps) + 1) / fps
    low = np.clip(np.searchsorted(times, wanted, side="right") - 1, 0, len(times) - 2)
    share = torch.from_numpy(np.clip((wanted - times[low]) / steps[low], 0, 1)).float()
    values = values[low] * (1 - share[:, None]) + values[low + 1] * share[:, None]
    if turns is not None:
        a, b = turns[low], turns[low + 1]
        b = torch.where((a * b).sum(-1, keepdim=True) < 0, -b, b)
        turns = math3d.quat_normalize(a * (1 - share[:, None, None]) + b * share[:, None, None])
    return Curves(fps, names, values, turns)


def _read_json(path: Path) -> Curves:
    try:
        given = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as e:
        raise InputError(f"{path}: cannot be read as JSON: {e}") from e
    top: Mapping[str, Any] = given if isinstance(given, Mapping) else {"frames": given}
    frames = next((top[k] for k in _FRAME_KEYS if isinstance(top.get(k), list)), None)
    if not frames:
        raise InputError(f"{path}: has no frames; want a list of them, or a list under {' or '.join(_FRAME_KEYS)}")
    names = next((tuple(map(str, top[k])) for k in _NAME_KEYS if isinstance(top.get(k), list)), ARKIT_NAMES)
    rows, times = [], []
    for i, frame in enumerate(frames):
        weights = _weights(frame, names)
        if weights is None:
            raise InputError(f"{path}: frame {i}: want {len(names)} weights, or weights by ARKit name")
        rows.append(weights)
        stamp = frame.get("time", frame.get("timestamp")) if isinstance(frame, Mapping) else None
        times.append(_number(str(stamp), path, i, "time") if isinstance(stamp, (int, float)) else None)
    known = [n for n in ARKIT_NAMES if any(n in row for row in rows)]
    if not known:
        raise InputError(f"{path}: none of its weights is an ARKit expression (eyeBlinkLeft, jawOpen, ...)")
    values = torch.tensor([[_number(str(row.get(n, 0)), path, i, n) for n in known] for i, row in enumerate(rows)])
    fps = next((_number(str(top[k]), path, 0, k) for k in ("fps", "exportFps", "frameRate") if k in top), None)
    if fps is None and all(t is not None for t in times) and len(times) > 1:
        stamps = np.array(times, np.float64)
        # MediaPipe and browsers count milliseconds.
        stamps = stamps / 1000 if np.median(np.diff(stamps)) > 5 else stamps
        return _even(path, stamps, tuple(known), values, None)
    if fps is not None and not 1 <= fps <= 1000:
        raise InputError(f"{path}: fps is {fps}; want 1 to 1000")
    return Curves(fps or 30.0, tuple(known), values)


def _weights(frame: Any, names: Sequence[str]) -> dict[str, float] | None:
    """Weights of one frame by name; None where it holds none."""
    if isinstance(frame, Mapping):
        inner = next((frame[k] for k in _WEIGHT_KEYS if k in frame), None)
        if inner is not None:
            return _weights(inner, names)
        return {str(k): v for k, v in frame.items() if k in ARKIT_NAMES} or None
    if isinstance(frame, list) and frame and all(isinstance(c, Mapping) and "score" in c for c in frame):
        return {str(c.get("categoryName")): c["score"] for c in frame}
    if isinstance(frame, list) and len(frame) == len(names):
        return dict(zip(names, frame, strict=True))
    return None


def _quats(angles: Tensor) -> Tensor:
    """Yaw, pitch, roll [... 3] to quaternions in house axes [... 4]."""
    axes = torch.eye(3)[[1, 0, 2]] * _TO_HOUSE
    yaw, pitch, roll = (math3d.rotvec_to_quat(angles[..., i : i + 1] * axes[i]) for i in range(3))
    return math3d.quat_mul(math3d.quat_mul(yaw, pitch), roll)


def _euler(quats: Tensor) -> Tensor:
    """The inverse of ``_quats``; pitch within a quarter turn."""
    w, x, y, z = (quats * torch.cat((torch.ones(1), _TO_HOUSE))).unbind(-1)
    pitch = torch.asin((2 * (w * x - y * z)).clamp(-1, 1))
    yaw = torch.atan2(2 * (x * z + w * y), 1 - 2 * (x * x + y * y))
    roll = torch.atan2(2 * (x * y + w * z), 1 - 2 * (x * x + z * z))
    return torch.stack((yaw, pitch, roll), -1)
