"""Which of the loose cover (hair cap, drape) a person wears, by the evidence of all frames.

The matte alone cannot say: what hangs behind a neck projects into the person, hair or not. So only the part of the
cover that skin and clothes leave open in some frame is asked, and what is always hidden goes with its neighbours.
Before a chest the matte says person, too: there the colour decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gsth.avatar import _regions
from gsth.avatar._views import Views, with_depth
from gsth.head import HeadModel

_PERSON = 0.6
"""Share of the frames that must show the person where a piece of cover is open."""
_NEIGHBOURS = 12
_ROOT_M = 0.03
"""What hangs begins no farther than this from the cap."""
_APART = 2.0
"""Colours that lie nearer to that of hair than so many of its deviations are the same colour."""
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
    solid = head.faces[~cover & (_regions.per_face(head, "density") > 0)]
    views = with_depth(views, solid)
    # The cap's own edge is the edge of the head; what hangs beside a neck must show more than a soft edge.
    hangs = torch.isin(ids, head.parts["drape"]) if "drape" in head.parts else torch.zeros(len(ids), dtype=torch.bool)
    mattes = views.of_person(centres)
    shows = torch.where(hangs, views.look_up(views.core(_RIM_PX), views.pixels(centres)[0]), mattes)
    open_ = views.uncovered(centres)
    person = (open_ & shows).sum(0) > _PERSON * open_.sum(0)
    asked = open_.any(0)
    if not asked.any():
        return _rooted(out, head, rest)
    points = rest[head.faces[ids]].mean(1)
    k = min(_NEIGHBOURS, int(asked.sum()))
    near = torch.cdist(points, points[asked]).topk(k, largest=False).indices
    out[ids] = torch.where(asked, person, _most(person[asked], near))
    hair = _by_colour(views, head, rest, ids)
    out[ids] &= ~hangs | _most(hair[asked], near)
    return _rooted(out, head, rest)


def _most(votes: Tensor, near: Tensor) -> Tensor:
    """What most of the neighbours [n k] say."""
    return votes[near].float().mean(1) > 0.5


def _by_colour(views: Views, head: HeadModel, rest: Tensor, ids: Tensor) -> Tensor:
    """Which triangles of cover look like hair where frames show them, bool [n]; all that nothing shows."""
    centres = views.verts[:, head.faces].mean(2)
    colour, seen = views.colours(head.faces[ids], centres[:, ids], inner=True)
    kin = _regions.per_face(head, "kin")
    cap = _regions.caps(head)[ids] & seen
    height = rest[head.faces[ids]].mean(1)[:, 1]
    others = []
    for kind in (_regions.SKIN, _regions.BODY):
        plain = kin == kind
        shade, shows = views.colours(head.faces[plain], centres[:, plain])
        others.append(shade[shows])
    return like_hair(colour, colour[upper(cap, height)], others) | ~seen


def upper(some: Tensor, height: Tensor) -> Tensor:
    """The upper half of some points [n] (the model frame's y points down): what hair shows lower may hang over
    anything."""
    return some & (height <= height[some].median()) if some.any() else some


def like_hair(colour: Tensor, crown: Tensor, others: Sequence[Tensor]) -> Tensor:
    """bool [n]: nearer in colour to the hair of the crown than to other things.

    Args:
        colour: Any coefficients that tell colours apart, [n 3].
        crown: Of what is surely hair, or where hair would be, [c 3].
        others: Of skin, of clothes, [m 3] each. What has the colour of the crown, as a bald head's skin has, tells
            nothing.
    """
    like = torch.ones(len(colour), dtype=torch.bool)
    if len(crown) == 0:
        return like
    own = crown.median(0).values
    spread = (crown - own).norm(dim=1).median()
    for other in others:
        theirs = other.median(0).values if len(other) else own
        if (theirs - own).norm() > _APART * spread:
            like &= (colour - own).norm(dim=1) <= (colour - theirs).norm(dim=1)
    return like


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
