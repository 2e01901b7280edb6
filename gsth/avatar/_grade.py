"""The light of further clips: what their skin looks like beside the first clip's, as gain and bias of each colour.

The same points of the face are looked up in frames of either clip. One gain and bias for each colour is what exposure
and white balance do; where light falls from differs too, and stays in the pictures as noise.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gsth.avatar import _regions
from gsth.avatar._init import sample
from gsth.avatar._reel import Reel
from gsth.avatar._views import looked_at, with_depth
from gsth.head import HeadModel

_SAMPLES = 4000
_COMMON = 200
"""So many points of skin must show in both clips, or colours stay as they are."""
_OUTLIER = 0.06
"""Difference from which on a point counts little: shadows, highlights, stubble (Geman and McClure 1987)."""
_ROUNDS = 10
_GAIN = (0.4, 2.5)
"""No exposure differs by more within footage that can be used."""


def in_one_light(reel: Reel, head: HeadModel) -> Reel:
    """The reel with ``grades`` that bring every further clip's skin to the colours of the first."""
    if len(reel.tracks) == 1:
        return reel
    skin = _regions.per_face(head, "kin") == _regions.SKIN
    rest = head.shaped(reel.identity).rest
    face_ids, bary = sample(rest[head.faces], skin.float(), _SAMPLES, torch.Generator().manual_seed(0))
    own = _skin(reel, head, face_ids, bary)
    grades = [reel.grades[0]]
    for track in reel.tracks[1:]:
        theirs = _skin(Reel.of(track, len(track.frame_ids)), head, face_ids, bary)
        common = own[1] & theirs[1]
        plain = reel.grades[0]
        grades.append(_fitted(theirs[0][common], own[0][common]) if common.sum() >= _COMMON else plain)
    return replace(reel, grades=torch.stack(grades))


def _skin(reel: Reel, head: HeadModel, face_ids: Tensor, bary: Tensor) -> tuple[Tensor, Tensor]:
    """Colour of points of the mesh in the first clip of a reel, and which of them show."""
    alone = Reel.of(reel.tracks[0], reel.train_frames)
    views = with_depth(looked_at(alone, head), head.faces)
    faces = head.faces[face_ids]
    return views.colours(faces, (views.verts[:, faces] * bary[None, :, :, None]).sum(2))


def _fitted(theirs: Tensor, own: Tensor) -> Tensor:
    """Gain and bias of each colour [2 3] that bring ``theirs`` to ``own``, both [n 3]; outliers count little.

    The gain is the ratio of deviations: both sides are noisy, and a regression on one would come out too small.
    """
    weight = torch.ones_like(own)
    gain, bias = torch.ones(3), torch.zeros(3)
    for _ in range(_ROUNDS):
        total = weight.sum(0)
        x, y = (weight * theirs).sum(0) / total, (weight * own).sum(0) / total
        wide = [(weight * away.square()).sum(0).sqrt() for away in (theirs - x, own - y)]
        gain = (wide[1] / wide[0].clamp_min(1e-3)).clamp(*_GAIN)
        bias = y - gain * x
        weight = 1 / (1 + ((theirs * gain + bias - own) / _OUTLIER).square()).square()
    return torch.stack((gain, bias))
