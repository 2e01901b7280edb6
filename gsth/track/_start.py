"""Where the fit starts from, and what it does in closed form: rigid poses, keyframes, torso out of head."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor

from gsth import math3d
from gsth.errors import InputError
from gsth.track import _points
from gsth.track._response import SKULL, views
from gsth.track._rig import LandmarkRig, Pose

RIGID_POINTS = (
    *(33, 133, 263, 362, 168, 6, 197, 195, 5, 4, 1, 98, 327, 10, 151, 9, 8, 109, 338, 67, 297),
    *(50, 280, 117, 346, 123, 352, 234, 454, 127, 356, 162, 389, 21, 251),
)
"""Points that expressions hardly move: eye corners, nose, forehead, cheek bones, temples."""
SLIDE_ROUNDS = 3
"""How often the slide of points and the pose are found in turn."""
TORSO_SMOOTH_S = 0.6
"""Width of the smoothing that a first guess of the torso's position gets, s."""


def rigid_poses(rig: LandmarkRig, points: Tensor, focal: float, principal: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation wxyz [t 4] and position [t 3] m of the mean head at rest that project best onto the points.

    Where points slide with the turn of the head, they are put where they are seen at the turn found so far.

    Args:
        rig: Its landmarks.
        points: Detected, px [t 478 2].
        focal: px.
        principal: px [2].
    Source: OpenCV solvePnP, SQPnP (Terzakis and Lourakis 2020), on points that expressions hardly move.
    """
    used = list(RIGID_POINTS)
    camera = np.array(((focal, 0, principal[0]), (0, focal, principal[1]), (0, 0, 1)), np.float64)
    model = rig.model.template[used].expand(len(points), -1, 3)
    rotation, place = _solved(model, points[:, used], camera)
    if rig.seen_from is None:
        return rotation, place
    for _ in range(SLIDE_ROUNDS):
        turn = math3d.quat_to_mat(rotation)
        seen = views(turn, (turn @ rig.model.pivots[SKULL]) + place)
        slid = torch.einsum("tr,rvc->tvc", seen, rig.seen_from[:, used])
        rotation, place = _solved(model + slid, points[:, used], camera)
    return rotation, place


def _solved(model: Tensor, points: Tensor, camera: np.ndarray) -> tuple[Tensor, Tensor]:
    """Pose of model points [t n 3] for each frame's points [t n 2]."""
    vectors, places = [], []
    for body, frame in zip(model.double().numpy(), points.double().numpy(), strict=True):
        _, vector, place = cv2.solvePnP(np.ascontiguousarray(body), frame, camera, None, flags=cv2.SOLVEPNP_SQPNP)
        vectors.append(vector[:, 0])
        places.append(place[:, 0])
    rotation = math3d.rotvec_to_quat(torch.from_numpy(np.stack(vectors)).float())
    return rotation, torch.from_numpy(np.stack(places)).float()


def keyframes(points: Tensor, found: Tensor, train_frames: int, count: int) -> Tensor:
    """Frames of the training part that differ most in pose and expression: farthest-point sampling, rising.

    Args:
        points: [t 478 2].
        found: bool [t].
        train_frames: Only the first so many are looked at.
        count: At most so many are given.

    Raises:
        InputError: There is no face in the training part.
    """
    usable = found[:train_frames].nonzero()[:, 0]
    if not len(usable):
        raise InputError(
            f"no face was found in the part to learn from, the first {train_frames} of {len(found)} frames; wanted at "
            f"least one there: hold out less"
        )
    shape = points[usable]
    ruler = (shape[:, _points.LEFT_OUTER] - shape[:, _points.RIGHT_OUTER]).norm(dim=-1).median()
    # the head's place is one number pair among 478: what differs are turns, mouths and eyes
    features = torch.cat((shape - shape.mean(1, keepdim=True), shape.mean(1, keepdim=True)), 1).flatten(1) / ruler
    distance = torch.full((len(usable),), float("inf"))
    # the most ordinary frame first
    at = int((features - features.median(0).values).norm(dim=1).argmin())
    chosen = []
    for _ in range(min(count, len(usable))):
        chosen.append(at)
        distance = torch.minimum(distance, (features - features[at]).norm(dim=1))
        at = int(distance.argmax())
    return usable[torch.tensor(sorted(chosen))]


def spread(everyone: Pose, keys: Pose, frames: Tensor) -> Pose:
    """Put fitted keyframes back; the other frames take expression and gaze of the key that is nearest in time.

    Rigid poses of the others get the mean change that the keys' depths underwent (the focal length has moved).
    """
    nearest = (torch.arange(len(everyone.place))[:, None] - frames[None]).abs().argmin(1)
    fresh = everyone.take(torch.arange(len(everyone.place)))
    stretch = (keys.place.detach()[:, 2] / everyone.place[frames, 2]).median()
    fresh.place = fresh.place * torch.stack((torch.ones(()), torch.ones(()), stretch))
    fresh.expr, fresh.gaze = keys.expr.detach()[nearest].clone(), keys.gaze.detach()[nearest].clone()
    for name, value in vars(keys).items():
        getattr(fresh, name)[frames] = value.detach()
    return fresh


def split_torso(pose: Pose, pivots: Tensor, train_frames: int, fps: float, neck_share: float) -> Pose:
    """Divide a rigid head-with-torso pose into a calm torso and a turning neck and head.

    The torso faces where the head faces on average; neck and head take the rest of the rotation; the torso's place is
    what then keeps the head where it is, smoothed.

    Args:
        pose: With ``neck`` and ``head`` at rest.
        pivots: Of the person's joints, m [j 3].
        train_frames: The average is taken over the first so many frames.
        fps: Frames/s.
        neck_share: Part of the turn that the neck joint makes.
    """
    rigid = pose.torso()
    rotation = rigid[:, :4]
    rotation = torch.where((rotation * rotation[:1]).sum(-1, keepdim=True) < 0, -rotation, rotation)
    mean = math3d.quat_normalize(rotation[:train_frames].mean(0))
    turn = math3d.quat_to_rotvec(math3d.quat_mul(math3d.quat_conj(mean).expand_as(rotation), rotation))
    neck, head = neck_share * turn, (1 - neck_share) * turn
    skull = math3d.transform_points(rigid, pivots[2].expand(len(rigid), 3))
    reach = math3d.quat_rotate(math3d.rotvec_to_quat(neck), (pivots[2] - pivots[1]).expand(len(rigid), 3))
    base = skull - math3d.quat_rotate(mean.expand_as(rotation), reach + pivots[1])
    calm = pose.take(torch.arange(len(rigid)))
    calm.root, calm.root0 = torch.zeros_like(pose.root), mean.expand_as(rotation).clone()
    calm.pivot = torch.zeros_like(pose.pivot)
    calm.place, calm.neck, calm.head = smoothed(base, TORSO_SMOOTH_S * fps), neck, head
    return calm


def smoothed(values: Tensor, width: float) -> Tensor:
    """[t d] under a Gaussian of this standard deviation in frames, ends mirrored."""
    reach = min(math.ceil(3 * width), len(values) - 1)
    if reach < 1:
        return values
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / width).square())
    padded = torch.nn.functional.pad(values.T[None], (reach, reach), mode="reflect")[0]
    return torch.nn.functional.conv1d(padded[:, None], (kernel / kernel.sum())[None, None])[:, 0].T
