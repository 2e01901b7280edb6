"""What training looks at and never changes: the frames, the head and its limits, and the views from the side."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from gsth import head
from gsth.avatar import _cover, _regions, _sides
from gsth.avatar._avatar import motion_features
from gsth.avatar._config import AvatarConfig
from gsth.avatar._grade import in_one_light
from gsth.avatar._reel import Reel, frames_of
from gsth.avatar._views import looked_at
from gsth.head import HeadModel
from gsth.render import torch_ref
from gsth.types import Cameras


@dataclass(frozen=True)
class Scene:
    """All but the reel and the head lies on the device that draws."""

    reel: Reel
    head: HeadModel
    device: torch.device
    views: tuple[Cameras, ...]
    """The camera of each clip."""
    plates: tuple[Tensor | None, ...]
    """Of each clip, in the light of the first."""
    shaped: head.ShapedHead
    corrective_mean: Tensor
    corrective_basis: Tensor
    face_size: Tensor
    """Size of each triangle at rest, m, [f]."""
    max_offset: Tensor
    max_scale: Tensor
    soft: Tensor
    """1 where correctives may move splats, else 0, [f]."""
    sides: list[_sides.Side]
    """Views from where no camera was; none where nothing is completed."""

    @classmethod
    def of(cls, reel: Reel, model: HeadModel, config: AvatarConfig, device: torch.device) -> Scene:
        """What the config asks of these clips, for steps on ``device``."""
        shaped = model.shaped(reel.identity)
        reel = in_one_light(reel, model)
        mean, basis = _corrective_basis(motion_features(frames_of(reel.motion, reel.usable)), config.correctives)
        sizes = torch_ref.triangle_frames(shaped.rest, model.faces)[2]
        limits = [_regions.per_face(model, name) for name in ("max_offset", "max_scale", "soft")]
        plates = tuple(
            None if t.plate is None else reel.graded(t.plate, i).to(device) for i, t in enumerate(reel.tracks)
        )
        tables = [t.to(device) for t in (mean, basis, sizes, *limits)]
        sides = []
        if config.settle < 1:
            views = looked_at(reel, model)
            sides = _sides.sides(views, reel.motion, shaped, _cover.worn(views, model, shaped.rest))
        sides = [
            dataclasses.replace(s, cameras=s.cameras.to(device), hidden=s.hidden.to(device), spots=s.spots.to(device))
            for s in sides
        ]
        moved = tuple(t.cameras.to(device) for t in reel.tracks), plates, shaped.to(device)
        return cls(reel, model, device, *moved, *tables, sides=sides)

    def cameras(self, clip: int, scale: float) -> Cameras:
        """Of a clip, for pictures of ``scale`` times its size."""
        cam = self.views[clip]
        K = cam.Ks * torch.tensor((scale, scale, 1.0), device=self.device)[:, None]
        return Cameras(cam.viewmats, K, round(cam.width * scale), round(cam.height * scale))

    def target(self, frame: int, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """Picture [h w 3], matte [h w] and background at this scale, on the device that draws.

        Without a plate the person is trained on mid grey: what moves behind must not be painted onto the splats.
        """
        image = self.reel.image(frame).to(self.device)
        matte = self.reel.matte(frame).to(self.device).float() / 255
        plate = self.plates[self.reel.at(frame)[0]]
        background = torch.full((3,), 0.5, device=self.device)
        if plate is None:
            image = image * matte[..., None] + background * (1 - matte[..., None])
        if scale != 1:
            image, matte = _shrink(image, scale), _shrink(matte[..., None], scale)[..., 0]
        if plate is not None:
            background = _shrink(plate, scale) if scale != 1 else plate
        return image, matte, background


def _corrective_basis(features: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Mean [x] and whitening projection [b x] on the principal directions of the training motion."""
    mean = features.mean(0)
    # Rotations are rad, expressions 0 to 1: a turn of 0.25 rad counts as much as a full expression.
    scale = torch.ones(features.shape[1])
    scale[-9:] = 4.0
    _, deviation, directions = torch.linalg.svd((features - mean) * scale, full_matrices=False)
    deviation = deviation / max(len(features) - 1, 1) ** 0.5
    strong = deviation[:size] > 1e-3
    return mean, directions[:size][strong] * scale / deviation[:size][strong, None]


def _shrink(image: Tensor, scale: float) -> Tensor:
    size = (round(image.shape[0] * scale), round(image.shape[1] * scale))
    return torch.nn.functional.interpolate(image.permute(2, 0, 1)[None], size, mode="area")[0].permute(1, 2, 0)
