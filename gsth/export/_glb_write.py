"""What of an avatar goes where in a .glb; the layout is docs/format.md."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsth import artifacts, math3d
from gsth.avatar import Avatar
from gsth.avatar._avatar import MAX_WEIGHT
from gsth.errors import InputError
from gsth.export import _scene
from gsth.export._gltf import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, Builder
from gsth.head import JOINTS, PARENTS
from gsth.types import Motion, Splats

EXTENSION = "GSTH_gaussian_rig"
SPLATTING = "KHR_gaussian_splatting"
PLACEMENT, MESH, SPLATS = 0, len(JOINTS) + 1, len(JOINTS) + 2
"""Nodes: the placement of the root, then the joints, the mesh, the splats."""
_FLIP = np.array((1, -1, -1), np.float32)


def to_bytes(avatar: Avatar, motion: Motion, sh_degree: int, compact: bool) -> bytes:
    """The .glb of an avatar with ``motion`` as its animation."""
    build = Builder()
    rest = avatar.pose(_scene.rest_motion(avatar, motion))
    rest = _scene.cut_sh(_scene.moved(rest, _scene.export_from_world(motion)), sh_degree)
    rig = _rig(build, avatar, motion, compact)
    splatting = {
        "kernel": "ellipse",
        "colorSpace": "srgb_rec709_display",
        "projection": "perspective",
        "sortingMethod": "cameraDistance",
        "extensions": {EXTENSION: rig},
    }
    points = {"attributes": _attributes(build, rest), "mode": 0, "extensions": {SPLATTING: splatting}}
    names = list(avatar.head.expression_names)
    document = {
        "asset": {"version": "2.0", "generator": f"gsth {artifacts.gsth_version()}", "extras": _about(avatar)},
        "extensionsUsed": [SPLATTING, EXTENSION],
        "scene": 0,
        "scenes": [{"name": "avatar", "nodes": [PLACEMENT, MESH, SPLATS]}],
        "nodes": _nodes(avatar),
        "meshes": [
            {
                "name": "head_mesh",
                "primitives": [_surface(build, avatar)],
                "weights": [0.0] * len(names),
                "extras": {"targetNames": names},
            },
            {"name": "head_splats", "primitives": [points]},
        ],
        "materials": [_INVISIBLE],
        "skins": [
            {
                "name": "head_rig",
                "joints": list(range(1, 1 + len(JOINTS))),
                "skeleton": PLACEMENT,
                "inverseBindMatrices": build.add(_inverse_binds(avatar)),
            }
        ],
        "animations": [_animation(build, avatar, motion)],
    }
    return build.glb(document)


_INVISIBLE = {
    "name": "carries_splats",
    "pbrMetallicRoughness": {"baseColorFactor": [0.8, 0.65, 0.58, 0.0], "metallicFactor": 0.0, "roughnessFactor": 0.9},
    "alphaMode": "MASK",
}
"""The mesh moves the splats and must not poke through them."""


def _about(avatar: Avatar) -> dict[str, Any]:
    """What the artifact records, for example consent and licences, without the names of local files."""
    return {"gsth": {key: value for key, value in avatar.meta.items() if key not in ("source", "expression_map")}}


def _nodes(avatar: Avatar) -> list[dict[str, Any]]:
    pivots = avatar.shaped.pivots.numpy() * _FLIP
    nodes: list[dict[str, Any]] = [{"name": "placement", "children": [1]}]
    for j, (name, parent) in enumerate(zip(JOINTS, PARENTS, strict=True)):
        at = pivots[j] - (pivots[parent] if parent >= 0 else 0)
        node: dict[str, Any] = {"name": name, "translation": at.tolist()}
        if children := [1 + k for k, p in enumerate(PARENTS) if p == j]:
            node["children"] = children
        nodes.append(node)
    return [*nodes, {"name": "head_mesh", "mesh": 0, "skin": 0}, {"name": "head_splats", "mesh": 1}]


def _inverse_binds(avatar: Avatar) -> np.ndarray:
    """[j 4 4], column-major as glTF wants it."""
    made = np.tile(np.eye(4, dtype=np.float32), (len(JOINTS), 1, 1))
    made[:, 3, :3] = -avatar.shaped.pivots.numpy() * _FLIP
    return made


def _surface(build: Builder, avatar: Avatar) -> dict[str, Any]:
    """The primitive of the head mesh: neutral face, skinning weights, one morph target per expression."""
    model, rest = avatar.head, avatar.shaped.rest
    verts = rest.numpy() * _FLIP
    joints, weights = _skinning(model.weights)
    attributes = {
        "POSITION": build.add(verts, ARRAY_BUFFER, bounds=True),
        "NORMAL": build.add(_normals(verts, model.faces.numpy()), ARRAY_BUFFER),
        "TEXCOORD_0": build.add(model.uvs.numpy(), ARRAY_BUFFER),
        "JOINTS_0": build.add(joints, ARRAY_BUFFER),
        "WEIGHTS_0": build.add(weights, ARRAY_BUFFER),
    }
    faces = model.faces.numpy().astype(np.uint16 if len(verts) < 65535 else np.uint32)
    targets = [{"POSITION": build.add_sparse(shape.numpy() * _FLIP)} for shape in model.expr_basis]
    return {
        "attributes": attributes,
        "indices": build.add(faces.reshape(-1), ELEMENT_ARRAY_BUFFER),
        "material": 0,
        "targets": targets,
    }


def _skinning(weights: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Joint ids [v 4] and weights [v 4] of the joints that matter.

    Raises:
        InputError: A vertex hangs on more than four joints.
    """
    if int((weights > 0).sum(1).max()) > 4:
        raise InputError("the head model hangs vertices on more than 4 joints, which the glb export does not write")
    top = weights.topk(4, 1)
    ids = torch.where(top.values > 0, top.indices, torch.zeros_like(top.indices))
    return ids.numpy().astype(np.uint8), (top.values / top.values.sum(1, keepdim=True)).numpy()


def _normals(verts: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted vertex normals [v 3]."""
    a, b, c = (verts[faces[:, i]] for i in range(3))
    face = np.cross(b - a, c - a)
    normals = np.zeros_like(verts)
    for i in range(3):
        np.add.at(normals, faces[:, i], face)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 0, normals / np.maximum(length, 1e-20), np.array((0, 0, 1))).astype(np.float32)


def _attributes(build: Builder, splats: Splats) -> dict[str, int]:
    """KHR_gaussian_splatting's attributes of splats in the export frame."""
    alpha = splats.opacities.clamp(0, 1)
    colour = (0.5 + 0.28209479177387814 * splats.sh[:, 0]).clamp(0, 1)
    fallback = torch.cat((colour, alpha[:, None]), 1).mul(255).round().byte().numpy()
    made = {
        "POSITION": build.add(splats.means.numpy(), ARRAY_BUFFER, bounds=True),
        "COLOR_0": build.add(fallback, ARRAY_BUFFER, normalized=True),
        f"{SPLATTING}:ROTATION": build.add(_xyzw(splats.quats), ARRAY_BUFFER),
        f"{SPLATTING}:SCALE": build.add(splats.scales.numpy(), ARRAY_BUFFER),
        f"{SPLATTING}:OPACITY": build.add(alpha.numpy(), ARRAY_BUFFER),
    }
    base = 0
    for degree in range(round(splats.sh.shape[1] ** 0.5)):
        for i in range(2 * degree + 1):
            values = np.ascontiguousarray(splats.sh[:, base + i].numpy())
            made[f"{SPLATTING}:SH_DEGREE_{degree}_COEF_{i}"] = build.add(values, ARRAY_BUFFER)
        base += 2 * degree + 1
    return made


def _xyzw(quats: Tensor) -> np.ndarray:
    return np.ascontiguousarray(math3d.quat_normalize(quats)[..., [1, 2, 3, 0]].numpy())


def _rig(build: Builder, avatar: Avatar, motion: Motion, compact: bool) -> dict[str, Any]:
    """The body of our extension."""
    s, model, cameras = avatar.splats, avatar.head, avatar.cameras
    faces = s.face_ids.numpy().astype(np.uint16 if len(model.faces) <= 65535 else np.uint32)
    quats = _xyzw(s.quats_tri)
    turns = build.add((quats * 32767).round().astype(np.int16), normalized=True) if compact else build.add(quats)
    rig: dict[str, Any] = {
        "version": 1,
        "mesh": 0,
        "faces": build.add(faces),
        "offsets": _scaled(build, s.means_tri[None], np.int16 if compact else None),
        "rotations": turns,
        "logScales": _scaled(build, s.log_scales[None], np.int16 if compact else None),
        "colors": build.add(np.ascontiguousarray(s.sh[:, 0].numpy())),
        "placement": math3d.mean_placement(motion.T_world_head).tolist(),
        "camera": {
            "width": cameras.width,
            "height": cameras.height,
            **{
                name: float(cameras.Ks[0][at])
                for name, at in (("fx", (0, 0)), ("fy", (1, 1)), ("cx", (0, 2)), ("cy", (1, 2)))
            },
        },
        "head": {
            **vars(model.id),
            "identity": avatar.identity.shape.tolist(),
            "landmarkFaces": build.add(model.landmark_faces.numpy().astype(np.uint32)),
            "landmarkWeights": build.add(model.landmark_bary.numpy()),
            "parts": {name: build.add(ids.numpy().astype(np.uint32)) for name, ids in model.parts.items() if len(ids)},
        },
    }
    if avatar.identity.offsets is not None:
        rig["head"]["offsets"] = build.add(avatar.identity.offsets.numpy())
    c = avatar.correctives
    if c is not None:
        kind = np.int8 if compact else None
        rig["correctives"] = {
            "limit": MAX_WEIGHT,
            "mean": c.mean.tolist(),
            "basis": c.basis.tolist(),
            "offsets": _scaled(build, c.means_delta.transpose(0, 1), kind),
            "colors": _scaled(build, c.sh_delta.transpose(0, 1), kind),
        }
    if "expression_map" in avatar.meta:
        rig["expressionMap"] = avatar.meta["expression_map"]
    return rig


def _scaled(build: Builder, values: Tensor, kind: type[np.int8] | type[np.int16] | None) -> dict[str, Any]:
    """Layers [b n 3] as one accessor of b n rows and one factor per layer; None: float32 and factors of 1."""
    array = values.numpy()
    if kind is None:
        return {"accessor": build.add(array.reshape(-1, 3)), "factors": [1.0] * len(array)}
    factors = np.abs(array).max((1, 2)).clip(1e-12)
    steps = (array / factors[:, None, None] * np.iinfo(kind).max).round().astype(kind)
    return {"accessor": build.add(steps.reshape(-1, 3), normalized=True), "factors": factors.tolist()}


def _animation(build: Builder, avatar: Avatar, motion: Motion) -> dict[str, Any]:
    """Expressions, joints and placement of every frame."""
    times = (np.arange(len(motion)) / motion.fps).astype(np.float32)
    clock = build.add(times, bounds=True)
    flip = torch.tensor(_scene.FLIP)
    back = torch.cat((math3d.quat_conj(flip), torch.zeros(3)))
    place = _scene.export_from_world(motion).expand(len(motion), 7)
    place = math3d.transform_mul(math3d.transform_mul(place, motion.T_world_head), back.expand(len(motion), 7))
    joints = motion.joints * torch.tensor((1.0, 1.0, -1.0, -1.0))  # the same turns in export axes
    outputs = [
        (MESH, "weights", motion.expr.reshape(-1).numpy()),
        (PLACEMENT, "rotation", _xyzw(place[:, :4])),
        (PLACEMENT, "translation", np.ascontiguousarray(place[:, 4:].numpy())),
        *((1 + j, "rotation", _xyzw(joints[:, j])) for j in range(len(JOINTS))),
    ]
    samplers = [{"input": clock, "output": build.add(values), "interpolation": "LINEAR"} for *_, values in outputs]
    channels = [{"sampler": i, "target": {"node": node, "path": path}} for i, (node, path, _) in enumerate(outputs)]
    return {"name": "motion", "samplers": samplers, "channels": channels}
