"""Settings of avatar training; values only, no torch, so that the command line can show them at once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from gsth.errors import InputError


@dataclass(frozen=True)
class LossWeights:
    """What training minimises, per pixel or per splat."""

    ssim: float = 0.2
    """Share of 1 - SSIM in the picture loss; the rest is L1."""
    face: float = 1.5
    """Extra weight of pixels in the face box."""
    mouth: float = 3.0
    """Extra weight of pixels around the mouth."""
    eyes: float = 2.0
    """Extra weight of pixels around the eyes."""
    matte: float = 0.1
    """L1 between opacity and person matte."""
    field: float = 0.02
    """Mean squared price of the audio field's offsets (of 2 mm) and tints (of 0.3)."""
    offset: float = 1.0
    """Quadratic price of splats that stand farther off their triangle than their region allows."""
    scale: float = 1.0
    """Quadratic price of splats larger than their region allows."""
    height: float = 3e-3
    """Quadratic price of standing farther off the mesh than the neighbours (per 5 mm); decides depth where one camera
    cannot."""
    needle: float = 2e-3
    """Quadratic price of splats more than 4 times as long as broad (per e-fold)."""
    lent: float = 0.1
    """Quadratic price of hardly seen splats that look unlike their neighbours, and of colours below 0 or above 1."""
    leak: float = 0.3
    """Price of what shines through surfaces seen from the side, per pixel."""
    corrective: float = 6.0
    """Mean squared price of the correctives' position (region offsets) and colour deltas."""


@dataclass(frozen=True)
class DensityConfig:
    """When and how splats are added and removed."""

    every: int = 200
    """Steps between two changes; 0 keeps the number fixed."""
    start: float = 0.08
    """First change, as a fraction of all steps."""
    stop: float = 0.6
    """Last change, as a fraction of all steps."""
    grow: float = 0.06
    """Share of the splats, those with the largest gradient, that split or clone at each change."""
    min_opacity: float = 0.03
    """Splats below this are removed."""


@dataclass(frozen=True)
class AvatarConfig:
    """Fit rigged Gaussians to one tracked clip."""

    steps: int = 6000
    """Optimiser steps."""
    batch: int = 1
    """Frames of a step; their gradients are averaged. Several processes (--devices) share them."""
    splats: int = 20_000
    """Number of splats to start with."""
    max_splats: int = 40_000
    """Number of splats never exceeded."""
    coarse_until: float = 0.4
    """Fraction of the steps that trains at half resolution."""
    settle: float = 0.5
    """When, as a fraction of the steps, splats that no frame shows make room for new ones that look like their
    neighbours, and what hardly shows begins to be drawn towards its neighbours' looks. 1: never."""
    sh_degree: int = 0
    """Degree of the spherical harmonics; one camera sees too few directions for more than 1."""
    correctives: int = 12
    """Size of the linear corrective basis; 0 switches it off."""
    field: Literal["none", "attention", "region"] = "none"
    """Let the voice move and tint the face beyond the rig, after GaussianTalker or after TalkingGaussian. Needs a clip
    with the person's own speech."""
    pose_refinement: bool = True
    """Refine the tracked motion of each frame against its picture, anchored to the track. Training frames are refined
    while the splats learn; frames held out are tracked against the finished splats, which learn nothing from them."""
    loss: LossWeights = dataclasses.field(default_factory=LossWeights)
    density: DensityConfig = dataclasses.field(default_factory=DensityConfig)
    checkpoint_every: int = 250
    """Steps between two checkpoints."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "splats", "max_splats", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.correctives < 0:
            raise InputError(f"correctives is {self.correctives}; it must be 0 (none) or more")
        for name in ("coarse_until", "settle"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise InputError(f"{name} is {share}; it is a share of the steps, from 0 to 1")
        if self.max_splats < self.splats:
            raise InputError(f"max_splats is {self.max_splats}, smaller than splats, {self.splats}; raise it")
        if not 0 <= self.sh_degree <= 3:
            raise InputError(f"sh_degree is {self.sh_degree}; it must be 0 to 3")
