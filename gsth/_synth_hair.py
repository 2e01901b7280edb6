"""The synthetic actor's hair, brows and lashes: long thin Gaussians that ride on the head's triangles.

Each strand is a polyline that grows from a root on the resting head; each of its segments becomes one Gaussian, bound
to the root's triangle. Light follows Kajiya and Kay 1989 ("Rendering fur with three dimensional textures").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gsth import math3d
from gsth._synth_paint import Surface
from gsth._synth_shade import KEY_DIRECTION, KEY_RGB, Lit, tone
from gsth.head import HeadModel
from gsth.render import rig, triangle_frames
from gsth.render.torch_ref import DILATION_PX2
from gsth.types import Cameras, Mesh, RiggedSplats, Splats

_SH0 = 0.28209479177387814

_BROWS = (
    ((107, 66, 105, 63, 70), (55, 65, 52, 53, 46)),
    ((336, 296, 334, 293, 300), (285, 295, 282, 283, 276)),
)
"""MediaPipe landmarks of the upper and lower edge of both brows, from the nose outwards."""


@dataclass(frozen=True, eq=False)
class Strands:
    """Hair of one actor."""

    splats: RiggedSplats
    """Their colours are linear albedo, not yet lit, in ``albedo``; ``sh`` stays zero until ``lit`` fills it."""
    albedo: Tensor
    """[n 3]."""
    shelter: Tensor
    """Light that the hair above leaves over, 0 to 1, [n]."""
    behind: Tensor
    """How far behind the surface a splat may lie and still be drawn, m, [n]."""


@dataclass(frozen=True, eq=False)
class _Curves:
    """Polylines on the resting head, before they are bound."""

    points: Tensor
    """[s k 3], m."""
    faces: Tensor
    """Triangle of each root, [s]."""
    width: float
    """Standard deviation across, m."""
    opacity: float
    rgb: Tensor
    """[s 3]."""
    shelter: Tensor
    """At each point, [s k]."""
    behind: float


def grow(head: HeadModel, s: Surface, seed: int) -> Strands:
    """All hair of a resting head."""
    generator = torch.Generator().manual_seed(seed)
    curves = [_scalp_hair(head, s, generator), *_brow_hair(head, s, generator), _lash_hair(head, s, generator)]
    bound = [_bind(head, s, c) for c in curves]
    joined = [torch.cat(parts) for parts in zip(*bound, strict=True)]
    face_ids, means, quats, log_scales, logits, albedo, shelter, behind = joined
    sh = torch.zeros(len(means), 1, 3)
    return Strands(RiggedSplats(face_ids, means, quats, log_scales, logits, sh), albedo, shelter, behind)


def _bind(head: HeadModel, s: Surface, c: _Curves) -> tuple[Tensor, ...]:
    """Segments as splats in the frames of the roots' triangles."""
    a, b = c.points[:, :-1], c.points[:, 1:]
    along = b - a
    length = along.norm(dim=-1).clamp_min(1e-6)
    across = torch.linalg.cross(along, torch.tensor((0.31, -0.17, 0.93)).expand_as(along), dim=-1)
    x, y = F.normalize(along, dim=-1), F.normalize(across, dim=-1)
    quats = math3d.mat_to_quat(torch.stack((x, y, torch.linalg.cross(x, y, dim=-1)), -1))
    face = c.faces[:, None].expand(length.shape)
    origins, rotations, sizes = (p[face] for p in triangle_frames(s.rest, head.faces))
    back = math3d.quat_conj(rotations)
    means = math3d.quat_rotate(back, (a + b) / 2 - origins) / sizes[..., None]
    # Neighbours along a strand overlap, and the strand thins out towards its tip.
    taper = torch.linspace(1.0, 0.55, length.shape[1]).expand(length.shape)
    scales = torch.stack((length * 0.45, c.width * taper, c.width * taper), -1) / sizes[..., None]
    opacity = torch.full(length.shape, c.opacity) * taper
    return (
        face.reshape(-1),
        means.reshape(-1, 3),
        math3d.quat_mul(back, quats).reshape(-1, 4),
        scales.log().reshape(-1, 3),
        torch.logit(opacity).reshape(-1),
        c.rgb[:, None].expand(*length.shape, 3).reshape(-1, 3),
        ((c.shelter[:, :-1] + c.shelter[:, 1:]) / 2).reshape(-1),
        torch.full((length.numel(),), c.behind),
    )


def _sample(
    rest: Tensor, faces: Tensor, weights: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Random places on triangles [f 3], as likely as area times vertex weight [v].

    Returns:
        Row of ``faces`` [count], position [count 3], weight there [count].
    """
    corner = rest[faces]
    area = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]).norm(dim=1)
    row = torch.multinomial(area * weights[faces].amax(1), count, replacement=True, generator=generator)
    u, v = torch.rand(2, count, generator=generator)
    flip = u + v > 1
    u, v = torch.where(flip, 1 - u, u), torch.where(flip, 1 - v, v)
    bary = torch.stack((1 - u - v, u, v), 1)
    return row, (corner[row] * bary[..., None]).sum(1), (weights[faces[row]] * bary).sum(1)


def _scalp_hair(head: HeadModel, s: Surface, generator: torch.Generator) -> _Curves:
    """A short cut with a side parting: long on top and combed over, short and downwards at sides and nape."""
    rest, skin = s.rest, head.faces[head.parts["skin"]]
    weight = s.scalp
    row, root, density = _sample(rest, skin, weight, 16000, generator)
    keep = torch.rand(len(row), generator=generator) < ((density - 0.25) * 2.2).clamp(0, 1)
    row, root = row[keep], root[keep]
    normal = s.normals[skin[row]].mean(1)
    crown = rest[skin[weight[skin].amin(1) > 0.9].unique()]
    middle, top = crown.mean(0), crown[:, 1].min()
    level = ((root[:, 1] - top) / 0.085).clamp(0, 1)[:, None]  # 0 on the crown, 1 above the ears
    part = (root[:, :1] - (-0.030)) / 0.012
    side = torch.tanh(part)
    front = ((middle[2] - root[:, 2:]) / 0.07).clamp(-1, 1)
    over = torch.cat((side * 1.0, torch.full_like(side, 0.15), 0.25 - 0.35 * front), 1)
    down = torch.cat((0.10 * torch.sign(root[:, :1]), torch.ones_like(side), 0.45 + 0 * side), 1)
    blend = level * level * (3 - 2 * level)
    comb = over + (down - over) * blend
    comb = comb + 0.16 * torch.randn(len(root), 3, generator=generator)
    length = (0.052 - 0.040 * blend[:, 0]) * (0.75 + 0.5 * torch.rand(len(root), generator=generator))
    lift = (0.9 - 0.55 * blend) * (0.6 + 0.8 * torch.rand(len(root), 1, generator=generator))
    steps = 6
    height = 0.0015 + (0.0135 - 0.0095 * blend[:, 0]) * torch.rand(len(root), generator=generator)
    points = [root - 0.001 * normal]
    for k in range(steps):
        n, gap = _nearest(points[-1], rest, s.normals, weight)
        flat = comb - (comb * n).sum(1, keepdim=True) * n
        want = F.normalize(flat, dim=1) + n * lift * (1 - 1.6 * k / steps)
        at = points[-1] + F.normalize(want, dim=1) * (length / steps)[:, None]
        # Hair lies in layers: each strand is drawn towards its own height above the scalp.
        points.append(at + n * ((height - gap) * 0.35).clamp(-0.004, 0.004)[:, None] * (k > 0))
    curve = _clumped(torch.stack(points, 1), generator)
    depth = ((height - 0.001) / 0.012).clamp(0, 1)[:, None] * 0.6 + torch.linspace(0, 0.4, steps + 1)
    tint = torch.tensor(s.look.hair) * (0.75 + 0.6 * torch.rand(len(root), 1, generator=generator))
    return _Curves(curve, head.parts["skin"][row], 0.00042, 0.90, tint, 0.35 + 0.65 * depth.clamp(0, 1), 0.006)


def _nearest(at: Tensor, rest: Tensor, normals: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Normal [s 3] of the nearest point of the scalp and height above it, m, [s]."""
    ids = torch.nonzero(weight > 0.05)[:, 0]
    distance, index = torch.cdist(at, rest[ids]).topk(4, dim=1, largest=False)
    share = F.softmax(-distance / 0.004, 1)[..., None]
    near, normal = (rest[ids][index] * share).sum(1), F.normalize((normals[ids][index] * share).sum(1), dim=1)
    return normal, ((at - near) * normal).sum(1)


def _clumped(curves: Tensor, generator: torch.Generator) -> Tensor:
    """Strands that gather towards one strand in each neighbourhood, more so at the tips; [s k 3]."""
    guides = torch.randperm(len(curves), generator=generator)[: max(len(curves) // 22, 1)]
    nearest = guides[torch.cdist(curves[:, 0], curves[guides, 0]).argmin(1)]
    offset = curves[:, :1] - curves[nearest, :1]
    along = torch.linspace(0, 1, curves.shape[1])[:, None]
    target = curves[nearest] + offset * (1 - 0.65 * along)
    return curves + (target - curves) * (0.75 * along)


def _brow_hair(head: HeadModel, s: Surface, generator: torch.Generator) -> list[_Curves]:
    """Short hairs between the landmarks of each brow's edges, combed outwards."""
    marks = head.landmarks(s.rest[None])[0]
    skin = head.parts["face"]
    centres = s.rest[head.faces[skin]].mean(1)
    out = []
    for upper, lower in _BROWS:
        count = 360
        u = torch.rand(count, generator=generator) * 3.5
        v = torch.rand(count, generator=generator)
        v = 0.5 + (v - 0.5) * (1.05 - 0.16 * u)  # thinner towards the temple
        i, f = u.long(), (u - u.floor())[:, None]
        top, bottom = marks[list(upper)], marks[list(lower)]
        edge_t, edge_b = top[i] + (top[i + 1] - top[i]) * f, bottom[i] + (bottom[i + 1] - bottom[i]) * f
        root = edge_b + (edge_t - edge_b) * v[:, None]
        face = skin[torch.cdist(root, centres).argmin(1)]
        corner = s.rest[head.faces[face]]
        normal = F.normalize(torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), dim=1)
        root = root + normal * (((corner[:, 0] - root) * normal).sum(1, keepdim=True) + 0.0004)
        rise = F.normalize(edge_t - edge_b, dim=1)
        outward = F.normalize(top[i + 1] + bottom[i + 1] - top[i] - bottom[i], dim=1)
        lean = (0.9 - 0.5 * u[:, None] - 0.9 * (v[:, None] - 0.5)).clamp(-0.8, 1.2)
        comb = F.normalize(outward + rise * lean + 0.15 * torch.randn(count, 3, generator=generator), dim=1)
        length = 0.0055 + 0.0025 * torch.rand(count, 1, generator=generator)
        points = torch.stack([root + comb * length * t + normal * 0.0009 * t * (2 - t) for t in (0.0, 0.5, 1.0)], 1)
        tint = torch.tensor(s.look.hair) * (0.8 + 0.4 * torch.rand(count, 1, generator=generator))
        out.append(_Curves(points, face, 0.00026, 0.80, tint, torch.full((count, 3), 0.8), 0.004))
    return out


def _lash_hair(head: HeadModel, s: Surface, generator: torch.Generator) -> _Curves:
    """Hairs on the lash sheets, pointing away from the eye."""
    ids = head.parts["lashes"]
    faces = head.faces[ids]
    row, root, _ = _sample(s.rest, faces, torch.ones(len(s.rest)), 420, generator)
    corner = s.rest[faces[row]]
    normal = F.normalize(torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), dim=1)
    away = root - torch.where(root[:, :1] > 0, s.eyes[0], s.eyes[1])
    comb = F.normalize(away - (away * normal).sum(1, keepdim=True) * normal, dim=1)
    points = torch.stack((root - comb * 0.0012, root + comb * 0.0012), 1)
    tint = torch.tensor((0.012, 0.008, 0.007)).expand(len(root), 3)
    return _Curves(points, ids[row], 0.00014, 0.75, tint, torch.full((len(root), 2), 0.6), 0.003)


def lit(strands: Strands, s: Surface, light: Lit, mesh: Mesh, cameras: Cameras, depth: Tensor) -> Splats:
    """One frame's hair, lit, without what the surface hides.

    Args:
        depth: Of the surface, m, [h w], as ``shade`` gives it for the same camera.
    """
    splats = rig(strands.splats, mesh)
    view = cameras.viewmats[0]
    seen = splats.means @ view[:3, :3].T + view[:3, 3]
    px = math3d.project(seen, cameras.Ks[0]).long()
    limit = torch.tensor((cameras.width - 1, cameras.height - 1))
    px = torch.minimum(px.clamp_min(0), limit)
    open_to_eye = torch.nonzero(seen[:, 2] < depth[px[:, 1], px[:, 0]] + strands.behind)[:, 0]
    axis = torch.tensor((1.0, 0.0, 0.0)).expand_as(splats.means)
    tangent = math3d.quat_rotate(math3d.quat_normalize(splats.quats), axis)[open_to_eye]
    means = splats.means[open_to_eye]
    eye = -view[:3, :3].T @ view[:3, 3]
    root = mesh.faces[strands.splats.face_ids[open_to_eye], 0]
    key = F.normalize(torch.tensor(KEY_DIRECTION), dim=0)
    to_eye = F.normalize(eye - means, dim=1)
    tl, te = tangent @ key, (tangent * to_eye).sum(1)
    sin_l, sin_e = (1 - tl * tl).clamp_min(0).sqrt(), (1 - te * te).clamp_min(0).sqrt()
    specular = (sin_l * sin_e - tl * te).clamp(0, 1)
    normal = light.normals[root]
    shadow = light.key[root] * ((normal @ key) * 0.6 + 0.45).clamp(0, 1)
    shelter, albedo = strands.shelter[open_to_eye, None], strands.albedo[open_to_eye]
    direct = albedo * sin_l[:, None] * 0.9 + 0.030 * specular[:, None] ** 30 + albedo * specular[:, None] ** 8 * 1.2
    rgb = albedo * light.ambient[root] + direct * shadow[:, None] * torch.tensor(KEY_RGB)
    sh = ((tone(rgb * shelter) - 0.5) / _SH0)[:, None]
    # The renderer's low-pass filter widens hairs thinner than a pixel; let them cover no more than they do.
    scales = splats.scales[open_to_eye]
    across_px = scales[:, 1] * cameras.Ks[0, 0, 0] / seen[open_to_eye, 2].clamp_min(1e-3)
    thin = across_px / (across_px**2 + DILATION_PX2).sqrt()
    return Splats(means, splats.quats[open_to_eye], scales, splats.opacities[open_to_eye] * thin, sh)
