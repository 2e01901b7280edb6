"""Regions of the head as data: how dense, how far off the mesh, how large, and what colour before it was seen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gsth.head import HeadModel


@dataclass(frozen=True)
class Region:
    """How splats on some parts of the head behave."""

    name: str
    parts: tuple[str, ...]
    density: float
    """Splats per area, relative to the cheek."""
    max_offset: float
    """Farthest a splat may stand off its triangle, m."""
    max_scale: float
    """Largest standard deviation, m."""
    kin: int
    """Regions of one number may lend each other their looks where no frame shows them."""
    soft: bool = True
    """Whether correctives and the audio field may move its splats on their triangles."""
    colour: tuple[float, float, float] | None = None
    """What to assume where no picture shows it; None: the mean of what was seen of the region."""


SKIN, HAIR, BODY, INSIDE = range(4)
"""Kinds of region. INSIDE (mouth, eyes) is never completed from outside."""
COVER = ("hair_cap", "drape")
"""Parts that some people wear and others do not."""

# Earlier regions win where parts overlap: small and special before large and plain.
REGIONS = (
    Region("tongue", ("tongue",), 0.3, 0.004, 0.005, INSIDE, True, (0.45, 0.20, 0.19)),
    Region("teeth_upper", ("teeth_upper",), 0.8, 0.002, 0.003, INSIDE, False, (0.62, 0.57, 0.50)),
    Region("teeth_lower", ("teeth_lower",), 0.8, 0.002, 0.003, INSIDE, False, (0.55, 0.50, 0.44)),
    Region("mouth_inner", ("mouth_inner",), 0.2, 0.004, 0.006, INSIDE, True, (0.12, 0.04, 0.04)),
    Region("eyes", ("eye_l", "eye_r"), 1.5, 0.001, 0.004, INSIDE, False),
    Region("lashes", ("lashes",), 2.0, 0.003, 0.003, INSIDE, True, (0.10, 0.08, 0.07)),
    Region("lips", ("lips", "upper_lip", "lower_lip"), 2.5, 0.004, 0.005, SKIN),
    Region("lids", ("lids",), 2.5, 0.003, 0.004, SKIN),
    Region("brows", ("brows",), 2.0, 0.006, 0.005, SKIN),
    Region("face", ("face", "nose", "forehead"), 1.0, 0.008, 0.008, SKIN),
    Region("ears", ("ears",), 1.0, 0.012, 0.008, SKIN),
    Region("hair_cap", ("hair_cap",), 0.6, 0.05, 0.012, HAIR),
    Region("drape", ("drape",), 0.6, 0.05, 0.012, HAIR),
    Region("scalp", ("scalp",), 0.4, 0.03, 0.010, HAIR),
    Region("neck", ("neck",), 0.5, 0.015, 0.008, SKIN),
    Region("bust", ("bust",), 0.3, 0.04, 0.010, BODY),
)


def region_of_faces(head: HeadModel) -> Tensor:
    """Index into REGIONS of every triangle, int64 [f]; what no region names counts as the last (bust)."""
    owner = torch.full((len(head.faces),), -1, dtype=torch.int64, device=head.faces.device)
    for index, region in enumerate(REGIONS):
        for part in region.parts:
            if part in head.parts:
                ids = head.parts[part]
                owner[ids[owner[ids] < 0]] = index
    return torch.where(owner < 0, torch.full_like(owner, len(REGIONS) - 1), owner)


def per_face(head: HeadModel, attribute: str) -> Tensor:
    """A numeric attribute of each triangle's region, float32 [f]."""
    table = torch.tensor([getattr(r, attribute) for r in REGIONS], dtype=torch.float32, device=head.faces.device)
    return table[region_of_faces(head)]


def colours(head: HeadModel) -> Tensor:
    """The colour that each triangle's region has where nothing shows it, [f 3]; NaN where it depends on the person."""
    unknown = (float("nan"),) * 3
    return torch.tensor([r.colour or unknown for r in REGIONS])[region_of_faces(head)]


def caps(head: HeadModel) -> Tensor:
    """Which triangles are hair that does not hang, bool [f]."""
    return torch.tensor([r.kin == HAIR and r.name != "drape" for r in REGIONS])[region_of_faces(head)]


def cover_faces(head: HeadModel) -> Tensor:
    """Which triangles are cover, bool [f]."""
    out = torch.zeros(len(head.faces), dtype=torch.bool)
    for part in COVER:
        if part in head.parts:
            out[head.parts[part]] = True
    return out
