"""How good a track is, in figures, and what the user should do about it. The report and the command line show it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from gsth import head, math3d
from gsth.track import _points, _preflight
from gsth.track._fit import Fitted
from gsth.track._landmarks import Detections
from gsth.types import Motion, Track

BAD, BAD_FROM_PCT = 2.5, 2.0
"""A frame is bad from so many times the median error on, and from so many % on."""
TURNED_DEG = 55.0
"""Beyond this yaw half of the face is guessed by the detector."""
BLURRED = 0.2
"""Share of the clip's usual sharpness below which a frame is smeared."""
STILL = 0.2
"""Share of the clip, where the detections move least within the face, that counts as calm."""
YAW_EDGES_DEG, PITCH_EDGES_DEG = (-45, -25, -10, 10, 25, 45), (-20, -8, 8, 20)
ENOUGH = 5
"""Frames that a head pose or a mouth shape needs so that the avatar will know it."""
SHAPES = {
    "closed": (("jawOpen",), -0.08),
    "open a little": (("jawOpen",), 0.12),
    "wide open": (("jawOpen",), 0.4),
    "round (o, u)": (("mouthFunnel", "mouthPucker"), 0.3),
    "spread (e, smile)": (("mouthSmileLeft", "mouthStretchLeft"), 0.3),
    "upper teeth": (("mouthUpperUpLeft", "mouthUpperUpRight"), 0.2),
    "lower teeth": (("mouthLowerDownLeft", "mouthLowerDownRight"), 0.2),
    "eyes shut": (("eyeBlinkLeft", "eyeBlinkRight"), 0.6),
}
"""Shapes by the actions that make them: any of them from the level on; a negative level: all of them below it."""
GOOD = {"error_pct": 1.2, "lips_error_pct": 3.0, "jitter_pct": 0.15, "bad_share": 0.05}
"""Bars of a good track; a usable one may have ``USABLE`` times as much."""
USABLE = 2.5


@dataclass(frozen=True)
class BadFrame:
    """A frame that training should stay away from."""

    row: int
    reason: str


@dataclass(frozen=True)
class Quality:
    """What the report says."""

    figures: dict[str, float]
    """error_pct, lips_error_pct, jitter_pct and calm_step_pct in % of the inter-ocular distance, bad_share, face_px,
    light, side, seconds, yaw_deg (span between the 2nd and 98th percentile)."""
    bad: tuple[BadFrame, ...]
    shapes: dict[str, int]
    """Frames of each mouth and eye shape."""
    poses: np.ndarray
    """Frames in each cell of pitch (rows, up to down) and yaw (columns, to the person's right first)."""
    activity: dict[str, tuple[float, float]]
    """Mean and highest activation of each expression."""
    verdict: str
    """good, usable or poor."""
    advice: tuple[str, ...]


def assess(track: Track, fitted: Fitted, seen: Detections, dropping: bool = False) -> Quality:
    """Look at all sides of a track, before any frame is dropped; ``dropping``: the bad ones will be."""
    yaw, pitch = turn_deg(track.motion)
    found = seen.found
    bad = tuple(bad_frames(track, seen, yaw))
    names = head.load(track.identity.head).expression_names
    expr = track.motion.expr.numpy()
    figures = {
        "error_pct": float(np.median(track.error_pct.numpy()[found])),
        "lips_error_pct": float(np.median(fitted.lips_error_pct.numpy()[found])),
        **calm_pct(track),
        "bad_share": len(bad) / len(found),
        "face_px": float(np.median(_points.interocular(seen.points[found]))),
        "light": float(np.nanmedian(seen.sign("light"))),
        "side": float(np.nanmedian(seen.sign("side"))),
        "sharpness": float(np.nanmedian(seen.sign("sharpness"))),
        "seconds": len(found) / track.clip.fps,
        "yaw_deg": float(np.subtract(*np.quantile(yaw[found], (0.98, 0.02)))),
    }
    shapes = {name: int((shown & found).sum()) for name, shown in _shapes(expr, names)}
    advice = tuple(_advice(figures, shapes, bad, dropping))
    return Quality(
        figures=figures,
        bad=bad,
        shapes=shapes,
        poses=np.histogram2d(
            pitch[found], yaw[found], [(-np.inf, *PITCH_EDGES_DEG, np.inf), (-np.inf, *YAW_EDGES_DEG, np.inf)]
        )[0].astype(int),
        activity={n: (float(expr[found, i].mean()), float(expr[found, i].max())) for i, n in enumerate(names)},
        verdict=_verdict(figures, advice),
        advice=advice,
    )


def turn_deg(motion: Motion) -> tuple[np.ndarray, np.ndarray]:
    """Yaw (positive: the face looks to picture right) and pitch (positive: down) of the face against the camera [t]."""
    turn = motion.T_world_head[:, :4]
    for joint in range(3):  # root, neck, head
        turn = math3d.quat_mul(turn, motion.joints[:, joint])
    x, y, z = -math3d.quat_to_mat(turn)[..., 2].double().numpy().T  # the face looks along the model's -z
    return np.degrees(np.arctan2(x, -z)), np.degrees(np.arctan2(y, np.hypot(x, z)))


def bad_frames(track: Track, seen: Detections, yaw: np.ndarray) -> Iterator[BadFrame]:
    """Rows of the track that should not be trained on, each with its first reason."""
    error = track.error_pct.numpy()
    limit = max(BAD_FROM_PCT, BAD * float(np.median(error[seen.found])))
    hidden = _preflight.mouth_hidden(seen, track.clip.fps)
    sharp = seen.sign("sharpness")
    usual = float(np.nanmedian(sharp))
    for i in range(len(error)):
        if not seen.found[i]:
            yield BadFrame(i, "no face found")
        elif abs(yaw[i]) > TURNED_DEG:
            yield BadFrame(i, f"turned away by {abs(yaw[i]):.0f} degrees")
        elif hidden[i]:
            yield BadFrame(i, "something covers the mouth")
        elif sharp[i] < BLURRED * usual:
            yield BadFrame(i, "blurred")
        elif error[i] > limit:
            yield BadFrame(i, f"the fit is off by {error[i]:.1f} %")


def calm_pct(track: Track) -> dict[str, float]:
    """How much the face moves in its head's own frame where it is calm, % of the inter-ocular distance.

    ``jitter_pct`` is what trembles: the median over calm frames of the face's mean second difference, over the square
    root of three. White noise gives what it adds to one step; errors that live on from frame to frame (first order)
    give at least four fifths of that (a random walk: the square root of 2/3); movement at a steady pace gives nothing.
    ``calm_step_pct`` is the median step to the next frame: jitter and whatever the face really does, speech for
    example, together.

    Calm are the frames around which the detected landmarks change least, a similarity taken out. nan for a clip in
    which no three frames with a face follow each other.
    """
    model = head.load(track.identity.head)
    face = (model.faces[model.parts["face"]] if "face" in model.parts else model.faces).unique()
    eyes = model.landmarks(model.shaped(track.identity).rest[None])[0, [_points.RIGHT_OUTER, _points.LEFT_OUTER]]
    basis = (model.expr_basis[:, face] * 100 / (eyes[1] - eyes[0]).norm()).flatten(1)
    steps, change = track.motion.expr.diff(dim=0), _detected_change(track)

    def moves(values: torch.Tensor) -> float:
        fields = (values @ basis).unflatten(1, (-1, 3))
        return float(fields.norm(dim=-1).mean(1).median()) if len(values) else float("nan")

    bends = _calmest(np.maximum(change[1:], change[:-1]))
    return {
        "jitter_pct": moves(steps[bends + 1] - steps[bends]) / 3**0.5,
        "calm_step_pct": moves(steps[_calmest(change)]),
    }


def _detected_change(track: Track) -> np.ndarray:
    """Mean movement of detected landmarks to the next frame [t - 1], over the inter-ocular distance; inf: no face."""
    points = track.landmarks_px.double().numpy()
    a, b = points[:-1], points[1:]
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    # the best similarity of plane points, as one complex factor
    p, q = a @ (1, 1j), b @ (1, 1j)
    factor = (p.conj() * q).sum(1) / np.maximum((np.abs(p) ** 2).sum(1), 1e-12)
    change = np.abs(q - factor[:, None] * p).mean(1) / np.maximum(_points.interocular(points[:-1]), 1e-6)
    found = track.found.numpy()
    return np.where(found[1:] & found[:-1], change, np.inf)


def _calmest(change: np.ndarray) -> torch.Tensor:
    """The share ``STILL`` of the finite changes that is smallest, at least one where there is any; indices, rising."""
    known = int(np.isfinite(change).sum())
    count = max(1, int(STILL * known)) if known else 0
    return torch.from_numpy(np.sort(np.argsort(change, kind="stable")[:count]))


def bridged(motion: Motion, keep: np.ndarray) -> Motion:
    """A motion whose frames outside ``keep`` [t] are taken from their neighbours in time: slerp, and straight lines."""
    ids = np.flatnonzero(keep)
    t = np.arange(len(motion))
    after = ids[np.clip(np.searchsorted(ids, t), 0, len(ids) - 1)]
    before = ids[np.clip(np.searchsorted(ids, t, side="right") - 1, 0, None)]
    amount = torch.from_numpy(np.where(after > before, (t - before) / np.maximum(after - before, 1), 0.0)).float()

    def straight(x: torch.Tensor) -> torch.Tensor:
        return torch.lerp(x[before], x[after], amount[:, None])

    def turned(q: torch.Tensor) -> torch.Tensor:
        return math3d.quat_slerp(q[before], q[after], amount.reshape(-1, *[1] * (q.ndim - 1)))

    place = motion.T_world_head
    return motion.replace(
        expr=straight(motion.expr),
        joints=turned(motion.joints),
        T_world_head=torch.cat((turned(place[:, :4]), straight(place[:, 4:])), 1),
    )


def _shapes(expr: np.ndarray, names: tuple[str, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """Which frames show each shape; those whose actions the head does not have are left out."""
    for shape, (actions, level) in SHAPES.items():
        columns = [names.index(a) for a in actions if a in names]
        if columns:
            most = expr[:, columns].max(1)
            yield shape, most < -level if level < 0 else most > level


def _advice(
    figures: dict[str, float], shapes: dict[str, int], bad: tuple[BadFrame, ...], dropping: bool = False
) -> Iterator[str]:
    """What would make the next recording better, the most telling first."""
    reasons = [b.reason for b in bad]
    if figures["bad_share"] > GOOD["bad_share"]:
        worst = max(set(reasons), key=reasons.count)
        away = "they are kept from training" if dropping else "--drop-bad-frames keeps training away from them"
        yield f"{len(bad)} frames are bad ({worst}, among others): {away}"
    if figures["face_px"] < _preflight.SMALL_FACE_PX:
        yield "come closer to the camera, or film in a higher resolution: the face is small"
    if figures["light"] < _preflight.DARK:
        yield "more light from the front: the face is dark"
    if figures["side"] > _preflight.SIDE_LIGHT:
        yield "even light: one side of the face is much brighter, and that will not turn with the head"
    if figures["sharpness"] < _preflight.BLURRED:
        yield "focus on the face, with a shorter exposure: it is blurred"
    if figures["seconds"] < 8:
        yield f"film longer: {figures['seconds']:.1f} s show few sounds and views, 30 s to 2 min are better"
    if figures["yaw_deg"] < 20:
        yield "look slowly to both sides: the avatar will only look right from the front"
    for shape, what in (("wide open", "open the mouth wide once"), ("upper teeth", "smile so that the teeth show")):
        if shapes.get(shape, ENOUGH) < ENOUGH:
            yield f"{what}: the inside of the mouth is hardly ever seen"
    if shapes.get("eyes shut", ENOUGH) < 1:
        yield "blink as you do in life: no frame shows the eyes shut"


def _verdict(figures: dict[str, float], advice: tuple[str, ...]) -> str:
    """poor: a bar missed by far or everything speaks against the clip; good: all bars met and little to advise."""
    over = [figures[name] / bar for name, bar in GOOD.items() if np.isfinite(figures[name])]
    if max(over) > USABLE or len(advice) > 5:
        return "poor"
    return "good" if max(over) <= 1 and len(advice) <= 2 else "usable"
