"""Pictures of a moment: colour, depth, normals, the rig, and comparisons; and what stands behind the avatar."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gsth import media, render
from gsth.errors import GsthError, InputError
from gsth.serve._optics import Optics, Orbit
from gsth.serve.session import FROM_IMAGE, FROM_VIDEO, Moment, Session, colour
from gsth.types import Cameras, Mesh, Rendered, Splats

if TYPE_CHECKING:
    import numpy as np

    from gsth.avatar import Avatar

_SH_C0 = 0.28209479177387814
_NEAR = torch.tensor((1.0, 0.93, 0.62))
_MIDDLE = torch.tensor((0.8, 0.28, 0.35))
_FAR = torch.tensor((0.1, 0.05, 0.3))
"""Colours of depth, from the nearest point to the farthest."""
_BEHIND_M = 0.012
"""An edge that lies farther behind what is drawn is hidden."""
_LINE = torch.tensor((0.1, 0.95, 0.75))
_DOT = torch.tensor((1.0, 0.85, 0.1))
_LINE_SHARE = 0.65
_SKIP = 12
"""The video is read on to a later frame instead of sought where no more frames lie between."""


class Painter:
    """Draws moments of a session, several threads at once if need be."""

    def __init__(self, optics: Optics, other: Avatar | None = None) -> None:
        """Take the optics of the session's avatar, and another avatar on the same head model to compare with."""
        self.optics = optics
        self._other = other
        self._lock = threading.Lock()
        """Over what is kept from one picture to the next."""
        self._film: Film | None = None
        self._framed_plate: tuple[tuple[int, int], Tensor] | None = None
        self._other_splats: tuple[tuple[int, float], Splats] | None = None

    def paint(self, session: Session, moment: Moment, orbit: Orbit, size: tuple[int, int]) -> Tensor:
        """A picture of (width, height) px, uint8 [h w 3]."""
        width, height = size
        cameras = self.optics.cameras(orbit, width, height)
        style = moment.style
        with torch.no_grad():
            rgb = self._looked(session, session.avatar, session.splats(moment), moment, (orbit, cameras))
            if style.compare != "none":
                left = self._left(session, moment, orbit, cameras)
                if left is not None:
                    at = round(style.split * width)
                    rgb[:, :at] = left[:, :at]
                    rgb[:, max(at - 1, 0) : at + 1] = 1.0
        return rgb.clamp_(0, 1).mul_(255).round_().byte().cpu()

    def check_compare(self, session: Session, choice: str) -> None:
        """Raises InputError where there is nothing of this kind to compare with."""
        if choice == "avatar" and self._other is None:
            raise InputError("there is no second avatar; start with: gsth view A --against B")
        if choice == "video":
            clip = session.avatar.source.clip_path
            if not clip.exists():
                raise InputError(f"the training video is not at {clip} any more, so there is nothing to compare with")
            if not session.tracked:
                raise InputError("the training video fits the tracked clip only; choose that motion first")

    def _looked(
        self, session: Session, avatar: Avatar, splats: Splats, moment: Moment, place: tuple[Orbit, Cameras]
    ) -> Tensor:
        """One avatar in the session's style, [h w 3]."""
        style, (orbit, cameras) = moment.style, place
        mesh = avatar.shaped.posed(moment.motion) if style.mode == "normals" or style.overlay == "mesh" else None
        if style.mode == "normals":
            assert mesh is not None
            splats = tinted(splats, _normals(mesh, cameras)[avatar.splats.face_ids])
        elif style.mode == "triangles":
            splats = tinted(splats, _hashed(avatar.splats.face_ids))
        plain = style.mode != "rgb"
        behind = torch.full((3,), 0.12) if plain else self._background(session, style.background, orbit, cameras)
        drawn = render.render(splats, cameras, background=behind)
        rgb = {"alpha": _grey, "depth": _depth}.get(style.mode, lambda d: d.rgb[0])(drawn)
        if style.overlay == "mesh":
            assert mesh is not None
            _draw_edges(rgb, mesh, cameras, drawn)
        elif style.overlay == "centres":
            seen = (drawn.radii_px[0] > 0) & (splats.opacities > 0.05)
            _dot(rgb, drawn.means2d[0][seen], _DOT, 0.8)
        return rgb

    def _left(self, session: Session, moment: Moment, orbit: Orbit, cameras: Cameras) -> Tensor | None:
        """What the avatar is compared with, [h w 3]; None where there is nothing of the kind."""
        if moment.style.compare == "avatar":
            if self._other is None:
                return None
            with self._lock:
                if self._other_splats is None or self._other_splats[0] != moment.key:
                    self._other_splats = moment.key, self._other.pose(moment.motion)
                splats = self._other_splats[1]
            return self._looked(session, self._other, splats, moment, (orbit, cameras))
        if not session.tracked:
            return None
        with self._lock:
            if self._film is None:
                self._film = Film(session.avatar)
            picture = self._film.picture(moment.frame)
        return None if picture is None else self._framed(picture, cameras.width, cameras.height)

    def _background(self, session: Session, choice: str, orbit: Orbit, cameras: Cameras) -> Tensor:
        plate, width, height = session.avatar.plate, cameras.width, cameras.height
        if choice == FROM_IMAGE and session.backdrop is not None:
            return _covering(session.backdrop, width, height)
        if choice not in (FROM_VIDEO, FROM_IMAGE):
            return torch.tensor(colour(choice))
        if plate is None:
            return session.avatar.background()
        if not self.optics.is_home(orbit):
            return plate.mean((0, 1))
        with self._lock:
            if self._framed_plate is None or self._framed_plate[0] != (width, height):
                self._framed_plate = (width, height), self._framed(plate, width, height)
            return self._framed_plate[1]

    def _framed(self, crop: Tensor, width: int, height: int) -> Tensor:
        """A picture of the training crop where the training view lies, [h w 3]; its mean colour beside it."""
        scale = self.optics.scale(width, height)
        w, h = round(self.optics.training.width * scale), round(self.optics.training.height * scale)
        canvas = crop.mean((0, 1)).expand(height, width, 3).clone()
        y, x = (height - h) // 2, (width - w) // 2
        canvas[y : y + h, x : x + w] = _resized(crop, w, h)
        return canvas


class Film:
    """The video that an avatar was trained on, cropped as in training; quick where frames are asked for in order."""

    def __init__(self, avatar: Avatar) -> None:
        """Open nothing yet."""
        self._avatar = avatar
        self._frames: Iterator[np.ndarray] | None = None
        self._next = 0
        self._held: tuple[int, Tensor] | None = None

    def picture(self, frame: int) -> Tensor | None:
        """The crop of a tracked frame, [h w 3], 0 to 1; None where the video is gone."""
        from gsth.evaluate import reference_picture

        source, cameras = self._avatar.source, self._avatar.cameras
        wanted = int(source.frame_ids[frame])
        if self._held is None or self._held[0] != wanted:
            try:
                full = self._read(wanted)
            except GsthError:
                return None
            cropped = reference_picture(full, source.crop_px, cameras.width, cameras.height)
            self._held = wanted, torch.from_numpy(cropped).float() / 255
        return self._held[1]

    def _read(self, wanted: int) -> np.ndarray:
        if self._frames is None or not 0 <= wanted - self._next <= _SKIP:
            self._frames, self._next = media.frames(media.probe(self._avatar.source.clip_path), wanted), wanted
        for _ in range(wanted - self._next):
            next(self._frames)
        self._next = wanted + 1
        return next(self._frames)


def tinted(splats: Splats, rgb: Tensor) -> Splats:
    """The splats in plain colours [n 3]."""
    return splats.replace(sh=((rgb - 0.5) / _SH_C0)[:, None])


def _grey(drawn: Rendered) -> Tensor:
    return drawn.alpha[0, ..., None].repeat(1, 1, 3)


def _depth(drawn: Rendered) -> Tensor:
    depth, alpha = drawn.depth[0], drawn.alpha[0]
    hit = depth[alpha > 0.5]
    if hit.numel() == 0:
        return torch.zeros(*depth.shape, 3)
    near, far = torch.quantile(hit[:: max(1, hit.numel() // 4096)], torch.tensor((0.01, 0.99)))
    share = ((depth - near) / (far - near).clamp_min(1e-4)).clamp(0, 1)[..., None]
    first = torch.lerp(_NEAR, _MIDDLE, (2 * share).clamp(0, 1))
    return torch.lerp(first, _FAR, (2 * share - 1).clamp(0, 1)) * alpha[..., None]


def _normals(mesh: Mesh, cameras: Cameras) -> Tensor:
    """Colours of the triangles [f 3] by where they face: red to the right, green up, blue to the camera."""
    a, b, c = mesh.verts[0][mesh.faces].unbind(1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
    seen = normal @ cameras.viewmats[0, :3, :3].T
    return seen * torch.tensor((0.5, -0.5, -0.5)) + 0.5


def _hashed(face_ids: Tensor) -> Tensor:
    """A colour for every triangle, the same each time, [n 3]."""
    angle = face_ids.double() * 2.399963  # the golden angle keeps neighbours apart
    bright = 0.55 + 0.3 * ((face_ids % 7).double() / 6)
    waves = [0.5 + 0.5 * torch.cos(angle + k * 2 * math.pi / 3) for k in range(3)]
    return (torch.stack(waves, -1) * bright[:, None] + 0.1).float()


def _draw_edges(rgb: Tensor, mesh: Mesh, cameras: Cameras, drawn: Rendered) -> None:
    """Draw the edges of triangles that face the camera and are not hidden, in place."""
    verts = mesh.verts[0] @ cameras.viewmats[0, :3, :3].T + cameras.viewmats[0, :3, 3]
    a, b, c = verts[mesh.faces].unbind(1)
    facing = ((torch.linalg.cross(b - a, c - a) * a).sum(-1) < 0) & (verts[mesh.faces][..., 2] > 0.02).all(-1)
    faces = mesh.faces[facing]
    edges = torch.cat((faces[:, :2], faces[:, 1:], faces[:, ::2])).sort(1).values.unique(dim=0)
    K = cameras.Ks[0]
    pixels = verts[:, :2] / verts[:, 2:] * torch.stack((K[0, 0], K[1, 1])) + K[:2, 2]
    length = (pixels[edges[:, 0]] - pixels[edges[:, 1]]).norm(dim=-1)
    inside = length < max(rgb.shape[:2])
    edges, length = edges[inside], length[inside]
    if len(edges) == 0:
        return
    steps = int(length.quantile(0.98).ceil().clamp(2, 64))
    t = torch.linspace(0, 1, steps)[:, None, None]
    ends = torch.cat((pixels, verts[:, 2:]), 1)[edges]
    points = torch.lerp(ends[:, 0], ends[:, 1], t).reshape(-1, 3)
    x, y = points[:, 0].long(), points[:, 1].long()
    kept = (x >= 0) & (y >= 0) & (x < rgb.shape[1]) & (y < rgb.shape[0])
    points, x, y = points[kept], x[kept], y[kept]
    hidden = (drawn.alpha[0, y, x] > 0.5) & (points[:, 2] > drawn.depth[0, y, x] + _BEHIND_M)
    _dot(rgb, points[~hidden, :2], _LINE, _LINE_SHARE)


def _dot(rgb: Tensor, points: Tensor, tint: Tensor, share: float) -> None:
    """Colour the pixels under points [m 2], px, in place."""
    x, y = points[:, 0].long(), points[:, 1].long()
    kept = (points >= 0).all(-1) & (x < rgb.shape[1]) & (y < rgb.shape[0])
    mask = torch.zeros(rgb.shape[:2], dtype=torch.bool)
    mask[y[kept], x[kept]] = True
    rgb[mask] = torch.lerp(rgb[mask], tint, share)


def _resized(image: Tensor, width: int, height: int) -> Tensor:
    planes = image.permute(2, 0, 1)[None]
    shape = (height, width)
    return torch.nn.functional.interpolate(planes, shape, mode="bilinear", antialias=True, align_corners=False)[
        0
    ].permute(1, 2, 0)


def _covering(image: Tensor, width: int, height: int) -> Tensor:
    """The image, as large as it takes to fill the picture, cut to its middle."""
    scale = max(width / image.shape[1], height / image.shape[0])
    w, h = max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale))
    y, x = (h - height) // 2, (w - width) // 2
    return _resized(image, w, h)[y : y + height, x : x + width].contiguous()
