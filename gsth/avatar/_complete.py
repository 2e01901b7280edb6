"""What no frame showed: the back of the head, ears in shadow, shoulders outside the picture.

Training moves a splat only as far as pictures show it. Those that nothing shows keep whatever noise left in them, and
would be the first thing seen from the side. They are replaced: the bare surface is sampled anew, and each new splat
takes colour and distance from the mesh of the nearest splats of its own kind that were seen, its mirror image
included. Training then goes on with them: where they would show in a frame, the frame corrects them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gsth import math3d, render
from gsth.avatar import _cover, _init, _regions
from gsth.avatar._avatar import Avatar
from gsth.avatar._views import Views
from gsth.types import Cameras, RiggedSplats

_VIEWS_PX = 256
_SEEN = 0.03
"""A splat of which less than this share ever shows was not seen."""
_LENDS = 0.3
"""From this share on its looks are good enough to lend."""
_RIM_PX = 4
"""Nearer to the matte's edge (of 256 px) than this, colours are mixed with the background's."""
_INSIDE_SHARE = 0.7
_SQUARE = 0.6
"""Cosine at which some frame must look at skin or clothes: edge-on they shine, and would make a pale back."""
_RIM_PULL = 0.5
"""How much of the outline's colour is left to the neighbours: at most this share."""
_NEIGHBOURS = 16
_MIRROR_M = 0.01
"""How much farther away a mirrored neighbour counts."""
_APART, _REACH = 1.2, 1.4
"""New splats keep this many spacings off seen ones, and are this many times as large as the first splats were."""
_ALONG = torch.tensor((1.0, 0.0, 1.0))
"""The axes of a triangle's frame that lie in its plane."""
_CHUNK = 1024


@dataclass(frozen=True)
class Settled:
    """What is worth keeping, what is new, and how it all should look where the frames say little."""

    kept: Tensor
    """Rows of the splats that stay, int64 [m]."""
    added: RiggedSplats
    """New splats on what is bare of seen ones, [a]."""
    lent: Tensor
    """What their neighbours look like, [m + a k 3]."""
    pull: Tensor
    """How little they were seen themselves, 0 to 1, [m + a]."""
    height: Tensor
    """How far their neighbours stand off the mesh, m, [m + a]."""


def settle(made: Avatar, views: Views, wears: Tensor, room: int, seed: int) -> Settled:
    """Which splats were seen, and new ones for the surface that was not.

    Args:
        made: A half-trained avatar; its motion is that of all frames which training knows.
        views: Training frames that say what was seen.
        wears: Which triangles may carry splats, bool [f] (see ``_cover.worn``).
        room: By how many splats it may grow.
        seed: Of the new samples.
    """
    trust = trusted(made, views)
    inside = _kin(made, made.splats.face_ids) == _regions.INSIDE
    # An open mouth shows little of what is in it, and teeth in shadow are better than none.
    kept = ((trust >= _SEEN) | inside).nonzero()[:, 0]
    lenders = _Lenders.of(made.taken(kept), trust[kept], views)
    rows, weight = lenders.find(lenders.points[: len(kept)], _kin(made, made.splats.face_ids[kept]))
    lent = (lenders.made.splats.sh[rows] * weight[..., None, None]).sum(1)
    pull = 1 - ((trust[kept] - _SEEN) / (_LENDS - _SEEN)).clamp(0, 1)
    pull = torch.maximum(pull, _RIM_PULL * (1 - lenders.core_share))
    pull = torch.where(inside[kept] | (weight.sum(1) == 0), 0.0, pull)
    lent, pull = _inside(lenders.made, trust[kept], lent, pull)
    added = _bare_surface(lenders, wears, room + len(trust) - len(kept), seed)
    sizes = render.triangle_frames(made.shaped.rest, made.head.faces)[2]
    new = added.means_tri[:, 1] * sizes[added.face_ids]
    height = torch.where(inside[kept], 0.0, (lenders.heights[rows] * weight).sum(1))
    pull = torch.cat((pull, torch.ones(len(new))))
    return Settled(kept, added, torch.cat((lent, added.sh)), pull, torch.cat((height, new)))


def _inside(made: Avatar, trust: Tensor, lent: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
    """What is hardly seen of tongue, teeth and mouth takes the colour that such things have."""
    plain = _regions.colours(made.head)[made.splats.face_ids]
    known = plain[:, 0].isfinite()
    lent = lent.clone()
    lent[known] = 0
    lent[known, 0] = (plain[known] - 0.5) / _init.SH_C0
    return lent, torch.where(known, 1 - (trust / _LENDS).clamp(0, 1), pull)


def unseen(made: Avatar, views: Views) -> Tensor:
    """bool [n]: splats that no frame shows, and that stand for a surface that is guessed."""
    inside = _kin(made, made.splats.face_ids) == _regions.INSIDE
    return (trusted(made, views) < _SEEN) & ~inside


def trusted(made: Avatar, views: Views) -> Tensor:
    """Which share of each splat the frames show, 0 to 1: the most in any of them, [n].

    The gradient of the picture's sum by a splat's colour is the sum of its blending weights, in pixels; it is compared
    with what the splat would fill if it stood alone and faced the camera.
    """
    scale = min(1.0, _VIEWS_PX / made.cameras.width)
    cam = made.cameras
    most = torch.zeros(len(made.splats.face_ids))
    for frame, K in zip(views.frames, views.K * torch.tensor((scale, scale, 1.0))[:, None], strict=True):
        cameras = Cameras(cam.viewmats, K[None], round(cam.width * scale), round(cam.height * scale))
        with torch.no_grad():
            splats = made.pose(made.motion[frame])
        # Well above black, where colours are clamped and have no gradient.
        sh = torch.ones(len(most), 1, 3).requires_grad_()
        drawn = render.render(splats.replace(sh=sh), cameras, background=torch.zeros(3))
        drawn.rgb[..., 0].sum().backward()
        assert sh.grad is not None
        broad = splats.scales.topk(2, 1).values.prod(1) * K[0, 0] * K[1, 1] / splats.means[:, 2].square()
        whole = 2 * math.pi * splats.opacities * broad
        most = torch.maximum(most, sh.grad[:, 0, 0] / _init.SH_C0 / whole.clamp_min(0.1))
    return most.clamp_max(1)


def _kin(made: Avatar, face_ids: Tensor) -> Tensor:
    return _regions.per_face(made.head, "kin").long()[face_ids]


@dataclass(frozen=True)
class _Lenders:
    """Splats whose looks are good enough to lend, and their mirror images."""

    made: Avatar
    points: Tensor
    """On the resting mesh, [2 n 3]: the splats, then their mirror images."""
    kin: Tensor
    """[2 n], -1 for those that do not lend."""
    trust: Tensor
    """[n]."""
    heights: Tensor
    """How far each splat stands off the mesh, m, [n]."""
    core_share: Tensor
    """In which share of the frames each splat lies well inside the person, [n]."""

    @classmethod
    def of(cls, made: Avatar, trust: Tensor, views: Views) -> _Lenders:
        """Those that are seen well and squarely, and not at the person's outline, where background shines through."""
        ids = made.splats.face_ids
        origins, quats, sizes = render.triangle_frames(made.shaped.rest, made.head.faces)
        points = origins[ids] + sizes[ids, None] * math3d.quat_rotate(quats[ids], made.splats.means_tri * _ALONG)
        means = torch.stack([made.pose(made.motion[f]).means for f in views.frames])
        flat, inside = views.pixels(means)
        core = views.look_up(views.core(_RIM_PX), flat) & inside
        share = core.sum(0) / inside.sum(0).clamp_min(1)
        lends = (trust >= _LENDS) & (share > _INSIDE_SHARE)
        kin = _kin(made, ids)
        # Hair that is seen squarely is a forehead's fringe; its triangles' normals say little of it anyway.
        squarely = (views.facing(made.head.faces[ids]) * inside).amax(0) > _SQUARE
        lends &= squarely | (kin == _regions.HAIR)
        # Hair around ears, at the neck and over a collar shows other things, which would make the back bald.
        colour = made.splats.sh[:, 0]
        crown = colour[_cover.upper(lends & _regions.caps(made.head)[ids], points[:, 1])]
        others = [colour[lends & (kin == kind)] for kind in (_regions.SKIN, _regions.BODY)]
        lends &= (kin != _regions.HAIR) | _cover.like_hair(colour, crown, others)
        kin = torch.where(lends, kin, torch.full_like(ids, -1))
        heights = made.splats.means_tri[:, 1] * sizes[ids]
        # The model frame's x is zero in the plane of symmetry.
        mirrored = points * torch.tensor((-1.0, 1.0, 1.0))
        return cls(made, torch.cat((points, mirrored)), kin.repeat(2), trust, heights, share)

    def find(self, points: Tensor, kin: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [m k] of the nearest lenders of the same kin, and their weights, which sum to 1, or 0 for none."""
        n = len(self.trust)
        distance, rows = _near(points, kin, self.points, self.kin, _NEIGHBOURS)
        # Mirrored lenders stand a little farther away.
        distance = distance + _MIRROR_M * (rows >= n)
        weight = self.trust[rows % n] / (distance + 1e-3)
        return rows % n, weight / weight.sum(1, keepdim=True).clamp_min(1e-9)


def _bare_surface(lenders: _Lenders, wears: Tensor, room: int, seed: int) -> RiggedSplats:
    """New splats where the resting mesh has none that were seen, at most ``room``."""
    made = lenders.made
    head, rest, ids = made.head, made.shaped.rest, made.splats.face_ids
    corners, kin = rest[head.faces], _regions.per_face(head, "kin").long()
    density = _regions.per_face(head, "density") * (wears & (kin != _regions.INSIDE))
    # As dense as training was where it saw: the trained splats per weighted area that carries them.
    carried = torch.zeros(len(density), dtype=torch.bool).index_fill_(0, ids, True)
    weighted = _init.areas(corners) * density
    each = weighted[carried].sum() / len(ids)
    spacing = (each / density.clamp_min(1e-6)).sqrt()
    generator = torch.Generator().manual_seed(seed)
    face_ids, bary = _init.sample(corners, density, max(4 * room, 1), generator)
    points = (corners[face_ids] * bary[..., None]).sum(1)
    distance = _near(points, kin[face_ids], lenders.points[: len(ids)], kin[ids], 1)[0][:, 0]
    rows, weight = lenders.find(points, kin[face_ids])
    bare = (distance > _APART * spacing[face_ids]) & (weight.sum(1) > 0)
    keep = bare.nonzero()[:, 0][:room]
    # Where there is no room for all, fewer must cover as much.
    wide = (bare.sum() / (4 * max(room, 1)) * weighted.sum() / (each * max(len(keep), 1))).sqrt().clamp_min(_REACH)
    face_ids, points, rows, weight = face_ids[keep], points[keep], rows[keep], weight[keep]
    sizes = render.triangle_frames(rest, head.faces)[2]
    plain = torch.zeros(len(keep), 3)
    most = _regions.per_face(head, "max_scale")[face_ids] / _init.BROAD
    discs = _init.discs(head, rest, face_ids, points, plain, (wide * spacing[face_ids]).clamp_max(most))
    lift = torch.zeros_like(discs.means_tri)
    lift[:, 1] = (lenders.heights[rows] * weight).sum(1) / sizes[face_ids]
    colour = (made.splats.sh[rows] * weight[..., None, None]).sum(1)
    return discs.replace(means_tri=discs.means_tri + lift, sh=colour)


def _near(points: Tensor, kin: Tensor, others: Tensor, their_kin: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances and rows [m k] of the nearest ``others`` of the same kin, or of any where their kin has none.

    Others of kin -1 never count; where nothing is found, distances are inf.
    """
    distance = torch.full((len(points), k), torch.inf)
    rows = torch.zeros(len(points), k, dtype=torch.int64)
    for kind in kin.unique().tolist():
        mine, theirs = (kin == kind).nonzero()[:, 0], (their_kin == kind).nonzero()[:, 0]
        if len(theirs) == 0:
            theirs = (their_kin >= 0).nonzero()[:, 0]
        take = min(k, len(theirs))
        if take == 0:
            continue
        for part in mine.split(_CHUNK):
            near = torch.cdist(points[part], others[theirs]).topk(take, largest=False)
            distance[part, :take], rows[part, :take] = near.values, theirs[near.indices]
    return distance, rows
