"""GaussianAvatars' own files, for avatars on FLAME: ``point_cloud.ply`` and ``flame_param.npz``, out and in.

Their triangle frames are the house's (first edge, normal; size from edge and height) in FLAME's axes. Half a turn about
x leads from those to the house's and turns triangles and splats alike, so what lies in a triangle's frame stays as it
is; only view-dependent colour, which is of the world, turns. Their world is the export frame of this room.
The skull is placed exactly, by joints as FLAME regresses them from the moved mesh. Three things differ: FLAME's pose
correctives, which gsth leaves out; what FLAME's directions cannot make of an expression (``dynamic_offset`` holds it,
their viewer does not apply that); and the teeth that they add to FLAME, whose splats are left out when read.
Source: Qian et al. 2024, GaussianAvatars: Photorealistic Head Avatars with Rigged 3D Gaussians; the layout is that of
https://github.com/ShenhanQian/GaussianAvatars, scene/gaussian_model.py and scene/flame_gaussian_model.py.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsth.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from gsth.avatar import Avatar
    from gsth.head import HeadModel
    from gsth.head.flame import OwnSpace
    from gsth.types import Event, HeadId, Identity, Motion, RiggedSplats

KIND = "gaussianavatars"
PLY, PARAMETERS = "point_cloud.ply", "flame_param.npz"
SH_BASES = 16
"""Their reader takes degree 3 and nothing else."""
TEETH_VERTICES, TEETH_FACES = 120, 168
"""What they append to FLAME."""
FPS = 25.0
"""Their files name no rate; NeRSemble's processed sequences run at about this one."""
PER_FRAME = {"expr": -1, "rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6, "translation": 3}
SIZE_PX, AWAY_M, FILLED = 512, 1.0, 0.8
"""Camera of an avatar that is read: the head fills so much of the picture's height, so far away."""


@dataclass(frozen=True)
class Config:
    """A folder for GaussianAvatars' viewers and training: point_cloud.ply and flame_param.npz. For avatars on FLAME."""

    motion: Path | None = None
    """Motion or Track artifact to write; without it, the avatar's own clip."""
    flame_path: Path | None = None
    """FLAME model file that the avatar stands on, where it was not read on this machine before."""

    def build(self) -> GaussianAvatarsExporter:
        """The exporter of these settings."""
        return GaussianAvatarsExporter(self)


class GaussianAvatarsExporter:
    """Writes GaussianAvatars' folders."""

    def __init__(self, config: Config) -> None:
        """Take the settings."""
        self._config = config

    def write(self, avatar: Avatar, out: Path) -> Iterator[Event]:
        """A folder that is whole or absent. InputError where the avatar stands on another head than FLAME."""
        import numpy as np

        from gsth import artifacts
        from gsth.export import _ply, _scene
        from gsth.head import flame
        from gsth.types import Done, Notice

        motion = _scene.motion_of(avatar, self._config.motion)
        space = _space_of(avatar.head.id, self._config.flame_path)
        yield Notice(flame.LICENCE)
        if avatar.correctives is not None or avatar.field is not None:
            yield Notice(f"{out}: GaussianAvatars knows neither correctives nor a voice field; they are left out")
        with artifacts.writing(out, KIND, {"head": vars(avatar.head.id), "fps": motion.fps}) as folder:
            (folder / PLY).write_bytes(_ply.to_bytes(_columns(avatar.splats, _scene.export_from_world(motion)[:4])))
            with (folder / PARAMETERS).open("wb") as file:
                np.savez(file, allow_pickle=False, **_parameters(avatar, motion, space))
        yield Done(out, {"splats": float(len(avatar.splats.face_ids)), "frames": float(len(motion))})


def found(folder: Path) -> bool:
    """Whether a folder is one of theirs."""
    return (folder / PLY).is_file() and (folder / PARAMETERS).is_file()


def read(folder: Path, flame_path: Path | None) -> Generator[Event, None, Avatar]:
    """The avatar of such a folder, theirs or ours, on the FLAME model in use.

    Raises:
        InputError: A file is damaged, does not fit the other or the FLAME model, or no FLAME model is known.
    """
    from gsth import head
    from gsth.export import _import, _ply, _scene
    from gsth.head import flame
    from gsth.types import Notice

    model = head.load("flame") if flame_path is None else flame.Config(path=flame_path).build()
    yield Notice(flame.LICENCE)
    path = folder / PLY
    columns = _ply.from_bytes(_import.limited_bytes(path), path)
    splats, teeth = _splats(columns, path, len(model.faces))
    if teeth:
        yield Notice(f"{path}: {teeth} splats are on the teeth that GaussianAvatars adds to FLAME; they are left out")
    given = parameters(folder / PARAMETERS, len(model.template))
    yield Notice(f"{folder}: names no frame rate; {FPS:g}/s is taken")
    made = _avatar(model, splats, given, path)
    try:
        _scene.check(made)
    except ValueError as error:
        raise InputError(f"{folder}: makes no whole avatar ({error}); copy it again") from error
    return made


def parameters(path: Path, vertices: int) -> dict[str, np.ndarray]:
    """What a flame_param.npz holds, float64: ``PER_FRAME``, shape [300], static_offset [v 3], dynamic_offset [t v 3].

    Args:
        path: The file.
        vertices: How many FLAME has; those beyond, which are teeth, are left out.

    Raises:
        InputError: It is damaged, lacks something, or is of another mesh.
    """
    import numpy as np

    from gsth.head import restricted
    from gsth.head._flame_file import EXPRESSIONS, SHAPES

    given = restricted.unpacked(path)
    wanted = ("shape", *PER_FRAME, "static_offset")
    if missing := [n for n in wanted if n not in given]:
        raise InputError(f"{path}: has no {', '.join(missing)}; wanted flame_param.npz as GaussianAvatars writes it")
    names = [*wanted, *(n for n in ("dynamic_offset",) if n in given)]
    if wild := [n for n in names if given[n].dtype.kind not in "fiu" or not np.isfinite(given[n]).all()]:
        raise InputError(f"{path}: {wild[0]} holds values that are not finite numbers; copy the file again")
    out = {n: given[n].astype(np.float64) for n in names}
    frames = len(out["expr"]) if out["expr"].ndim == 2 else 0
    shape = out["shape"].reshape(-1)
    for name, size in PER_FRAME.items():
        ok = out[name].ndim == 2 and len(out[name]) == frames > 0 and size in (-1, out[name].shape[1])
        if not ok or len(shape) > SHAPES or out["expr"].shape[1] > EXPRESSIONS:
            raise InputError(
                f"{path}: {name} is {list(out[name].shape)}, wanted one row of {size if size > 0 else EXPRESSIONS} for "
                f"each of {frames} frames (shape: up to {SHAPES} numbers, here {len(shape)})"
            )
    for name, rows in {"static_offset": 1, "dynamic_offset": frames}.items():
        full = out.get(name, np.zeros((rows, vertices, 3)))
        full = full[None] if full.ndim == 2 else full
        if full.ndim != 3 or full.shape[0] != rows or full.shape[2] != 3 or full.shape[1] < vertices:
            raise InputError(
                f"{path}: {name} is {list(full.shape)}, wanted [{rows}, {vertices} or more, 3]: other FLAME?"
            )
        out[name] = full[:, :vertices]
    out["shape"] = np.pad(shape, (0, SHAPES - len(shape)))
    out["expr"] = np.pad(out["expr"], ((0, 0), (0, EXPRESSIONS - out["expr"].shape[1])))
    return out | {"static_offset": out["static_offset"][0]}


# ---------------------------------------------------------------------------------------------- writing


def _space_of(head_id: HeadId, flame_path: Path | None) -> OwnSpace:
    """FLAME's own coefficients of the head that data stand on."""
    from gsth.head import flame

    if head_id.name != "flame":
        raise InputError(
            f"the avatar stands on head {head_id}, GaussianAvatars knows FLAME only; track its clip with --head flame "
            "--flame-path FILE and train again"
        )
    config = flame.Config(digest=head_id.digest) if flame_path is None else flame.Config(path=flame_path)
    model = config.build()
    if model.id != head_id:
        raise InputError(
            f"{flame_path}: is head {model.id}, the avatar stands on {head_id}; give the model it was made on"
        )
    return flame.own_space(model)


def _columns(splats: RiggedSplats, turn: Tensor) -> dict[str, np.ndarray]:
    """Their ply's properties; ``turn`` [4] leads from our world to theirs."""
    import torch

    from gsth import math3d
    from gsth.export import _ply, _scene

    sh = _scene.rotate_sh(splats.sh, turn)
    sh = torch.cat((sh, sh.new_zeros(len(sh), SH_BASES - sh.shape[1], 3)), 1)
    quats = math3d.quat_normalize(splats.quats_tri)
    columns = _ply.raw_columns(splats.means_tri, quats, splats.log_scales, splats.logit_opacities, sh)
    return columns | {"binding_0": splats.face_ids.numpy().astype("float32")}


def _parameters(avatar: Avatar, motion: Motion, space: OwnSpace) -> dict[str, np.ndarray]:
    """The arrays of flame_param.npz, float32."""
    import numpy as np
    import torch

    from gsth import math3d
    from gsth.export import _scene
    from gsth.head import PARENTS, _lbs, flame
    from gsth.head._flame_file import EXPRESSIONS

    known = avatar.identity.shape.double().numpy()
    shape = np.concatenate((known, np.zeros(len(space.more_shape))))
    offsets = avatar.identity.offsets
    static = np.zeros_like(space.own[0]) if offsets is None else offsets.double().numpy() * flame.AXES
    codes = space.flame(motion.expr.double().numpy())
    expr, jaw = codes[:, :EXPRESSIONS], codes[:, EXPRESSIONS:]

    export = _scene.export_from_world(motion).double()
    turn = torch.tensor(_scene.FLIP, dtype=torch.float64)
    joints, place = motion.joints.double(), motion.T_world_head.double()
    pivots = avatar.shaped.pivots.double()
    rot, centres = _lbs.joint_frames(pivots, PARENTS, joints, place)
    root = math3d.quat_mul(math3d.quat_mul(export[:4].expand_as(place[:, :4]), place[:, :4]), joints[:, 0])
    rotation = math3d.quat_to_rotvec(math3d.quat_mul(root, turn.expand_as(root)))
    neck = math3d.quat_to_rotvec(math3d.quat_mul(joints[:, 1], joints[:, 2])) * torch.tensor(flame.AXES)
    eyes = math3d.quat_to_rotvec(joints[:, 3:]) * torch.tensor(flame.AXES)

    # the neck's joint, where FLAME has it, goes where our skull has it
    theirs = _joints(space, shape, static, expr)
    at = (theirs[:, flame.NECK] - torch.from_numpy(space.origin)) * torch.tensor(flame.AXES)
    skull = (rot[:, 2] @ (at - pivots[2])[..., None])[..., 0] + centres[:, 2]
    goal = math3d.transform_points(export[None], skull)
    arm = math3d.quat_rotate(math3d.rotvec_to_quat(rotation), theirs[:, flame.NECK] - theirs[:, flame.ROOT])
    made = {
        "shape": shape,
        "expr": expr,
        "rotation": rotation.numpy(),
        "neck_pose": neck.numpy(),
        "jaw_pose": jaw,
        "eyes_pose": eyes.flatten(1).numpy(),
        "translation": (goal - arm - theirs[:, flame.ROOT]).numpy(),
        "static_offset": np.pad(static, ((0, TEETH_VERTICES), (0, 0)))[None],
        "dynamic_offset": np.pad(_rest_of(motion.expr, codes, space), ((0, 0), (0, TEETH_VERTICES), (0, 0))),
    }
    return {name: np.asarray(value, np.float32) for name, value in made.items()}


def _joints(space: OwnSpace, shape: np.ndarray, static: np.ndarray, expr: np.ndarray) -> Tensor:
    """FLAME's joints of every frame as its code finds them: from the mesh after shape, offsets and expression.

    Args:
        space: FLAME's own coefficients.
        shape: [300].
        static: Offsets of the vertices, FLAME's axes [v 3].
        expr: [t 100].

    Returns:
        FLAME's frame, m [t 5 3].
    """
    import numpy as np
    import torch

    from gsth.head import flame

    model, count = space.model, len(space.model.shape_basis)
    rest = model.template.double().numpy() + np.einsum("s,svc->vc", shape[:count], model.shape_basis.double().numpy())
    rest = rest + np.einsum("s,svc->vc", shape[count:], space.more_shape)
    moves = np.einsum("jv,evc->ejc", space.joint_regressor, space.own[: expr.shape[1]]) * flame.AXES
    base = space.joint_regressor @ (rest * flame.AXES + space.origin + static)
    return torch.from_numpy(base + np.einsum("te,ejc->tjc", expr, moves))


def _rest_of(expr: Tensor, codes: np.ndarray, space: OwnSpace) -> np.ndarray:
    """What FLAME's directions do not make of the expressions [t e]: movement of the vertices, FLAME's axes [t v 3]."""
    import numpy as np

    from gsth.head import flame
    from gsth.head._flame_file import EXPRESSIONS

    basis, template = space.model.expr_basis.double().numpy(), space.model.template.double().numpy()
    out = np.empty((len(codes), *template.shape), np.float32)
    for i, (weights, code) in enumerate(zip(expr.double().numpy(), codes, strict=True)):
        made = np.einsum("e,evc->vc", code[:EXPRESSIONS], space.own[:EXPRESSIONS])
        jaw = code[None, EXPRESSIONS:] * flame.AXES
        made = made + flame.jaw_turned(template, space.jaw_weight, space.jaw_pivot, jaw)[0]
        out[i] = (np.einsum("e,evc->vc", weights, basis) - made) * flame.AXES
    return out


# ---------------------------------------------------------------------------------------------- reading


def _splats(columns: Mapping[str, np.ndarray], path: Path, faces: int) -> tuple[RiggedSplats, int]:
    """The splats on FLAME's own triangles, and how many are on teeth."""
    import torch

    from gsth.export import _ply, _scene
    from gsth.types import RiggedSplats

    if "binding_0" not in columns:
        raise InputError(f"{path}: has no binding_0, so it is no ply of GaussianAvatars; import the file by itself")
    bound = columns["binding_0"].astype("float64")
    if not ((bound >= 0) & (bound < faces + TEETH_FACES) & (bound % 1 == 0)).all():
        raise InputError(f"{path}: binding_0 names triangles that FLAME, which has {faces}, and its teeth do not have")
    raw = {name: torch.from_numpy(value) for name, value in _ply.raw_tensors(columns, path).items()}
    kept = torch.from_numpy(bound < faces)
    if not bool(kept.any()) or float(raw["quats"].norm(dim=1).min()) < 1e-6:
        raise InputError(f"{path}: holds no splats on FLAME, or rotations of length 0; copy it again")
    sh = raw["sh"]
    for degree in (2, 1, 0):
        below = (degree + 1) ** 2
        if sh.shape[1] > below and not bool(sh[:, below:].any()):
            sh = sh[:, :below]
    sh = _scene.rotate_sh(sh, torch.tensor(_scene.FLIP))
    splats = RiggedSplats(
        face_ids=torch.from_numpy(bound).long()[kept],
        means_tri=raw["means"][kept],
        quats_tri=raw["quats"][kept],
        log_scales=raw["log_scales"][kept].clamp(-20, 10),
        logit_opacities=raw["logit_opacities"][kept],
        sh=sh[kept],
    )
    return splats, int((~kept).sum())


def _avatar(model: HeadModel, splats: RiggedSplats, given: Mapping[str, np.ndarray], path: Path) -> Avatar:
    """The avatar before a camera that shows the head's first frame."""
    from dataclasses import asdict

    import torch

    from gsth import artifacts, provenance
    from gsth.avatar import Avatar, Source
    from gsth.head import flame
    from gsth.types import Cameras, Identity

    space, count = flame.own_space(model), len(model.shape_basis)
    offsets = (given["shape"][count:, None, None] * space.more_shape).sum(0) + given["static_offset"] * flame.AXES
    shape = torch.from_numpy(given["shape"][:count]).float()
    identity = Identity(model.id, shape, torch.from_numpy(offsets).float())
    motion = _motion(model, identity, given, space)
    first = model.shaped(identity).posed(motion[0]).verts[0]
    low, high = first.amin(0), first.amax(0)
    shift = torch.tensor((0.0, 0.0, AWAY_M)) - (low + high) / 2
    motion = motion.replace(T_world_head=motion.T_world_head + torch.cat((torch.zeros(4), shift)))
    focal = FILLED * SIZE_PX * AWAY_M / max(float((high - low)[1]), 1e-6)
    K = torch.tensor(((focal, 0.0, SIZE_PX / 2), (0.0, focal, SIZE_PX / 2), (0.0, 0.0, 1.0)))
    frames = len(motion)
    source = Source(
        clip_path=path.absolute(),
        sha256=artifacts.sha256(path),
        fps=FPS,
        crop_px=(0, 0, SIZE_PX, SIZE_PX),
        train_frames=frames,
        frame_ids=torch.arange(frames),
        found=torch.ones(frames, dtype=torch.bool),
        error_pct=torch.zeros(frames),
    )
    meta: dict[str, Any] = {"licences": [asdict(part) for part in provenance.licences_of("flame", False)]}
    cameras = Cameras(torch.eye(4)[None], K[None], SIZE_PX, SIZE_PX)
    return Avatar(model, identity, splats, cameras, motion, source, meta=meta)


def _motion(model: HeadModel, identity: Identity, given: Mapping[str, np.ndarray], space: OwnSpace) -> Motion:
    """Their motion as ours, in their world turned to the house's axes."""
    import torch

    from gsth import math3d
    from gsth.head import flame
    from gsth.types import Motion

    axes = torch.from_numpy(flame.AXES)

    def turned(rotvecs: np.ndarray) -> Tensor:
        return math3d.rotvec_to_quat(torch.from_numpy(rotvecs) * axes)

    frames = len(given["expr"])
    joints = math3d.quat_identity(frames, 5).double()
    eyes = given["eyes_pose"].reshape(frames, 2, 3)
    joints[:, 2], joints[:, 3], joints[:, 4] = turned(given["neck_pose"]), turned(eyes[:, 0]), turned(eyes[:, 1])
    theirs = _joints(space, given["shape"], given["static_offset"], given["expr"])
    neck, root = theirs[:, flame.NECK], theirs[:, flame.ROOT]
    spin = math3d.rotvec_to_quat(torch.from_numpy(given["rotation"]))
    goal = (math3d.quat_rotate(spin, neck - root) + root + torch.from_numpy(given["translation"])) * axes
    pivot = model.shaped(identity).pivots[2].double()
    rotation = turned(given["rotation"])
    at = (neck - torch.from_numpy(space.origin)) * axes - pivot
    shift = goal - math3d.quat_rotate(rotation, math3d.quat_rotate(joints[:, 2], at) + pivot)
    return Motion(
        head=model.id,
        fps=FPS,
        expr=torch.from_numpy(
            space.arkit(given["expr"], given["jaw_pose"], given["dynamic_offset"] * flame.AXES)
        ).float(),
        joints=joints.float(),
        T_world_head=torch.cat((rotation, shift), 1).float(),
    )
