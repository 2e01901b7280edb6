"""The audio-to-deformation field: what the voice does to a face beyond what the rig says.

Two kinds after the two lines of the literature, behind one interface. ``attention`` (Cho et al. 2024, GaussianTalker):
features of a splat's resting place, from planes, ask four tokens: sound, upper face, pose and a learned nothing.
``region`` (Li et al. 2024, TalkingGaussian): the place decides how much each channel of the sound and the upper face
count; the inside of the mouth has a branch of its own that moves mostly up and down. Either moves and tints splats by
bounded amounts and never adds or removes any. A frame's answer depends on that frame's features alone, so streaming
equals offline, and it is as causal as the features are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from gsth import math3d, render
from gsth.avatar import _regions
from gsth.errors import ArtifactError
from gsth.head import HeadModel, ShapedHead
from gsth.types import Motion, RiggedSplats

Kind = Literal["attention", "region"]
_LEVELS = {"attention": ((32, 8), (64, 8)), "region": ((16, 4), (32, 4), (64, 4), (128, 4))}
"""Resolution and channels of the planes."""
_WIDTH = 32
_HEADS = 2
_FAR_M, _TINT = 0.002, 0.3
"""Largest offset and colour delta (SH coefficient of degree 0)."""
_UPPER = ("eye", "brow", "cheek")
"""Names of expressions of the upper face begin so; the sound does not say what it does."""
_POSE = 9
"""Rotation vectors of neck, head and torso."""


class Field(nn.Module):
    """Deltas of the splats on skin and inside the mouth, from one frame's sound, upper face and pose."""

    mean: Tensor
    deviation: Tensor
    low: Tensor
    high: Tensor
    upper: Tensor

    def __init__(self, kind: Kind, audio: int, upper: Tensor) -> None:
        """A field for ``audio`` features that knows expressions ``upper`` (int64 [u]); it begins by moving nothing."""
        super().__init__()
        self.kind: Kind = kind
        self.planes = nn.ParameterList(0.1 * torch.randn(3, c, r, r) for r, c in _LEVELS[kind])
        places = sum(c for _, c in _LEVELS[kind])
        body = _Attention if kind == "attention" else _Regions
        self.body = body(places, audio, len(upper))
        for name, value in (("mean", torch.zeros(audio)), ("deviation", torch.ones(audio)), ("upper", upper)):
            self.register_buffer(name, value)
        self.register_buffer("low", -torch.ones(3))
        self.register_buffer("high", torch.ones(3))

    @classmethod
    def fresh(cls, kind: Kind, head: ShapedHead, heard: Tensor, seed: int) -> Field:
        """For a head whose clip has these audio features [t d]; the same seed gives the same field."""
        names = head.model.expression_names
        upper = [i for i, n in enumerate(names) if n.startswith(_UPPER)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = cls(kind, heard.shape[1], torch.tensor(upper, dtype=torch.int64))
        points = head.rest[head.model.faces[listening(head.model, torch.arange(len(head.model.faces)))]].flatten(0, 1)
        made.low, made.high = points.amin(0), points.amax(0)
        made.mean, made.deviation = heard.mean(0), heard.std(0).clamp_min(1e-3)
        return made

    def features(self, points: Tensor) -> Tensor:
        """What the planes say about places on the resting head [m 3], model frame: [m c]."""
        at = 2 * (points - self.low) / (self.high - self.low) - 1
        grid = torch.stack((at[:, (0, 1)], at[:, (1, 2)], at[:, (0, 2)]))[:, :, None]
        out = []
        for planes in self.planes:
            seen = nn.functional.grid_sample(planes, grid, align_corners=True, padding_mode="border")[..., 0]
            out.append(seen.prod(0) if self.kind == "attention" else seen.sum(0))
        return torch.cat(out).T

    def forward(self, features: Tensor, inside: Tensor, motion: Motion) -> Tensor:
        """Offsets (m, axes of the resting head) and tints of m splats for a motion of one frame with audio: [m 6].

        Args:
            features: Of their places [m c].
            inside: Which of them are inside the mouth, bool [m].
            motion: One frame.
        """
        assert motion.audio is not None
        sound = (motion.audio[0] - self.mean) / self.deviation
        turns = torch.cat((motion.joints[0, 1:3], motion.T_world_head[:, :4]))
        raw = self.body(features, inside, sound, motion.expr[0, self.upper], math3d.quat_to_rotvec(turns).flatten())
        return torch.cat((_FAR_M * torch.tanh(raw[:, :3]), _TINT * torch.tanh(raw[:, 3:])), 1)

    def price(self, delta: Tensor) -> Tensor:
        """Mean square of the deltas [m 6], of what they may be at most."""
        return (delta[:, :3] / _FAR_M).square().mean() + (delta[:, 3:] / _TINT).square().mean()

    def tensors(self) -> dict[str, Tensor]:
        """All of it as arrays."""
        return {name: value.detach() for name, value in self.state_dict().items()}

    @classmethod
    def of(cls, arrays: Mapping[str, Tensor]) -> Field:
        """What ``tensors`` gave."""
        kind: Kind = "attention" if "body.nothing" in arrays else "region"
        made = cls(kind, len(arrays["mean"]), arrays["upper"])
        try:
            made.load_state_dict(dict(arrays))
        except RuntimeError as e:
            raise ArtifactError(f"the deformation field cannot be read ({e}); train the avatar again") from e
        return made.requires_grad_(False)


class _Attention(nn.Module):
    """One layer of cross-attention from places to four tokens."""

    def __init__(self, places: int, audio: int, upper: int) -> None:
        super().__init__()
        self.ask = nn.Linear(places, _WIDTH)
        self.sound, self.upper, self.pose = (_perceptron(n, _WIDTH, _WIDTH) for n in (audio, upper, _POSE))
        self.nothing = nn.Parameter(torch.zeros(_WIDTH))
        self.attend = nn.MultiheadAttention(_WIDTH, _HEADS)
        self.out = _still(_perceptron(_WIDTH, 2 * _WIDTH, 6))

    def forward(self, features: Tensor, inside: Tensor, sound: Tensor, upper: Tensor, pose: Tensor) -> Tensor:
        ask = self.ask(features)
        tokens = torch.stack((self.sound(sound), self.upper(upper), self.pose(4 * pose), self.nothing))
        # Splats are the sequence: they ask the tokens, never each other.
        answer = self.attend(ask, tokens, tokens, need_weights=False)[0]
        return self.out(ask + answer)


class _Regions(nn.Module):
    """Places weigh the channels of what is heard and seen; the mouth's inside has its own branch."""

    def __init__(self, places: int, audio: int, upper: int) -> None:
        super().__init__()
        self.sound, self.upper = _perceptron(audio, _WIDTH, _WIDTH), _perceptron(upper, 16, 16)
        self.hear, self.see = _perceptron(places, _WIDTH, _WIDTH), _perceptron(places, 16, 1)
        self.face = _still(_perceptron(places + _WIDTH + 16, 2 * _WIDTH, 6))
        self.mouth = _still(_perceptron(places + _WIDTH, _WIDTH, 6))
        self.register_buffer("vertical", torch.tensor((0.2, 1.0, 0.2, 1.0, 1.0, 1.0)), persistent=False)

    def forward(self, features: Tensor, inside: Tensor, sound: Tensor, upper: Tensor, pose: Tensor) -> Tensor:
        heard = torch.sigmoid(self.hear(features)) * self.sound(sound)
        seen = torch.sigmoid(self.see(features)) * self.upper(upper)
        face = self.face(torch.cat((features, heard, seen), 1))
        mouth = self.vertical * self.mouth(torch.cat((features, heard), 1))
        return torch.where(inside[:, None], mouth, face)


def _perceptron(ins: int, hidden: int, outs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(ins, hidden), nn.ReLU(), nn.Linear(hidden, outs))


def _still(net: nn.Sequential) -> nn.Sequential:
    """The same, answering zero until it has learned."""
    last = net[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return net


def listening(head: HeadModel, face_ids: Tensor) -> Tensor:
    """Which splats the field may move: those on skin and the soft inside of the mouth, bool [n]."""
    kin, soft = (_regions.per_face(head, name)[face_ids] for name in ("kin", "soft"))
    return ((kin == _regions.SKIN) | (kin == _regions.INSIDE)) & (soft > 0)


@dataclass(frozen=True)
class Listeners:
    """The splats that a field may move, and where they are at rest."""

    rows: Tensor
    """int64 [m]."""
    points: Tensor
    """Model frame, m, [m 3]."""
    inside: Tensor
    """Which are inside the mouth, bool [m]."""
    quats: Tensor
    """Turns of their triangles' frames, [m 4]."""
    sizes: Tensor
    """Of their triangles, m, [m]."""

    @classmethod
    def of(cls, shaped: ShapedHead, splats: RiggedSplats) -> Listeners:
        """All of an avatar's; constant in the splats' parameters."""
        head = shaped.model
        rows = listening(head, splats.face_ids).nonzero()[:, 0]
        ids = splats.face_ids[rows]
        origins, quats, sizes = (part[ids] for part in render.triangle_frames(shaped.rest, head.faces))
        points = origins + sizes[:, None] * math3d.quat_rotate(quats, splats.means_tri.detach()[rows])
        return cls(rows, points, _regions.per_face(head, "kin")[ids] == _regions.INSIDE, quats, sizes)

    def moved(self, splats: RiggedSplats, delta: Tensor) -> RiggedSplats:
        """The splats with a field's deltas [m 6]; an offset turns with its triangle."""
        offset = math3d.quat_rotate(math3d.quat_conj(self.quats), delta[:, :3]) / self.sizes[:, None]
        tint = torch.nn.functional.pad(delta[:, None, 3:], (0, 0, 0, splats.sh.shape[1] - 1))
        return splats.replace(
            means_tri=splats.means_tri.index_add(0, self.rows, offset), sh=splats.sh.index_add(0, self.rows, tint)
        )
