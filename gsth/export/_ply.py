"""PLY as 3D Gaussian Splatting uses it: one vertex element of float properties, binary little-endian."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gsth.errors import InputError

if TYPE_CHECKING:
    from gsth.types import Splats

MAX_SPLATS = 20_000_000
"""A file that claims more is refused before anything is allocated."""
_HEADER_BYTES = 65_536
_TYPES = {
    "char": "<i1", "int8": "<i1", "uchar": "<u1", "uint8": "<u1", "short": "<i2", "int16": "<i2",
    "ushort": "<u2", "uint16": "<u2", "int": "<i4", "int32": "<i4", "uint": "<u4", "uint32": "<u4",
    "float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8",
}  # fmt: skip


def to_bytes(columns: Mapping[str, np.ndarray]) -> bytes:
    """A file with one property per column [n]; float columns as float32, others as int32."""
    kinds = {name: "<f4" if column.dtype.kind == "f" else "<i4" for name, column in columns.items()}
    count = len(next(iter(columns.values())))
    rows = np.empty(count, dtype=list(kinds.items()))
    for name, column in columns.items():
        rows[name] = column
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    lines += [f"property {'float' if kind == '<f4' else 'int'} {name}" for name, kind in kinds.items()]
    return "\n".join((*lines, "end_header", "")).encode() + rows.tobytes()


def from_bytes(data: bytes, name: Path | str) -> dict[str, np.ndarray]:
    """The columns of the vertex element, [n] each, in their own types.

    Raises:
        InputError: It is not a binary little-endian ply, is cut off, or has lists or an absurd size.
    """
    end = data[:_HEADER_BYTES].find(b"end_header\n")
    if not data.startswith(b"ply") or end < 0:
        raise InputError(f"{name}: is not a ply file (no header of at most {_HEADER_BYTES} bytes); export it again")
    lines = [line.split() for line in data[:end].decode("ascii", "replace").splitlines()]
    if ["format", "binary_little_endian", "1.0"] not in lines:
        raise InputError(f"{name}: the ply is not binary_little_endian 1.0; convert it, for example with MeshLab")
    elements = [line for line in lines if line[:1] == ["element"]]
    if len(elements) != 1 or not re.fullmatch(r"element vertex \d{1,12}", " ".join(elements[0])):
        found = ", ".join(" ".join(e[1:]) for e in elements) or "none"
        raise InputError(
            f"{name}: want one element, vertex, found: {found}; a compressed ply has to be unpacked first "
            "(splat-transform in.compressed.ply out.ply)"
        )
    count = int(elements[0][2])
    kinds = [(p[-1], _TYPES.get(p[1], "")) for p in lines if p[:1] == ["property"] and len(p) >= 3]
    if not kinds or any(not kind for _, kind in kinds) or len(dict(kinds)) != len(kinds):
        raise InputError(f"{name}: its properties are not plain numbers of different names; want those of a 3DGS ply")
    dtype, body = np.dtype(kinds), len(data) - end - len(b"end_header\n")
    if count > MAX_SPLATS or body < count * dtype.itemsize:
        raise InputError(
            f"{name}: promises {count} points of {dtype.itemsize} bytes (at most {MAX_SPLATS}), holds {body} bytes: "
            "cut off or damaged; copy it again"
        )
    rows = np.frombuffer(data, dtype, count, end + len(b"end_header\n"))
    return {field: np.ascontiguousarray(rows[field]) for field, _ in kinds}


def from_splats(splats: Splats) -> dict[str, np.ndarray]:
    """The columns of Kerbl et al. 2023: log scales, logit opacities, wxyz quaternions, SH channel by channel."""
    import torch

    opacity = torch.logit(splats.opacities.clamp(1e-6, 1 - 1e-6))
    return raw_columns(splats.means, splats.quats, splats.scales.clamp_min(1e-12).log(), opacity, splats.sh)


def raw_columns(*parts: object) -> dict[str, np.ndarray]:
    """Columns of (means, quats, log_scales, logit_opacities, sh) tensors, as the files keep them."""
    means, quats, log_scales, logits, sh = (np.asarray(p.detach().cpu(), np.float32) for p in parts)  # type: ignore[attr-defined]
    columns = {axis: means[:, i] for i, axis in enumerate("xyz")}
    columns |= {f"n{axis}": np.zeros(len(means), np.float32) for axis in "xyz"}
    columns |= {f"f_dc_{c}": sh[:, 0, c] for c in range(3)}
    rest = sh[:, 1:].transpose(0, 2, 1).reshape(len(sh), -1)
    columns |= {f"f_rest_{i}": rest[:, i] for i in range(rest.shape[1])}
    columns["opacity"] = logits
    columns |= {f"scale_{i}": log_scales[:, i] for i in range(3)}
    return columns | {f"rot_{i}": quats[:, i] for i in range(4)}


def raw_tensors(columns: Mapping[str, np.ndarray], name: Path | str) -> dict[str, np.ndarray]:
    """means [n 3], quats [n 4], log_scales [n 3], logit_opacities [n] and sh [n k 3] of a file, float32, finite.

    Raises:
        InputError: A property is missing, or a value is not finite.
    """
    rest = sum(key.startswith("f_rest_") for key in columns)
    if rest not in (0, 9, 24, 45):
        raise InputError(f"{name}: has {rest} f_rest properties; want 0, 9, 24 or 45 (SH of degree 0 to 3)")
    wanted = {
        "means": list("xyz"),
        "quats": [f"rot_{i}" for i in range(4)],
        "log_scales": [f"scale_{i}" for i in range(3)],
        "logit_opacities": ["opacity"],
        "dc": [f"f_dc_{i}" for i in range(3)],
        "rest": [f"f_rest_{i}" for i in range(rest)],
    }
    if missing := [p for group in wanted.values() for p in group if p not in columns]:
        raise InputError(f"{name}: is no Gaussian splat ply: it lacks {', '.join(missing)}")
    count = len(columns["x"])
    made = {
        key: np.stack([columns[p] for p in group], 1).astype(np.float32) if group else np.zeros((count, 0), np.float32)
        for key, group in wanted.items()
    }
    for key, values in made.items():
        if not np.isfinite(values).all():
            raise InputError(f"{name}: {key} holds values that are not finite; repair or export the file again")
    dc, higher = made.pop("dc")[:, None], made.pop("rest").reshape(count, 3, rest // 3).transpose(0, 2, 1)
    made["sh"] = np.concatenate((dc, higher), 1)
    made["logit_opacities"] = made["logit_opacities"][:, 0]
    return made
