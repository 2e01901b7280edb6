"""What MediaPipe makes of the built-in head: draws many actors, detects, fits the linear response, scores it on others.

    python benchmarks/detector_response.py --write who      # table, and the response that the landmark fit uses
    python benchmarks/detector_response.py --actors 16 --each 30 --write plain      # that of all else

Each detected landmark is explained as the head's own, plus an offset on the surface and one more for every expression,
identity coefficient and view (``gsth/track/_response.py``). A quarter of the actors is kept out of the fit and scored.
Drawing takes ten seconds an actor; ``--shots FOLDER`` keeps what was detected there, and goes on from it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gsth import head, math3d, synth
from gsth.head import HeadModel
from gsth.track import _gauss, _points, _response
from gsth.track._rig import LOOK_RAD, LandmarkRig
from gsth.track.detectors.builtin import solutions
from gsth.types import Cameras, Motion

SIZE, SEED = 384, 5
LOOKS = ("ash", "umber", "sand", "rose")
TURN_RAD = tuple(math.radians(a) for a in (13, 35, 8))
FOCAL = (1.5, 3.0)
"""Range of the focal length in picture heights; the distance goes with it."""
OFFSET_SD = 0.005
"""Prior of the offset, m."""
WAYS = {
    "offsets": (0.0, 0.0, 0.0),
    "and expressions": (0.004, 0.0, 0.0),
    "and views": (0.002, 0.006, 0.0),
    "and identity": (0.002, 0.006, 0.36),
}
"""Priors of the responses, 0 for none: to each expression at full activation and to each of the views, m, and to
identity, as a share of how far identity moves what lies around the landmark."""
ASSETS = {"plain": (_response.PLAIN, "and expressions"), "who": (_response.WHO, "and identity")}
NEAR, FAR, FAR_SHARE = 0.006, 0.03, 0.3
"""Around: the widths of a narrow and a wide Gaussian, m, and the weight of the wide one."""
OUTLIER_PCT, LOST_PCT = 3.0, 8.0
"""Of the inter-ocular distance: where a detection starts to count less; mean error from which a face was not found."""
GROUPS = {
    "all": range(_points.COUNT),
    "lips": _points.LIPS,
    "eyes": _points.EYE_LEFT + _points.EYE_RIGHT,
    "irises": _points.IRIS_LEFT + _points.IRIS_RIGHT,
    "brows": _points.BROW_LEFT + _points.BROW_RIGHT,
    "oval": _points.OVAL,
}


@dataclass(frozen=True, eq=False)
class Shots:
    """Detections of known heads; residuals in % of the inter-ocular distance."""

    away: Tensor
    """Detected less true [n 478 2]."""
    slope: Tensor
    """What a neutral offset of each landmark does to it [n 478 2 3]."""
    known: Tensor
    """1, the activations, the views, the identity [n 1 + e + 5 + s]."""
    actor: Tensor
    """[n]."""

    def take(self, rows: Tensor) -> Shots:
        """Some shots."""
        return Shots(**{name: value[rows] for name, value in vars(self).items()})


def performance(actor: synth.Actor, shots: int, rng: np.random.Generator) -> tuple[Motion, Cameras]:
    """Random moments of the actor's speech with up to three more actions, another turn and gaze; another lens."""
    model, said = actor.head, actor.truth.motion
    names = model.expression_names
    picked = torch.from_numpy(rng.integers(0, len(said), shots))
    expr = said.expr[picked] * torch.from_numpy(rng.random(shots) > 0.3).float()[:, None]
    usable = [n for n in names if not n.startswith(("eyeLook", "tongue"))]
    for row in expr:
        for name in rng.choice(usable, rng.integers(1, 4), replace=False):
            other = name.replace("Left", "*").replace("Right", "Left").replace("*", "Right")
            row[names.index(name)] = amount = rng.uniform(0.2, 1)
            if rng.random() < 0.7:
                row[names.index(other)] = amount
    turn = torch.from_numpy(rng.uniform(-1, 1, (shots, 3)) * TURN_RAD).float()
    gaze = torch.from_numpy(rng.uniform(-1, 1, (shots, 2)) * (0.2, 0.3)).float() - 0.5 * turn[:, :2]
    down, right = gaze.unbind(1)
    for side, inward in (("Left", right), ("Right", -right)):
        amounts = zip(("Up", "Down", "In", "Out"), (-down, down, inward, -inward), LOOK_RAD, strict=True)
        for way, amount, full in amounts:
            expr[:, names.index(f"eyeLook{way}{side}")] = (amount / full).clamp(0, 1)
    neck = rng.uniform(0.3, 0.55)
    joints = math3d.quat_identity(shots, 5)
    joints[:, 1], joints[:, 2] = (math3d.rotvec_to_quat(share * turn) for share in (neck, 1 - neck))
    joints[:, 3] = joints[:, 4] = math3d.rotvec_to_quat(torch.cat((gaze, torch.zeros(shots, 1)), 1))
    focal = rng.uniform(*FOCAL)
    was = float(actor.truth.cameras.Ks[0, 0, 0]) / SIZE
    place = said.T_world_head[picked].clone()
    place[:, 6] *= focal / was
    K = torch.tensor(((focal * SIZE, 0, SIZE / 2), (0, focal * SIZE, SIZE / 2), (0, 0, 1)))
    return Motion(said.head, said.fps, expr.clamp(0, 1), joints, place), Cameras(
        torch.eye(4)[None], K[None], SIZE, SIZE
    )


def shoot(count: int, each: int, folder: Path | None) -> Iterator[Shots]:
    """Draw and detect ``each`` moments of one actor after the other; what lies in the folder is taken from there."""
    with solutions().face_mesh.FaceMesh(max_num_faces=1, refine_landmarks=True) as mesh:
        for k in range(count):
            config = synth.SynthConfig(seed=100 + k, look=LOOKS[k % len(LOOKS)], seconds=20, size=SIZE)
            actor = synth.actor(config)
            motion, cameras = performance(actor, each, np.random.default_rng((SEED, k)))
            actor = replace(actor, truth=replace(actor.truth, motion=motion, cameras=cameras))
            file = None if folder is None else folder / f"{k}.npy"
            if file is not None and file.is_file():
                points = np.load(file)
            else:
                points = np.full((each, _points.COUNT, 2), np.nan, np.float32)
                for i in range(each):
                    picture = actor.frame(i)
                    # as in a video, the detector settles on its last answer
                    faces = [mesh.process(picture).multi_face_landmarks for _ in range(3)][-1]
                    if faces:
                        points[i] = [(p.x * SIZE, p.y * SIZE) for p in faces[0].landmark]
                if file is not None:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    np.save(file, points)
            yield compared(k, torch.from_numpy(points), actor)
            print(f"actor {k + 1} of {count}", flush=True)


def bare(model: HeadModel) -> HeadModel:
    """The landmarks without the response that is known so far."""
    return LandmarkRig.of(replace(model, id=replace(model.id, name="without the response"))).model


def compared(number: int, detected: Tensor, actor: synth.Actor) -> Shots:
    """Detections of one actor [t 478 2] (nan: none) against its truth."""
    truth = actor.truth
    points = _gauss.Points.of(bare(actor.head), torch.zeros(0, dtype=torch.int64))
    motion, who = truth.motion, truth.identity.shape
    state = _gauss.State(motion.expr, motion.joints, motion.T_world_head, torch.zeros(len(motion), 2))
    at = points.carried(who, state)
    K = truth.cameras.Ks[0]
    slope = _gauss.projected_slopes(at.x, K[0, 0]) @ at.turn
    px = math3d.project(at.x, K)[:, : _points.COUNT]
    ruler = (px[:, _points.LEFT_OUTER] - px[:, _points.RIGHT_OUTER]).norm(dim=-1)
    pct = 100 / torch.maximum(ruler, 0.6 * ruler.median())[:, None, None]
    away = (detected - px) * pct
    rows = away.norm(dim=-1).mean(1) < LOST_PCT  # nan is not
    views = _response.views(at.rot[:, _response.SKULL], at.centres[:, _response.SKULL])
    known = torch.cat((torch.ones(len(px), 1), motion.expr, views, who.expand(len(px), -1)), 1)
    shots = Shots(away, slope[:, : _points.COUNT] * pct[..., None], known, torch.full((len(px),), number))
    return shots.take(rows)


def spreads(model: HeadModel, way: tuple[float, float, float]) -> Iterator[Tensor]:
    """For each landmark, directions in which it may respond [1 + e + 5 + s, r], each to its standard deviation, m.

    The detector takes a long nose for a shorter one: it answers to what identity does around a landmark. So these
    displacements, not the coefficients, are what the response to identity is drawn from; half as many actors suffice.

    Args:
        model: The landmarks.
        way: One of ``WAYS``.
    """
    places, moved = model.template[: _points.COUNT], model.shape_basis[:, : _points.COUNT]
    apart = torch.cdist(places, places).square()
    narrow, wide = (torch.softmax(-0.5 * apart / width**2, 1) for width in (NEAR, FAR))
    sizes = (OFFSET_SD, *(way[0],) * len(model.expr_basis), *(way[1],) * _response.VIEWS)
    fixed = torch.diag(torch.tensor(sizes))[:, torch.tensor(sizes) > 0]
    for weight in narrow + FAR_SHARE * wide:
        value, axes = torch.linalg.eigh(torch.einsum("l,slc,tlc->st", weight, moved, moved))
        used = value > 1e-4 * value[-1]
        yield torch.block_diag(fixed, way[2] * axes[:, used] * value[used].sqrt())


def response(shots: Shots, model: HeadModel, way: tuple[float, float, float]) -> Tensor:
    """Offset and responses [478 1 + e + 5 + s 3], m: robust ridge regression, each landmark by itself."""
    out = torch.zeros(_points.COUNT, shots.known.shape[1], 3)
    for i, spread in enumerate(spreads(model, way)):
        rows = (shots.slope[:, i, :, None] * (shots.known @ spread)[:, None, :, None]).flatten(2)
        trust, away = torch.ones(len(rows)), shots.away[:, i]
        for _ in range(3):
            weighted = (rows * trust[:, None, None]).flatten(0, 1)
            hessian = weighted.T @ rows.flatten(0, 1) + torch.eye(rows.shape[2])
            found = torch.linalg.solve(hessian, weighted.T @ away.flatten())
            miss = (rows @ found - away).norm(dim=-1)
            trust = 1 / (1 + (miss / OUTLIER_PCT).square())
        out[i] = spread @ found.view(-1, 3)
    return out


def errors(shots: Shots, fields: Tensor, constant: bool) -> dict[str, float]:
    """Mean distance that remains, % of the inter-ocular distance; of all, or of what is constant on an actor."""
    left = shots.away - torch.einsum("nlac,lfc,nf->nla", shots.slope, fields, shots.known)
    if constant:
        left = torch.stack([left[shots.actor == k].mean(0) for k in shots.actor.unique()])
    return {name: float(left.norm(dim=-1)[:, list(ids)].mean()) for name, ids in GROUPS.items()}


def main() -> None:
    """Draw, fit, score, and write where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--actors", type=int, default=120)
    parser.add_argument("--each", type=int, default=10, help="moments of each actor")
    parser.add_argument("--shots", type=Path, help="folder that keeps the detections")
    parser.add_argument("--write", choices=list(ASSETS), help="fit on all actors and write this asset")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    made = list(shoot(args.actors, args.each, args.shots))
    shots = Shots(**{name: torch.cat([getattr(m, name) for m in made]) for name in vars(made[0])})
    kept, model = shots.actor % 4 != 0, bare(head.load())
    learned, unseen = shots.take(kept), shots.take(~kept)
    fields = {"embedding alone": torch.zeros(_points.COUNT, shots.known.shape[1], 3)}
    fields |= {name: response(learned, model, way) for name, way in WAYS.items()}
    for title, constant in (("left on other actors, %", False), ("of it constant on an actor", True)):
        print(f"{title:<32}" + "".join(f"{name:>9}" for name in GROUPS))
        for name, field in fields.items():
            print(f"{name:<32}" + "".join(f"{e:>9.2f}" for e in errors(unseen, field, constant).values()))
    if args.write:
        file, way = ASSETS[args.write]
        write(_response.ASSETS / file, response(shots, model, WAYS[way]), len(model.expr_basis), WAYS[way])


def write(path: Path, fields: Tensor, expressions: int, way: tuple[float, float, float]) -> None:
    """The asset with what the way has of the fields [478 1 + e + 5 + s 3]."""
    ends = (1, 1 + expressions, 1 + expressions + _response.VIEWS)
    parts = np.split(fields.transpose(0, 1).numpy().astype(np.float16), ends)
    named = {"offsets": parts[0][0], "expressions": parts[1]}
    if way[1]:
        named["views"] = parts[2]
    if way[2]:
        named["identity"] = parts[3]
    np.savez_compressed(path, topology=np.array(_response.topology_of(head.load())), **named)


if __name__ == "__main__":
    main()
