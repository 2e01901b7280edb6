"""Looks from where no camera was: what lies behind a surface must not shine through it.

From the front, a cheek that faces sideways is a thin strip, and holes between its splats cost nothing there. From the
side one looks through them, into the mouth or onto the far side of the head. The posed mesh knows what is in front of
what: splats on triangles that it hides must not be seen, and the loss asks the others to cover them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gsth import math3d, render
from gsth.avatar import _regions
from gsth.avatar._init import SH_C0
from gsth.avatar._views import Views
from gsth.head import ShapedHead
from gsth.head._raster import rasterize
from gsth.types import Cameras, Motion, Splats

_SIZE_PX = 128
_YAWS_RAD = (0.3, 3.1)
"""Nearest and farthest view, to either side."""
_ZOOM = 4.0
_PITCH_RAD = 0.15
"""Every second pair of views is from above by so much, the others from below."""
_THICK_M = 0.004
"""A surface is as thick as its region lets splats stand off it, and so much more."""
_OPEN = ("lips", "lids")
"""Regions that may show what lies behind them."""
_GROWS_M = (0.003, 0.005)
"""Splats of a smaller standard deviation than the first may grow to cover, those above the second, which would blur
outlines, may not, and between them less and less: after a hard limit, trainings that differ by rounding part there."""
_MARGIN_PX = 2
"""Nearer to an edge than this, what is farther back may be seen."""


@dataclass(frozen=True)
class Side:
    """A view of one frame from where no camera was."""

    frame: int
    cameras: Cameras
    hidden: Tensor
    """Triangles whose splats must not be seen, bool [f]."""
    spots: Tensor
    """Where the mesh is seen, px, [s 2]."""

    def close(self, step: int) -> Cameras:
        """The same view ``_ZOOM`` times as large, of another spot at each step.

        At the size of the whole view the pixels' own blur covers holes that show in a larger picture.
        """
        K = self.cameras.Ks[0]
        spot = self.spots[torch.randint(len(self.spots), (), generator=torch.Generator().manual_seed(step))]
        near = torch.diag(K.new_tensor((_ZOOM, _ZOOM, 1.0))) @ K
        near[:2, 2] += K.new_tensor((self.cameras.width, self.cameras.height)) / 2 - _ZOOM * spot
        return Cameras(self.cameras.viewmats, near[None], self.cameras.width, self.cameras.height)


def sides(views: Views, motion: Motion, shaped: ShapedHead, wears: Tensor) -> list[Side]:
    """One view of each frame of ``views``, from left and right in turn.

    Args:
        views: Training frames.
        motion: Of the whole clip.
        shaped: The head in this person's shape.
        wears: Which triangles may carry splats, bool [f] (see ``_cover.worn``).
    """
    model = shaped.model
    size = round(_SIZE_PX * views.depth.shape[1] / views.depth.shape[2]), _SIZE_PX
    Ks = views.K * torch.tensor((_SIZE_PX / views.depth.shape[2],) * 2 + (1.0,))[:, None]
    shows = torch.tensor([r.name in _OPEN or r.kin == _regions.INSIDE for r in _regions.REGIONS])
    thick = _regions.per_face(model, "max_offset") + _THICK_M
    thick = thick.masked_fill(shows[_regions.region_of_faces(model)], torch.inf)[wears]
    yaws = torch.linspace(*_YAWS_RAD, (len(views.frames) + 1) // 2).tolist()
    out = []
    for i, (frame, verts, K) in enumerate(zip(views.frames, views.verts, Ks, strict=True)):
        pair, sign = i // 2, (1, -1)[i % 2]
        joint = math3d.transform_points(motion.T_world_head[frame], shaped.pivots[2])
        view = math3d.orbit(joint, sign * yaws[pair], _PITCH_RAD * (1, -1)[pair % 2])
        seen = verts @ view[:3, :3].T + view[:3, 3]
        hits = rasterize(seen.numpy(), model.faces[wears].numpy(), K.numpy(), size)
        face_ids = torch.from_numpy(hits.face_ids).long()
        behind = torch.where(face_ids < 0, torch.inf, torch.from_numpy(hits.depth) + thick[face_ids])
        behind = torch.nn.functional.max_pool2d(behind[None, None], 2 * _MARGIN_PX + 1, 1, _MARGIN_PX)[0, 0]
        hidden = _deeper(seen[model.faces].mean(1), behind, K)
        spots = (face_ids >= 0).nonzero().flip(1) + 0.5
        if len(spots):
            out.append(Side(frame, Cameras(view[None], K[None], size[1], size[0]), hidden, spots))
    return out


def _deeper(points: Tensor, behind: Tensor, K: Tensor) -> Tensor:
    """Which points [n 3] lie farther away than their pixel of ``behind`` [h w] says, camera frame, bool [n]."""
    height, width = behind.shape
    px = math3d.project(points, K)
    inside = (points[:, 2] > 0.01) & (px >= 0).all(1) & (px[:, 0] < width) & (px[:, 1] < height)
    col, row = px.where(inside[:, None], torch.zeros(2)).long().unbind(1)
    return inside & (points[:, 2] > behind[row, col])


def leak(splats: Splats, hidden: Tensor, cameras: Cameras) -> Tensor:
    """How much shows of splats that must not be seen, mean over the picture.

    The others move and become opaque, the small ones grow. The hidden feel nothing: from elsewhere they are in front.

    Args:
        splats: In the world frame.
        hidden: Which must not be seen, bool [n].
        cameras: From where, one.
    """
    grows = ((_GROWS_M[1] - splats.scales.detach().amax(1)) / (_GROWS_M[1] - _GROWS_M[0])).clamp(0, 1)
    grows = torch.where(hidden, 0.0, grows)[:, None]
    drawn = render.render(
        Splats(
            means=torch.where(hidden[:, None], splats.means.detach(), splats.means),
            quats=splats.quats.detach(),
            scales=torch.lerp(splats.scales.detach(), splats.scales, grows),
            opacities=torch.where(hidden, splats.opacities.detach(), splats.opacities),
            sh=((hidden.float() - 0.5) / SH_C0)[:, None, None].expand(-1, 1, 3),
        ),
        cameras,
        background=splats.means.new_zeros(3),
    )
    return drawn.rgb[..., 0].mean()
