"""FLAME, with a model file of the user's (2020, 2023, 2023 Open), as a head of this house.

Read without smplx, whose code is for non-commercial research: all that is needed are arrays. The neck joint of FLAME
is the head joint here (its children turn with both), its jaw joint becomes part of the expressions, and these carry
ARKit's names, fitted to FLAME's own directions, so that every driver, slider and export works as on the built-in head.
FLAME's pose correctives are left out: they are small at the angles of a talking head.
Source: Li et al. 2017, Learning a model of facial shape and expression from 4D scans, eq. 1-3.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from gsth import math3d
from gsth.errors import InputError, writes
from gsth.head import HeadModel, _arkit_fit, _embed, _flame_file
from gsth.head import landmark_groups as groups
from gsth.head._flame_file import EXPRESSIONS
from gsth.head.builtin import Config as Builtin
from gsth.types import HeadId

VERSION = "1"
LICENCE = (
    "FLAME is the work of the Max Planck Institute for Intelligent Systems and licensed by it: FLAME 2020 and 2023 for "
    "non-commercial research, FLAME 2023 Open under CC BY 4.0. What you make from a track on it may fall under that "
    "licence (https://flame.is.tue.mpg.de)"
)
SHAPES = 100
"""Identity directions in use, of FLAME's 300: what the others add, importers keep as offsets."""
AXES = np.array((1.0, -1.0, -1.0))
"""FLAME's frame (y up, the face looks along +z) to the house's."""
ROOT, NECK, JAW, EYE_L, EYE_R = range(5)
"""FLAME's joints."""
JAW_TURN_RAD = 0.3
"""At which the jaw's turn becomes a direction; FLAME's jaw opens to about twice that."""
MOVED_M = 0.0005
"""Expressions are compared where some of them moves the face by more than this."""
OWN_FIELD = ("eye", "tongueOut")
"""Expressions that FLAME's directions cannot make (its lids hardly close): they keep the built-in head's movement."""


@dataclass(frozen=True)
class Config:
    """FLAME from a file of yours; once read, it is found again without its path."""

    path: Path | None = None
    """Model file, .npz or .pkl."""
    digest: str = ""
    """Which of the models read before, where there are several."""

    @classmethod
    def of(cls, head_id: HeadId) -> Config:
        """The one that data were made with."""
        return cls(digest=head_id.digest)

    def build(self) -> HeadModel:
        """Load it, with landmarks and expressions; the first time takes some seconds and needs mediapipe.

        Raises:
            InputError: No such file, or not FLAME's layout; or no path was given and no (such) model was read before.
            MissingExtraError: mediapipe is not installed and the landmarks are not known yet.
        """
        if self.path is not None:
            return _model(_prepared(self.path))
        chosen = [digest for digest in known() if self.digest in ("", digest)]
        if not chosen:
            which = f" with the digest {self.digest}" if self.digest else ""
            raise InputError(f"head flame: no FLAME model{which} was read on this machine; give --flame-path FILE")
        return _model(_folder() / f"{chosen[-1]}.npz")


def known() -> tuple[str, ...]:
    """Digests of the models that were read on this machine, the latest last."""
    return tuple(p.stem for p in sorted(_folder().glob("*.npz"), key=lambda p: p.stat().st_mtime))


def _folder() -> Path:
    """Where prepared models lie: the user's cache; they hold the licensed arrays and stay there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gsth" / "flame"


def _prepared(path: Path) -> Path:
    """The cached form of a model file, made where it is absent."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file, wanted a FLAME model (.npz or .pkl)")
    digest = hashlib.sha256(path.read_bytes() + VERSION.encode()).hexdigest()[:16]
    kept = _folder() / f"{digest}.npz"
    if not _whole(kept):
        arrays = _arrays(_flame_file.read(path), path)
        part = kept.with_suffix(f".{os.getpid()}.part")
        with writes(kept):
            kept.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            part.replace(kept)
    return kept


def _whole(kept: Path) -> bool:
    """Whether a prepared model is there, undamaged, with all that this gsth keeps of one."""
    try:
        with np.load(kept) as file:
            return "joint_regressor" in file.files  # which earlier ones did not keep
    except (OSError, ValueError, EOFError, BadZipFile):
        return False


def _arrays(raw: _flame_file.FlameArrays, path: Path) -> dict[str, np.ndarray]:
    """All that a HeadModel needs, in the house frame with the origin at the neck."""
    joints = raw.joint_regressor @ raw.template
    origin = joints[NECK]
    template = (raw.template - origin) * AXES
    balls = tuple(np.flatnonzero((raw.weights[raw.faces, j] > 0.5).all(1)) for j in (EYE_L, EYE_R))
    if min(map(len, balls)) == 0:
        raise InputError(f"{path}: no triangle follows the eye joints; wanted FLAME's skinning weights")
    marks, bary = _embed.embedding(template, raw.faces, (balls[0], balls[1]))
    own = directions(raw)
    moved = _arkit(template, (raw.faces[marks], bary))
    names = Builtin().build().expression_names
    face = np.linalg.norm(moved, axis=-1).max(0) > 1e-4
    coefficients = _arkit_fit.fitted(moved[:, face], own[:, face])
    expr = np.einsum("ed,dvc->evc", coefficients, own)
    for i, name in enumerate(names):
        if name.startswith(OWN_FIELD):
            expr[i] = moved[i]
    shape = raw.shape[:SHAPES]
    return {
        "template": template,
        "faces": raw.faces,
        "shape": shape * AXES,
        "expr": expr,
        "own": own,
        "more_shape": raw.shape[SHAPES:] * AXES,
        "origin": origin,
        "root": joints[ROOT],
        "root_basis": np.einsum("v,svc->sc", raw.joint_regressor[ROOT], shape),
        "weights": raw.weights,
        "joint_regressor": raw.joint_regressor,
        "pivots": (joints - origin) * AXES,
        "pivot_basis": np.einsum("jv,svc->sjc", raw.joint_regressor, shape) * AXES,
        "names": np.array(names),
        "landmark_faces": marks,
        "landmark_bary": bary,
    }


def directions(raw: _flame_file.FlameArrays) -> np.ndarray:
    """FLAME's 100 expressions, then the jaw's turn about x and y and z at ``JAW_TURN_RAD``, house axes, [103 v 3]."""
    joints = raw.joint_regressor @ raw.template
    turns = jaw_turned(raw.template, raw.weights[:, JAW], joints[JAW], np.eye(3) * JAW_TURN_RAD)
    return np.concatenate((raw.expr, turns)) * AXES


def jaw_turned(verts: np.ndarray, weight: np.ndarray, pivot: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Movement of vertices [t v 3] when the jaw turns by rotation vectors [t 3]; any axes, the same for all."""
    rot = math3d.quat_to_mat(math3d.rotvec_to_quat(torch.from_numpy(np.asarray(turns, np.float64)))).numpy()
    return weight[:, None] * ((verts - pivot) @ (rot - np.eye(3)).transpose(0, 2, 1))


def _arkit(template: np.ndarray, embedding: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """How the built-in head's expressions move these vertices [52 v 3]."""
    builtin = Builtin().build()
    corners, bary = embedding
    marks = (template[corners] * bary[..., None]).sum(1)
    own_marks = builtin.landmarks(builtin.template[None])[0].double().numpy()
    hidden = torch.cat([builtin.parts[p] for p in ("hair_cap", "drape", "lashes") if p in builtin.parts])
    shown = torch.ones(len(builtin.faces), dtype=torch.bool)
    shown[hidden] = False
    skin = builtin.faces[shown].unique()
    skin = skin[builtin.weights[skin, 0] < 0.5].numpy()  # the torso takes no part
    source = builtin.template[skin].double().numpy(), own_marks
    return _arkit_fit.transferred(builtin.expr_basis[:, skin].double().numpy(), source, (template, marks))


@cache
def _model(path: Path) -> HeadModel:
    arrays = _load(path)
    faces, weights = _index(arrays["faces"]), _float(arrays["weights"])
    pivots, pivot_basis = _float(arrays["pivots"]), _float(arrays["pivot_basis"])
    # root, neck, head, eyes of this house from FLAME's root, neck, jaw, eyes: its neck joint carries the whole skull
    joints = torch.tensor((NECK, NECK, NECK, EYE_L, EYE_R))
    skull = weights[:, NECK] + weights[:, JAW]
    zero = torch.zeros_like(skull)
    return HeadModel(
        id=HeadId("flame", VERSION, path.stem),
        template=_float(arrays["template"]),
        faces=faces,
        uvs=_uvs(_float(arrays["template"])),
        shape_basis=_float(arrays["shape"]),
        expr_basis=_float(arrays["expr"]),
        weights=torch.stack((weights[:, ROOT], zero, skull, weights[:, EYE_L], weights[:, EYE_R]), 1),
        pivots=pivots[joints],
        pivot_basis=pivot_basis[:, joints],
        expression_names=tuple(str(n) for n in arrays["names"]),
        parts=_parts(arrays),
        landmark_faces=_index(arrays["landmark_faces"]),
        landmark_bary=_float(arrays["landmark_bary"]),
    )


@dataclass(frozen=True, eq=False)
class OwnSpace:
    """What a FLAME head keeps of FLAME's own coefficients, for importers."""

    own: np.ndarray
    """100 expressions (and the jaw's three turns) as vertex movements, house axes, m [103 v 3]."""
    more_shape: np.ndarray
    """Identity directions beyond those in use, house axes, m [200 v 3]."""
    origin: np.ndarray
    """Where the house's origin, the mean neck, lies in FLAME's frame, m [3]."""
    root: np.ndarray
    """FLAME's root joint, about which its rotation turns, FLAME's frame, m [3]."""
    root_basis: np.ndarray
    """Shift of that for each identity coefficient in use [s 3]."""
    jaw_weight: np.ndarray
    """[v]."""
    jaw_pivot: np.ndarray
    """House frame [3]."""
    joint_regressor: np.ndarray
    """Weight of each vertex in FLAME's joints [5 v]."""
    model: HeadModel

    def arkit(self, expr: np.ndarray, jaw: np.ndarray, more: np.ndarray | None = None) -> np.ndarray:
        """FLAME's coefficients as activations [t e].

        Args:
            expr: Expressions [t up to 100].
            jaw: Rotation vectors, FLAME's axes [t 3].
            more: Movement of the vertices beyond those, house axes, m [t v 3].
        """
        basis = self.model.expr_basis.double().numpy()
        face = np.linalg.norm(basis, axis=-1).max(0) > MOVED_M
        template = self.model.template.double().numpy()[face]
        out = []
        for start in range(0, len(expr), 128):
            rows = slice(start, start + 128)
            moved = np.einsum("te,evc->tvc", expr[rows], self.own[: expr.shape[1], face])
            moved += jaw_turned(template, self.jaw_weight[face], self.jaw_pivot, jaw[rows] * AXES)
            moved += 0 if more is None else more[rows][:, face]
            out.append(_arkit_fit.activations(moved, basis[:, face]))
        return np.concatenate(out)

    def flame(self, expr: np.ndarray) -> np.ndarray:
        """Activations [t e] as FLAME's 100 expressions and three jaw turns, rad (FLAME's axes) [t 103]."""
        basis = self.model.expr_basis.double().numpy()
        face = np.linalg.norm(basis, axis=-1).max(0) > MOVED_M
        out = expr @ _arkit_fit.fitted(basis[:, face], self.own[:, face])
        out[:, EXPRESSIONS:] *= JAW_TURN_RAD
        return out


def own_space(model: HeadModel) -> OwnSpace:
    """The own coefficients of a model that ``Config`` built. InputError where an older gsth prepared it."""
    arrays = _load(_folder() / f"{model.id.digest}.npz")
    if "joint_regressor" not in arrays:
        raise InputError(f"head {model.id}: was read by an older gsth, which kept less of it; give --flame-path again")
    kept = {n: arrays[n] for n in ("own", "more_shape", "origin", "root", "root_basis", "joint_regressor")}
    return OwnSpace(**kept, jaw_weight=arrays["weights"][:, JAW], jaw_pivot=arrays["pivots"][JAW], model=model)


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} is damaged ({error}); remove it and give --flame-path again") from error


def _parts(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Regions that follow from weights and landmarks; teeth, tongue and hair FLAME does not have."""
    faces, verts, weights = arrays["faces"], arrays["template"], arrays["weights"]
    corners = verts[faces]
    middle = corners.mean(1)
    front = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2] < 0
    eye_l, eye_r = ((weights[faces, j] > 0.5).all(1) for j in (EYE_L, EYE_R))
    marks = (verts[faces[arrays["landmark_faces"]]] * arrays["landmark_bary"][..., None]).sum(1)
    neck = weights[faces, ROOT].mean(1) > 0.5
    skin = ~(eye_l | eye_r)
    face = skin & front & ~neck & _inside(middle, marks[list(groups.OVAL)])
    lips = face & _inside(middle, marks[list(groups.GROUPS["lips_outer"])])
    lips &= ~_inside(middle, marks[list(groups.GROUPS["lips_inner"])])
    brow = marks[list(groups.GROUPS["brow_l"] + groups.GROUPS["brow_r"]), 1].min()
    scalp = skin & ~face & ~neck & (middle[:, 1] < brow)
    regions = {
        "skin": skin, "face": face, "lips": lips, "scalp": scalp, "neck": neck & skin, "eye_l": eye_l, "eye_r": eye_r,
    }  # fmt: skip
    return {name: torch.from_numpy(np.flatnonzero(chosen)) for name, chosen in regions.items()}


def _inside(points: np.ndarray, contour: np.ndarray) -> np.ndarray:
    """Which points lie inside a closed contour, as the front sees it [n]: even-odd rule."""
    x, y = points[:, :1], points[:, 1:2]
    x0, y0 = contour[:, 0], contour[:, 1]
    x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
    crosses = (y0 > y) != (y1 > y)
    at = x0 + (y - y0) * (x1 - x0) / np.where(y1 == y0, 1, y1 - y0)
    return (crosses & (x < at)).sum(1) % 2 == 1


def _uvs(template: Tensor) -> Tensor:
    """Cylindrical texture coordinates: the file has none, those of FLAME lie in its texture model."""
    centred = template - template.mean(0)
    u = torch.atan2(centred[:, 0], -centred[:, 2]) / (2 * torch.pi) + 0.5
    v = (template[:, 1] - template[:, 1].min()) / (template[:, 1].max() - template[:, 1].min())
    return torch.stack((u, v), 1)


def _float(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).float()


def _index(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.int64))
