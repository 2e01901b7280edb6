"""The head model as the fit sees it: its landmarks and two shoulder points as vertices, and what moves them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from gsth import math3d
from gsth.head import JOINTS, PARENTS, HeadModel, _lbs
from gsth.track import _points
from gsth.track._misfit import carried
from gsth.track._response import SKULL, as_detected, views
from gsth.types import Identity, Motion

SHOULDER = (0.165, 0.065, 0.01)
"""Centre of the left shoulder joint of the mean adult in the model frame, m; what MediaPipe's pose points mean."""
SHOULDER_VERTS = 40
"""Vertices around that place whose mean carries a shoulder point."""
LOOK_RAD = (0.45, 0.45, 0.6, 0.6)
"""Eye rotation at which eyeLookUp, eyeLookDown, eyeLookIn and eyeLookOut are 1."""


@dataclass
class Pose:
    """What moves, of t frames; leaves of the optimisation."""

    root: Tensor
    """Torso rotation, rotation vector after ``root0``, [t 3]."""
    root0: Tensor
    """Where the torso rotation starts from, wxyz [t 4]; constant."""
    place: Tensor
    """Position of ``pivot``, m [t 3]."""
    pivot: Tensor
    """Point of the torso's frame about which ``root`` turns, m [t 3]; constant. A face that turns about itself stays
    where it is seen, so turn and place can be found apart; about a point below, each takes the other back."""
    neck: Tensor
    """Rotation vector [t 3]."""
    head: Tensor
    """Rotation vector [t 3]."""
    gaze: Tensor
    """Rotation vectors (x, y) of left and right eye, rad [t 2 2]: down, and to the person's right."""
    expr: Tensor
    """Activations that are free to move [t e]; the eyeLook ones follow from ``gaze`` instead."""

    @classmethod
    def at(cls, rotation: Tensor, place: Tensor, expressions: int, pivot: Tensor | None = None) -> Pose:
        """Resting faces at given rigid poses: wxyz [t 4] and m [t 3]; they turn about ``pivot`` [3] or the origin."""
        t = len(place)
        zero = torch.zeros(t, 3)
        about = zero if pivot is None else pivot.expand(t, 3)
        return cls(
            root=zero.clone(),
            root0=rotation.clone(),
            place=place + math3d.quat_rotate(rotation, about),
            pivot=about.clone(),
            neck=zero.clone(),
            head=zero.clone(),
            gaze=torch.zeros(t, 2, 2),
            expr=torch.zeros(t, expressions),
        )

    def take(self, frames: Tensor) -> Pose:
        """Copies of some frames."""
        return Pose(**{k: v.detach()[frames].clone() for k, v in vars(self).items()})

    def torso(self) -> Tensor:
        """T_world_head [t 7]."""
        turn = math3d.quat_mul(math3d.rotvec_to_quat(self.root), self.root0)
        return torch.cat((turn, self.place - math3d.quat_rotate(turn, self.pivot)), -1)


@dataclass(frozen=True, eq=False)
class LandmarkRig:
    """A HeadModel whose vertices are the landmarks (face points, then left and right shoulder)."""

    model: HeadModel
    mirror: Tensor
    """Index of each expression's left-right twin (itself where it has none), [e]."""
    look: Tensor
    """Index of eyeLookUp, Down, In, Out (columns) of the left and right eye (rows), [2 4]; -1 where absent."""
    seen_from: Tensor | None
    """How the detector's points slide with each of ``_response.views``, model frame, m [5 480 3]; None: left out."""

    @classmethod
    def of(cls, head: HeadModel, who: bool = False) -> LandmarkRig:
        """Mix the vertices under each landmark, then shift them to where the detector would see them.

        Exact where the skinning weights of a triangle agree, as they do on a face.

        Args:
            head: The whole head model.
            who: Let the points answer to identity and to the turn of the head, too, where it is known how.
        """
        corners = head.faces[head.landmark_faces]
        used, at = corners.unique(return_inverse=True)
        mix = torch.zeros(len(corners), len(used)).scatter_add(1, at, head.landmark_bary)
        sides = [_around(head, torch.tensor(SHOULDER) * torch.tensor((s, 1.0, 1.0))) for s in (1.0, -1.0)]
        vertex_ids = torch.cat((used, *sides))
        whole = torch.zeros(len(corners) + 2, len(vertex_ids))
        whole[: len(corners), : len(used)] = mix
        for side, ids in enumerate(sides):
            start = len(used) + side * SHOULDER_VERTS
            whole[len(corners) + side, start : start + len(ids)] = 1.0 / len(ids)
        part = head.subset(vertex_ids)
        model = replace(
            part,
            template=whole @ part.template,
            uvs=whole @ part.uvs,
            shape_basis=torch.einsum("lv,svc->slc", whole, part.shape_basis),
            expr_basis=torch.einsum("lv,evc->elc", whole, part.expr_basis),
            weights=whole @ part.weights,
        )
        detected, seen_from = as_detected(model, head, who)
        return cls(detected, *_expression_links(head.expression_names), seen_from)

    def expressions(self, pose: Pose) -> Tensor:
        """All activations [t e], the eyeLook ones from the gaze, so that lids follow the eyes as in life."""
        down, right = pose.gaze[..., 0], pose.gaze[..., 1]
        inward = right * right.new_tensor((1.0, -1.0))
        amounts = torch.stack((-down, down, inward, -inward), -1) / down.new_tensor(LOOK_RAD)
        index = self.look.reshape(-1)
        known = index >= 0
        expr = pose.expr.clone()
        expr[:, index[known]] = amounts.clamp(0, 1).flatten(1)[:, known]
        return expr

    def motion(self, pose: Pose, fps: float) -> Motion:
        """The pose as the coin that everything downstream takes."""
        still = math3d.quat_identity(len(pose.place))
        eyes = [
            math3d.rotvec_to_quat(torch.cat((pose.gaze[:, side], torch.zeros(len(pose.place), 1)), -1))
            for side in (0, 1)
        ]
        joints = {
            "root": still,
            "neck": math3d.rotvec_to_quat(pose.neck),
            "head": math3d.rotvec_to_quat(pose.head),
            "eye_l": eyes[0],
            "eye_r": eyes[1],
        }
        return Motion(
            head=self.model.id,
            fps=fps,
            expr=self.expressions(pose),
            joints=torch.stack([joints[name] for name in JOINTS], 1),
            T_world_head=pose.torso(),
        )

    @cached_property
    def _expr_planes(self) -> Tensor:
        """The expression basis by planes [e 3 v], flat [e 3v]."""
        return self.model.expr_basis.mT.flatten(1)

    @cached_property
    def _view_planes(self) -> Tensor | None:
        """``seen_from`` by planes [5 3v]."""
        return None if self.seen_from is None else self.seen_from.mT.flatten(1)

    def planes(self, pose: Pose, shape: Tensor, offsets: Tensor) -> Tensor:
        """Face points and shoulders, camera frame, m, by planes [t 3 480]; differentiable in all of the pose.

        Args:
            shape: Identity coefficients [s].
            offsets: Of the face points on the neutral head, model frame, m [478 3].
        """
        padded = torch.cat((offsets, offsets.new_zeros(2, 3)))
        person = self.model.shaped(Identity(self.model.id, shape, padded))
        motion = self.motion(pose, 25.0)
        rest = torch.addmm(person.rest.mT.flatten(), motion.expr, self._expr_planes)
        rot, centres = _lbs.joint_frames(person.pivots, PARENTS, motion.joints, motion.T_world_head)
        if self._view_planes is not None:
            rest = torch.addmm(rest, views(rot[:, SKULL], centres[:, SKULL]), self._view_planes)
        shift = centres - (rot @ person.pivots[:, :, None])[..., 0]
        return carried(rest.unflatten(1, (3, -1)), rot, shift, self.model.weights)

    def points(self, pose: Pose, shape: Tensor, offsets: Tensor) -> Tensor:
        """``planes`` as points [t 480 3]."""
        return self.planes(pose, shape, offsets).mT


def _around(head: HeadModel, place: Tensor) -> Tensor:
    """Vertices near a place, of those that the torso carries."""
    distance = (head.template - place).norm(dim=-1) + (head.weights[:, 0] < 0.5) * 10.0
    return distance.topk(min(SHOULDER_VERTS, len(distance)), largest=False).indices


def _expression_links(names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    where = {name: i for i, name in enumerate(names)}
    twins = [
        where.get(n.replace("Left", "Right") if "Left" in n else n.replace("Right", "Left"), i)
        for i, n in enumerate(names)
    ]
    ways = ("Up", "Down", "In", "Out")
    looks = [[where.get(f"eyeLook{way}{side}", -1) for way in ways] for side in ("Left", "Right")]
    return torch.tensor(twins, dtype=torch.int64), torch.tensor(looks, dtype=torch.int64)


def landmark_weights() -> Tensor:
    """How much each face point counts [478], sum 1.

    The detector finds eyes, brows and lips where they are; what it says of smooth skin, and more so of the oval, which
    slides, is off by several times as much, and differently for each person.
    """
    weights = _by_group(rest=0.3, oval=0.1, brows=1.5, eyes=2.5, lips=3.0, irises=3.0)
    return weights / weights.sum()


def offset_sd() -> Tensor:
    """How far the detector sees each face point beside the embedded one, constantly, on one person, m [478 1].

    Rounded from what ``benchmarks/detector_response.py`` leaves on actors that it was not fitted to.
    """
    return _by_group(rest=0.002, oval=0.004, brows=0.001, eyes=0.0007, lips=0.0007, irises=0.0007)[:, None]


def _by_group(rest: float, oval: float, brows: float, eyes: float, lips: float, irises: float) -> Tensor:
    """A value for each face point [478]."""
    values = torch.full((_points.COUNT,), rest)
    values[list(_points.OVAL)] = oval
    values[list(_points.BROW_LEFT + _points.BROW_RIGHT)] = brows
    values[list(_points.EYE_LEFT + _points.EYE_RIGHT)] = eyes
    values[list(_points.LIPS)] = lips
    values[list(_points.IRIS_LEFT + _points.IRIS_RIGHT)] = irises
    return values
