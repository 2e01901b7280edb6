"""What is exported: splats of one pose or of a whole motion, in the export frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gsth.errors import InputError
from gsth.types import Done

if TYPE_CHECKING:
    from torch import Tensor

    from gsth.avatar import Avatar
    from gsth.types import Motion, Splats

Axes = Literal["y_up", "colmap"]
FLIP = (0.0, 1.0, 0.0, 0.0)
"""Half a turn about x (wxyz): house axes (x right, y down, z forward) to export axes (y up, face to +z) and back."""


@dataclass(frozen=True)
class Pose:
    """Which pose is exported; shared by the formats that hold splats alone."""

    frame: int | None = None
    """Frame of the motion to show; without it, the rest pose."""
    motion: Path | None = None
    """Motion or Track artifact to take frames from; without it, the avatar's own clip."""


@dataclass(frozen=True)
class Still(Pose):
    """A pose in a format that can hold spherical harmonics."""

    sh_degree: int = 3
    """Highest degree of spherical harmonics that is written."""

    def __post_init__(self) -> None:
        if not 0 <= self.sh_degree <= 3:
            raise InputError(f"--sh-degree is {self.sh_degree}; it must be 0 to 3")


def motion_of(avatar: Avatar, path: Path | None) -> Motion:
    """The motion in a Motion or Track artifact, or the avatar's own.

    Raises:
        InputError: It is of another head model, or has no frames.
    """
    from gsth import artifacts
    from gsth.types import Motion, Track

    if path is None:
        motion = avatar.motion
    elif artifacts.is_kind(path, "track"):
        motion = artifacts.load(Track, path).motion
    else:
        motion = artifacts.load(Motion, path)
    if motion.head.digest != avatar.head.id.digest:
        raise InputError(
            f"{path}: the motion is for head {motion.head}, the avatar stands on {avatar.head.id}; track the clip "
            "again with that head, and do not change expressions or basis while exporting a motion from a file"
        )
    if len(motion) == 0:
        raise InputError(f"{path or 'the avatar'}: the motion has no frames")
    return motion


def export_from_world(motion: Motion) -> Tensor:
    """T_export_world [7]: the mean placement of the motion's root stands at the origin, upright, and faces +z."""
    import torch

    from gsth import math3d

    flip = torch.tensor((*FLIP, 0.0, 0.0, 0.0))
    return math3d.transform_mul(flip, math3d.transform_inverse(math3d.mean_placement(motion.T_world_head)))


def rest_motion(avatar: Avatar, motion: Motion) -> Motion:
    """One frame: no expression, no joint turned, at the mean placement of ``motion``."""
    from gsth import math3d

    e, j = motion.expr.shape[1], motion.joints.shape[1]
    return motion[0].replace(
        expr=motion.expr.new_zeros(1, e),
        joints=math3d.quat_identity(1, j),
        T_world_head=math3d.mean_placement(motion.T_world_head)[None],
        audio=None,
    )


def still(avatar: Avatar, config: Pose) -> Splats:
    """The splats of one pose, export frame.

    Raises:
        InputError: The motion has no such frame, or as ``motion_of``.
    """
    motion = motion_of(avatar, config.motion)
    if config.frame is None:
        frame = rest_motion(avatar, motion)
    elif -len(motion) <= config.frame < len(motion):
        frame = motion[config.frame]
    else:
        raise InputError(f"--frame {config.frame}: the motion has frames 0 to {len(motion) - 1}")
    splats = moved(avatar.pose(frame), export_from_world(motion))
    return cut_sh(splats, config.sh_degree if isinstance(config, Still) else 0)


def sequence(avatar: Avatar, motion: Motion, sh_degree: int = 3) -> Iterator[Splats]:
    """The splats of every frame of a motion, export frame."""
    place = export_from_world(motion)
    for i in range(len(motion)):
        yield cut_sh(moved(avatar.pose(motion[i]), place), sh_degree)


def cut_sh(splats: Splats, degree: int) -> Splats:
    """The splats without spherical harmonics above ``degree``."""
    return splats.replace(sh=splats.sh[:, : (degree + 1) ** 2])


def moved(splats: Splats, T_a_b: Tensor) -> Splats:
    """Splats of frame b in frame a, with unit quaternions; their view-dependent colour turns with them."""
    from gsth import math3d

    turn = T_a_b[:4]
    return splats.replace(
        means=math3d.transform_points(T_a_b[None], splats.means),
        quats=math3d.quat_normalize(math3d.quat_mul(turn.expand_as(splats.quats), splats.quats)),
        sh=rotate_sh(splats.sh, turn),
    )


def written(out: Path, data: bytes, splats: int) -> Done:
    """Write a file, whole or not at all; says how large it is."""
    from gsth import media

    with media.whole_file(out) as part:
        part.write_bytes(data)
    return Done(out, {"splats": float(splats), "megabytes": len(data) / 1e6})


def to_axes(splats: Splats, axes: Axes) -> Splats:
    """Splats of the export frame in the axes that a file is asked for; its own inverse."""
    import torch

    return splats if axes == "y_up" else moved(splats, torch.tensor((*FLIP, 0.0, 0.0, 0.0)))


def rotate_sh(sh: Tensor, quat: Tensor) -> Tensor:
    """Coefficients [n k 3] of the same colours after the scene was turned by ``quat`` [4].

    Rotations map each degree onto itself, so the matrix follows exactly from the bases' values in enough directions.
    """
    import torch

    from gsth import math3d
    from gsth.render import torch_ref

    k = sh.shape[1]
    if k == 1:
        return sh
    directions = torch.randn(4 * k, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turned = math3d.quat_rotate(quat.double().expand(len(directions), 4), directions)

    def bases(d: Tensor) -> Tensor:
        """[d k]"""
        unit = torch.eye(k, dtype=torch.float64)[:, :, None].expand(k, k, 3)
        return torch.stack([torch_ref.sh_colors(one.expand(len(d), k, 3), d)[:, 0] for one in unit], 1)

    matrix = torch.linalg.lstsq(bases(turned), bases(directions)).solution
    return torch.einsum("ij,njc->nic", matrix.to(sh.dtype), sh)


def check(avatar: Avatar) -> None:
    """Look at an avatar that came out of a file: each of its numbers may be fine, what they make together need not be.

    Raises:
        ValueError: It could not be drawn, or not be saved.
    """
    import torch

    from gsth.avatar._avatar import MAX_FPS, MAX_SIDE_PX

    size, fps = (avatar.cameras.width, avatar.cameras.height), avatar.motion.fps
    if not all(isinstance(side, int) and 1 <= side <= MAX_SIDE_PX for side in size):
        raise ValueError(f"its camera has {size[0]} x {size[1]} px; want 1 to {MAX_SIDE_PX}")
    if not isinstance(fps, (int, float)) or not 0 < fps <= MAX_FPS:
        raise ValueError(f"its motion has {fps} frames/s; want up to {MAX_FPS}")
    posed = avatar.pose(avatar.motion[0])
    known = {**vars(posed), **{n: getattr(avatar.motion, n) for n in ("expr", "joints", "T_world_head")}}
    known |= {"K": avatar.cameras.Ks, "shape": avatar.identity.shape}
    if wild := [name for name, value in known.items() if not bool(torch.isfinite(value).all())]:
        raise ValueError(f"its {wild[0]} do not stay finite when posed")
