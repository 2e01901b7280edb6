"""The avatar itself: who, how they look, how their splats follow the mesh, and where it came from."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gsth import artifacts, head, math3d, media, render
from gsth.avatar._field import Field, Listeners
from gsth.errors import ArtifactError, InputError
from gsth.head import HeadModel, ShapedHead
from gsth.head._embedded import from_arrays as head_from_arrays
from gsth.head._embedded import to_arrays as head_arrays
from gsth.types import Cameras, Coin, HeadId, Identity, Motion, RiggedSplats, Splats, dims

KIND = "avatar"
MAX_SIDE_PX, MAX_FPS = 8192, 1000
MAX_WEIGHT = 2.5
"""Corrective weights are whitened over the training clip; beyond this many deviations they are held."""


@dataclass(frozen=True, eq=False)
class Source(Coin):
    """The clip that an avatar was trained on, and what tracking found there."""

    clip_path: Path
    sha256: str
    fps: float
    crop_px: tuple[int, int, int, int]
    """x0, y0, x1, y1 of the picture that ``Avatar.cameras`` shows, clip pixels."""
    train_frames: int
    """How many of the tracked frames, from the start, were trained on; the rest was never seen."""
    frame_ids: Tensor = dims("t")
    found: Tensor = dims("t")
    error_pct: Tensor = dims("t")


@dataclass(frozen=True, eq=False)
class Correctives(Coin):
    """Linear deltas of each splat, driven by a few weights that the motion gives (b of them, x motion features)."""

    mean: Tensor = dims("x")
    basis: Tensor = dims("b x")
    """weights = basis @ (features - mean), whitened over the training clip."""
    means_delta: Tensor = dims("n b 3")
    """Triangle units."""
    sh_delta: Tensor = dims("n b 3")
    """Added to the SH coefficient of degree 0."""

    def weights(self, motion: Motion) -> Tensor:
        """[t b], bounded so that poses never seen cannot tear the picture."""
        raw = (motion_features(motion) - self.mean) @ self.basis.T
        return MAX_WEIGHT * torch.tanh(raw / MAX_WEIGHT)

    def apply(self, splats: RiggedSplats, weights: Tensor) -> RiggedSplats:
        """The splats for one frame's weights [b]."""
        # A splat's deltas are one row to the product, b times 3 long: so they are read once, in the order that they lie
        # in, which einsum does not do.
        spread = torch.kron(weights[:, None], torch.eye(3, dtype=weights.dtype, device=weights.device))
        means = splats.means_tri + self.means_delta.flatten(1) @ spread
        sh0 = splats.sh[:, :1] + (self.sh_delta.flatten(1) @ spread)[:, None]
        return splats.replace(means_tri=means, sh=torch.cat((sh0, splats.sh[:, 1:]), 1))


def motion_features(motion: Motion) -> Tensor:
    """What correctives listen to, [t x]: expressions, then rotation vectors of neck, head and torso."""
    turns = math3d.quat_to_rotvec(torch.cat((motion.joints[:, 1:3], motion.T_world_head[:, None, :4]), 1))
    return torch.cat((motion.expr, turns.flatten(1)), 1)


def trained_range(motion: Motion, names: tuple[str, ...]) -> dict[str, Any]:
    """What an avatar was trained on, for its artifact: least and greatest turn of the head and each expression.

    Turns are those of the head in the world, as a rotation vector, degrees.
    """
    skull = motion.T_world_head[:, :4]
    for joint in (1, 2):
        skull = math3d.quat_mul(skull, motion.joints[:, joint])
    turns = torch.rad2deg(math3d.quat_to_rotvec(skull))
    columns = {f"{n}_deg": turns[:, i] for i, n in enumerate(("pitch", "yaw", "roll"))}
    columns |= {name: motion.expr[:, i] for i, name in enumerate(names)}
    return {name: [round(float(v.amin()), 3), round(float(v.amax()), 3)] for name, v in columns.items()}


def seen_from(shaped: ShapedHead, motion: Motion, eye: Tensor) -> Tensor:
    """The directions in which a point of the world [3] lies from the head, in the head's own axes, [t 3]."""
    turn, place = motion.T_world_head[:, :4], motion.T_world_head[:, 4:]
    pivots = shaped.pivots[:3] - torch.cat((torch.zeros(1, 3), shaped.pivots[:2]))
    for j, step in enumerate(pivots):
        place = place + math3d.quat_rotate(turn, step.expand_as(place))
        turn = math3d.quat_mul(turn, motion.joints[:, j])
    return torch.nn.functional.normalize(math3d.quat_rotate(math3d.quat_conj(turn), eye - place), dim=-1)


def trained_views(shaped: ShapedHead, motion: Motion) -> list[list[int]]:
    """From where a camera at the world's origin saw the head, for its artifact: longitudes and latitudes.

    Whole degrees, in the head's own axes, from where the face looks: the first to its left, the second downwards.
    """
    x, y, z = seen_from(shaped, motion, torch.zeros(3)).unbind(-1)
    told = torch.stack((torch.atan2(x, -z), torch.asin(y.clamp(-1, 1))), 1)
    return torch.rad2deg(told).round().int().unique(dim=0).tolist()


@dataclass(frozen=True, eq=False)
class Avatar:
    """A person who can be posed and drawn."""

    head: HeadModel
    identity: Identity
    splats: RiggedSplats
    cameras: Cameras
    """The camera of the training crop; its viewmat is the identity."""
    motion: Motion
    """The tracked motion of the whole source clip: landmarks, then refined against the pictures."""
    source: Source
    plate: Tensor | None = None
    """The still background [h w 3], 0 to 1, or None."""
    correctives: Correctives | None = None
    landmark_motion: Motion | None = None
    """``motion`` before it was refined against the pictures; None where it was not."""
    unseen: Tensor | None = None
    """bool [n]: splats that no frame showed, completed from their neighbours; None where that was not done."""
    field: Field | None = None
    """What the voice does beyond the rig; moves nothing where a motion has no audio. None where none was trained."""
    speech: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    """Weights of the person's own speech network; empty where none was trained."""
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What else the artifact records, for example scores."""

    @cached_property
    def shaped(self) -> ShapedHead:
        """The head model in this person's shape."""
        return self.head.shaped(self.identity)

    def to(self, device: torch.device | str) -> Avatar:
        """The same avatar, to be posed and drawn on a device."""
        coins = ("identity", "splats", "cameras", "motion", "plate", "correctives", "landmark_motion", "unseen")
        moved = {n: v.to(device) for n in coins if (v := getattr(self, n)) is not None}
        field = None if self.field is None else copy.deepcopy(self.field).to(device)
        return dataclasses.replace(self, head=self.head.to(device), field=field, **moved)

    def pose(self, motion: Motion) -> Splats:
        """Splats of one frame, world frame.

        Raises:
            InputError: ``motion`` is not exactly one frame, or belongs to another head model.
        """
        if len(motion) != 1:
            raise InputError(f"pose takes one frame, got a motion of {len(motion)}; pass motion[i]")
        splats = self.splats
        if self.correctives is not None:
            splats = self.correctives.apply(splats, self.correctives.weights(motion)[0])
        if self.field is not None and motion.audio is not None:
            listeners, features = self._listening
            splats = listeners.moved(splats, self.field(features, listeners.inside, motion))
        return render.rig(splats, self.shaped.posed(motion))

    @cached_property
    def _listening(self) -> tuple[Listeners, Tensor]:
        """The splats that the field moves, and what it knows of their places."""
        assert self.field is not None
        listeners = Listeners.of(self.shaped, self.splats)
        return listeners, self.field.features(listeners.points)

    def taken(self, rows: Tensor) -> Avatar:
        """The avatar with only these splats, int64 or bool [m], in this order."""
        c = self.correctives
        return dataclasses.replace(
            self,
            splats=self.splats.replace(**{n: getattr(self.splats, n)[rows] for n in _SPLATS}),
            correctives=c and c.replace(means_delta=c.means_delta[rows], sh_delta=c.sh_delta[rows]),
            unseen=None if self.unseen is None else self.unseen[rows],
        )

    def around(self, motion: Motion, yaw_rad: float, pitch_rad: float = 0.0) -> Cameras:
        """The training camera after it moved around the head of a one-frame motion (see ``math3d.orbit``)."""
        head_joint = math3d.transform_points(motion.T_world_head[0], self.shaped.pivots[2])
        return self.cameras.replace(viewmats=math3d.orbit(head_joint, yaw_rad, pitch_rad)[None])

    def background(self) -> Tensor:
        """What stands behind the person in the training view: the plate, else mid grey [3]."""
        return torch.full((3,), 0.5) if self.plate is None else self.plate

    def save(self, folder: Path) -> None:
        """Write the artifact, whole or not at all; an avatar already there is replaced."""
        s, splats, c = self.source, self.splats, self.correctives
        arrays = {
            "identity.shape": self.identity.shape,
            **{f"motion.{n}": getattr(self.motion, n) for n in _MOTION},
            "cameras.K": self.cameras.Ks[0],
            "source.frame_ids": s.frame_ids,
            "source.found": s.found,
            "source.error_pct": s.error_pct,
            **{f"splats.{n}": getattr(splats, n) for n in _SPLATS},
            **{f"speech.{n}": w for n, w in self.speech.items()},
        }
        if self.identity.offsets is not None:
            arrays["identity.offsets"] = self.identity.offsets
        if self.field is not None:
            arrays |= {f"field.{n}": w for n, w in self.field.tensors().items()}
        if self.motion.audio is not None:
            arrays["motion.audio"] = self.motion.audio
        if self.unseen is not None:
            arrays["unseen"] = self.unseen
        if self.landmark_motion is not None:
            arrays |= {f"landmark_motion.{n}": getattr(self.landmark_motion, n) for n in _MOTION}
        if c is not None:
            arrays |= {f"correctives.{n}": getattr(c, n) for n in _CORRECTIVES}
        brought = {}
        if not head.installed(self.head.id):  # imported, or on a basis of its own
            arrays |= {f"head.{n}": value for n, value in head_arrays(self.head).items()}
            brought["head_expressions"] = list(self.head.expression_names)
        meta = {
            **self.meta,
            **brought,
            "head": vars(self.head.id),
            "fps": self.motion.fps,
            "size": [self.cameras.width, self.cameras.height],
            "source": {
                "clip_path": str(s.clip_path),
                "sha256": s.sha256,
                "fps": s.fps,
                "crop_px": list(s.crop_px),
                "train_frames": s.train_frames,
            },
        }
        with artifacts.writing(folder, KIND, meta) as tmp:
            artifacts.save_arrays(tmp, arrays)
            if self.plate is not None:
                media.write_image(tmp / "plate.png", (self.plate.clamp(0, 1) * 255).round().byte().numpy())

    @classmethod
    def load(cls, folder: Path | str) -> Avatar:
        """Read an artifact. Raises ArtifactError where it is damaged or not an avatar."""
        folder = Path(folder)
        meta = artifacts.read_meta(folder, KIND)
        arrays = artifacts.load_arrays(folder)
        try:
            made = cls._from(folder, meta, arrays)
            _check_values(made, arrays)
        except KeyError as e:
            raise ArtifactError(f"{folder}: the avatar lacks {e}; train it again") from e
        except (TypeError, ValueError, AttributeError, IndexError, OverflowError, RuntimeError) as e:
            raise ArtifactError(f"{folder}: does not hold a whole avatar ({e}); train it again") from e
        return made

    @classmethod
    def _from(cls, folder: Path, meta: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> Avatar:
        head_id = HeadId(**meta["head"])
        width, height = meta["size"]
        src = meta["source"]
        plate = folder / "plate.png"
        heard = arrays.get("motion.audio")
        motion = Motion(head_id, meta["fps"], *(arrays[f"motion.{n}"] for n in _MOTION), audio=heard)
        before = tuple(arrays[f"landmark_motion.{n}"] for n in _MOTION if f"landmark_motion.{n}" in arrays)
        has_correctives = "correctives.mean" in arrays
        return cls(
            head=_head(head_id, meta, arrays),
            identity=Identity(head_id, arrays["identity.shape"], arrays.get("identity.offsets")),
            splats=RiggedSplats(**{n: arrays[f"splats.{n}"] for n in _SPLATS}),
            cameras=Cameras(torch.eye(4)[None], arrays["cameras.K"][None], width, height),
            motion=motion,
            source=Source(
                Path(src["clip_path"]),
                src["sha256"],
                src["fps"],
                tuple(src["crop_px"]),
                src["train_frames"],
                **{n: arrays[f"source.{n}"] for n in ("frame_ids", "found", "error_pct")},
            ),
            plate=torch.from_numpy(media.read_image(plate)).float() / 255 if plate.exists() else None,
            correctives=Correctives(**{n: arrays[f"correctives.{n}"] for n in _CORRECTIVES})
            if has_correctives
            else None,
            landmark_motion=Motion(head_id, meta["fps"], *before, audio=heard) if before else None,
            field=Field.of(_under("field.", arrays)) if "field.mean" in arrays else None,
            unseen=arrays.get("unseen"),
            speech=_under("speech.", arrays),
            meta=meta,
        )


def _check_values(made: Avatar, arrays: Mapping[str, Tensor]) -> None:
    """What shapes do not say: numbers that are finite, triangles that exist, a picture of a sane size.

    Raises:
        ValueError: Something would crash, or draw nothing, later.
    """
    wild = [n for n, value in arrays.items() if value.is_floating_point() and not value.isfinite().all()]
    if wild:
        raise ValueError(f"{wild[0]} holds values that are not finite")
    for name in _SPLATS[1:]:
        if getattr(made.splats, name).dtype != torch.float32:
            raise ValueError(f"splats.{name} is {getattr(made.splats, name).dtype}, wanted float32")
    ids, faces = made.splats.face_ids, len(made.head.faces)
    if ids.is_floating_point() or (len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < faces):
        raise ValueError(f"splats.face_ids must be whole numbers from 0 to {faces - 1}")
    size = made.cameras.width, made.cameras.height
    if not all(isinstance(side, int) and 0 < side <= MAX_SIDE_PX for side in size):
        raise ValueError(f"size must be two whole numbers from 1 to {MAX_SIDE_PX}, got {size}")
    if not 0 < made.motion.fps <= MAX_FPS:
        raise ValueError(f"fps must be above 0 and at most {MAX_FPS}, got {made.motion.fps}")


def _head(head_id: HeadId, meta: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> HeadModel:
    """The head that the artifact brings along, else the installed one."""
    brought = {n[len("head.") :]: value for n, value in arrays.items() if n.startswith("head.")}
    return head_from_arrays(head_id, meta["head_expressions"], brought) if brought else head.load(head_id)


def _under(prefix: str, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The arrays whose names begin so, without it."""
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


_SPLATS = ("face_ids", "means_tri", "quats_tri", "log_scales", "logit_opacities", "sh")
_MOTION = ("expr", "joints", "T_world_head")
_CORRECTIVES = ("mean", "basis", "means_delta", "sh_delta")
