"""The photometric stage: makes the pictures of the clip agree with one textured head, after landmarks have come close.

The person's surface carries a grey level at each of some thousand points, lit by one light for the clip (SH-9) and a
gain for each frame. Turn by turn the texture and light are learned from the training frames as they lie, identity
(with free-form fields) is fitted on keyframes together with their motion, and the motion of every frame is fitted to
the texture: Gauss-Newton on image slopes, coarse to fine. Landmarks stay in with a small weight: they hold what grey
levels leave open. Pose and expression are anchored to the landmark fit, so that texture and motion cannot drift
together. The focal length stays the landmark fit's: films do not tell it, and here it would shorten without end.

Sources: Lucas and Kanade 1981; Baker and Matthews 2004 (forward-additive alignment); Thies et al. 2016, Face2Face,
section 4 (analysis by synthesis with SH light and keyframe identity); Ramamoorthi and Hanrahan 2001 (nine SH bases).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gsth.errors import DivergedError
from gsth.track import _gauss, _points, _start
from gsth.track._fit import Fit, Fitted, measured, sparsity
from gsth.track._gauss import Carried, Points, State
from gsth.track._rig import LandmarkRig, offset_sd
from gsth.track._series import HELD, let_go
from gsth.track._surface import Surface, widened
from gsth.types import Event, Identity, Motion, Step

T = TypeVar("T")


@dataclass(frozen=True)
class Round:
    """Texture, then identity (where asked), then motion, at one picture size."""

    px: int
    """Side of the pictures; never larger than the crop."""
    identity: int
    """Gauss-Newton steps on identity and keyframe motion."""
    motion: int
    """Gauss-Newton steps on every frame's motion; without any, only keyframes have moved when the next round begins."""
    steady: bool = False
    """Hold frames between their neighbours: last, as it also slows down what all frames have in common."""


ROUNDS = (
    Round(128, 0, 2), Round(128, 2, 2), Round(256, 1, 0), Round(128, 0, 2), Round(256, 0, 2, True),
)  # fmt: skip
"""Few steps of identity: each starts from what landmarks made of it, and further ones follow what the light and hair do
that nothing here draws (``docs/decisions.md``). After the fine one, motion is found anew from coarse pictures on."""
TEXTURE_FRAMES, KEYFRAMES = 60, 32
IDENTITY_NTH = 2
"""Every so-manieth surface point serves identity: it has many more frames than motion has, and many more columns."""
CHUNK, KEY_CHUNK = 16, 6
"""Frames solved at a time: bounds the memory."""
NOISE = 0.05
"""Of grey levels (0 to 1), before what each point is seen to vary by."""
OUTLIER = 0.08
"""Residual from which on a pixel counts little towards the texture (Geman-McClure)."""
LANDMARK_PCT = 2.4
"""How far detected landmarks may be off, all together, % of the inter-ocular distance."""
PAIR_WEIGHT, SHOULDER_WEIGHT = 4.0, 0.5
"""Of gaps of lips and lids, and of shoulders, against one landmark of mean weight."""
TORSO_SD, SHIFT_SD, NECK_SD, HEAD_SD, EXPR_SD, GAIN_SD = 0.04, 0.008, 0.06, 0.06, 0.14, (0.2, 0.1)
"""How far the landmark fit may plausibly be off: rad, m, rad, rad, activation, factor and grey level."""
STEADY_TURN, STEADY_SHIFT, STEADY_EXPR, STEADY_GAIN = 0.003, 0.0008, 0.03, 0.01
"""How far a frame typically lies from the middle of its neighbours: rad, m, activation, gain."""
JUMP = 2.0
"""From so many times that on it is a movement, and steadiness lets go (Geman-McClure)."""
SPARSE = 2.5
"""Price of an activation, times its dearness: texture must not buy actions that nobody sees."""
IDENTITY = 30.0
"""Weight of the prior of each identity coefficient against the pixels."""
CELLS, BEHIND = 48, 0.02
"""Visibility: a point counts if it lies at most so far, m, behind the nearest point in its cell of a coarse grid."""
GRAZING, FACING = 0.15, 0.5
"""Cosines to the camera at which a point starts to count, and counts fully."""
BORDER = 2
"""px at the picture's border that are not compared."""
LIGHT_PRIOR = 3e-3
"""Of the eight SH bases beside the constant one."""


@dataclass(frozen=True, eq=False)
class Sight:
    """The surface points in some frames, and what the pictures show there."""

    at: Carried
    value: Tensor
    """Grey level [t n]."""
    slope: Tensor
    """Its derivative, 1/px of this picture size [t n 2]."""
    weight: Tensor
    """How well the point is seen, 0 to 1 [t n]."""
    normal: Tensor
    """[t n 3]."""
    focal: Tensor
    """px of this picture size."""

    def take(self, points: Tensor) -> Sight:
        """Some of the points."""
        fields = {n: getattr(self, n)[:, points] for n in ("value", "slope", "weight", "normal")}
        return Sight(at=self.at.take(points), focal=self.focal, **fields)


class Photometric:
    """The stage; ``run`` streams its progress and leaves the outcome in ``result``."""

    def __init__(self, fit: Fit, images: np.ndarray) -> None:
        head = fit.head
        self.head, self.wide, self.images = head, widened(head), images
        self.observed, self.train_frames = fit.observed, fit.train_frames
        names = head.expression_names
        self.free = torch.tensor([i for i, n in enumerate(names) if not n.startswith(("eyeLook", "tongue"))])
        self._dear = torch.tensor([sparsity(names[i]) for i in self.free])
        self.surface = Surface.of(self.wide)
        self.skin = Points.of(self.surface.model, self.free)
        self.rig = LandmarkRig.of(self.wide)
        self.landmarks = Points.of(self.rig.model, self.free)
        self.who = torch.zeros(len(self.wide.shape_basis))
        self.who[: len(fit.shape)] = fit.shape
        self.focal = fit.focal.detach()
        motion = fit.rig.motion(fit.pose, fit.observed.fps)
        gain = torch.zeros(len(motion), 2)
        self.anchor = State(motion.expr, motion.joints, motion.T_world_head, gain)
        self.state = self.anchor.take(torch.arange(len(motion)))
        self.texture = torch.zeros(len(self.surface.faces))
        self.certainty = torch.zeros_like(self.texture)
        self.light = F.one_hot(torch.tensor(0), 9).float()
        spread = (TORSO_SD,) * 3 + (SHIFT_SD,) * 3 + (NECK_SD,) * 3 + (HEAD_SD,) * 3
        self._precision = torch.tensor((*spread, *(EXPR_SD,) * len(self.free), *GAIN_SD)).square().reciprocal()
        steady = (STEADY_TURN,) * 3 + (STEADY_SHIFT,) * 3 + (STEADY_TURN,) * 6 + (STEADY_EXPR,) * len(self.free)
        self._steady = torch.tensor((*steady, STEADY_GAIN, STEADY_GAIN)).square().reciprocal()
        self._importance = _points.COUNT * fit.observed.importance * fit.observed.found[:, None]
        self._cores = torch.get_num_threads()
        # the fit's offsets belong to points that answer to identity, too; here pictures decide that
        self.offsets = self._landmark_shift()
        self.landmarks = Points.of(_gauss.with_offsets(self.rig.model, self.offsets), self.free)

    def run(self, rounds: tuple[Round, ...] = ROUNDS) -> Iterator[Event]:
        """Go through the rounds."""
        # chunks side by side in one thread each are faster than several threads within each of many short operations
        torch.set_num_threads(1)
        try:
            yield from self._run(rounds)
        finally:
            torch.set_num_threads(self._cores)

    @torch.no_grad()
    def _run(self, rounds: tuple[Round, ...]) -> Iterator[Event]:
        seen, frames = self.observed, torch.arange(len(self.observed.points))
        usable = seen.found[: self.train_frames].nonzero()[:, 0]
        textured = usable[torch.linspace(0, len(usable) - 1, min(TEXTURE_FRAMES, len(usable))).long()]
        keys = _start.keyframes(seen.points, seen.found, self.train_frames, KEYFRAMES)
        total, done = sum(r.motion > 0 for r in rounds) * len(frames), 0
        for r in rounds:
            px = min(r.px, self.images.shape[1])
            self._learn(textured, px)
            if r is rounds[0]:
                self._keep(self.certainty > 0)
            for _ in range(r.identity):
                self._identity_step(keys, px)
            if not r.motion:
                continue
            if r.identity:  # a texture from before would hold the motion where the old identity had it
                self._learn(textured, px)
            # training frames in chunks of their own: not even rounding may carry anything from the others to identity
            parts = frames[: self.train_frames], frames[self.train_frames :]
            normals, chunks = self._normals(), [chunk for part in parts if len(part) for chunk in part.split(CHUNK)]
            moved = []
            for state in self._each(partial(self._follow, px=px, normals=normals, r=r), chunks):
                moved.append(state)
                done += len(state.expr)
                yield Step("photometric", done, total)
                if done % HELD < CHUNK:
                    let_go(self.images)
            for chunk, state in zip(chunks, moved, strict=True):
                self.state.put(chunk, state)

    def result(self) -> Fitted:
        """The outcome so far, on all frames."""
        seen, s = self.observed, self.state
        count = self.head.shape_basis.shape[0]
        bent = torch.einsum("s,svc->vc", self.who[count:], self.wide.shape_basis[count:])
        identity = Identity(self.head.id, self.who[:count].clone(), bent)
        motion = Motion(self.head.id, seen.fps, s.expr.clone(), s.joints.clone(), s.torso.clone())
        shift = self._landmark_shift()
        x = Points.of(_gauss.with_offsets(self.landmarks.model, shift), self.free).carried(self.who, s).x
        projected = (x[..., :2] / x[..., 2:] * self.focal + seen.principal)[:, : _points.COUNT]
        return measured(seen, float(self.focal), identity, motion, self.offsets + shift, projected)

    def _landmark_shift(self) -> Tensor:
        """What the static offsets of the landmarks [478 3] still lack, with the surface where it lies now.

        Least squares over the keyframes, each landmark by itself.
        """
        keys = _start.keyframes(self.observed.points, self.observed.found, self.train_frames, KEYFRAMES)
        seen = self.observed.take(keys)
        at = self.landmarks.carried(self.who, self.state.take(keys))
        place = at.x[..., :2] / at.x[..., 2:] * self.focal + seen.principal
        pct = self.observed.pct[keys, None, None]
        rows = ((_gauss.projected_slopes(at.x, self.focal) @ at.turn) * pct[..., None])[:, : _points.COUNT]
        away = (seen.points - place[:, : _points.COUNT]) * pct
        hessian = torch.einsum("tnac,tnad->ncd", rows, rows) + torch.eye(3) / offset_sd()[:, None] ** 2
        return torch.linalg.solve(hessian, torch.einsum("tnac,tna->nc", rows, away))

    def _normals(self) -> Tensor:
        rest = self.wide.template + torch.einsum("s,svc->vc", self.who, self.wide.shape_basis)
        return self.surface.normals(self.wide, rest)

    def _see(self, state: State, pictures: Tensor, normals: Tensor) -> Sight:
        """Look the points up in pictures [t 3 h w] (``_pictures``)."""
        px = pictures.shape[-1]
        scale = px / self.images.shape[1]
        focal = self.focal * scale
        at = self.skin.carried(self.who, state)
        place = at.x[..., :2] / at.x[..., 2:].clamp_min(1e-3) * focal + self.observed.principal * scale
        looked = F.grid_sample(pictures, (place / px * 2 - 1)[:, None], align_corners=False, padding_mode="border")
        normal = F.normalize(_gauss.times(at.turn, normals), dim=-1)
        facing = -(normal * at.x).sum(-1) / at.x.norm(dim=-1)
        inside = ((place > BORDER) & (place < px - BORDER)).all(-1)
        cell = (place / px * CELLS).long().clamp(0, CELLS - 1)
        cell = cell[..., 1] * CELLS + cell[..., 0]
        depth = torch.where(facing > 0, at.x[..., 2], torch.inf)
        nearest = torch.full((len(cell), CELLS**2), torch.inf).scatter_reduce(1, cell, depth, "amin").gather(1, cell)
        weight = ((facing - GRAZING) / (FACING - GRAZING)).clamp(0, 1) * inside * (at.x[..., 2] < nearest + BEHIND)
        return Sight(at, looked[:, 0, 0], looked[:, 1:, 0].transpose(1, 2), weight, normal, focal)

    def _shading(self, normal: Tensor) -> Tensor:
        return (sh9(normal) @ self.light).clamp_min(0.2)

    def _each(self, work: Callable[[Tensor], T], chunks: Sequence[Tensor]) -> Iterator[T]:
        """``work`` on every chunk, in order, on all cores."""
        with ThreadPoolExecutor(self._cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(torch.no_grad()(work), chunks)

    def _learn(self, frames: Tensor, px: int) -> None:
        """Texture, light and how sure each point is, from frames as they lie now."""
        normals = self._normals()

        def looked(chunk: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            state = self.state.take(chunk)
            sight = self._see(state, _pictures(self.images, chunk, px), normals)
            return (sight.value - state.gain[:, 1:]) / (1 + state.gain[:, :1]), sight.weight, sight.normal

        value, weight, normal = (torch.cat(p) for p in zip(*self._each(looked, frames.split(CHUNK)), strict=True))
        bases, trust, rest = sh9(normal), torch.ones_like(value), torch.zeros_like(value)
        for _ in range(5):  # albedo and light in turn, outliers out
            w, shading = weight * trust, self._shading(normal)
            self.texture = (w * value * shading).sum(0) / (w * shading.square()).sum(0).clamp_min(1e-6)
            self.light = _light(bases * self.texture[:, None], value, w)
            self.light = self.light / (((bases @ self.light) * weight).sum() / weight.sum())
            rest = value - self.texture * self._shading(normal)
            trust = 1 / (1 + (rest / OUTLIER).square())
        w = weight * trust
        variance = (w * rest.square()).sum(0) / w.sum(0).clamp_min(1e-6)
        self.certainty = (weight.sum(0) > 0.5) / (NOISE**2 + 2 * variance)

    def _keep(self, points: Tensor) -> None:
        """Go on with some of the surface points [n] alone: two thirds lie where no frame shows them."""
        self.surface = self.surface.take(points)
        self.skin = Points.of(self.surface.model, self.free)
        self.texture, self.certainty = self.texture[points], self.certainty[points]

    def _follow(self, frames: Tensor, px: int, normals: Tensor, r: Round) -> State:
        """Motion of some neighbouring frames, everything else fixed."""
        pictures, state = _pictures(self.images, frames, px), self.state.take(frames)
        for _ in range(r.motion):
            hessian, gradient = self._normal_equations(frames, state, self._see(state, pictures, normals), False)
            if r.steady:
                precision, pull = self._steadiness(frames, state)
                hessian.diagonal(dim1=1, dim2=2)[:] += precision
                gradient = gradient + pull
            state = self._moved(state, _gauss.bounded_step(hessian, gradient, state.expr[:, self.free]))
        return state

    def _moved(self, state: State, step: Tensor) -> State:
        if not torch.isfinite(step).all():
            raise DivergedError("tracking, photometric stage: a step is not finite; please report the clip")
        return _gauss.moved(state, step, self.free)

    def _identity_step(self, keys: Tensor, px: int) -> None:
        """One step on identity, the keyframes' motion eliminated (Schur complement)."""
        normals, p = self._normals(), len(self._precision)

        def eliminated(chunk: Tensor) -> tuple[State, Tensor, Tensor, Tensor]:
            state = self.state.take(chunk)
            sight = self._see(state, _pictures(self.images, chunk, px), normals)
            h, g = self._normal_equations(chunk, state, sight, True)
            fixed = _gauss.pinned(g, state.expr[:, self.free])
            h, g = _gauss.without(h, fixed), torch.where(fixed, 0.0, g)
            cross = h[:, :p, p:]
            answer = torch.linalg.solve(h[:, :p, :p], torch.cat((cross, g[:, :p, None]), -1))
            hessian = (h[:, p:, p:] - cross.mT @ answer[..., :-1]).sum(0)
            return state, answer, hessian, (g[:, p:] - (cross.mT @ answer[..., -1:])[..., 0]).sum(0)

        chunks = keys.split(KEY_CHUNK)
        states, answers, hessians, gradients = zip(*self._each(eliminated, chunks), strict=True)
        prior = torch.full_like(self.who, IDENTITY)
        gradient = torch.stack(gradients).sum(0) + prior * self.who
        step = -torch.linalg.solve(torch.stack(hessians).sum(0) + torch.diag(prior), gradient)
        for chunk, state, answer in zip(chunks, states, answers, strict=True):
            self.state.put(chunk, self._moved(state, -(answer[..., -1] + answer[..., :-1] @ step)))
        self.who = self.who + step

    def _normal_equations(self, frames: Tensor, state: State, sight: Sight, shared: bool) -> tuple[Tensor, Tensor]:
        """Hessian [t p p] and gradient [t p] of half the squared cost; p grows by identity if ``shared``."""
        parts = (self._pixel_part(frames, state, sight, shared), self._landmark_part(frames, state, shared))
        hessian, gradient = (a + b for a, b in zip(*parts, strict=True))
        p, k = len(self._precision), len(self.free)
        hessian.diagonal(dim1=1, dim2=2)[:, :p] += self._precision
        gradient[:, :p] += self._precision * _gauss.between(self.anchor.take(frames), state, self.free)
        gradient[:, _gauss.POSE : _gauss.POSE + k] += SPARSE * self._dear
        return hessian, gradient

    def _steadiness(self, frames: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """Precision and gradient [t p] of a frame that lies between its neighbours, unless it clearly does not.

        Only what pictures and landmarks leave open gives way to it; a blink or a plosive is an outlier and stays.
        """
        # training frames have no held-out neighbour: nothing of those may reach identity through them
        last = torch.where(frames < self.train_frames, self.train_frames, len(self.observed.points)) - 1

        def at(wanted: Tensor) -> State:
            out, inside = self.state.take(wanted), torch.isin(wanted, frames)
            out.put(inside, state.take(wanted[inside] - frames[0]))
            return out

        middle = _gauss.midway(at((frames - 1).clamp_min(0)), at(torch.minimum(frames + 1, last)))
        away = _gauss.between(middle, state, self.free)
        precision = self._steady / (1 + away.square() * self._steady / JUMP**2)
        return precision, precision * away

    def _pixel_part(self, frames: Tensor, state: State, sight: Sight, shared: bool) -> tuple[Tensor, Tensor]:
        nth = IDENTITY_NTH if shared else 1
        drawn = self.texture * self._shading(sight.normal)
        away = sight.value - (1 + state.gain[:, :1]) * drawn - state.gain[:, 1:]
        weight = nth * sight.weight * self.certainty / (1 + 0.5 * away.square() * self.certainty)
        weight = weight * self.observed.found[frames, None]
        # points that no frame of the chunk shows are left out, the others weighed before the derivatives are taken
        used = (weight[:, ::nth] > 0).any(0).nonzero()[:, 0] * nth
        skin, sight, root = self.skin.take(used, shared), sight.take(used), weight[:, used].sqrt()
        drawn, away, picture_slope = drawn[:, used] * root, away[:, used] * root, sight.slope * root[..., None]
        slope = _gauss.carried_back(picture_slope, sight.at.x, sight.focal)[:, :, None]
        row = skin.rows(slope, sight.at, state, 2 + shared * len(self.who))[:, :, 0]
        p = len(self._precision)
        row[..., p - 2], row[..., p - 1] = -drawn, -root
        if shared:
            skin.identity_rows(slope, sight.at, row[:, :, None, p:])
        return _products(row, away)

    def _landmark_part(self, frames: Tensor, state: State, shared: bool) -> tuple[Tensor, Tensor]:
        seen, p = self.observed.take(frames), len(self._precision)
        at = self.landmarks.carried(self.who, state)
        pct = self.observed.pct[frames, None, None]
        slope = _gauss.projected_slopes(at.x, self.focal) * pct[..., None]
        place = at.x[..., :2] / at.x[..., 2:] * self.focal
        row = self.landmarks.rows(slope, at, state, 2 + shared * len(self.who))
        row[..., p - 2 : p] = 0
        if shared:
            self.landmarks.identity_rows(slope, at, row[..., p:])
        away = (place + seen.principal - torch.cat((seen.points, seen.shoulders[..., :2]), 1)) * pct
        upper, lower = ([pair[i] for pair in _points.PAIRS] for i in (0, 1))
        gaps = row[:, upper] - row[:, lower], away[:, upper] - away[:, lower]
        weight = torch.cat((self._importance[frames], SHOULDER_WEIGHT / 25 * seen.shoulders[..., 2]), 1)
        # shoulder points are some five times less exact than face points
        exact = torch.ones(away.shape[1])
        exact[_points.COUNT :] = 0.2
        points = _robust_products(row, away, weight, exact)
        pairs = _robust_products(*gaps, PAIR_WEIGHT * seen.found[:, None], torch.ones(len(upper)))
        return points[0] + pairs[0], points[1] + pairs[1]


def _robust_products(rows: Tensor, away: Tensor, weight: Tensor, exact: Tensor) -> tuple[Tensor, Tensor]:
    """``_products`` of landmarks: rows [t n 2 p] (spent), residuals [t n 2], weights [t n], exactness [n]."""
    weight = weight / (1 + (away.square().sum(-1) * exact.square()) / 4) / LANDMARK_PCT**2
    root = weight.sqrt()[..., None]
    return _products(rows.mul_(root[..., None]).flatten(1, 2), (away * root).flatten(1))


def _products(rows: Tensor, away: Tensor) -> tuple[Tensor, Tensor]:
    """J' J and J' r of weighed rows [t m p] and residuals [t m]."""
    return rows.mT @ rows, (rows.mT @ away[..., None])[..., 0]


def _light(rows: Tensor, value: Tensor, weight: Tensor) -> Tensor:
    """Nine SH coefficients, least squares over rows [t n 9], drawn to plain light."""
    rows, value, weight = rows.flatten(0, 1), value.flatten(), weight.flatten()
    weighted = rows * weight[:, None]
    hessian = rows.T @ weighted
    prior = hessian[0, 0] * torch.tensor((1e-6, *(LIGHT_PRIOR,) * 8))
    plain = F.one_hot(torch.tensor(0), 9).float()
    return torch.linalg.solve(hessian + torch.diag(prior), weighted.T @ value + prior * plain)


def sh9(normal: Tensor) -> Tensor:
    """The nine SH bases up to degree 2 of unit normals [... 3], each to a scale of its own; [... 9]."""
    x, y, z = normal.unbind(-1)
    return torch.stack((torch.ones_like(x), x, y, z, x * y, y * z, x * z, x * x - y * y, 3 * z * z - 1), -1)


def _pictures(images: np.ndarray, frames: Tensor, px: int) -> Tensor:
    """Grey level (0 to 1) and its two derivatives, 1/px, of some frames at a size [t 3 px px]."""
    out = np.empty((len(frames), 3, px, px), np.float32)
    for k, i in enumerate(frames.tolist()):
        grey = cv2.cvtColor(images[i], cv2.COLOR_RGB2GRAY)
        if len(grey) != px:
            grey = cv2.resize(grey, (px, px), interpolation=cv2.INTER_AREA)
        out[k, 0] = cv2.GaussianBlur(grey.astype(np.float32) / 255, (0, 0), 0.8)
        out[k, 1] = cv2.Sobel(out[k, 0], cv2.CV_32F, 1, 0, scale=1 / 8)
        out[k, 2] = cv2.Sobel(out[k, 0], cv2.CV_32F, 0, 1, scale=1 / 8)
    return torch.from_numpy(out)
