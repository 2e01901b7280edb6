"""Which of the loose cover (hair cap, drape) a person wears, by the evidence of all frames.

The matte alone cannot say: what hangs behind a neck projects into the person, hair or not. So only the part of the
cover that skin and clothes leave open in some frame is asked, and what is always hidden goes with its neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gsth.avatar import _regions
from gsth.avatar._views import Views
from gsth.head import HeadModel
from gsth.head._raster import rasterize

_PERSON = 0.6
"""Share of the frames that must show the person where a piece of cover is open."""
_BEHIND_M = 0.003
_NEIGHBOURS = 12
_ROOT_M = 0.03
"""What hangs begins no farther than this from the cap."""
_RIM_PX = 3
"""Mattes are soft and a little wide; what lies within this (of 256 px) of their edge is not evidence of hair."""


def worn(views: Views, head: HeadModel, rest: Tensor) -> Tensor:
    """bool [f]: the triangle may carry splats. True for all that is not cover.

    Args:
        views: Frames that differ as much as possible.
        head: Its parts named by ``_regions.COVER``.
        rest: Vertices at rest [v 3].
    """
    cover = _regions.cover_faces(head)
    ids = cover.nonzero()[:, 0]
    out = torch.ones(len(head.faces), dtype=torch.bool)
    if len(ids) == 0:
        return out
    centres = views.verts[:, head.faces[ids]].mean(2)
    flat, inside = views.pixels(centres)
    solid = head.faces[~cover & (_regions.per_face(head, "density") > 0)].numpy()
    h, w = views.mattes.shape[1:]
    depth = [rasterize(v.numpy(), solid, K.numpy(), (h, w)).depth for v, K in zip(views.verts, views.K, strict=True)]
    in_front = centres[..., 2] < views.look_up(torch.stack([torch.from_numpy(d) for d in depth]), flat) + _BEHIND_M
    # The cap's own edge is the edge of the head; what hangs beside a neck must show more than a soft edge.
    hangs = torch.isin(ids, head.parts["drape"]) if "drape" in head.parts else torch.zeros(len(ids), dtype=torch.bool)
    shows = torch.where(hangs, views.look_up(views.core(_RIM_PX), flat), views.look_up(views.mattes, flat))
    open_ = in_front & inside
    person = (open_ & shows).sum(0) > _PERSON * open_.sum(0)
    asked = open_.any(0)
    out[ids[asked]] = person[asked]
    if asked.any() and not asked.all():
        points = rest[head.faces[ids]].mean(1)
        k = min(_NEIGHBOURS, int(asked.sum()))
        near = torch.cdist(points[~asked], points[asked]).topk(k, largest=False).indices
        out[ids[~asked]] = person[asked][near].float().mean(1) > 0.5
    return _rooted(out, head, rest)


def _rooted(worn: Tensor, head: HeadModel, rest: Tensor) -> Tensor:
    """Without the drape that nothing connects with the cap: before a chest the matte says person, hair or not."""
    if not all(part in head.parts for part in _regions.COVER):
        return worn
    cap, drape = (head.parts[part][worn[head.parts[part]]] for part in _regions.COVER)
    centres = rest[head.faces].mean(1)
    near = torch.cdist(centres[drape], centres[cap]).lt(_ROOT_M).any(1)
    reached = torch.zeros(len(rest), dtype=torch.bool)
    reached[head.faces[drape[near]]] = True
    hangs = near
    while (more := reached[head.faces[drape]].any(1)).sum() > hangs.sum():
        hangs = more
        reached[head.faces[drape[hangs]]] = True
    out = worn.clone()
    out[drape[~hangs]] = False
    return out
