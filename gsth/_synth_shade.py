"""How the synthetic actor's painted surface becomes a picture: lights, materials, supersampled edges.

Deferred shading on the head room's z-buffer. Per frame the lights are turned into the frame of each joint and meet
the precomputed transfer there, so shadows move as the head turns. All colours are linear light until ``tone``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gsth import math3d
from gsth._synth_paint import CLOTH, EYE, MOUTH, SKIN, TEETH, Surface, mix, neckline, smooth_normals
from gsth.head import PARENTS, _raster
from gsth.types import Cameras, Mesh, Motion

KEY_DIRECTION = (-0.52, -0.55, -0.66)
"""Towards the key light, world axes: in front, above, on the left of the picture."""
KEY_RGB = (1.62, 1.52, 1.40)
_FILL = (0.75, -0.05, -0.65)
_RIM = (0.62, -0.28, 0.73)
_RIM_RGB = (0.85, 0.92, 1.05)
_KEY_SHARPNESS = 14.0
"""The key light is a soft box: exp(sharpness (cos - 1)) over directions."""
_SUPER = 2
"""Samples per pixel and axis."""
_CHUNK = 16384
"""Samples shaded at a time, few enough for the processor's cache."""


def _sky(directions: Tensor) -> Tensor:
    """Light of the surroundings from world directions [... 3]: pale above, warm below, a cool fill on the right."""
    up = (-directions[..., 1:2] * 0.5 + 0.5).clamp(0, 1)
    light = mix(torch.tensor((0.30, 0.26, 0.23)), torch.tensor((0.78, 0.84, 0.95)), up)
    fill = (directions @ F.normalize(torch.tensor(_FILL), dim=0)).clamp_min(0)[..., None] ** 4
    return light + fill * torch.tensor((0.75, 0.85, 1.0))


@dataclass(frozen=True, eq=False)
class Lit:
    """One frame's vertices, with what light arrives at them."""

    verts: Tensor
    """World frame, [v 3]."""
    normals: Tensor
    """[v 3]."""
    ambient: Tensor
    """Diffuse light of the surroundings, [v 3]."""
    key: Tensor
    """Share of the key light that is not blocked, [v]."""
    albedo: Tensor
    """Inside the mouth dimmed by the dark in there, [v 3]."""


def light(s: Surface, mesh: Mesh, motion: Motion) -> Lit:
    """Light on a posed mesh of one frame."""
    chain: list[Tensor] = []
    for j, parent in enumerate(PARENTS):
        above = math3d.quat_to_mat(motion.T_world_head[0, :4]) if parent < 0 else chain[parent]
        chain.append(above @ math3d.quat_to_mat(motion.joints[0, j]))
    rots = torch.stack(chain)
    turned = torch.einsum("jab,db->jda", rots, s.directions)
    key = F.normalize(torch.tensor(KEY_DIRECTION), dim=0)
    window = torch.exp(_KEY_SHARPNESS * (turned @ key - 1))
    window = window / window.sum(1, keepdim=True)
    ambient = torch.einsum("vj,vjc->vc", s.skin_weights, torch.einsum("vd,jdc->vjc", s.transfer, _sky(turned)))
    shadow = (s.skin_weights * (s.sees @ window.T)).sum(1)
    verts, tongue, albedo = mesh.verts[0], s.tongue, s.albedo.clone()
    albedo[tongue.verts] *= tongue.bared(motion.expr[0, tongue.action])
    return Lit(verts, smooth_normals(verts, s.faces, s.weld), ambient, shadow, albedo)


def tone(linear: Tensor) -> Tensor:
    """Display values 0 to 1 of linear light: a filmic shoulder (Narkowicz 2015, fit of ACES), then sRGB's gamma."""
    x = linear.clamp_min(0) * 0.60
    mapped = (x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14)).clamp(0, 1)
    return torch.where(mapped < 0.0031308, 12.92 * mapped, 1.055 * mapped.clamp_min(1e-8) ** (1 / 2.4) - 0.055)


def background(height: int, width: int) -> Tensor:
    """A softly graded wall, display values, [h w 3]."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    glow = torch.exp(-((x + 0.25) ** 2 + (y + 0.2) ** 2) / 1.3)[..., None]
    wall = torch.tensor((0.36, 0.39, 0.42)) + glow * torch.tensor((0.30, 0.30, 0.29))
    # Fixed grain of one grey level, so that eight-bit video shows no bands.
    grain = torch.rand(height, width, 1, generator=torch.Generator().manual_seed(7)) - 0.5
    return (wall + grain / 255).clamp(0, 1)


def _noise(s: Surface, at: Tensor, metres: float) -> Tensor:
    """Solid noise with features of a size, at rest coordinates [p 3]; [p 1]."""
    period = metres * s.noise.shape[-1] / 2
    wrapped = torch.remainder(at / period, 1.0) * 2 - 1
    return F.grid_sample(s.noise, wrapped[None, None, None], align_corners=True).reshape(-1, 1) * 1.6


def _eye_albedo(s: Surface, at: Tensor) -> Tensor:
    """Colour of the eyes at rest coordinates, [p 3]."""
    left = at[:, :1] > 0
    offset = at - torch.where(left, s.eyes[0], s.eyes[1])
    d = F.normalize(offset, dim=1)
    angle = torch.acos((-d[:, 2:]).clamp(-1, 1))
    spoke = torch.atan2(d[:, 1:2], d[:, :1])
    fibres = torch.zeros_like(spoke)
    for n, phase, gain in ((11, 0.3, 0.25), (23, 1.7, 0.25), (41, 0.9, 0.20), (67, 2.4, 0.15)):
        fibres = fibres + gain * torch.sin(n * spoke + phase + 9 * angle)
    iris_r, pupil_r, edge = 0.425, 0.17, 0.022
    inner = torch.exp(-(((angle - pupil_r) / 0.07) ** 2))
    iris = torch.tensor(s.look.iris) * (1.15 + 0.65 * fibres) + inner * torch.tensor((0.10, 0.06, 0.02))
    iris = iris * (1 - 0.75 * torch.sigmoid((angle - iris_r + 0.05) / 0.018))
    rgb = mix(torch.full_like(iris, 0.006), iris, torch.sigmoid((angle - pupil_r) / (edge * 0.4)))
    veins = (angle - 0.55).clamp(0, 0.9) * torch.tensor((0.02, 0.17, 0.16))
    sclera = torch.tensor((0.66, 0.63, 0.60)) - veins
    cornea = 1 - torch.sigmoid((angle - iris_r) / (edge * 0.5))
    return mix(sclera, rgb, cornea)


def _between_teeth(at: Tensor) -> Tensor:
    """Dark lines where one tooth ends and the next begins, at rest coordinates [p 3]; [p 1]."""
    around = torch.atan2(at[:, :1], -0.075 - at[:, 2:])
    return 1 - 0.45 * torch.exp(-((torch.sin(around * 20) / 0.30) ** 2))


def _cloth(s: Surface, at: Tensor) -> tuple[Tensor, Tensor]:
    """Colour [p 3] of the bust at rest coordinates [p 3], and 1 on cloth, 0 on skin [p 1]."""
    below = neckline(at)[:, None]
    cloth = torch.sigmoid(below / 0.0007)
    collar = torch.sigmoid((0.017 - below) / 0.0006)
    around = torch.atan2(at[:, :1], at[:, 2:] + 0.015)
    ribs = 0.84 + 0.16 * torch.sin(around * 130)
    weave = 1 + 0.10 * _noise(s, at, 0.0022) + 0.08 * _noise(s, at * torch.tensor((1.0, 0.25, 1.0)), 0.004)
    rgb = torch.tensor(s.look.cloth) * mix(weave, ribs * 0.92, collar)
    seam = torch.exp(-(((below - 0.0185) / 0.0014) ** 2))
    return rgb * (1 - 0.45 * seam), cloth


def shade(s: Surface, lit: Lit, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Draw one frame with one camera.

    Returns:
        The picture over the wall, display values [h w 3], and the depth of the surface, m, [h w] (inf where none).
    """
    height, width = cameras.height * _SUPER, cameras.width * _SUPER
    view = cameras.viewmats[0]
    seen = lit.verts @ view[:3, :3].T + view[:3, 3]
    K = cameras.Ks[0].numpy().astype(np.float64) * np.array([[_SUPER], [_SUPER], [1.0]])
    corner = seen[s.faces]
    face_n = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    front = torch.nonzero((face_n * corner[:, 0]).sum(1) < 0)[:, 0]
    hits = _raster.rasterize(seen.numpy(), s.faces[front].numpy(), K, (height, width))
    blocks = [_blocks(torch.from_numpy(a)) for a in (hits.face_ids, hits.depth, hits.bary)]
    face, depth = torch.where(blocks[0] >= 0, front[blocks[0].long()], -1), blocks[1]
    rows, samples, whole = _plan(s, face, depth)
    eye = -view[:3, :3].T @ view[:3, 3]
    single = torch.stack((lit.key, s.gloss, s.bloom), 1)
    table = torch.cat((lit.verts, lit.normals, s.rest, lit.albedo, lit.ambient, single), 1)
    colours = background(cameras.height, cameras.width).reshape(-1, 1, 3).repeat(1, _SUPER**2, 1)
    bary = blocks[2]
    for part in torch.arange(len(rows)).split(_CHUNK):
        r, k, w = rows[part], samples[part], whole[part]
        # Where one triangle fills the pixel, the mean of the samples is its centre.
        centre = w & (face[r] == face[r, :1]).all(1)
        at = torch.where(centre[:, None], bary[r].mean(1), bary[r, k])
        rgb = tone(_lit_pixels(s, table, face[r, k], at, eye))
        colours[r[~w], k[~w]] = rgb[~w]
        colours[r[w]] = rgb[w, None]
    shape = (cameras.height, cameras.width)
    return colours.mean(1).reshape(*shape, 3), depth.amin(1).reshape(shape)


def _blocks(samples: Tensor) -> Tensor:
    """Samples [h w ...] of a supersampled picture, gathered by pixel, [pixels samples ...]."""
    h, w = samples.shape[0] // _SUPER, samples.shape[1] // _SUPER
    apart = samples.reshape(h, _SUPER, w, _SUPER, *samples.shape[2:]).transpose(1, 2)
    return apart.reshape(h * w, _SUPER**2, *samples.shape[2:])


def _plan(s: Surface, face: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which samples to shade: one for all where a smooth surface fills the pixel, each where an edge crosses it.

    Args:
        face: [pixels samples], -1 where nothing is seen.
        depth: m, [pixels samples].

    Returns:
        Pixel of each shaded sample [p], its number [p], and whether it stands for the whole pixel [p].
    """
    covered = (face >= 0).all(1)
    kind = s.kinds[face.clamp_min(0)]
    flat = covered & (depth.amax(1) - depth.amin(1) < 0.004) & (kind == kind[:, :1]).all(1) & (kind[:, 0] != EYE)
    whole = torch.nonzero(flat)[:, 0]
    pixel, sample = torch.nonzero((face >= 0) & ~flat[:, None], as_tuple=True)
    alone = torch.arange(len(whole) + len(pixel)) >= len(whole)
    return torch.cat((whole, pixel)), torch.cat((0 * whole, sample)), ~alone


@dataclass(frozen=True, eq=False)
class _Points:
    """Places to shade, interpolated on the surface."""

    where: Tensor
    """World frame, [p 3]."""
    normals: Tensor
    """[p 3]."""
    rest: Tensor
    """[p 3]."""
    ambient: Tensor
    """[p 3]."""
    key: Tensor
    """[p 1]."""
    kind: Tensor
    """Material, [p 1]."""


def _lit_pixels(s: Surface, table: Tensor, face: Tensor, bary: Tensor, eye: Tensor) -> Tensor:
    """Linear light towards the eye [3] from places on triangles [p] with barycentric weights [p 3]; [p 3].

    Args:
        table: What is interpolated, by vertex: position, normal, rest position, albedo, ambient and key light, gloss,
            share of noise, [v 18].
    """
    at = (table[s.faces[face]] * bary[..., None]).sum(1)
    where, n, rest, albedo, ambient, key, gloss, bloom = at.split((3, 3, 3, 3, 3, 1, 1, 1), 1)
    points = _Points(where, F.normalize(n, dim=1), rest, ambient, key.clamp(0, 1), s.kinds[face][:, None])
    albedo, gloss, cloth = _material(s, points, albedo, gloss, bloom)
    return _reflected(points, albedo, gloss, cloth, F.normalize(eye - where, dim=1))


def _material(s: Surface, at: _Points, albedo: Tensor, gloss: Tensor, bloom: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Albedo [p 3] and gloss [p 1] with their fine structure, and 1 on cloth [p 1]."""
    kind = at.kind[:, 0]
    fine, mid, broad = (_noise(s, at.rest, m) for m in (0.0016, 0.0048, 0.016))
    blotches = 1 + bloom * (0.035 * fine + 0.030 * mid + 0.035 * broad * torch.tensor((0.5, 1.2, 1.2)))
    albedo = albedo * torch.where((at.kind == SKIN) | (at.kind == CLOTH), blotches, torch.ones(()))
    gloss = gloss * (1 + 0.18 * fine * bloom)
    on_bust, on_eye = torch.nonzero(kind == CLOTH)[:, 0], torch.nonzero(kind == EYE)[:, 0]
    fabric, share = _cloth(s, at.rest[on_bust])
    below = neckline(at.rest[on_bust])[:, None]
    under_rim = albedo[on_bust] * (1 - 0.55 * torch.exp(below.clamp_max(0) / 0.005))
    albedo = albedo.index_copy(0, on_bust, mix(under_rim, fabric, share))
    cloth = torch.zeros_like(gloss).index_copy(0, on_bust, share)
    albedo = albedo.index_copy(0, on_eye, _eye_albedo(s, at.rest[on_eye]))
    gloss = gloss.index_copy(0, on_eye, torch.full((len(on_eye), 1), 0.3))
    on_teeth = torch.nonzero(kind == TEETH)[:, 0]
    albedo = albedo.index_copy(0, on_teeth, albedo[on_teeth] * _between_teeth(at.rest[on_teeth]))
    return albedo, gloss, cloth


def _reflected(at: _Points, albedo: Tensor, gloss: Tensor, cloth: Tensor, to_eye: Tensor) -> Tensor:
    """Light that leaves towards the eye, [p 3].

    Args:
        at: The places.
        albedo: [p 3].
        gloss: [p 1].
        cloth: 1 on cloth, [p 1].
        to_eye: Unit directions, [p 3].
    """
    n, kind = at.normals, at.kind
    key, rim, fill = (F.normalize(torch.tensor(d), dim=0) for d in (KEY_DIRECTION, _RIM, _FILL))
    facing = (n @ key)[:, None]
    skin = ((kind == SKIN) | (kind == CLOTH)).float() * (1 - cloth)
    # Skin lets red light wander past the edge of the shadow: wrapped diffuse with a width per channel.
    wrap = mix(torch.full((3,), 0.06), torch.tensor((0.38, 0.16, 0.10)), skin)
    diffuse = ((facing + wrap) / (1 + wrap)).clamp_min(0)
    shadow = at.key ** (1 / (1 + 1.2 * skin * torch.tensor((1.0, 0.35, 0.25))))
    radiance = albedo * (at.ambient + diffuse * shadow * torch.tensor(KEY_RGB))

    facing_eye = (n * to_eye).sum(1, keepdim=True)
    nh = (n * F.normalize(to_eye + key, dim=1)).sum(1, keepdim=True).clamp_min(0)
    grazing = (1 - facing_eye).clamp(0, 1)
    sheen = 0.16 * nh**14 + 0.13 * nh**48
    shine = gloss * (1 - 0.85 * cloth) * sheen * shadow * (facing > 0) * torch.tensor(KEY_RGB)
    edge = grazing**4 * (0.22 + 0.25 * cloth) * at.ambient
    back = (n @ rim)[:, None].clamp_min(0) * grazing**2 * 0.55 * torch.tensor(_RIM_RGB) * (0.3 + albedo)
    outside = ((kind != MOUTH) & (kind != TEETH)).float()
    # Soft boxes mirrored in the wet eye.
    mirror = 2 * facing_eye * n - to_eye
    boxes = 2.2 * torch.sigmoid((mirror @ key - 0.982) / 0.003) + 0.35 * torch.sigmoid((mirror @ fill - 0.985) / 0.004)
    return radiance + shine + (edge + back) * outside + (kind == EYE).float() * boxes[:, None] * at.key
