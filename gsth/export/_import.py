"""Files of other programs, and our own exports, back in: avatars, props, and props that learn to move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gsth.errors import InputError
from gsth.export._scene import Axes
from gsth.types import Done, Event

if TYPE_CHECKING:
    from torch import Tensor

    from gsth.avatar import Avatar
    from gsth.types import RiggedSplats, Splats

MAX_BYTES = 2 * 1024**3
"""Larger files are refused before they are read."""
_INSIDE = ("mouth_inner", "teeth_upper", "teeth_lower", "tongue")
_SKIN_M = 0.002
"""What lies deeper behind the surface than this does not belong to it."""
_AVATARS = (".glb", ".bin", ".html", ".htm")
_NEAREST = 16
"""Triangles that are tried for each splat, by their centres."""


@dataclass(frozen=True)
class ImportConfig:
    """What to make of a file."""

    onto: Path | None = None
    """Avatar or track whose head is to carry the splats of a .ply or .spz: it makes an avatar of them. For a .ckpt of
    nerfstudio: the track that it was trained on."""
    axes: Axes = "y_up"
    """Axes of a .ply: y_up as gsth exports it, or colmap (y down, face to -z)."""
    flame_path: Path | None = None
    """FLAME model file for a folder of GaussianAvatars, where none was read on this machine before."""


def run(path: Path, config: ImportConfig, out: Path) -> Iterator[Event]:
    """Read a file into an avatar or a prop (a Splats artifact).

    A .glb, a .bin, a page (folder or .html) that ``gsth export web`` wrote, and a folder of GaussianAvatars are
    avatars; so is a .ckpt of nerfstudio's method gsth, with ``onto``. A .ply or .spz is a prop or, with ``onto``, an
    avatar.

    Raises:
        ArtifactError: The .bin or page is damaged or too new.
        InputError: The file is of no known kind, damaged, or larger than 2 GiB.
    """
    from gsth import artifacts
    from gsth.export import gaussianavatars

    theirs = gaussianavatars.found(path)
    if config.flame_path is not None and not theirs:
        raise InputError(f"{path}: is no folder of GaussianAvatars; leave --flame-path out")
    whole = path.is_dir() or path.suffix.lower() in _AVATARS
    artifacts.check_out(out, "avatar" if whole or config.onto is not None else "splats")
    if whole:
        if config.onto is not None:
            raise InputError(f"{path}: brings its own head; leave --onto out")
        made = (yield from gaussianavatars.read(path, config.flame_path)) if theirs else read_avatar(path)
        made.save(out)
        yield Done(out, {"splats": float(len(made.splats.face_ids)), "frames": float(len(made.motion))})
        return
    if path.suffix.lower() == ".ckpt":
        made = _trained(path, config.onto)
        made.save(out)
        yield Done(out, {"splats": float(len(made.splats.face_ids))})
        return
    splats = read_splats(path, config.axes)
    if config.onto is None:
        artifacts.save(splats, out)
    else:
        rerigged(splats, bare_avatar(config.onto)).save(out)
    yield Done(out, {"splats": float(len(splats.means))})


def _trained(path: Path, track: Path | None) -> Avatar:
    """The avatar of nerfstudio's checkpoint and the track that it was trained on."""
    import dataclasses

    from gsth.export import _nerfstudio

    if track is None:
        raise InputError(f"{path}: holds splats without a head; give the track that it was trained on, --onto me.track")
    bare = bare_avatar(track)
    return dataclasses.replace(bare, splats=_nerfstudio.read(path, len(bare.head.faces)), correctives=None)


def read_avatar(path: Path) -> Avatar:
    """The avatar of a .glb, or of a .bin, folder or .html of the web player. Raises as ``run``."""
    from gsth.export import _bin, _glb_read, web

    if path.suffix.lower() == ".glb":
        return _glb_read.from_bytes(limited_bytes(path), path)
    if path.is_dir():
        path = path / web.BIN
    data = limited_bytes(path)
    return _bin.unpack(web.avatar_in(data, path) if path.suffix.lower() in (".html", ".htm") else data, str(path))


def read_splats(path: Path, axes: Axes = "y_up") -> Splats:
    """The splats of a .ply or .spz, export frame. Raises as ``run``."""
    import torch

    from gsth.export import _ply, _scene, _spz
    from gsth.types import Splats

    if path.suffix == ".spz":
        splats = _spz.from_bytes(limited_bytes(path), path)
    elif path.suffix == ".ply":
        columns = _ply.from_bytes(limited_bytes(path), path)
        if "binding_0" in columns:
            raise InputError(
                f"{path}: hangs on FLAME's triangles (GaussianAvatars); give its folder, with flame_param.npz"
            )
        raw = {k: torch.from_numpy(v) for k, v in _ply.raw_tensors(columns, path).items()}
        opacities = raw["logit_opacities"].sigmoid()
        splats = Splats(raw["means"], raw["quats"], raw["log_scales"].clamp(-20, 10).exp(), opacities, raw["sh"])
    else:
        raise InputError(
            f"{path}: want a .glb, .bin, .html, .ply or .spz file or a web export, found {path.suffix or 'no ending'}"
        )
    if len(splats.means) == 0 or float(splats.quats.norm(dim=1).min()) < 1e-6:
        raise InputError(f"{path}: holds no splats, or rotations of length 0; export it again")
    return _scene.to_axes(splats, axes)


def limited_bytes(path: Path) -> bytes:
    """What a file holds. InputError where it cannot be read or is larger than ``MAX_BYTES``."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{path}: {size} bytes; at most {MAX_BYTES} are read")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def bare_avatar(folder: Path) -> Avatar:
    """The avatar in a folder, or one with the head, camera and motion of a track and no splats yet."""
    import torch

    from gsth import artifacts, head
    from gsth.avatar import Avatar, Source
    from gsth.types import RiggedSplats, Track

    if not artifacts.is_kind(folder, "track"):
        return Avatar.load(folder)
    track: Track = artifacts.load(Track, folder)
    none = [torch.zeros(0, *shape) for shape in ((3,), (4,), (3,), (), (1, 3))]
    return Avatar(
        head=head.load(track.identity.head),
        identity=track.identity,
        splats=RiggedSplats(torch.zeros(0, dtype=torch.int64), *none),
        cameras=track.cameras,
        motion=track.motion.replace(audio=None),
        source=Source(
            clip_path=track.clip.path,
            sha256=artifacts.sha256(track.clip.path),
            fps=track.clip.fps,
            crop_px=track.crop_px,
            train_frames=len(track.frame_ids),
            frame_ids=track.frame_ids,
            found=track.found,
            error_pct=track.error_pct,
        ),
        plate=track.plate,
    )


def rerigged(splats: Splats, avatar: Avatar) -> Avatar:
    """``avatar`` with other splats: those of a scene in the export frame, hung on the nearest triangles at rest.

    The scene must stand where the avatar stands in its own exports (aligned in any editor). Teeth and mouth carry only
    what lies behind the lips: a closed mouth's lips stay lips.
    """
    import dataclasses

    from gsth import math3d
    from gsth.export import _scene

    world = _scene.moved(splats, math3d.transform_inverse(_scene.export_from_world(avatar.motion)))
    rest = avatar.shaped.posed(_scene.rest_motion(avatar, avatar.motion)).verts[0]
    rigged = _bound(world, rest, avatar)
    return dataclasses.replace(avatar, splats=rigged, correctives=None)


def _bound(world: Splats, verts: Tensor, avatar: Avatar) -> RiggedSplats:
    import torch

    from gsth import math3d, render
    from gsth.types import RiggedSplats

    faces = avatar.head.faces
    hidden = torch.zeros(len(faces), dtype=torch.bool)
    for part in _INSIDE:
        if part in avatar.head.parts:
            hidden[avatar.head.parts[part]] = True
    origins, turns, sizes = render.triangle_frames(verts, faces)
    outer, inner = ((chosen & (sizes > 1e-6)).nonzero()[:, 0] for chosen in (~hidden, hidden))
    found = []
    for points in world.means.split(2048):
        ids, distance = _nearest(points, verts, faces, outer, origins)
        if len(inner):
            normals = math3d.quat_rotate(turns[ids], points.new_tensor((0.0, 1.0, 0.0)).expand_as(points))
            behind = ((points - origins[ids]) * normals).sum(1) < -_SKIN_M
            deep, near = _nearest(points, verts, faces, inner, origins)
            ids = torch.where(behind & (near < distance), deep, ids)
        found.append(ids)
    carriers = torch.cat(found)
    turn, size = turns[carriers], sizes[carriers, None]
    return RiggedSplats(
        face_ids=carriers,
        means_tri=math3d.quat_rotate(math3d.quat_conj(turn), world.means - origins[carriers]) / size,
        quats_tri=math3d.quat_mul(math3d.quat_conj(turn), math3d.quat_normalize(world.quats)),
        log_scales=(world.scales.clamp_min(1e-9) / size).log(),
        logit_opacities=torch.logit(world.opacities.clamp(1e-6, 1 - 1e-6)),
        sh=world.sh,
    )


def _nearest(points: Tensor, verts: Tensor, faces: Tensor, ids: Tensor, origins: Tensor) -> tuple[Tensor, Tensor]:
    """The triangle of ``ids`` that lies nearest to each point [n 3], and its distance, m."""
    import torch

    k = min(_NEAREST, len(ids))
    tried = ids[torch.cdist(points, origins[ids]).topk(k, largest=False).indices]
    a, b, c = verts[faces[tried]].unbind(-2)
    ab, ac, ap = b - a, c - a, points[:, None] - a
    d00, d01, d11 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d20, d21 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    scale = (d00 * d11 - d01 * d01).clamp_min(1e-20)
    v, w = (d11 * d20 - d01 * d21) / scale, (d00 * d21 - d01 * d20) / scale
    # Outside the triangle the nearest point is on its rim; clamping finds it, or one very near to it.
    bary = torch.stack((1 - v - w, v, w), -1).clamp_min(0)
    bary = bary / bary.sum(-1, keepdim=True)
    foot = bary[..., :1] * a + bary[..., 1:2] * b + bary[..., 2:] * c
    distance, best = (points[:, None] - foot).norm(dim=-1).min(1)
    return tried.gather(1, best[:, None])[:, 0], distance
