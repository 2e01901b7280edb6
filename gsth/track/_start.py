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
LEAN_SMOOTH_S = 0.2
"""The same where the torso leans, and of the line of the shoulders, which is seen in every fourth frame, s."""
LEAN_KEPT_S = 1.0
"""About so long a lean is believed to last where the shoulders are not seen, s."""
ROLL_NOISE = math.radians(2)
"""Below this, rad, a tilt of the shoulders is breath, arms or the detector (up to 1.8 degrees on a still actor)."""
SEEN = 0.95, 0.99
"""Visibility at which a shoulder starts to count, and counts fully. Those outside the picture stay below."""


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


def shoulder_roll(shoulders: Tensor, train_frames: int, fps: float) -> Tensor:
    """How far the torso leans to the side of where it mostly is, by the line of the shoulders, rad [t].

    Tilts that resting shoulders have, too, come out far smaller, and 0 where a shoulder is not seen: what is still
    stays still.

    Args:
        shoulders: x, y, visibility of left and right [t 2 3].
        train_frames: What is usual is what the first so many frames have.
        fps: Frames/s.
    """
    seen = ((shoulders[..., 2].amin(1) - SEEN[0]) / (SEEN[1] - SEEN[0])).clamp(0, 1)
    line = (shoulders[:, 0, :2] - shoulders[:, 1, :2]) * seen[:, None]
    level = line[:train_frames].sum(0)
    usual = level.norm() / seen[:train_frames].sum().clamp_min(1)
    seen_line = torch.cat((line, seen[:, None]), 1)
    near, far = smoothed(seen_line, LEAN_SMOOTH_S * fps), smoothed(seen_line, LEAN_KEPT_S * fps)
    # frames further away speak where near ones are silent
    line, seen = (near + 0.01 * far).split((2, 1), 1)
    roll = torch.atan2(level[0] * line[:, 1] - level[1] * line[:, 0], line @ level)
    # of a torso turned to the side the line is short, and perspective tilts it
    length = line.norm(dim=1) / (usual * seen[:, 0]).clamp_min(1e-6)
    trust = (2 * far[:, 2]).clamp(max=1) * length.clamp(max=1)
    return trust * roll**5 / (roll**4 + ROLL_NOISE**4)


def split_torso(pose: Pose, pivots: Tensor, train_frames: int, fps: float, neck_share: float, roll: Tensor) -> Pose:
    """Divide a rigid head-with-torso pose into a calm torso and a turning neck and head.

    The torso faces where the head faces on average, and leans to the side as told; neck and head take the rest of the
    rotation; the torso's place is what then keeps the head where it is, smoothed.

    Args:
        pose: With ``neck`` and ``head`` at rest.
        pivots: Of the person's joints, m [j 3].
        train_frames: The average is taken over the first so many frames.
        fps: Frames/s.
        neck_share: Part of the turn that the neck joint makes.
        roll: About the line of sight, rad [t].
    """
    rigid = pose.torso()
    rotation = rigid[:, :4]
    rotation = torch.where((rotation * rotation[:1]).sum(-1, keepdim=True) < 0, -rotation, rotation)
    mean = math3d.quat_normalize(rotation[:train_frames].mean(0))
    lean = math3d.rotvec_to_quat(roll[:, None] * torch.tensor((0.0, 0.0, 1.0)))
    facing = math3d.quat_mul(lean, mean.expand_as(rotation))
    turn = math3d.quat_to_rotvec(math3d.quat_mul(math3d.quat_conj(facing), rotation))
    neck, head = neck_share * turn, (1 - neck_share) * turn
    skull = math3d.transform_points(rigid, pivots[2].expand(len(rigid), 3))
    reach = math3d.quat_rotate(math3d.rotvec_to_quat(neck), (pivots[2] - pivots[1]).expand(len(rigid), 3))
    base = skull - math3d.quat_rotate(facing, reach + pivots[1])
    calm = pose.take(torch.arange(len(rigid)))
    # the torso's movement is priced on ``root``: what the shoulders told is free
    calm.root, calm.root0 = torch.zeros_like(pose.root), facing
    calm.pivot = torch.zeros_like(pose.pivot)
    calm.place, calm.neck, calm.head = _calm_place(base, roll, fps), neck, head
    return calm


def _calm_place(base: Tensor, roll: Tensor, fps: float) -> Tensor:
    """The torso's place [t 3], smoothed less around frames in which it leans: then it does move."""
    slow, quick = (smoothed(base, width * fps) for width in (TORSO_SMOOTH_S, LEAN_SMOOTH_S))
    leaning = smoothed(roll.square()[:, None], TORSO_SMOOTH_S * fps).square()
    return slow + leaning / (leaning + ROLL_NOISE**4) * (quick - slow)


def smoothed(values: Tensor, width: float) -> Tensor:
    """[t d] under a Gaussian of this standard deviation in frames, ends mirrored."""
    reach = min(math.ceil(3 * width), len(values) - 1)
    if reach < 1:
        return values
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / width).square())
    padded = torch.nn.functional.pad(values.T[None], (reach, reach), mode="reflect")[0]
    return torch.nn.functional.conv1d(padded[:, None], (kernel / kernel.sum())[None, None])[:, 0].T
