"""The first splats: sampled on what the clip shows of the mesh, coloured from its pixels."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from gsth import math3d
from gsth.avatar import _cover, _regions
from gsth.avatar._config import AvatarConfig
from gsth.avatar._reel import Reel
from gsth.avatar._views import Views, looked_at, with_depth
from gsth.errors import InputError
from gsth.head import HeadModel
from gsth.render import torch_ref
from gsth.types import RiggedSplats

SH_C0 = 0.28209479177387814
_OVERSAMPLE = 3
BROAD = 0.7
"""Standard deviation of a new splat along the surface, over the distance to the next."""


def initial_splats(reel: Reel, head: HeadModel, config: AvatarConfig) -> RiggedSplats:
    """About ``config.splats`` splats on the parts of the head that the training frames show.

    Hair shell and clothes get splats only where the person matte says that the person is; what the matte shows
    beyond the mesh (hair that flies, a collar) is filled from the nearest carried surface.
    """
    generator = torch.Generator().manual_seed(config.seed)
    views = looked_at(reel, head)
    rest = head.shaped(reel.identity).rest
    density = _regions.per_face(head, "density") * _cover.worn(views, head, rest)
    face_ids, bary = sample(rest[head.faces], density, config.splats * _OVERSAMPLE, generator)
    points = (views.verts[:, head.faces[face_ids]] * bary[None, :, :, None]).sum(2)
    shown = _shown(views, head, face_ids, points)
    keep = shown.nonzero()[:, 0]
    keep = keep[torch.randperm(len(keep), generator=generator)[: config.splats]]
    if len(keep) == 0:
        raise InputError(
            f"{reel.tracks[0].clip.path}: no part of the tracked head lies in the picture; look at the track"
        )
    face_ids, bary, points = face_ids[keep], bary[keep], points[:, keep]
    # What stands in the way: all of the head, and of hair and clothes what is worn.
    solid = ~_regions.cover_faces(head)
    solid[face_ids] = True
    views = with_depth(views, head.faces[solid])
    colour = _colours(views, head, face_ids, points)
    spacing = _spacing(rest, head, face_ids)
    base = discs(head, views.verts[0], face_ids, points[0], colour, spacing)
    room = min(config.splats // 4, config.max_splats - len(face_ids))
    return join(base, _fill(views, head, base, points, room // 6, generator))


def areas(corners: Tensor) -> Tensor:
    """Of triangles [f 3 3], [f]."""
    return 0.5 * torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)


def sample(corners: Tensor, density: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Triangles [n] and barycentric weights [n 3], uniform by area of ``corners`` [f 3 3] times density [f]."""
    face_ids = torch.multinomial(areas(corners) * density, count, True, generator=generator)
    # Square-root warp: uniform over the triangle.
    u, v = torch.rand(2, count, generator=generator)
    root = u.sqrt()
    return face_ids, torch.stack((1 - root, root * (1 - v), root * v), -1)


def _shown(views: Views, head: HeadModel, face_ids: Tensor, points: Tensor) -> Tensor:
    """Which samples the clip can say anything about, bool [n].

    Not those outside the picture, nor those that always face away (beyond what a small turn could show), nor those
    which the matte puts outside the person more often than not.
    """
    _, inside = views.pixels(points)
    person = views.of_person(points) & inside
    mostly = person.sum(0) > 0.6 * inside.sum(0)
    sideways = views.facing(head.faces[face_ids]).amax(0) > -0.4
    return mostly & inside.any(0) & sideways


def _colours(views: Views, head: HeadModel, face_ids: Tensor, points: Tensor) -> Tensor:
    """Of samples [t n 3], [n 3]; what its region looks like for a sample that no frame shows."""
    colour, seen = views.colours(head.faces[face_ids], points)
    regions = _regions.region_of_faces(head)[face_ids]
    everything = colour[seen].mean(0) if seen.any() else torch.full((3,), 0.5)
    for index, region in enumerate(_regions.REGIONS):
        mine = regions == index
        known = mine & seen
        default = torch.tensor(region.colour) if region.colour else colour[known].mean(0) if known.any() else everything
        colour[mine & ~seen] = default
    return colour


def _spacing(rest: Tensor, head: HeadModel, face_ids: Tensor) -> Tensor:
    """Mean distance between neighbouring samples around each sample on vertices [v 3], m, [n]."""
    area = areas(rest[head.faces])
    density = _regions.per_face(head, "density")
    used = torch.zeros(len(area)).index_add(0, face_ids, torch.ones(len(face_ids))) > 0
    per_weight = len(face_ids) / (area * density)[used].sum()
    return (1 / (density[face_ids] * per_weight)).sqrt()


def discs(
    head: HeadModel, verts: Tensor, face_ids: Tensor, points: Tensor, colour: Tensor, spacing: Tensor
) -> RiggedSplats:
    """Flat discs on their triangles: world points [n 3] of the frame whose vertices are ``verts``."""
    origins, quats, sizes = torch_ref.triangle_frames(verts, head.faces[face_ids])
    local = math3d.quat_rotate(math3d.quat_conj(quats), points - origins) / sizes[:, None]
    # The second axis of a triangle's frame is its normal: thin there.
    disc = spacing[:, None] / sizes[:, None] * torch.tensor((BROAD, 0.25, BROAD))
    return RiggedSplats(
        face_ids=face_ids,
        means_tri=local,
        quats_tri=math3d.quat_identity(len(face_ids)),
        log_scales=disc.log(),
        logit_opacities=torch.full((len(face_ids),), 2.0),
        sh=((colour - 0.5) / SH_C0)[:, None],
    )


def _fill(
    views: Views, head: HeadModel, base: RiggedSplats, points: Tensor, each: int, generator: torch.Generator
) -> list[RiggedSplats]:
    """Splats for what the matte shows beyond the mesh, carried by the nearest sample in the picture; up to ``each`` of
    every third view."""
    out = []
    for t in range(0, len(views.verts), 3):
        covered = torch.nn.functional.max_pool2d(torch.isfinite(views.depth[t]).float()[None, None], 7, 1, 3)[0, 0] > 0
        open_rc = (views.mattes[t] & ~covered).nonzero()
        if each == 0 or len(open_rc) == 0:
            continue
        picked = open_rc[torch.randperm(len(open_rc), generator=generator)[:each]]
        px = picked.flip(-1) + 0.5
        K = views.K[t]
        _, inside = views.one(t).pixels(points[t : t + 1])
        anchors = inside[0].nonzero()[:, 0]
        anchors = anchors[torch.randperm(len(anchors), generator=generator)[:4000]]
        nearest = anchors[torch.cdist(px.float(), math3d.project(points[t, anchors], K)).argmin(1)]
        z = points[t, nearest, 2]
        xy = (px - K[:2, 2]) / torch.stack((K[0, 0], K[1, 1])) * z[:, None]
        colour = views.images[t][picked[:, 0], picked[:, 1]]
        spacing = (z / K[0, 0]) * (len(open_rc) / len(picked)) ** 0.5
        out.append(discs(head, views.verts[t], base.face_ids[nearest], torch.cat((xy, z[:, None]), 1), colour, spacing))
    return out


def join(base: RiggedSplats, more: list[RiggedSplats]) -> RiggedSplats:
    """All of them, in order."""
    return RiggedSplats(**{f: torch.cat([getattr(s, f) for s in (base, *more)]) for f in _FIELDS})


_FIELDS = tuple(f.name for f in dataclasses.fields(RiggedSplats))
