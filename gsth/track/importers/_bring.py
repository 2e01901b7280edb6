"""From a Foreign to a Track: its pictures become a clip, its FLAME coefficients motion of the FLAME head."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from gsth import artifacts, math3d, media
from gsth.errors import InputError
from gsth.head import HeadModel, flame
from gsth.track import _crop, _quality, _track
from gsth.track._config import TrackConfig
from gsth.track._fit import Fit, Fitted, Observed, measured
from gsth.track._landmarks import Detections
from gsth.track._photo import Photometric
from gsth.track.importers import FlameMotion, Foreign, _files
from gsth.types import Clip, Done, Event, Identity, Motion, Notice, Step, Track

CRF = 10
"""Quality of the clip that is made of the pictures: it stands for them from then on."""


def bring(foreign: Foreign, out: Path, config: TrackConfig) -> Iterator[Event]:
    """Write the Track; streams events."""
    for text in (*foreign.notices, *_kept(foreign, config)):
        yield Notice(text)
    if not config.matte:
        foreign = replace(foreign, mattes=None, matte=None, plate=None)
    model = _model(foreign, config)
    if model.id.name == "flame":
        yield Notice(flame.LICENCE)
    train_frames = _train_frames(foreign, config)
    with artifacts.writing(out, "track") as folder:
        clip = yield from _clip(foreign, folder)
        seen = yield from _track.seen_in(clip, config, None, foreign.folder)
        crop = _crop.choose(seen.points[seen.found], clip.width, clip.height, config.size)
        images, mattes = yield from _pictures(foreign, clip, crop, config, folder)
        observed = _observed(foreign, clip, crop, config, seen, model)
        if foreign.motion is None:
            fitted = yield from _fitted(model, observed, train_frames, images if config.photometric else None)
            fitted = _track.with_tongue(fitted, observed, seen, model.expression_names)
        else:
            fitted = _carried(model, observed, foreign, crop)
        plate = yield from _plate(foreign, crop, (images, mattes), config, train_frames)
        # from now on the clip has its final name
        final = out.absolute() / "clip.mp4"
        named = replace(clip, path=final, wav=final if clip.wav else None)
        result = _track.assembled(named, crop, seen, fitted, (images, mattes, plate))
        result = result if foreign.motion is None else _with_principal(result, foreign, crop)
        quality = _quality.assess(result, fitted, seen, config.drop_bad_frames)
        shown = replace(config, holdout=1 - train_frames / clip.frames)
        yield from _track.told(folder, result.replace(clip=clip), fitted, quality, shown)
        values = _track.values_of(fitted, result, quality, train_frames)
        if config.drop_bad_frames:
            result = _track.dropped(result, quality, foreign.folder)
        artifacts.save_into(
            result, folder, config=shown, clip_sha256=artifacts.sha256(clip.path), quality=values,
            imported_from=foreign.folder,
        )  # fmt: skip
    yield Done(out, values)


def _kept(foreign: Foreign, config: TrackConfig) -> Iterator[str]:
    """What of the options gives way to what the folder brings, or the folder to them."""
    frames = len(foreign.pictures)
    if foreign.train_frames is not None and foreign.train_frames != config.train_frames(frames):
        yield (
            f"{foreign.folder}: its own split stays: the first {foreign.train_frames} of {frames} frames are for "
            f"training; --holdout ({config.holdout:g}) is not used"
        )
    if config.focal_px is not None and foreign.motion is None:
        yield f"{foreign.folder}: --focal-px ({config.focal_px:g}) is taken in the place of its own focal length"


def _train_frames(foreign: Foreign, config: TrackConfig) -> int:
    if foreign.train_frames is None:
        return config.train_frames(len(foreign.pictures))
    return foreign.train_frames


def _model(foreign: Foreign, config: TrackConfig) -> HeadModel:
    if foreign.motion is None:
        return _track.head_model(config)
    if config.focal_px is not None:
        raise InputError(
            f"{foreign.folder}: its motion is seen through its own camera ({foreign.K[0, 0]:.0f} px); --focal-px "
            f"{config.focal_px:g} would put the head somewhere else: leave it out"
        )
    if config.flame_path is not None or config.head == "flame":
        return _track.head_model(config)
    raise InputError(
        f"{foreign.folder}: holds FLAME coefficients, which need the FLAME model; give --head flame --flame-path FILE"
    )


def _clip(foreign: Foreign, folder: Path) -> Generator[Event, None, Clip]:
    """The pictures as a video in the track's folder, with the sound."""
    path, total = folder / "clip.mp4", len(foreign.pictures)
    sound = None if foreign.sound is None else media.sound(foreign.sound, 48_000)
    pictures = (foreign.picture(p) for p in foreign.pictures)
    media.write_video(path, pictures, foreign.fps, sound, 48_000, CRF)
    yield Step("pictures", total, total)
    return media.probe(path)


def _pictures(
    foreign: Foreign, clip: Clip, crop: _crop.Crop, config: TrackConfig, folder: Path
) -> Generator[Event, None, tuple[np.ndarray, np.ndarray]]:
    """Crops of the pictures themselves and of their mattes; without these, of the video, with gsth's own."""
    if config.matte and foreign.mattes is None:
        made = yield from _track.pictures(clip, crop, config, folder)
        return made
    shape = (len(foreign.pictures), crop.size, crop.size)
    images = _track.series(folder / artifacts.SERIES["images"], (*shape, 3))
    mattes = _track.series(folder / artifacts.SERIES["mattes"], shape)
    masks = foreign.mattes or (None,) * len(images)
    for i, (picture, mask) in enumerate(zip(foreign.pictures, masks, strict=True)):
        images[i] = crop.image(foreign.picture(picture))
        mattes[i] = 255 if mask is None or foreign.matte is None else crop.image(foreign.matte(mask))
        yield Step("mattes", i + 1, len(images))
    return images, mattes


def _observed(
    foreign: Foreign, clip: Clip, crop: _crop.Crop, config: TrackConfig, seen: Detections, model: HeadModel
) -> Observed:
    """What the fit explains; the folder's focal length is where it begins, unless the user knows a better one."""
    out = _track.observed(clip, crop, seen, model.expression_names, config.focal_px)
    return out if config.focal_px is not None else replace(out, focal=float(foreign.K[0, 0]) * crop.scale)


def _plate(
    foreign: Foreign, crop: _crop.Crop, series: tuple[np.ndarray, np.ndarray], config: TrackConfig, train_frames: int
) -> Generator[Event, None, np.ndarray | None]:
    if foreign.plate is not None:
        return crop.image(_files.picture(foreign.plate)).astype(np.float32) / 255
    made = yield from _track.plate_of(foreign.folder, series, config, train_frames)
    return made


def _fitted(
    model: HeadModel, observed: Observed, train_frames: int, images: np.ndarray | None
) -> Generator[Event, None, Fitted]:
    fit = Fit(model, observed, train_frames)
    yield from fit.run()
    if images is None:
        return fit.result()
    refined = Photometric(fit, images)
    yield from refined.run()
    return refined.result()


def _carried(model: HeadModel, observed: Observed, foreign: Foreign, crop: _crop.Crop) -> Fitted:
    """The foreign motion as ours, with its error against the landmarks that our detector sees."""
    assert foreign.motion is not None
    identity = identity_of(model, foreign.motion)
    motion = motion_of(model, foreign.motion, identity, foreign.fps)
    verts = torch.cat([model.shaped(identity).posed(motion[i : i + 64]).verts for i in range(0, len(motion), 64)])
    points = model.landmarks(verts)
    k = _intrinsics(foreign, crop)
    projected = points[..., :2] / points[..., 2:].clamp_min(1e-3) * k.diagonal()[:2] + k[:2, 2]
    zero = torch.zeros(points.shape[1], 3)
    return measured(observed, float(k[0, 0]), identity, motion, zero, projected)


def _intrinsics(foreign: Foreign, crop: _crop.Crop) -> torch.Tensor:
    k = torch.from_numpy(foreign.K).float().clone()
    k[0, 2], k[1, 2] = k[0, 2] - crop.x0, k[1, 2] - crop.y0
    k[:2] *= crop.scale
    return k


def _with_principal(result: Track, foreign: Foreign, crop: _crop.Crop) -> Track:
    """With the foreign camera, whose principal point need not be the middle of the picture."""
    return result.replace(cameras=result.cameras.replace(Ks=_intrinsics(foreign, crop)[None]))


def identity_of(model: HeadModel, theirs: FlameMotion) -> Identity:
    """FLAME's coefficients; those beyond the directions in use, and static offsets, become offsets of the vertices.

    Raises InputError where the offsets are of another mesh.
    """
    own = flame.own_space(model)
    count = len(model.shape_basis)
    shape = np.zeros(count + len(own.more_shape))
    shape[: min(len(theirs.shape), len(shape))] = theirs.shape[: len(shape)]
    offsets = np.einsum("s,svc->vc", shape[count:], own.more_shape)
    if theirs.offsets is not None:
        v = len(model.template)
        if len(theirs.offsets) < v:
            raise InputError(f"static_offset has {len(theirs.offsets)} vertices, FLAME {v}: not the same model")
        offsets = offsets + theirs.offsets[:v] * flame.AXES  # VHAP appends teeth of its own
    return Identity(model.id, torch.from_numpy(shape[:count]).float(), torch.from_numpy(offsets).float())


def motion_of(model: HeadModel, theirs: FlameMotion, identity: Identity, fps: float) -> Motion:
    """FLAME's motion on our FLAME head: the same neck, eyes and place; expressions and jaw by least squares."""
    own = flame.own_space(model)
    t = len(theirs.expr)
    axes = torch.from_numpy(flame.AXES).float()

    def turned(rotvecs: np.ndarray) -> torch.Tensor:
        return math3d.rotvec_to_quat(torch.from_numpy(rotvecs).float() * axes)

    joints = math3d.quat_identity(t, 5)
    joints[:, 2], joints[:, 3], joints[:, 4] = turned(theirs.neck), turned(theirs.eyes[:, 0]), turned(theirs.eyes[:, 1])
    expr = own.arkit(theirs.expr, theirs.jaw)
    if theirs.eyelids is not None:
        for side, name in enumerate(("eyeBlinkLeft", "eyeBlinkRight")):
            column = model.expression_names.index(name)
            expr[:, column] = np.maximum(expr[:, column], np.clip(theirs.eyelids[:, side], 0, 1))
    # FLAME turns about its shaped root joint, ours about the origin, which is the mean neck
    root = own.root + np.einsum("s,sc->c", identity.shape.double().numpy(), own.root_basis)
    A = np.diag(flame.AXES)
    W, w = theirs.view[:, :3, :3], theirs.view[:, :3, 3]
    rotation = W @ theirs.turn @ A
    place = (W @ (theirs.turn @ (own.origin - root)[:, None] + (root + theirs.shift)[..., None]))[..., 0] + w
    quats = math3d.mat_to_quat(torch.from_numpy(rotation).float())
    return Motion(
        head=model.id,
        fps=fps,
        expr=torch.from_numpy(expr).float(),
        joints=joints,
        T_world_head=torch.cat((quats, torch.from_numpy(place).float()), 1),
    )
