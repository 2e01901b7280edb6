"""The synthetic actor's surface: what colour it is, what light reaches it, and how both become a picture.

Deferred shading on the head room's z-buffer. All colours are linear light until ``tone``. Diffuse light from the
surroundings and the soft shadow of the key light come from precomputed radiance transfer (Sloan, Kautz and Snyder
2002): which of some hundred directions each vertex of the resting head sees is found once, with depth pictures; per
frame the lights are turned into the frame of each joint, so shadows move as the head turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gsth import math3d
from gsth.head import PARENTS, HeadModel, _raster
from gsth.types import Cameras, Mesh, Motion

SKIN, CLOTH, EYE, TEETH, MOUTH = range(5)
"""Materials of triangles; tongue and cavity are MOUTH."""

_DIRECTIONS = 96
KEY_DIRECTION = (-0.52, -0.55, -0.66)
"""Towards the key light, world axes: in front, above, on the left of the picture."""
KEY_RGB = (1.62, 1.52, 1.40)
_RIM = (0.62, -0.28, 0.73)
_RIM_RGB = (0.85, 0.92, 1.05)
_KEY_SHARPNESS = 14.0
"""The key light is a soft box: exp(sharpness (cos - 1)) over directions."""
_SUPER = 2
"""Samples per pixel and axis."""
_CHUNK = 16384
"""Samples shaded at a time, few enough for the processor's cache."""


@dataclass(frozen=True)
class Look:
    """Colours of one actor, linear rgb."""

    skin: tuple[float, float, float]
    lips: tuple[float, float, float]
    hair: tuple[float, float, float]
    iris: tuple[float, float, float]
    cloth: tuple[float, float, float]
    stubble: float
    """0 to 1."""


LOOKS: Mapping[str, Look] = {
    "ash": Look((0.58, 0.345, 0.245), (0.46, 0.165, 0.150), (0.050, 0.028, 0.016), (0.10, 0.17, 0.19), (0.030, 0.085, 0.115), 0.22),
    "umber": Look((0.235, 0.118, 0.066), (0.210, 0.075, 0.062), (0.010, 0.007, 0.006), (0.060, 0.028, 0.012), (0.42, 0.235, 0.045), 0.15),
    "sand": Look((0.46, 0.265, 0.165), (0.36, 0.130, 0.115), (0.018, 0.011, 0.008), (0.095, 0.050, 0.018), (0.150, 0.040, 0.045), 0.30),
    "rose": Look((0.66, 0.410, 0.315), (0.52, 0.180, 0.175), (0.215, 0.100, 0.035), (0.075, 0.150, 0.085), (0.110, 0.125, 0.150), 0.0),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Surface:
    """A head, painted and lit; what does not change from frame to frame."""

    faces: Tensor
    """Drawn triangles [f 3]."""
    kinds: Tensor
    """Material of each, [f]."""
    weld: Tensor
    """Vertices that lie on each other share a number here, so that normals do not break at texture seams, [v]."""
    rest: Tensor
    """Where each vertex lies on the resting head: coordinates of the solid textures, [v 3]."""
    albedo: Tensor
    """[v 3]."""
    gloss: Tensor
    """[v]."""
    bloom: Tensor
    """How strongly solid noise colours the skin, [v]."""
    skin_weights: Tensor
    """[v j]."""
    directions: Tensor
    """[d 3]."""
    sees: Tensor
    """1 where a vertex sees out in a direction, [v d]."""
    transfer: Tensor
    """Cosine-weighted share of each direction in the light that reaches a vertex, [v d]."""
    eyes: Tensor
    """Centres of the resting eyes, [2 3]."""
    normals: Tensor
    """Of the resting head, [v 3]."""
    scalp: Tensor
    """1 where hair grows, soft at the hairline, [v]."""
    noise: Tensor
    """Periodic solid noise, unit variance, [1 1 r r r]."""
    look: Look


def _sphere(count: int) -> Tensor:
    """Even directions by the golden spiral, [count 3]."""
    i = torch.arange(count) + 0.5
    y, turn = 1 - 2 * i / count, torch.pi * (1 + 5**0.5) * i
    r = (1 - y * y).sqrt()
    return torch.stack((r * turn.cos(), y, r * turn.sin()), 1)


def _normals(verts: Tensor, faces: Tensor, weld: Tensor) -> Tensor:
    """Smooth unit normals [v 3]; vertices at one place share theirs."""
    corner = verts[faces]
    face = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    total = torch.zeros_like(verts).index_add_(0, weld[faces].reshape(-1), face.repeat_interleave(3, 0))
    return F.normalize(total, dim=1)[weld]


def _smooth(values: Tensor, faces: Tensor, weld: Tensor, times: int) -> Tensor:
    """Values [v c] averaged with their neighbours on the mesh, several times."""
    a, b = weld[faces[:, (0, 1, 2)]].reshape(-1), weld[faces[:, (1, 2, 0)]].reshape(-1)
    count = torch.zeros(len(values), 1).index_add_(0, a, torch.ones(len(a), 1))
    for _ in range(times):
        mean = torch.zeros_like(values).index_add_(0, a, values[b]) / count.clamp_min(1)
        values = torch.where(count > 0, 0.5 * values + 0.5 * mean, values)[weld]
    return values


def _mask(head: HeadModel, name: str) -> Tensor:
    """1 on the vertices of a part, [v 1]."""
    out = torch.zeros(len(head.template), 1)
    out[head.faces[head.parts[name]].reshape(-1)] = 1
    return out


def neckline(rest: Tensor) -> Tensor:
    """Distance below the rim of the garment along the body, m, positive on cloth, [...].

    The rim is a plane that falls from the nape to the pit of the throat; outside the neck's own width the way along
    the shoulder counts too.

    Args:
        rest: Model frame, [... 3].
    """
    x, y, z = rest.unbind(-1)
    height = y + 0.55 * z + 0.004
    outward = (x * x + (z + 0.01) ** 2).sqrt() - 0.078
    return height + 0.8 * outward.clamp_min(0)


def dress(head: HeadModel, rest: Tensor, weld: Tensor) -> Tensor:
    """Offsets [v 3] that make the bust a garment: the body beneath smoothed away, a few millimetres of cloth."""
    faces = head.faces[head.parts["skin"]]
    below = neckline(rest) * (1 - _mask(head, "face")[:, 0])
    cover = (below / 0.03).clamp(0, 1)[:, None]
    loose = (below / 0.22).clamp(0, 1)[:, None]
    soft = rest + (_smooth(rest, faces, weld, 24) - rest) * loose.sqrt()
    return (soft + _normals(soft, faces, weld) * (0.004 * cover + 0.010 * loose) - rest) * cover


def welded(template: Tensor) -> Tensor:
    """For each vertex the first one that lies at the same place, [v]."""
    _, first, inverse = np.unique(np.round(template.numpy(), 6), axis=0, return_index=True, return_inverse=True)
    return torch.from_numpy(first[inverse.reshape(-1)])


def surface(head: HeadModel, rest: Tensor, look: Look, seed: int) -> Surface:
    """Paint a resting head [v 3], dressed, and find out what light reaches it."""
    weld = welded(head.template)
    solid = ("skin", "eye_l", "eye_r", "teeth_upper", "teeth_lower", "tongue")
    ids = torch.unique(torch.cat([head.parts[p] for p in solid]))
    kinds = torch.full((len(head.faces),), SKIN)
    near_garment = head.parts["skin"][neckline(rest[head.faces[head.parts["skin"]]]).amax(1) > -0.02]
    kinds[near_garment] = CLOTH
    kinds[head.parts["face"]] = SKIN
    for part in ("mouth_inner", "tongue"):
        kinds[head.parts[part]] = MOUTH
    for part in ("teeth_upper", "teeth_lower"):
        kinds[head.parts[part]] = TEETH
    for part in ("eye_l", "eye_r"):
        kinds[head.parts[part]] = EYE
    faces = head.faces[ids]
    marks = _landmarks(head, rest)
    albedo, gloss, bloom = _painted(head, rest, weld, marks, look)
    directions = _sphere(_DIRECTIONS)
    normals = _normals(rest, faces, weld)
    sees = _visible(head, rest, normals, faces, directions)
    sees = _smooth(sees, faces, weld, 2)
    cosine = (normals @ directions.T).clamp_min(0)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 1, 64, 64, 64, generator=generator)
    eyes = torch.stack([rest[head.faces[head.parts[p]].unique()].mean(0) for p in ("eye_l", "eye_r")])
    return Surface(
        faces=faces,
        kinds=kinds[ids],
        weld=weld,
        rest=rest,
        albedo=albedo,
        gloss=gloss,
        bloom=bloom,
        skin_weights=head.weights,
        directions=directions,
        sees=sees,
        transfer=cosine * sees * (4.0 / _DIRECTIONS),
        eyes=eyes,
        normals=normals,
        scalp=_smooth(_mask(head, "scalp"), head.faces[head.parts["skin"]], weld, 3)[:, 0],
        noise=noise,
        look=look,
    )


def _landmarks(head: HeadModel, rest: Tensor) -> Tensor:
    """The 478 MediaPipe landmarks on a resting head, [l 3]."""
    return head.landmarks(rest[None])[0]


def _blob(rest: Tensor, centre: Tensor, radius: float) -> Tensor:
    """1 at a place, falling off as a Gaussian, [v 1]."""
    return torch.exp(-((rest - centre) ** 2).sum(1, keepdim=True) / (2 * radius**2))


def _mix(a: Tensor, b: Tensor, amount: Tensor) -> Tensor:
    return a + (b - a) * amount


def _painted(head: HeadModel, rest: Tensor, weld: Tensor, marks: Tensor, look: Look) -> tuple[Tensor, Tensor, Tensor]:
    """Albedo [v 3], gloss [v] and share of solid noise [v]."""
    skin_faces = head.faces[head.parts["skin"]]
    skin, hair = torch.tensor(look.skin), torch.tensor(look.hair)
    rgb = skin.expand(len(rest), 3).clone()
    red = torch.tensor((1.06, 0.80, 0.78))
    for mark, radius, amount in ((50, 0.020, 0.55), (280, 0.020, 0.55), (4, 0.011, 0.50), (152, 0.014, 0.25)):
        rgb = rgb * (1 + (red - 1) * amount * _blob(rest, marks[mark], radius))
    for mark in (230, 450):  # the thin skin under the eyes
        rgb = rgb * (1 + (torch.tensor((0.86, 0.80, 0.84)) - 1) * 0.7 * _blob(rest, marks[mark], 0.008))
    ears = _smooth(_mask(head, "ears"), skin_faces, weld, 3)
    rgb = rgb * (1 + (red - 1) * 0.6 * ears)
    lids = _smooth(_mask(head, "lids"), skin_faces, weld, 3)
    rgb = rgb * (1 + (torch.tensor((0.92, 0.84, 0.84)) - 1) * lids)
    jaw = sum(_blob(rest, marks[m], 0.020) for m in (152, 172, 397, 136, 365, 150, 379, 164, 149, 378)).clamp(0, 1)
    beard = torch.tensor((0.62, 0.66, 0.70))
    rgb = rgb * (1 + (beard - 1) * look.stubble * jaw)
    scalp = _smooth(_mask(head, "scalp"), skin_faces, weld, 3)
    rgb = _mix(rgb, hair * 0.8, (scalp * 1.15).clamp(0, 1) * 0.96)
    lips = _smooth(_mask(head, "lips"), skin_faces, weld, 1)
    rgb = _mix(rgb, torch.tensor(look.lips), (lips * 1.1).clamp(0, 1) * 0.92)
    gloss = 0.55 + 0.5 * _blob(rest, marks[4], 0.012) + 0.35 * _blob(rest, marks[151], 0.03) + 0.6 * lips - 0.5 * scalp
    gloss = gloss - 0.25 * look.stubble * jaw
    # Inside the mouth less light arrives the deeper it lies; the resting head, with its mouth shut, cannot tell.
    depth = (rest[:, 2:] - marks[13, 2]).clamp_min(0)
    for part, colour, reach, shine in (
        ("mouth_inner", (0.30, 0.075, 0.065), 0.012, 0.5),
        ("tongue", (0.44, 0.150, 0.140), 0.020, 0.9),
        ("teeth_upper", (0.66, 0.60, 0.50), 0.022, 1.0),
        ("teeth_lower", (0.58, 0.52, 0.43), 0.022, 1.0),
    ):
        inside = _mask(head, part) * (1 - lips).round()
        rgb = _mix(rgb, torch.tensor(colour) * torch.exp(-depth / reach), inside)
        gloss = _mix(gloss, torch.full_like(gloss, shine) * torch.exp(-depth / reach), inside)
    return rgb, gloss[:, 0], (1 - 0.6 * lips - 0.9 * scalp).clamp_min(0.1)[:, 0]


def _visible(head: HeadModel, rest: Tensor, normals: Tensor, faces: Tensor, directions: Tensor) -> Tensor:
    """1 where a vertex sees out in a direction, by depth pictures from far away, [v d]."""
    hair = _mask(head, "scalp")
    blockers = rest + normals * 0.010 * hair
    size, far = 320, 12.0
    centre, radius = rest.mean(0), (rest - rest.mean(0)).norm(dim=1).max().item()
    focal = size / 2 * far / radius
    K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    start = blockers + normals * 0.0015
    out = torch.zeros(len(rest), len(directions))
    for i, d in enumerate(directions):
        down = torch.tensor((0.0, 1.0, 0.0)) if abs(d[1]) < 0.9 else torch.tensor((1.0, 0.0, 0.0))
        view = math3d.look_at(centre + d * far, centre, down)
        seen = blockers @ view[:3, :3].T + view[:3, 3]
        depth = torch.from_numpy(_raster.rasterize(seen.numpy(), faces.numpy(), K, (size, size)).depth)
        at = start @ view[:3, :3].T + view[:3, 3]
        px = (at[:, :2] / at[:, 2:] * focal + size / 2).long().clamp(0, size - 1)
        out[:, i] = (at[:, 2] < depth[px[:, 1], px[:, 0]] + 0.004).float()
    return torch.where(_inside(head)[:, None], torch.ones(()), out)


def _inside(head: HeadModel) -> Tensor:
    """Vertices whose light is painted, not found: teeth, tongue and mouth cavity, [v]."""
    return sum(_mask(head, p)[:, 0] for p in ("teeth_upper", "teeth_lower", "tongue", "mouth_inner")) > 0


def _sky(directions: Tensor) -> Tensor:
    """Light of the surroundings from directions [... 3], world axes: pale above, warm below, a cool fill on the right."""
    up = (-directions[..., 1:2] * 0.5 + 0.5).clamp(0, 1)
    light = _mix(torch.tensor((0.30, 0.26, 0.23)), torch.tensor((0.78, 0.84, 0.95)), up)
    fill = (directions @ F.normalize(torch.tensor((0.75, -0.05, -0.65)), dim=0)).clamp_min(0)[..., None] ** 4
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
    verts = mesh.verts[0]
    return Lit(verts, _normals(verts, s.faces, s.weld), ambient, shadow)


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


def _eye_albedo(s: Surface, at: Tensor) -> tuple[Tensor, Tensor]:
    """Colour [p 3] of the eyes at rest coordinates [p 3], and 1 on the cornea [p 1]."""
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
    rgb = _mix(torch.full_like(iris, 0.006), iris, torch.sigmoid((angle - pupil_r) / (edge * 0.4)))
    veins = (angle - 0.55).clamp(0, 0.9) * torch.tensor((0.02, 0.17, 0.16))
    sclera = torch.tensor((0.66, 0.63, 0.60)) - veins
    cornea = 1 - torch.sigmoid((angle - iris_r) / (edge * 0.5))
    return _mix(sclera, rgb, cornea), cornea


def _cloth(s: Surface, at: Tensor) -> tuple[Tensor, Tensor]:
    """Colour [p 3] of the bust at rest coordinates [p 3], and 1 on cloth, 0 on skin [p 1]."""
    below = neckline(at)[:, None]
    cloth = torch.sigmoid(below / 0.0007)
    collar = torch.sigmoid((0.017 - below) / 0.0006)
    around = torch.atan2(at[:, :1], at[:, 2:] + 0.015)
    ribs = 0.84 + 0.16 * torch.sin(around * 130)
    weave = 1 + 0.10 * _noise(s, at, 0.0022) + 0.08 * _noise(s, at * torch.tensor((1.0, 0.25, 1.0)), 0.004)
    rgb = torch.tensor(s.look.cloth) * _mix(weave, ribs * 0.92, collar)
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
    colours = background(cameras.height, cameras.width).reshape(-1, 1, 3).repeat(1, _SUPER**2, 1)
    bary = blocks[2]
    for part in torch.arange(len(rows)).split(_CHUNK):
        r, k, w = rows[part], samples[part], whole[part]
        # Where one triangle fills the pixel, the mean of the samples is its centre.
        centre = w & (face[r] == face[r, :1]).all(1)
        at = torch.where(centre[:, None], bary[r].mean(1), bary[r, k])
        rgb = tone(_lit_pixels(s, lit, face[r, k], at, eye))
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


def _lit_pixels(s: Surface, lit: Lit, face: Tensor, bary: Tensor, eye: Tensor) -> Tensor:
    """Linear light towards the eye [3] from places on triangles [p] with barycentric weights [p 3]; [p 3]."""
    table = torch.cat(
        (lit.verts, lit.normals, s.rest, s.albedo, lit.ambient, lit.key[:, None], s.gloss[:, None], s.bloom[:, None]), 1
    )
    at = (table[s.faces].flatten(1)[face].unflatten(1, (3, -1)) * bary[..., None]).sum(1)
    where, n, rest, albedo, ambient = at[:, :15].split(3, 1)
    key_share, gloss, bloom = at[:, 15:].split(1, 1)
    n, to_eye, kind = F.normalize(n, dim=1), F.normalize(eye - where, dim=1), s.kinds[face]

    fine, mid, broad = (_noise(s, rest, m) for m in (0.0016, 0.0048, 0.016))
    blotches = 1 + bloom * (0.035 * fine + 0.030 * mid + 0.035 * broad * torch.tensor((0.5, 1.2, 1.2)))
    albedo = albedo * torch.where((kind == SKIN)[:, None] | (kind == CLOTH)[:, None], blotches, torch.ones(()))
    gloss = gloss * (1 + 0.35 * fine * bloom)
    cloth = torch.zeros_like(gloss)
    on_bust, on_eye = torch.nonzero(kind == CLOTH)[:, 0], torch.nonzero(kind == EYE)[:, 0]
    fabric, share = _cloth(s, rest[on_bust])
    below = neckline(rest[on_bust])[:, None]
    skin_there = albedo[on_bust] * (1 - 0.55 * torch.exp(below.clamp_max(0) / 0.005))
    albedo = albedo.index_copy(0, on_bust, _mix(skin_there, fabric, share))
    cloth = cloth.index_copy(0, on_bust, share)
    eye_rgb, cornea = _eye_albedo(s, rest[on_eye])
    albedo, gloss = albedo.index_copy(0, on_eye, eye_rgb), gloss.index_copy(0, on_eye, 0.3 + 0 * cornea)
    cloth = cloth * 1.0

    key, rim = (F.normalize(torch.tensor(d), dim=0) for d in (KEY_DIRECTION, _RIM))
    facing = n @ key
    skin = ((kind == SKIN).float()[:, None] + (kind == CLOTH).float()[:, None] * (1 - cloth)).clamp(0, 1)
    # Skin lets red light wander past the edge of the shadow: wrapped diffuse with a width per channel.
    wrap = _mix(torch.tensor((0.06, 0.06, 0.06)), torch.tensor((0.38, 0.16, 0.10)), skin)
    diffuse = ((facing[:, None] + wrap) / (1 + wrap)).clamp_min(0)
    shadow = key_share.clamp(0, 1) ** (1 / (1 + 1.2 * skin * torch.tensor((1.0, 0.35, 0.25))))
    radiance = albedo * (ambient + diffuse * shadow * torch.tensor(KEY_RGB))

    half = F.normalize(to_eye + key, dim=1)
    nh = (n * half).sum(1, keepdim=True).clamp_min(0)
    grazing = (1 - (n * to_eye).sum(1, keepdim=True)).clamp(0, 1)
    sheen = 0.16 * nh**14 + 0.13 * nh**48
    shine = gloss * (1 - 0.85 * cloth) * sheen * shadow * (facing[:, None] > 0) * torch.tensor(KEY_RGB)
    edge = grazing**4 * (0.22 + 0.25 * cloth) * ambient
    back = (n @ rim)[:, None].clamp_min(0) * grazing**2 * 0.55 * torch.tensor(_RIM_RGB) * (0.3 + albedo)
    lit_open = (kind != MOUTH).float()[:, None] * (kind != TEETH).float()[:, None]
    radiance = radiance + shine + (edge + back) * lit_open
    # Soft boxes mirrored in the wet eye.
    mirror = 2 * (n * to_eye).sum(1, keepdim=True) * n - to_eye
    box = torch.sigmoid((mirror @ key - 0.982)[:, None] / 0.003) * 2.2
    fill = (
        torch.sigmoid((mirror @ F.normalize(torch.tensor((0.75, -0.05, -0.65)), dim=0) - 0.985)[:, None] / 0.004) * 0.35
    )
    return radiance + (kind == EYE).float()[:, None] * (box * key_share.clamp(0, 1) + fill)
