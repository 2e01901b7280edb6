"""Adding and removing splats during training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gsth import math3d
from gsth.avatar._config import DensityConfig
from gsth.types import Rendered


@dataclass
class GradientRecord:
    """Mean screen-space gradient of each splat since the last change, over the frames that showed it."""

    total: Tensor
    seen: Tensor

    @classmethod
    def empty(cls, n: int, device: torch.device | str = "cpu") -> GradientRecord:
        return cls(torch.zeros(n, device=device), torch.zeros(n, device=device))

    def add(self, rendered: Rendered) -> None:
        """Take in one frame after its backward pass."""
        assert rendered.grad_px is not None
        visible = rendered.radii_px[0] > 0
        # In fractions of the picture, so that coarse and fine steps count alike.
        self.total += torch.where(visible, rendered.grad_px[0] * rendered.alpha.shape[-1], 0.0)
        self.seen += visible

    @property
    def mean(self) -> Tensor:
        return self.total / self.seen.clamp_min(1)


@dataclass(frozen=True)
class Change:
    """New rows in terms of old ones: first the kept, then the added."""

    source: Tensor
    """Old row of each new row, int64 [m]."""
    added: int
    """How many rows at the end are new (their optimiser state starts at zero)."""


def plan(record: GradientRecord, logit_opacities: Tensor, config: DensityConfig, max_splats: int) -> Change:
    """Which splats go and which split in two."""
    keep = torch.sigmoid(logit_opacities) >= config.min_opacity
    kept = keep.nonzero()[:, 0]
    room = min(int(config.grow * len(kept)), max_splats - len(kept))
    if room <= 0:
        return Change(kept, 0)
    score = torch.where(keep, record.mean, torch.full_like(record.mean, -1.0))
    split = score.topk(room).indices.sort().values
    split = split[score[split] > 0]
    return Change(torch.cat((kept, split)), len(split))


def split_long_axis(params: dict[str, Tensor], change: Change) -> dict[str, Tensor]:
    """The new parameter rows: a split splat becomes two, half a deviation apart along its longest axis.

    The child keeps its parent's triangle. Opacity follows Bulo et al. 2024 (Revising Densification, eq. 7), so that
    the pair covers what the parent covered.
    """
    new = {name: value[change.source].clone() for name, value in params.items()}
    if change.added == 0:
        return new
    first = len(change.source) - change.added
    children = torch.arange(first, len(change.source))
    position = torch.full((len(next(iter(params.values()))),), -1, dtype=torch.int64)
    position[change.source[:first]] = torch.arange(first)
    parents = position[change.source[first:]]
    long_axis = new["log_scales"][children].argmax(-1, keepdim=True)
    sigma = new["log_scales"][children].gather(-1, long_axis).exp()
    direction = math3d.quat_to_mat(new["quats_tri"][children]).gather(-1, long_axis[:, None].expand(-1, 3, 1))[..., 0]
    opacity = torch.sigmoid(new["logit_opacities"][children])
    halved = torch.logit(1 - (1 - opacity).sqrt(), eps=1e-4)
    shrunk = new["log_scales"][children].scatter_add(-1, long_axis, torch.full_like(sigma, -0.5))
    for rows, sign in ((children, 1.0), (parents, -1.0)):
        new["means_tri"][rows] += sign * 0.5 * sigma * direction
        new["log_scales"][rows] = shrunk
        new["logit_opacities"][rows] = halved
    return new
