"""Fits camera, identity and motion of a head model to landmarks. Stages are data; one loss serves them all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from gsth.errors import DivergedError
from gsth.head import HeadModel
from gsth.track import _points, _start
from gsth.track._misfit import NEAR, Wanted, misfit
from gsth.track._rig import LandmarkRig, Pose, landmark_weights, offset_sd
from gsth.types import Event, Identity, Motion, Step

RATES = {
    "root": 0.006, "place": 0.002, "neck": 0.006, "head": 0.006, "gaze": 0.015, "expr": 0.04,
    "shape": 0.05, "offsets": 0.0003, "log_focal": 0.01,
}  # fmt: skip
"""Adam step sizes: rad, m, rad, rad, rad, activation, coefficient, m, log px."""
SELF_TURN_RATE = 0.015
"""That of ``root``, rad, where faces turn about themselves: place need not follow, so steps may be larger."""
SOFT = 0.4
"""Residuals below this, % of the inter-ocular distance, count squared, larger ones linearly (Charbonnier 1994)."""
SHOULDER_EXACT = 0.1
"""Shoulder points are some ten times less exact than face points."""
SPARSE = {
    "tongueOut": 20.0, "cheekPuff": 6.0, "jawForward": 4.0, "jawLeft": 3.0, "jawRight": 3.0, "noseSneer": 3.0,
    "mouthShrug": 2.5, "mouthPress": 1.7, "mouthRoll": 2.0, "mouthDimple": 2.0, "mouthStretch": 2.0,
    "cheekSquint": 3.0, "eyeWide": 2.0, "mouthLeft": 3.0, "mouthRight": 3.0, "mouthFunnel": 0.5, "mouthPucker": 0.4,
    "mouthSmile": 0.4, "eyeBlink": 0.3, "jawOpen": 0.3,
}  # fmt: skip
"""How much dearer than others an action is, by the start of its name: what landmarks do not see must not pay off."""
FOCAL_SD, FOCAL_BOUNDS = 0.35, (0.8, 6.0)
"""Prior of the log focal length, and bounds of the focal length in sides of the frame."""
NECK_SHARE = 0.45
"""Share of a head turn that the neck joint makes, the rest is the skull's (cervical C1-C2 makes about half)."""
KEYFRAMES = 64


@dataclass(frozen=True)
class Weights:
    """Of the terms of the loss; the landmark term itself counts 1 and is in % of the inter-ocular distance."""

    pairs: float = 0.5
    """Gaps of lips and lids, against their detected gaps."""
    shoulders: float = 0.02
    shape: float = 0.0015
    offsets: float = 0.15
    """Static offsets of the landmarks on the surface, in squared ``offset_sd``."""
    offset_pairs: float = 2.0
    """Same offset for both points of a pair, so that closed stays closed."""
    focal: float = 0.05
    sparse: float = 0.03
    scores: float = 0.05
    """Squared distance to the detector's own activations, where it tells them."""
    mirror: float = 0.02
    """Left and right action alike, squared."""
    expr_steps: float = 0.02
    """Total variation of activations over time: keeps blinks and closures, drops flicker."""
    shake: float = 0.02
    """Accelerations of head and torso pose."""
    still: float = 0.0
    """Total variation of the torso pose: a still torso comes out still."""
    neck: float = 0.02
    """Neck takes its share of the head turn."""
    gaze: float = 0.05
    """Both eyes alike, near the middle, steady."""


@dataclass(frozen=True)
class Stage:
    """One optimisation: which frames, what moves, how long."""

    name: str
    frames: str
    """"key": spread keyframes of the training part; "all"."""
    moves: tuple[str, ...]
    steps: int
    weights: Weights = Weights()


RIGID = ("root", "place", "gaze", "expr")
WHOLE = (*RIGID, "neck", "head")
STAGES = (
    Stage("who", "key", (*RIGID, "shape", "log_focal"), 100, Weights(shape=0.004, expr_steps=0, shake=0)),
    Stage("where", "key", (*RIGID, "shape", "log_focal", "offsets"), 108, Weights(expr_steps=0, shake=0)),
    Stage("how", "all", RIGID, 42),
    Stage("torso", "all", WHOLE, 50, Weights(still=0.02)),
)
"""Identity moves on keyframes of the training part only; "torso" starts by taking the torso out of the head's pose."""
OFFSET_PAIR_SD = 0.001


@dataclass(frozen=True, eq=False)
class Observed:
    """What the fit explains, in crop px."""

    points: Tensor
    """[t 478 2]."""
    found: Tensor
    """bool [t]."""
    shoulders: Tensor
    """x, y, visibility of left and right [t 2 3]."""
    principal: Tensor
    """[2]."""
    focal: float
    """Prior focal length, px."""
    frame_side: float
    """Longer side of the whole frame, crop px."""
    fps: float
    focal_known: bool = False
    """``focal`` is no guess and stays as it is."""
    scores: Tensor | None = None
    """The detector's own activations in the head's order [t e], nan where it tells none; None: it never does."""

    @cached_property
    def pct(self) -> Tensor:
        """% of the inter-ocular distance for each px [t]."""
        return 100 / ruler(self.points)

    @cached_property
    def importance(self) -> Tensor:
        """How much each face point counts in each frame [t 478]."""
        return landmark_weights() * eyes_trust(self.points)

    def take(self, frames: Tensor) -> Observed:
        """Some frames."""
        scores = None if self.scores is None else self.scores[frames]
        picked = (x[frames] for x in (self.points, self.found, self.shoulders))
        return replace(self, **dict(zip(("points", "found", "shoulders"), picked, strict=True)), scores=scores)


@dataclass(frozen=True, eq=False)
class Fitted:
    """The outcome."""

    focal: float
    """Crop px."""
    identity: Identity
    motion: Motion
    offsets: Tensor
    """Of the landmarks on the neutral surface, model frame, m [478 3]."""
    projected: Tensor
    """Where the fit puts the landmarks, crop px [t 478 2]."""
    error_pct: Tensor
    """Mean over the face points, % of the inter-ocular distance [t]."""
    lips_error_pct: Tensor


def _rigid_fields(points: Tensor) -> Tensor:
    """Orthonormal basis [3 l, 6] of the offsets that only shift or turn points [l 3] as a whole.

    Offsets must not hold any: a turned face would be explained by a turned embedding and a straight pose.
    """
    centred = points - points.mean(0)
    axes = torch.eye(3)
    shifts = [axis.expand_as(points).reshape(-1) for axis in axes]
    turns = [torch.linalg.cross(axis.expand_as(points), centred, dim=-1).reshape(-1) for axis in axes]
    return torch.linalg.qr(torch.stack((*shifts, *turns), 1))[0]


class Adam:
    """Adam with a step size that falls to 0 as a cosine, on named values that lie in one vector.

    torch.optim goes value by value, which costs more here than the mathematics, and loads torch's compiler: a second.
    Source: Kingma and Ba 2015, Adam, algorithm 1.
    """

    BETAS, EPS = (0.9, 0.99), 1e-8

    def __init__(self, start: dict[str, Tensor], rates: dict[str, float], steps: int) -> None:
        self._shapes, self._steps, self._done = {n: v.shape for n, v in start.items()}, steps, 0
        self._flat = torch.cat([v.detach().reshape(-1) for v in start.values()]).requires_grad_()
        self._rates = torch.cat([torch.full((v.numel(),), rates[n]) for n, v in start.items()])
        self._mean, self._square = torch.zeros_like(self._rates), torch.zeros_like(self._rates)

    def values(self) -> dict[str, Tensor]:
        """The values as they are, differentiable."""
        parts = self._flat.split([s.numel() for s in self._shapes.values()])
        return {n: part.view(s) for (n, s), part in zip(self._shapes.items(), parts, strict=True)}

    def step(self, loss: Tensor) -> None:
        """One step down a loss of ``values``."""
        (gradient,) = torch.autograd.grad(loss, self._flat)
        amount = 0.5 + 0.5 * math.cos(math.pi * self._done / self._steps)
        self._done += 1
        self._mean.lerp_(gradient, 1 - self.BETAS[0])
        self._square.lerp_(gradient.square_(), 1 - self.BETAS[1])
        mean, square = (1 - b**self._done for b in self.BETAS)
        with torch.no_grad():
            spread = (self._square / square).sqrt_().add_(self.EPS)
            self._flat -= amount / mean * self._rates * self._mean / spread


class Fit:
    """The optimisation; ``run`` streams its progress and leaves the outcome in ``result``."""

    def __init__(self, head: HeadModel, observed: Observed, train_frames: int, rig: LandmarkRig | None = None) -> None:
        self.head, self.observed, self.train_frames = head, observed, train_frames
        self.rig = rig or LandmarkRig.of(head, who=True)
        self.shape = torch.zeros(head.shape_basis.shape[0])
        self.offsets = torch.zeros(_points.COUNT, 3)
        self.log_focal = torch.tensor(observed.focal).log()
        neutral = self.rig.model.template[: _points.COUNT]
        self._rigid = _rigid_fields(neutral)
        start = _start.rigid_poses(self.rig, observed.points, observed.focal, observed.principal)
        # about the torso's origin, a turn and the slide of the points that it brings would take each other back
        slides = self.rig.seen_from is not None
        self.pose = Pose.at(*start, len(head.expression_names), neutral.mean(0) if slides else None)
        self._rates = RATES | ({"root": SELF_TURN_RATE} if slides else {})
        self._sparse = torch.tensor([sparsity(n) for n in head.expression_names])

    @property
    def focal(self) -> Tensor:
        """Focal length, crop px."""
        return self.log_focal.exp()

    def run(self, stages: tuple[Stage, ...] = STAGES) -> Iterator[Event]:
        """Go through the stages."""
        total, done = sum(s.steps for s in stages), 0
        for stage in stages:
            if "neck" in stage.moves:
                self._split_torso()
            for loss in self._stage(stage):
                done += 1
                if done % 10 == 0 or done == total:
                    yield Step(f"fit: {stage.name}", done, total, {"loss": loss})

    def result(self) -> Fitted:
        """The outcome so far, on all frames."""
        with torch.no_grad():
            seen = self.rig.points(self.pose, self.shape, self.offsets)[:, : _points.COUNT]
            projected = seen[..., :2] / seen[..., 2:].clamp_min(NEAR) * self.focal + self.observed.principal
            motion = self.rig.motion(self.pose, self.observed.fps)
        identity = Identity(self.head.id, self.shape.clone())
        return measured(self.observed, float(self.focal), identity, motion, self.offsets.clone(), projected)

    def _stage(self, stage: Stage) -> Iterator[float]:
        everything = torch.arange(len(self.observed.points))
        frames = everything
        if stage.frames == "key":
            frames = _start.keyframes(self.observed.points, self.observed.found, self.train_frames, KEYFRAMES)
        observed, pose = self.observed.take(frames), self.pose.take(frames)
        moves = [n for n in stage.moves if not (n == "log_focal" and observed.focal_known)]
        shared: dict[str, Tensor] = {n: getattr(self, n) for n in moves if n in ("shape", "offsets", "log_focal")}
        start = shared | {n: getattr(pose, n) for n in moves if n not in shared}
        wanted = self._wanted(observed, stage.weights)
        adam = Adam(start, {n: self._rates[n] for n in start}, stage.steps)
        for _ in range(stage.steps):
            self._install(pose, shared, adam.values())
            loss = self._loss(pose, observed, wanted, stage)
            if not torch.isfinite(loss):
                raise DivergedError(f"tracking, stage {stage.name!r}: the loss is not finite; please report the clip")
            adam.step(loss)
            self._keep_within(adam.values())
            yield float(loss.detach())
        self._install(pose, shared, {n: v.detach().clone() for n, v in adam.values().items()})
        if stage.frames == "key":
            self.pose = _start.spread(self.pose, pose, frames)
        else:
            self.pose = pose.take(everything)

    def _install(self, pose: Pose, shared: dict[str, Tensor], values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            setattr(self if name in shared else pose, name, value)

    @torch.no_grad()
    def _keep_within(self, values: dict[str, Tensor]) -> None:
        """Bounds, in place."""
        if "expr" in values:
            values["expr"].clamp_(0, 1)
        if "offsets" in values:
            flat = values["offsets"].view(-1)
            flat -= self._rigid @ (self._rigid.T @ flat)
        if "log_focal" in values:
            low, high = (torch.tensor(b * self.observed.frame_side).log() for b in FOCAL_BOUNDS)
            values["log_focal"].clamp_(low, high)

    def _split_torso(self) -> None:
        with torch.no_grad():
            pivots = self.rig.model.shaped(Identity(self.head.id, self.shape)).pivots
            seen, train = self.observed, self.train_frames
            roll = _start.shoulder_roll(seen.shoulders, train, seen.fps)
            self.pose = _start.split_torso(self.pose, pivots, train, seen.fps, NECK_SHARE, roll)

    def _wanted(self, seen: Observed, w: Weights) -> Wanted:
        """What the landmark term compares with."""
        counts = seen.found.float() / seen.found.sum().clamp_min(1)
        shoulders = w.shoulders / 2 / len(counts) * seen.shoulders[..., 2]
        exact = torch.ones(_points.COUNT + 2)
        exact[_points.COUNT :] = SHOULDER_EXACT
        upper, lower = ([p[i] for p in _points.PAIRS] for i in (0, 1))
        return Wanted(
            places=torch.cat((seen.points, seen.shoulders[..., :2]), 1).mT.contiguous(),
            pct=seen.pct,
            weight=torch.cat((seen.importance * counts[:, None], shoulders), 1),
            exact=exact,
            pairs=(upper, lower),
            pair_weight=w.pairs / len(upper) * counts,
            principal=seen.principal,
            soft=SOFT,
        )

    def _loss(self, pose: Pose, seen: Observed, wanted: Wanted, stage: Stage) -> Tensor:
        w = stage.weights
        loss = misfit(self.rig.planes(pose, self.shape, self.offsets), self.focal, wanted)
        if seen.scores is not None:
            told = seen.scores.isfinite()
            apart = torch.where(told & seen.found[:, None], pose.expr - seen.scores.nan_to_num(), 0.0)
            loss = loss + w.scores * apart.square().sum() / seen.found.sum().clamp_min(1)
        loss = loss + self._person_prior(stage) + self._expression_prior(pose, w) + _motion_prior(pose, w)
        return loss

    def _person_prior(self, stage: Stage) -> Tensor:
        """What is likely about who it is and how it was filmed."""
        w, total = stage.weights, torch.zeros(())
        if "shape" in stage.moves:
            total = total + w.shape * self.shape.square().sum()
        if "log_focal" in stage.moves:
            off = (self.log_focal - torch.tensor(self.observed.focal).log()) / FOCAL_SD
            total = total + w.focal * off.square()
        if "offsets" in stage.moves:
            upper, lower = ([p[i] for p in _points.PAIRS] for i in (0, 1))
            pairs = (self.offsets[upper] - self.offsets[lower]) / OFFSET_PAIR_SD
            total = total + w.offsets * (self.offsets / offset_sd()).square().sum(-1).mean()
            total = total + w.offset_pairs * w.offsets * pairs.square().sum(-1).mean()
        return total

    def _expression_prior(self, pose: Pose, w: Weights) -> Tensor:
        expr = pose.expr
        total = w.sparse * (expr * self._sparse).sum(1).mean()
        total = total + w.mirror * (expr - expr[:, self.rig.mirror]).square().sum(1).mean()
        if w.expr_steps and len(expr) > 1:
            steps = (expr[1:] - expr[:-1]).square().add(1e-4).sqrt() - 1e-2
            total = total + w.expr_steps * steps.sum(1).mean()
        return total


def _motion_prior(pose: Pose, w: Weights) -> Tensor:
    """Steady where nothing speaks against it: poses, torso, neck share, gaze. Scales are per frame."""
    apart = (pose.gaze[:, 0] - pose.gaze[:, 1]) / 0.1
    total = w.gaze * ((pose.gaze / 0.4).square().sum((1, 2)).mean() * 0.1 + apart.square().sum(1).mean() * 0.1)
    turn = pose.neck + pose.head
    total = total + w.neck * ((pose.neck - NECK_SHARE * turn) / 0.1).square().sum(1).mean()
    if w.shake and len(pose.root) > 2:
        for value, unit in ((pose.root, 0.01), (pose.neck, 0.01), (pose.head, 0.01), (pose.place, 0.002)):
            bend = value[2:] - 2 * value[1:-1] + value[:-2]
            total = total + w.shake * ((bend / unit).square() + 1).sqrt().sub(1).sum(1).mean()
        wander = (pose.gaze[1:] - pose.gaze[:-1]) / 0.05
        total = total + w.gaze * 0.2 * (wander.square() + 1).sqrt().sub(1).sum((1, 2)).mean()
    if w.still and len(pose.root) > 1:
        for value, unit in ((pose.root, 0.002), (pose.place, 0.0005)):
            step = (value[1:] - value[:-1]) / unit
            total = total + w.still * (step.square() + 0.01).sqrt().sub(0.1).sum(1).mean()
        lean = (pose.root - pose.root.mean(0, keepdim=True)) / 0.1
        total = total + w.still * lean.square().sum(1).mean()
    return total


def measured(
    seen: Observed, focal: float, identity: Identity, motion: Motion, offsets: Tensor, projected: Tensor
) -> Fitted:
    """The outcome with its errors, given where it puts the landmarks, crop px [t 478 2]."""
    error = (projected - seen.points).norm(dim=-1) / ruler(seen.points)[:, None] * 100
    face = error[:, : _points.IRIS_RIGHT[0]].mean(1)
    return Fitted(focal, identity, motion, offsets, projected, face, error[:, list(_points.LIPS)].mean(1))


def ruler(points: Tensor) -> Tensor:
    """Inter-ocular distance [t] of [t 478 2], px, at least 60 % of its median: a profile must not blow up errors."""
    distance = (points[:, _points.LEFT_OUTER] - points[:, _points.RIGHT_OUTER]).norm(dim=-1)
    return torch.maximum(distance, 0.6 * distance.median())


def eyes_trust(points: Tensor) -> Tensor:
    """1 for all points but the irises of closing eyes, which the detector then only guesses [t 478]."""
    trust = torch.ones(points.shape[:2])
    width = ruler(points)
    for pairs, iris in ((_points.LID_PAIRS_LEFT, _points.IRIS_LEFT), (_points.LID_PAIRS_RIGHT, _points.IRIS_RIGHT)):
        gap = torch.stack([(points[:, a] - points[:, b]).norm(dim=-1) for a, b in pairs], -1).mean(-1) / width
        trust[:, list(iris)] = ((gap - 0.03) / 0.04).clamp(0, 1)[:, None]
    return trust


def sparsity(name: str) -> float:
    """How dear an action is."""
    return next((cost for start, cost in SPARSE.items() if name.startswith(start)), 1.0)
