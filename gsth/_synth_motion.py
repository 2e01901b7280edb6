"""How the synthetic actor behaves: speaks, blinks, looks around, turns the head, breathes. Seeded, so repeatable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gsth import math3d, speech
from gsth.head import HeadModel
from gsth.speech import Phoneme
from gsth.types import Motion

_PITCH, _ROLL = np.radians((8.0, 5.0))
"""Largest nods and tilts of the head, rad."""
_NECK_SHARE = 0.35
PLACE_M = (0.0, 0.085, 1.10)
"""Where the model's origin stands in the camera's frame."""


def perform(
    head: HeadModel, phonemes: Sequence[Phoneme], fps: float, frames: int, seed: int, turn_deg: float
) -> Motion:
    """An actor who says the phonemes, in front of a camera at the world's origin; ``turn_deg`` is the largest yaw.

    Returns:
        Motion of ``frames`` frames; frame i shows the time (i + 0.5) / fps.
    """
    rng = np.random.default_rng(seed)
    times = (np.arange(frames) + 0.5) / fps
    beats = _beats(phonemes, rng)
    emphasis = _bumps(times, beats, 0.11)
    yaw, pitch, roll = (limit * _wander(times, rng) for limit in (np.radians(turn_deg), _PITCH, _ROLL))
    # A stress comes with a small nod, which must not take the pitch past its limit.
    pitch = np.clip(pitch + np.radians(1.5) * emphasis, -_PITCH, _PITCH)
    turn = torch.from_numpy(np.stack((pitch, yaw, roll), 1)).float()
    gaze = _gaze(times, yaw, pitch, rng)
    sway = 0.006 * np.stack([_wander(times, rng) for _ in range(3)], 1)

    joints = math3d.quat_identity(frames, 5)
    joints[:, 0] = math3d.rotvec_to_quat(torch.from_numpy(sway).float())
    joints[:, 1] = math3d.rotvec_to_quat(turn * _NECK_SHARE)
    joints[:, 2] = math3d.rotvec_to_quat(turn * (1 - _NECK_SHARE))
    look = torch.from_numpy(np.stack((gaze[:, 1], gaze[:, 0], 0 * times), 1)).float()
    joints[:, 3] = joints[:, 4] = math3d.rotvec_to_quat(look)
    place = torch.tensor((1.0, 0.0, 0.0, 0.0, *PLACE_M)).repeat(frames, 1)
    breath = np.sin(2 * np.pi * (0.24 * times + rng.random()))
    place[:, 5] -= torch.from_numpy(0.0016 * breath).float()

    expr = speech.visemes(phonemes, fps, frames, head.expression_names)
    for name, curve in _face(times, emphasis, gaze, rng).items():
        expr[:, head.expression_names.index(name)] += torch.from_numpy(curve).float()
    return Motion(head.id, fps, expr.clamp(0, 1), joints, place)


def _wander(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A smooth curve [t] whose largest absolute value is 1: a few slow sines."""
    span = max(times[-1], 4.0)
    curve = np.zeros(len(times))
    for cycles, gain in ((1.1, 1.0), (2.3, 0.55), (4.1, 0.22)):
        rate = cycles / min(span, 10.0) * rng.uniform(0.85, 1.15)
        curve += gain * np.sin(2 * np.pi * (rate * times + rng.random()))
    return curve / np.abs(curve).max().clip(1e-6)


def _bumps(times: np.ndarray, centres: Sequence[float], sigma: float) -> np.ndarray:
    """Sum of Gaussians of height 1, [t]."""
    if not len(centres):
        return np.zeros(len(times))
    return np.exp(-0.5 * ((times[:, None] - np.asarray(centres)) / sigma) ** 2).sum(1).clip(0, 1)


def _beats(phonemes: Sequence[Phoneme], rng: np.random.Generator) -> list[float]:
    """Times of stressed vowels that the actor underlines, s: about one in three."""
    stressed = [(p.start_s + p.end_s) / 2 for p in phonemes if "ˈ" in p.symbol]
    return [t for t in stressed if rng.random() < 0.35]


def _gaze(times: np.ndarray, yaw: np.ndarray, pitch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Eye angles in the head, rad: yaw and pitch [t 2].

    The eyes mostly hold the camera while the head turns (vestibulo-ocular reflex), and now and then jump aside.
    """
    aside = np.zeros((len(times), 2))
    at = 0.0
    while at < times[-1]:
        rows = times >= at
        aside[rows] = 0 if rng.random() < 0.6 else rng.uniform((-0.16, -0.06), (0.16, 0.10))
        at += rng.uniform(0.5, 1.8)
    held = -0.8 * np.stack((yaw, pitch), 1)
    return np.clip(held + aside, (-0.42, -0.24), (0.42, 0.24))


def _blinks(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lid closure 0 to 1, [t]: shut in 80 ms, held for 50, open in 170."""
    out = np.zeros(len(times))
    at = rng.uniform(0.6, 1.6)
    while at < times[-1]:
        shut = np.clip((times - at + 0.080) / 0.080, 0, 1) * np.clip((at + 0.220 - times) / 0.170, 0, 1)
        out = np.maximum(out, shut * shut * (3 - 2 * shut))
        at += rng.uniform(1.5, 4.0)
    return out


def _face(times: np.ndarray, emphasis: np.ndarray, gaze: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What the face does besides speech, by ARKit name: curves [t] to add."""
    blink = _blinks(times, rng)
    up, down = np.clip(-gaze[:, 1] / 0.35, 0, 1), np.clip(gaze[:, 1] / 0.35, 0, 1)
    brows = 0.5 + 0.5 * _wander(times, rng)
    out: dict[str, np.ndarray] = {"browInnerUp": 0.08 * brows + 0.22 * emphasis}
    for side in ("Left", "Right"):
        out |= {
            f"eyeBlink{side}": blink * (1 - 0.25 * down),  # lowered lids have less way to go
            f"eyeSquint{side}": 0.15 * blink + 0.05,
            f"eyeLookUp{side}": up,
            f"eyeLookDown{side}": down,
            f"browOuterUp{side}": 0.06 * brows + 0.25 * emphasis,
            f"mouthSmile{side}": 0.05 + 0 * times,
            f"cheekSquint{side}": 0.10 * blink,
        }
    return out
