"""The open head that ships with gsth: MakeHuman's head and shoulders (CC0), 52 ARKit expressions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from gsth.errors import ArtifactError
from gsth.head import JOINTS, HeadModel
from gsth.types import HeadId

_ASSET = Path(__file__).parent / "assets" / "builtin.npz"
_VERSION = "1"


@dataclass(frozen=True)
class Config:
    """The built-in open head; it has no options."""

    def build(self) -> HeadModel:
        """Load it; later calls return the same object. Raises ArtifactError where the file is damaged."""
        return _load()


@cache
def _load() -> HeadModel:
    raw = _ASSET.read_bytes()
    try:
        with np.load(_ASSET) as file:
            arrays = dict(file)
    except (ValueError, OSError, EOFError) as e:
        raise ArtifactError(f"{_ASSET} is damaged ({e}); reinstall gsth") from e
    if arrays["weights"].shape[1] != len(JOINTS):
        raise ArtifactError(f"{_ASSET}: {arrays['weights'].shape[1]} joints, want {len(JOINTS)}; reinstall gsth")
    return HeadModel(
        id=HeadId("builtin", _VERSION, hashlib.sha256(raw).hexdigest()[:16]),
        template=_float(arrays["template"]),
        faces=_index(arrays["faces"]),
        uvs=_float(arrays["uvs"]),
        shape_basis=_fields(arrays, "shape"),
        expr_basis=_fields(arrays, "expr"),
        weights=_float(arrays["weights"]),
        pivots=_float(arrays["pivots"]),
        pivot_basis=_float(arrays["pivot_basis"]),
        expression_names=tuple(str(n) for n in arrays["expression_names"]),
        parts={k.removeprefix("part_"): _index(v) for k, v in arrays.items() if k.startswith("part_")},
        landmark_faces=_index(arrays["landmark_faces"]),
        landmark_bary=_float(arrays["landmark_bary"]),
    )


def _fields(arrays: dict[str, np.ndarray], name: str) -> torch.Tensor:
    """Offset fields [n v 3] from integers and one step per field."""
    return _float(arrays[f"{name}_q"]) * _float(arrays[f"{name}_step"])[:, None, None]


def _float(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).float()


def _index(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.int64))
