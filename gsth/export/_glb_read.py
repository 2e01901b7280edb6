"""An avatar from a .glb that ``gsth export glb`` wrote. Nothing in the file is trusted."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsth import head as heads
from gsth import math3d
from gsth.avatar import Avatar, Correctives, Source
from gsth.errors import ArtifactError, InputError
from gsth.export import _scene
from gsth.export._glb_write import EXTENSION, MESH, PLACEMENT, SPLATTING
from gsth.export._gltf import Document
from gsth.head import JOINTS, PARENTS, HeadModel, _embedded
from gsth.types import Cameras, HeadId, Identity, Motion, RiggedSplats

_DAMAGE = (ArtifactError, AttributeError, KeyError, TypeError, ValueError, IndexError, OverflowError, RuntimeError)
"""What a document of another shape than expected leads to; checks of single values say more."""
_FLIP = torch.tensor((1.0, -1.0, -1.0))


def from_bytes(data: bytes, path: Path) -> Avatar:
    """The avatar of a file; ``path`` names it in errors and in its source.

    Raises:
        InputError: It is no such file, damaged, or of a newer version.
    """
    doc = Document(data, path)
    try:
        avatar = _avatar(doc, path, hashlib.sha256(data).hexdigest())
        _scene.check(avatar)
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"{path}: does not hold a whole avatar ({error}); export it again") from error
    return avatar


def _avatar(doc: Document, path: Path, sha256: str) -> Avatar:
    points, rig = _rig(doc)
    names = doc.get("meshes", 0, "extras", "targetNames")
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise InputError(f"{path}: its expressions have no names; export it again")
    model, identity = _head(doc, rig, tuple(names))
    placement = _floats(rig["placement"], 7)
    if abs(float(placement[:4].norm()) - 1) > 1e-3:
        raise InputError(f"{path}: its placement holds no unit quaternion; export it again")
    motion = _motion(doc, model, placement)
    splats = _splats(doc, points, rig, len(model.faces), placement)
    camera = rig["camera"]
    width, height = int(camera["width"]), int(camera["height"])
    fx, fy, cx, cy = _floats([camera[k] for k in ("fx", "fy", "cx", "cy")], 4).tolist()
    K = torch.tensor(((fx, 0.0, cx), (0.0, fy, cy), (0.0, 0.0, 1.0)))
    frames = len(motion)
    meta = dict(doc.json["asset"].get("extras", {}).get("gsth", {}))
    if "expressionMap" in rig:
        given, rows = rig["expressionMap"]["names"], rig["expressionMap"]["matrix"]
        matrix = [_floats(row, len(names)).tolist() for row in rows]
        meta["expression_map"] = {"names": [str(n) for n in given], "matrix": matrix}
    return Avatar(
        head=model,
        identity=identity,
        splats=splats,
        cameras=Cameras(torch.eye(4)[None], K[None], width, height),
        motion=motion,
        source=Source(
            clip_path=path.absolute(),
            sha256=sha256,
            fps=motion.fps,
            crop_px=(0, 0, width, height),
            train_frames=frames,
            frame_ids=torch.arange(frames),
            found=torch.ones(frames, dtype=torch.bool),
            error_pct=torch.zeros(frames),
        ),
        correctives=_correctives(doc, rig, splats, motion),
        meta=meta,
    )


def _rig(doc: Document) -> tuple[dict[str, Any], dict[str, Any]]:
    """The primitive of the splats, and the body of our extension."""
    points = doc.get("meshes", 1, "primitives", 0)
    rig = doc.get("meshes", 1, "primitives", 0, "extensions", SPLATTING, "extensions", EXTENSION)
    if not isinstance(rig, dict) or rig.get("version") != 1:
        raise InputError(f"{doc.name}: its {EXTENSION} is not of version 1; update gsth")
    return points, rig


def _floats(values: Any, count: int) -> Tensor:
    made = torch.tensor([float(v) for v in values])
    if len(made) != count or not bool(torch.isfinite(made).all()):
        raise ValueError(f"{count} finite numbers were wanted, found {values!r:.80}")
    return made


def _tensor(doc: Document, accessor: Any, *shape: int) -> Tensor:
    """A float accessor of the given shape; -1 takes any length."""
    made = torch.from_numpy(doc.array(accessor).astype(np.float32))
    if made.dim() != len(shape) or any(w not in (-1, s) for w, s in zip(shape, made.shape, strict=True)):
        raise ValueError(f"accessor {accessor} is {list(made.shape)}, wanted {list(shape)}")
    return made


def _ids(doc: Document, accessor: Any, end: int) -> Tensor:
    """An accessor of indices below ``end``, int64 [n]."""
    made = doc.array(accessor)
    if made.dtype.kind != "u" or made.ndim != 1 or (len(made) and int(made.max()) >= end):
        raise ValueError(f"accessor {accessor} does not hold indices below {end}")
    return torch.from_numpy(made.astype(np.int64))


def _head(doc: Document, rig: dict[str, Any], names: tuple[str, ...]) -> tuple[HeadModel, Identity]:
    """The installed head that the file names, else the one that it brings."""
    about = rig["head"]
    head_id = HeadId(str(about["name"]), str(about["version"]), str(about["digest"]))
    coefficients = _floats(about["identity"], len(about["identity"]))
    if heads.installed(head_id):
        model = heads.load(head_id)
        if len(coefficients) != len(model.shape_basis) or names != model.expression_names:
            raise InputError(f"{doc.name}: its identity does not fit head {head_id}; export it again")
        offsets = _tensor(doc, about["offsets"], len(model.template), 3) if "offsets" in about else None
        return model, Identity(head_id, coefficients, offsets)
    return _brought(doc, about, head_id, names), Identity(head_id, torch.zeros(0))


def _brought(doc: Document, about: dict[str, Any], head_id: HeadId, names: tuple[str, ...]) -> HeadModel:
    surface = doc.get("meshes", 0, "primitives", 0)
    attributes = surface["attributes"]
    verts = _tensor(doc, attributes["POSITION"], -1, 3) * _FLIP
    v = len(verts)
    faces = _ids(doc, surface["indices"], v).reshape(-1, 3)
    joints = torch.from_numpy(doc.array(attributes["JOINTS_0"]).astype(np.int64))
    weights = torch.zeros(v, len(JOINTS)).scatter_add(1, joints, _tensor(doc, attributes["WEIGHTS_0"], v, 4))
    targets = [_tensor(doc, target["POSITION"], v, 3) * _FLIP for target in surface["targets"]]
    if len(targets) != len(names):
        raise ValueError(f"{len(targets)} morph targets for {len(names)} names")
    pivots: list[Tensor] = []
    for j, parent in enumerate(PARENTS):
        at = _floats(doc.get("nodes", 1 + j, "translation"), 3) * _FLIP
        pivots.append(at if parent < 0 else pivots[parent] + at)
    lengths = {name: _ids(doc, accessor, len(faces)) for name, accessor in about.get("parts", {}).items()}
    arrays = {
        "template": verts,
        "faces": faces,
        "uvs": _tensor(doc, attributes["TEXCOORD_0"], v, 2),
        "shape_basis": torch.zeros(0, v, 3),
        "expr_basis": torch.stack(targets) if targets else torch.zeros(0, v, 3),
        "weights": weights,
        "pivots": torch.stack(pivots),
        "pivot_basis": torch.zeros(0, len(JOINTS), 3),
        "landmark_faces": _ids(doc, about["landmarkFaces"], len(faces)),
        "landmark_bary": _tensor(doc, about["landmarkWeights"], -1, 3),
        **{f"parts.{name}": ids for name, ids in lengths.items()},
    }
    return _embedded.from_arrays(head_id, names, arrays)


def _motion(doc: Document, model: HeadModel, placement: Tensor) -> Motion:
    """The baked animation, back in the house frame."""
    tracks: dict[tuple[int, str], np.ndarray] = {}
    times = np.zeros(0, np.float32)
    for i, channel in enumerate(doc.get("animations", 0, "channels")):
        sampler = doc.get("animations", 0, "samplers", doc.number("animations", 0, "channels", i, "sampler"))
        times = doc.array(sampler["input"])
        tracks[channel["target"]["node"], channel["target"]["path"]] = doc.array(sampler["output"])
    t, e = len(times), len(model.expression_names)
    step = float(times[-1] - times[0]) / (t - 1) if t > 1 else 0.04
    if t == 0 or not 1e-3 < step < 10:
        raise ValueError(f"an animation of {t} frames, {step} s apart")

    def turns(node: int) -> Tensor:
        return math3d.quat_normalize(torch.from_numpy(tracks[node, "rotation"]).float().reshape(t, 4)[:, [3, 0, 1, 2]])

    mirror = torch.tensor((1.0, 1.0, -1.0, -1.0))
    joints = torch.stack([turns(1 + j) * mirror for j in range(len(JOINTS))], 1)
    # placement node = F inv(mean) T F^-1, so T = mean F^-1 node F
    moved = torch.from_numpy(tracks[PLACEMENT, "translation"]).float().reshape(t, 3)
    relative = torch.cat((turns(PLACEMENT) * mirror, moved * _FLIP), 1)
    return Motion(
        head=model.id,
        fps=round(1 / step, 4),
        expr=torch.from_numpy(tracks[MESH, "weights"]).float().reshape(t, e),
        joints=joints,
        T_world_head=math3d.transform_mul(placement.expand(t, 7), relative),
    )


def _splats(doc: Document, points: dict[str, Any], rig: dict[str, Any], faces: int, placement: Tensor) -> RiggedSplats:
    attributes = points["attributes"]
    face_ids = _ids(doc, rig["faces"], faces)
    n = len(face_ids)
    higher = [
        _tensor(doc, attributes[name], n, 3)
        for degree in (1, 2, 3)
        for i in range(2 * degree + 1)
        if (name := f"{SPLATTING}:SH_DEGREE_{degree}_COEF_{i}") in attributes
    ]
    sh = torch.stack((_tensor(doc, rig["colors"], n, 3), *higher), 1)
    if sh.shape[1] not in (1, 4, 9, 16):
        raise ValueError(f"{sh.shape[1]} SH coefficients, wanted 1, 4, 9 or 16")
    to_world = math3d.quat_mul(placement[:4], math3d.quat_conj(torch.tensor(_scene.FLIP)))
    quats = _tensor(doc, rig["rotations"], n, 4)[:, [3, 0, 1, 2]]
    if n == 0 or float(quats.norm(dim=1).min()) < 0.5:
        raise ValueError("no splats, or rotations that are not unit quaternions")
    return RiggedSplats(
        face_ids=face_ids,
        means_tri=_layers(doc, rig["offsets"], 1, n)[0],
        quats_tri=math3d.quat_normalize(quats),
        log_scales=_layers(doc, rig["logScales"], 1, n)[0],
        logit_opacities=torch.logit(_tensor(doc, attributes[f"{SPLATTING}:OPACITY"], n).clamp(1e-6, 1 - 1e-6)),
        sh=_scene.rotate_sh(sh, to_world),
    )


def _layers(doc: Document, made: dict[str, Any], b: int, n: int) -> Tensor:
    """[b n 3]"""
    return _tensor(doc, made["accessor"], b * n, 3).reshape(b, n, 3) * _floats(made["factors"], b)[:, None, None]


def _correctives(doc: Document, rig: dict[str, Any], splats: RiggedSplats, motion: Motion) -> Correctives | None:
    if "correctives" not in rig:
        return None
    made, n = rig["correctives"], len(splats.face_ids)
    features = motion.expr.shape[1] + 9
    b = len(made["basis"])
    return Correctives(
        mean=_floats(made["mean"], features),
        basis=torch.stack([_floats(row, features) for row in made["basis"]]),
        means_delta=_layers(doc, made["offsets"], b, n).transpose(0, 1).contiguous(),
        sh_delta=_layers(doc, made["colors"], b, n).transpose(0, 1).contiguous(),
    )
