"""The first splats: sampled on what the clip shows of the mesh, coloured from its pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gsth import math3d
from gsth.avatar import _regions
from gsth.avatar._avatar import motion_features
from gsth.avatar._config import AvatarConfig
from gsth.errors import InputError
from gsth.head import HeadModel
from gsth.head._raster import rasterize
from gsth.render import torch_ref
from gsth.types import RiggedSplats, Track

VIEWS = 16
"""Training frames that sampling looks at."""
SH_C0 = 0.28209479177387814
_OVERSAMPLE = 3


@dataclass(frozen=True)
class _Views:
    """A few training frames, and what the posed mesh covers there."""

    verts: Tensor
    """[t v 3], camera frame (which is the world)."""
    images: Tensor
    """[t h w 3], 0 to 1."""
    mattes: Tensor
    """bool [t h w]."""
    depth: Tensor
    """z of the nearest surface that carries splats, inf where none, [t h w]."""
    K: Tensor

    def pixels(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Column and row of points [t n 3], clamped, as a flat index [t n]; and which lie inside."""
        h, w = self.depth.shape[1:]
        px = math3d.project(points, self.K)
        col, row = px[..., 0].long(), px[..., 1].long()
        inside = (col >= 0) & (col < w) & (row >= 0) & (row < h) & (points[..., 2] > 0.01)
        return row.clamp(0, h - 1) * w + col.clamp(0, w - 1), inside

    def look_up(self, values: Tensor, flat: Tensor) -> Tensor:
        """Values [t h w ...] at flat pixel indices [t n]."""
        return torch.stack([v.flatten(0, 1)[i] for v, i in zip(values, flat, strict=True)])


def spread_frames(track: Track, train_frames: int, count: int) -> list[int]:
    """Training frames that differ most in pose and expression, by farthest-point choice from the first found."""
    usable = track.found[:train_frames].nonzero()[:, 0]
    if len(usable) == 0:
        raise InputError(f"{track.clip.path}: no face was found in the {train_frames} training frames")
    features = motion_features(track.motion)[usable]
    features = torch.cat((features[:, :-9], 4 * features[:, -9:]), 1)
    chosen, distance = [0], torch.full((len(usable),), float("inf"))
    while len(chosen) < min(count, len(usable)):
        distance = torch.minimum(distance, (features - features[chosen[-1]]).norm(dim=1))
        chosen.append(int(distance.argmax()))
    return sorted(int(usable[i]) for i in set(chosen))


def initial_splats(track: Track, head: HeadModel, train_frames: int, config: AvatarConfig) -> RiggedSplats:
    """About ``config.splats`` splats on the parts of the head that the training frames show.

    Hair shell and clothes get splats only where the person matte says that the person is; what the matte shows
    beyond the mesh (hair that flies, a collar) is filled from the nearest carried surface.
    """
    generator = torch.Generator().manual_seed(config.seed)
    views = _views(track, head, spread_frames(track, train_frames, VIEWS))
    face_ids, bary = _sample(track, head, config.splats * _OVERSAMPLE, generator)
    points = (views.verts[:, head.faces[face_ids]] * bary[None, :, :, None]).sum(2)
    shown = _shown(views, head, face_ids, points)
    keep = shown.nonzero()[:, 0]
    keep = keep[torch.randperm(len(keep), generator=generator)[: config.splats]]
    if len(keep) == 0:
        raise InputError(f"{track.clip.path}: no part of the tracked head lies in the picture; look at the track")
    face_ids, bary, points = face_ids[keep], bary[keep], points[:, keep]
    views = _with_depth(views, head, face_ids.unique())
    colour = _colours(views, head, face_ids, points)
    spacing = _spacing(track, head, face_ids)
    base = _local(head, views.verts[0], face_ids, points[0], colour, spacing)
    return _join(base, _fill(views, head, base, points, config.splats // 4, generator))


def _views(track: Track, head: HeadModel, frames: list[int]) -> _Views:
    index = torch.tensor(frames)
    m = track.motion
    motion = m.replace(expr=m.expr[index], joints=m.joints[index], T_world_head=m.T_world_head[index], audio=None)
    verts = head.shaped(track.identity).posed(motion).verts
    mattes = torch.from_numpy(track.mattes[frames]) > 127
    images = torch.from_numpy(track.images[frames]).float() / 255
    return _Views(verts, images, mattes, torch.full(mattes.shape, float("inf")), track.cameras.Ks[0])


def _with_depth(views: _Views, head: HeadModel, carriers: Tensor) -> _Views:
    """The same views with the depth of the triangles that carry splats."""
    h, w = views.depth.shape[1:]
    faces = head.faces[carriers].numpy()
    depth = [rasterize(v.numpy(), faces, views.K.numpy(), (h, w)).depth for v in views.verts]
    return replace(views, depth=torch.from_numpy(np.stack(depth)))


def _sample(track: Track, head: HeadModel, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Triangles [n] and barycentric weights [n 3], uniform by area times the region's density."""
    rest = head.shaped(track.identity).rest[head.faces]
    area = 0.5 * torch.linalg.cross(rest[:, 1] - rest[:, 0], rest[:, 2] - rest[:, 0]).norm(dim=-1)
    face_ids = torch.multinomial(area * _regions.per_face(head, "density"), count, True, generator=generator)
    # Square-root warp: uniform over the triangle.
    u, v = torch.rand(2, count, generator=generator)
    root = u.sqrt()
    return face_ids, torch.stack((1 - root, root * (1 - v), root * v), -1)


def _facing(views: _Views, head: HeadModel, face_ids: Tensor) -> Tensor:
    """Cosine between each triangle's outward normal and the way to the camera, [t n]."""
    corner = views.verts[:, head.faces[face_ids]]
    normal = torch.linalg.cross(corner[:, :, 1] - corner[:, :, 0], corner[:, :, 2] - corner[:, :, 0])
    to_camera = -corner.mean(2)
    return torch.nn.functional.cosine_similarity(normal, to_camera, dim=-1)


def _shown(views: _Views, head: HeadModel, face_ids: Tensor, points: Tensor) -> Tensor:
    """Which samples the clip can say anything about, bool [n].

    Not those outside the picture, nor those that always face away (beyond what a small turn could show), nor those
    which the matte puts outside the person more often than not.
    """
    flat, inside = views.pixels(points)
    person = views.look_up(views.mattes, flat) & inside
    mostly = person.sum(0) > 0.6 * inside.sum(0)
    sideways = _facing(views, head, face_ids).amax(0) > -0.4
    return mostly & inside.any(0) & sideways


def _colours(views: _Views, head: HeadModel, face_ids: Tensor, points: Tensor) -> Tensor:
    """Mean colour of each sample over the frames where it is the surface in front, [n 3], 0 to 1."""
    flat, inside = views.pixels(points)
    front = points[..., 2] < views.look_up(views.depth, flat) + 0.004
    person = views.look_up(views.mattes, flat)
    weight = _facing(views, head, face_ids).clamp_min(0) * (front & inside & person)
    pixel = views.look_up(views.images, flat)
    total = weight.sum(0)
    colour = (pixel * weight[..., None]).sum(0) / total.clamp_min(1e-6)[:, None]
    seen = total > 0.05
    regions = _regions.region_of_faces(head)[face_ids]
    everything = colour[seen].mean(0) if seen.any() else torch.full((3,), 0.5)
    for index, region in enumerate(_regions.REGIONS):
        mine = regions == index
        known = mine & seen
        default = torch.tensor(region.colour) if region.colour else colour[known].mean(0) if known.any() else everything
        colour[mine & ~seen] = default
    return colour


def _spacing(track: Track, head: HeadModel, face_ids: Tensor) -> Tensor:
    """Mean distance between neighbouring samples around each sample, m, [n]."""
    rest = head.shaped(track.identity).rest[head.faces]
    area = 0.5 * torch.linalg.cross(rest[:, 1] - rest[:, 0], rest[:, 2] - rest[:, 0]).norm(dim=-1)
    density = _regions.per_face(head, "density")
    used = torch.zeros(len(area)).index_add(0, face_ids, torch.ones(len(face_ids))) > 0
    per_weight = len(face_ids) / (area * density)[used].sum()
    return (1 / (density[face_ids] * per_weight)).sqrt()


def _local(
    head: HeadModel, verts: Tensor, face_ids: Tensor, points: Tensor, colour: Tensor, spacing: Tensor
) -> RiggedSplats:
    """Flat discs on their triangles: world points [n 3] of the frame whose vertices are ``verts``."""
    origins, quats, sizes = torch_ref.triangle_frames(verts, head.faces[face_ids])
    local = math3d.quat_rotate(math3d.quat_conj(quats), points - origins) / sizes[:, None]
    # The second axis of a triangle's frame is its normal: thin there.
    disc = spacing[:, None] / sizes[:, None] * torch.tensor((0.7, 0.25, 0.7))
    return RiggedSplats(
        face_ids=face_ids,
        means_tri=local,
        quats_tri=math3d.quat_identity(len(face_ids)),
        log_scales=disc.log(),
        logit_opacities=torch.full((len(face_ids),), 2.0),
        sh=((colour - 0.5) / SH_C0)[:, None],
    )


def _fill(
    views: _Views, head: HeadModel, base: RiggedSplats, points: Tensor, most: int, generator: torch.Generator
) -> list[RiggedSplats]:
    """Splats for what the matte shows beyond the mesh, carried by the nearest sample in the picture."""
    out = []
    for t in range(0, len(views.verts), 3):
        covered = torch.nn.functional.max_pool2d(torch.isfinite(views.depth[t]).float()[None, None], 7, 1, 3)[0, 0] > 0
        open_rc = (views.mattes[t] & ~covered).nonzero()
        if len(open_rc) == 0:
            continue
        picked = open_rc[torch.randperm(len(open_rc), generator=generator)[: max(1, most // 6)]]
        px = picked.flip(-1) + 0.5
        flat, inside = views.pixels(points[t : t + 1])
        anchors = inside[0].nonzero()[:, 0]
        anchors = anchors[torch.randperm(len(anchors), generator=generator)[:4000]]
        nearest = anchors[torch.cdist(px.float(), math3d.project(points[t, anchors], views.K)).argmin(1)]
        z = points[t, nearest, 2]
        K = views.K
        xy = (px - K[:2, 2]) / torch.stack((K[0, 0], K[1, 1])) * z[:, None]
        colour = views.images[t][picked[:, 0], picked[:, 1]]
        spacing = (z / K[0, 0]) * (len(open_rc) / len(picked)) ** 0.5
        out.append(
            _local(head, views.verts[t], base.face_ids[nearest], torch.cat((xy, z[:, None]), 1), colour, spacing)
        )
    return out


def _join(base: RiggedSplats, more: list[RiggedSplats]) -> RiggedSplats:
    fields = ("face_ids", "means_tri", "quats_tri", "log_scales", "logit_opacities", "sh")
    return RiggedSplats(**{f: torch.cat([getattr(s, f) for s in (base, *more)]) for f in fields})
