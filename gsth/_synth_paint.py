"""The synthetic actor's surface: what colour it is, and which light can reach it. Colours are linear light.

Which of some hundred directions each vertex of the resting head sees is found once, with depth pictures: precomputed
radiance transfer (Sloan, Kautz and Snyder 2002).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gsth import math3d
from gsth.head import HeadModel, _raster

SKIN, CLOTH, EYE, TEETH, MOUTH = range(5)
"""Materials of triangles; tongue and cavity are MOUTH."""

_DIRECTIONS = 96
_INTO_MOUTH = {"mouth_inner": 0.011, "tongue": 0.013, "teeth_upper": 0.017, "teeth_lower": 0.015}
"""How deep light reaches on each part inside the mouth, m: from there on it falls off exponentially."""


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
    "ash": Look(
        skin=(0.58, 0.345, 0.245),
        lips=(0.46, 0.165, 0.150),
        hair=(0.050, 0.028, 0.016),
        iris=(0.10, 0.17, 0.19),
        cloth=(0.030, 0.085, 0.115),
        stubble=0.22,
    ),
    "umber": Look(
        skin=(0.235, 0.118, 0.066),
        lips=(0.210, 0.075, 0.062),
        hair=(0.010, 0.007, 0.006),
        iris=(0.060, 0.028, 0.012),
        cloth=(0.42, 0.235, 0.045),
        stubble=0.15,
    ),
    "sand": Look(
        skin=(0.46, 0.265, 0.165),
        lips=(0.36, 0.130, 0.115),
        hair=(0.018, 0.011, 0.008),
        iris=(0.095, 0.050, 0.018),
        cloth=(0.150, 0.040, 0.045),
        stubble=0.30,
    ),
    "rose": Look(
        skin=(0.66, 0.410, 0.315),
        lips=(0.52, 0.180, 0.175),
        hair=(0.215, 0.100, 0.035),
        iris=(0.075, 0.150, 0.085),
        cloth=(0.110, 0.125, 0.150),
        stubble=0.0,
    ),
}


@dataclass(frozen=True, eq=False)
class Tongue:
    """What lies in the dark while the mouth is shut, and comes out of it."""

    action: int
    """Index of its expression."""
    verts: Tensor
    """[k]."""
    place: Tensor
    """Of each at rest, from the upper lip on, [k 3]."""
    way: Tensor
    """Of each, all the way out, m, [k 3]."""

    def bared(self, out: Tensor) -> Tensor:
        """How many times more light arrives at each vertex than at rest, the expression being at ``out``; [k 1]."""
        return torch.exp((_depth(self.place) - _depth(self.place + out * self.way)) / _INTO_MOUTH["tongue"])[:, None]


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
    tongue: Tongue
    look: Look


def _sphere(count: int) -> Tensor:
    """Even directions by the golden spiral, [count 3]."""
    i = torch.arange(count) + 0.5
    y, turn = 1 - 2 * i / count, torch.pi * (1 + 5**0.5) * i
    r = (1 - y * y).sqrt()
    return torch.stack((r * turn.cos(), y, r * turn.sin()), 1)


def smooth_normals(verts: Tensor, faces: Tensor, weld: Tensor) -> Tensor:
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
    return (soft + smooth_normals(soft, faces, weld) * (0.004 * cover + 0.010 * loose) - rest) * cover


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
    normals = smooth_normals(rest, faces, weld)
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
        tongue=_tongue(head, rest, marks),
        look=look,
    )


def _tongue(head: HeadModel, rest: Tensor, marks: Tensor) -> Tongue:
    verts = head.faces[head.parts["tongue"]].unique()
    action = head.expression_names.index("tongueOut")
    place = rest[verts] - marks[13] * torch.tensor((0.0, 0.0, 1.0))
    return Tongue(action, verts, place, head.expr_basis[action, verts])


def _depth(place: Tensor) -> Tensor:
    """How far from the light something in the mouth lies, m, [...], by its place from the upper lip on [... 3]."""
    return (place[..., 2].clamp_min(0) ** 2 + (0.7 * place[..., 0]) ** 2).sqrt()


def _landmarks(head: HeadModel, rest: Tensor) -> Tensor:
    """The 478 MediaPipe landmarks on a resting head, [l 3]."""
    return head.landmarks(rest[None])[0]


def _blob(rest: Tensor, centre: Tensor, radius: float) -> Tensor:
    """1 at a place, falling off as a Gaussian, [v 1]."""
    return torch.exp(-((rest - centre) ** 2).sum(1, keepdim=True) / (2 * radius**2))


def mix(a: Tensor, b: Tensor, amount: Tensor) -> Tensor:
    """From a (amount 0) to b (amount 1)."""
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
    rgb = mix(rgb, hair * 0.8, (scalp * 1.15).clamp(0, 1) * 0.96)
    lips = _smooth(_mask(head, "lips"), skin_faces, weld, 1)
    rgb = mix(rgb, torch.tensor(look.lips), (lips * 1.1).clamp(0, 1) * 0.92)
    gloss = 0.55 + 0.5 * _blob(rest, marks[4], 0.012) + 0.35 * _blob(rest, marks[151], 0.03) + 0.6 * lips - 0.5 * scalp
    gloss = gloss - 0.25 * look.stubble * jaw
    # Inside the mouth less light arrives the deeper it lies; the resting head, with its mouth shut, cannot tell.
    depth = _depth(rest - marks[13] * torch.tensor((0.0, 0.0, 1.0)))[:, None]
    for part, colour, shine in (
        ("mouth_inner", (0.30, 0.075, 0.065), 0.5),
        ("tongue", (0.46, 0.150, 0.140), 0.9),
        ("teeth_upper", (0.74, 0.67, 0.56), 1.0),
        ("teeth_lower", (0.66, 0.59, 0.48), 1.0),
    ):
        reach = _INTO_MOUTH[part]
        inside = _mask(head, part) * (1 - lips).round()
        rgb = mix(rgb, torch.tensor(colour) * torch.exp(-depth / reach), inside)
        gloss = mix(gloss, torch.full_like(gloss, shine) * torch.exp(-depth / reach), inside)
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
    return torch.cat([_mask(head, p) for p in ("teeth_upper", "teeth_lower", "tongue", "mouth_inner")], 1).sum(1) > 0
