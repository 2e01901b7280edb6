"""The coins: what passes between rooms. Frozen, shape-checked, and they compute nothing.

House frame: OpenCV camera axes (x right, y down, z forward), metres, seconds, radians. Quaternions are wxyz.
``T_a_b`` is [..., 7] (wxyz, then xyz) and maps points of frame b into frame a. Images are [h, w, 3] float, 0 to 1.
Pixel (column i, row j) covers [i, i + 1) x [j, j + 1); its centre is at (i + 0.5, j + 0.5).
Letters in shapes: n splats, c cameras, t frames, v vertices, f faces, e expressions, j joints, s identity
coefficients, k SH bases, l landmarks, d audio features. One letter stands for one size within a coin.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gsth.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

C = TypeVar("C", bound="Coin")


def dims(spec: str) -> Any:
    """A dataclass field that holds an array of the given shape (letters name sizes, digits are literal)."""
    return field(metadata={"dims": spec.split()})


def maybe_dims(spec: str) -> Any:
    """Like ``dims``, but None is allowed and is the default."""
    return field(default=None, metadata={"dims": spec.split()})


@dataclass(frozen=True, eq=False)
class Coin:
    """Checks the shapes that the fields declare; a mismatch names field, found and wanted shape."""

    def __post_init__(self) -> None:
        sizes: dict[str, tuple[int, str]] = {}
        for f in dataclasses.fields(self):
            spec, value = f.metadata.get("dims"), getattr(self, f.name)
            if spec is None or value is None:
                continue
            shape = tuple(value.shape)
            bad = len(shape) != len(spec)
            for name, size in zip(spec, shape, strict=False):
                known = int(name) if name.isdigit() else sizes.setdefault(name, (size, f.name))[0]
                bad = bad or known != size
            if bad:
                want = ", ".join(f"{n}={sizes[n][0]} (from {sizes[n][1]})" if n in sizes else n for n in spec)
                raise InputError(f"{type(self).__name__}.{f.name}: want shape [{want}], got {list(shape)}")

    def replace(self: C, **changes: Any) -> C:
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)

    def to(self: C, device: Any) -> C:
        """A copy whose tensors are on ``device``."""
        moved = {
            f.name: v.to(device)
            for f in dataclasses.fields(self)
            if hasattr(v := getattr(self, f.name), "to") and not isinstance(v, (str, Path))
        }
        return self.replace(**moved)


@dataclass(frozen=True)
class HeadId:
    """Which head model a Motion, Identity or avatar belongs to."""

    name: str
    version: str
    digest: str
    """Hash over topology and bases: equal digests mean that coefficients are interchangeable."""

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.digest[:8]})"


@dataclass(frozen=True)
class Clip:
    """A video file as it presents itself: after its rotation flag, at a constant frame rate."""

    path: Path
    fps: float
    frames: int
    width: int
    height: int
    wav: Path | None
    """The file that holds its sound (often the clip itself), or None."""

    @property
    def seconds(self) -> float:
        """How long it plays."""
        return self.frames / self.fps


@dataclass(frozen=True, eq=False)
class Identity(Coin):
    """Who it is: coefficients of a head model, and what its basis cannot say."""

    head: HeadId
    shape: Tensor = dims("s")
    """Coefficients; the prior of each is the standard normal distribution."""
    offsets: Tensor | None = maybe_dims("v 3")
    """Offsets of the neutral vertices, model frame, m."""


@dataclass(frozen=True, eq=False)
class Motion(Coin):
    """How a head moves: whatever can move a head makes one of these."""

    head: HeadId
    fps: float
    expr: Tensor = dims("t e")
    """Expression activations, 0 to 1, in the head model's order (ARKit names for the built-in head)."""
    joints: Tensor = dims("t j 4")
    """Rotation of each joint relative to its parent, in the model's axes; identity is the rest pose."""
    T_world_head: Tensor = dims("t 7")
    """Places the model's root frame (which the torso keeps) in the world."""
    audio: Tensor | None = maybe_dims("t d")
    """Audio features of each frame, for avatars whose deformation listens."""

    def __len__(self) -> int:
        return self.expr.shape[0]

    def __getitem__(self, index: int | slice) -> Motion:
        """Some of its frames; an integer gives a Motion of one frame."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"frame {index} of a motion of {len(self)} frames")
            index = slice(index % len(self), index % len(self) + 1)
        return self.replace(
            expr=self.expr[index],
            joints=self.joints[index],
            T_world_head=self.T_world_head[index],
            audio=None if self.audio is None else self.audio[index],
        )


@dataclass(frozen=True, eq=False)
class Cameras(Coin):
    """Pinhole cameras of one size."""

    viewmats: Tensor = dims("c 4 4")
    """World to camera, OpenCV axes."""
    Ks: Tensor = dims("c 3 3")
    """Intrinsics, px."""
    width: int  # pyright: ignore[reportGeneralTypeIssues] (dims gives no default)
    height: int  # pyright: ignore[reportGeneralTypeIssues]


@dataclass(frozen=True, eq=False)
class Mesh(Coin):
    """Posed surfaces, world frame."""

    verts: Tensor = dims("t v 3")
    faces: Tensor = dims("f 3")


@dataclass(frozen=True, eq=False)
class Track(Coin):
    """A clip of a person, tracked: all that training needs."""

    clip: Clip
    frame_ids: Tensor = dims("t")
    """Index in the clip of each tracked frame, int64, rising."""
    crop_px: tuple[int, int, int, int]  # pyright: ignore[reportGeneralTypeIssues] (dims gives no default)
    """x0, y0, x1, y1 in clip pixels: the square that ``images`` show. It may reach past the frame (black there)."""
    cameras: Cameras  # pyright: ignore[reportGeneralTypeIssues]
    """One camera, that of the crop at training size; its viewmat is the identity, so world = camera."""
    identity: Identity  # pyright: ignore[reportGeneralTypeIssues]
    motion: Motion  # pyright: ignore[reportGeneralTypeIssues]
    landmarks_px: Tensor = dims("t l 2")
    """Detected landmarks, px of ``images``."""
    found: Tensor = dims("t")
    """bool: the face was detected in this frame; where False, motion and landmarks are interpolated."""
    error_pct: Tensor = dims("t")
    """Reprojection error of the face landmarks, mean over them, % of the inter-ocular distance in that frame."""
    images: np.ndarray = dims("t h w 3")
    """uint8 frames, crop at training size, memory-mapped from the work folder."""
    mattes: np.ndarray = dims("t h w")
    """uint8 person mattes, 255 is person, memory-mapped."""
    plate: Tensor | None = maybe_dims("h w 3")
    """The still background without the person, or None where the camera moves."""


@dataclass(frozen=True, eq=False)
class RiggedSplats(Coin):
    """Gaussians that live in triangle frames; optimised values under honest names."""

    face_ids: Tensor = dims("n")
    """The triangle that carries each splat, int64."""
    means_tri: Tensor = dims("n 3")
    """Centres in the triangle's frame, in units of its size."""
    quats_tri: Tensor = dims("n 4")
    """Rotations in the triangle's frame, any length but 0."""
    log_scales: Tensor = dims("n 3")
    """Log of standard deviations in units of the triangle's size."""
    logit_opacities: Tensor = dims("n")
    sh: Tensor = dims("n k 3")
    """Spherical-harmonic colour coefficients, world frame directions, gsplat's convention (rgb = 0.5 + C0 sh0 ...)."""


@dataclass(frozen=True, eq=False)
class Splats(Coin):
    """Gaussians ready to draw: activated values, world frame. Whatever can be drawn is one of these."""

    means: Tensor = dims("n 3")
    quats: Tensor = dims("n 4")
    """Any length but 0; normalised by the renderer."""
    scales: Tensor = dims("n 3")
    """Standard deviations along the splat's own axes, m (not logs)."""
    opacities: Tensor = dims("n")
    """0 to 1 (not logits)."""
    sh: Tensor = dims("n k 3")


@dataclass(frozen=True, eq=False)
class Rendered(Coin):
    """What a renderer gives back."""

    rgb: Tensor = dims("c h w 3")
    """Colour over the background; not clamped."""
    alpha: Tensor = dims("c h w")
    depth: Tensor = dims("c h w")
    """Expected camera z of what was hit (alpha-weighted, divided by alpha), m; 0 where nothing was."""
    means2d: Tensor = dims("c n 2")
    """Projected centres, px."""
    radii_px: Tensor = dims("c n")
    """Half size of the box that each splat can touch; 0: not drawn."""
    grad_px: Tensor | None = maybe_dims("c n")
    """Filled by backward: norm of the loss gradient with respect to ``means2d``, px^-1 (for density control)."""


@dataclass(frozen=True)
class Event:
    """What long work says while it runs; the progress bar, the viewer and the tests listen."""


@dataclass(frozen=True)
class Step(Event):
    """Some of the work is done."""

    stage: str
    done: int
    total: int
    values: dict[str, float] = field(default_factory=dict)
    """Figures worth showing, for example loss and psnr_db."""


@dataclass(frozen=True)
class Notice(Event):
    """Something the user should know; the work goes on."""

    text: str


@dataclass(frozen=True)
class Densified(Event):
    """The number of splats changed."""

    step: int
    splats: int


@dataclass(frozen=True)
class Formed(Event):
    """There is an avatar to look at, half trained as it is."""

    step: int
    make: Callable[[], Any]
    """Gives the ``Avatar``; to be called before the run goes on. Costs nothing where nobody looks."""


@dataclass(frozen=True)
class Saved(Event):
    """A checkpoint or artifact is complete on disk."""

    path: Path


@dataclass(frozen=True)
class Done(Event):
    """The work is finished; ``path`` is what it made."""

    path: Path
    values: dict[str, float] = field(default_factory=dict)
