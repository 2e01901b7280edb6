"""Training: a Track in, events out, an avatar artifact and resumable checkpoints in the work folder.

With a ``Crew`` of several processes every one runs ``train``; they share the frames of each step.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load as tensors_of
from torch import Tensor

from gsth import artifacts, head, render
from gsth.avatar import _complete, _cover, _density, _losses, _regions, _sides, _state
from gsth.avatar._avatar import Avatar, Correctives, Source, motion_features, trained_range
from gsth.avatar._config import AvatarConfig
from gsth.avatar._crew import Crew
from gsth.avatar._field import Field, Listeners
from gsth.avatar._grade import in_one_light
from gsth.avatar._init import VIEWS, initial_splats
from gsth.avatar._reel import Reel, frames_of, more_clips
from gsth.avatar._state import TrainState
from gsth.avatar._views import Views, look, spread_frames
from gsth.errors import DivergedError, InputError
from gsth.head import HeadModel
from gsth.render import torch_ref
from gsth.types import Cameras, Densified, Done, Event, Formed, Motion, Rendered, RiggedSplats, Saved, Step, Track

_REPORT_EVERY = 20
_UNSEEN_STEPS = 25
_UNSEEN_PX = 256
_FIELD_FROM = 0.4
"""When the audio field begins to learn, as a fraction of the steps."""


@dataclass(frozen=True)
class _Scene:
    """What training looks at and never changes; all but the reel and the head lies on the device that draws."""

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

    def cameras(self, clip: int, scale: float) -> Cameras:
        cam = self.views[clip]
        K = cam.Ks * torch.tensor((scale, scale, 1.0), device=self.device)[:, None]
        return Cameras(cam.viewmats, K, round(cam.width * scale), round(cam.height * scale))


_ALONE = Crew()
_HOST = torch.device("cpu")


def train(
    track: Track,
    config: AvatarConfig,
    work: Path,
    train_frames: int,
    crew: Crew = _ALONE,
    more: Sequence[Track] = (),
) -> Iterator[Event]:
    """Fit an avatar to the first ``train_frames`` frames of a track, and to all frames of ``more``.

    The further tracks are of the same person, with the same identity, at the same size; lens, background and light are
    their own. What the avatar keeps of its clip (camera, plate, motion, what is held out) is of the first.

    Steps are computed on ``crew.device``; what changes the number of splats or goes to disk comes to the processor
    between them. Checkpoints go to ``work``; a run that was killed goes on from the last one and ends the same. The
    last event is ``Done`` with the folder of the avatar artifact inside ``work``. In processes of ``crew`` that do not
    lead, the events end with the last step, and nothing is written.

    Raises:
        InputError: The track is for another head model, or shows no face in the training frames; or one of ``more`` is
            of another size, head or identity.
        DivergedError: A loss, gradient or parameter stopped being finite; names it and the last good checkpoint.
        BackendError: A process of the crew, or the GPU, was lost.
    """
    model = head.load(track.identity.head)
    scene = _scene(Reel.of(track, train_frames, more), model, config, crew.device)
    work.mkdir(parents=True, exist_ok=True)
    digest = scene.reel.digest(config)
    voice = _voice(scene, config)
    state = None
    if crew.leads:
        state = _state.resume(work, digest, scene.reel.motion, voice)
        if state is None:
            state = _start(scene, config)
            state.voice = voice
    state = _handed_out(crew, state, scene, voice)
    state.to(scene.device)
    average = 0.0
    while state.step < config.steps:
        loss, psnr = _one_step(scene, state, config, crew, work)
        average = psnr if average == 0 else 0.95 * average + 0.05 * psnr
        if crew.leads:
            if state.step % _REPORT_EVERY == 0 or state.step == config.steps:
                values = {"loss": loss, "psnr_db": average, "splats": float(len(state.face_ids))}
                yield Step("train", state.step, config.steps, values)
                yield Formed(state.step, partial(_held, scene, state))
        if not any(due(state.step, config) for due in (_density_due, _settle_due, _checkpoint_due)):
            continue
        state.to(_HOST)
        if crew.leads:
            if _density_due(state.step, config):
                _state.change_density(state, config)
                yield Densified(state.step, len(state.face_ids))
            if _settle_due(state.step, config):
                _settle(scene, state, config)
                yield Densified(state.step, len(state.face_ids))
            if _checkpoint_due(state.step, config):
                yield Saved(_state.save_checkpoint(work, digest, state))
        state = _handed_out(crew, state, scene, voice)
        state.to(scene.device)
    if crew.leads:
        crew.dismiss()
        made = yield from _made(scene, state, config)
        made.save(work / "avatar")
        yield Done(work / "avatar", {"psnr_db": average, "splats": float(len(state.face_ids))})


def _handed_out(crew: Crew, state: TrainState | None, scene: _Scene, voice: _state.Voice | None) -> TrainState:
    """The leader's state, in every process."""
    if crew.size > 1:
        data = crew.handed_out(_state.packed(state, "") if crew.leads and state is not None else b"")
        if not crew.leads:
            return _state.unpacked(tensors_of(data), scene.reel.motion, voice)
    assert state is not None
    return state


def _made(scene: _Scene, state: TrainState, config: AvatarConfig) -> Generator[Event, None, Avatar]:
    """The avatar of the trained splats, with the motion of frames never seen."""
    made, motion = _avatar(scene, state), scene.reel.motion
    if config.pose_refinement:
        yield from _track_unseen(scene, state, made.to(scene.device))
        motion = state.refinement.applied(motion)
        made = replace(made, motion=_own(scene, state, motion), landmark_motion=made.motion)
    if config.settle < 1:
        made = replace(made, unseen=_complete.unseen(replace(made, motion=motion), _looked_at(scene.reel, scene.head)))
    return made


def _scene(reel: Reel, model: HeadModel, config: AvatarConfig, device: torch.device) -> _Scene:
    shaped = model.shaped(reel.identity)
    reel = in_one_light(reel, model)
    mean, basis = _corrective_basis(motion_features(frames_of(reel.motion, reel.usable)), config.correctives)
    sizes = torch_ref.triangle_frames(shaped.rest, model.faces)[2]
    limits = [_regions.per_face(model, name) for name in ("max_offset", "max_scale", "soft")]
    plates = tuple(None if t.plate is None else reel.graded(t.plate, i).to(device) for i, t in enumerate(reel.tracks))
    tables = [t.to(device) for t in (mean, basis, sizes, *limits)]
    sides = []
    if config.settle < 1:
        views = _looked_at(reel, model)
        sides = _sides.sides(views, reel.motion, shaped, _cover.worn(views, model, shaped.rest))
    sides = [
        dataclasses.replace(s, cameras=s.cameras.to(device), hidden=s.hidden.to(device), spots=s.spots.to(device))
        for s in sides
    ]
    moved = tuple(t.cameras.to(device) for t in reel.tracks), plates, shaped.to(device)
    return _Scene(reel, model, device, *moved, *tables, sides=sides)


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


def _voice(scene: _Scene, config: AvatarConfig) -> _state.Voice | None:
    """The audio field that the config wants, untrained."""
    if config.field == "none":
        return None
    heard = scene.reel.motion.audio
    if heard is None:
        silent = next(t.clip.path for t in scene.reel.tracks if t.motion.audio is None)
        raise InputError(
            f"{silent}: field {config.field} learns from the clip's sound, and the track's motion has "
            "no audio features; use a clip with sound, or field none"
        )
    made = Field.fresh(config.field, scene.shaped, heard[scene.reel.usable], config.seed)
    return _state.Voice.of(made)


def _start(scene: _Scene, config: AvatarConfig) -> TrainState:
    first = initial_splats(scene.reel, scene.head, config)
    n, b = len(first.face_ids), len(scene.corrective_basis)
    sh = torch.zeros(n, (config.sh_degree + 1) ** 2, 3)
    sh[:, :1] = first.sh
    params = {
        "means_tri": first.means_tri,
        "quats_tri": first.quats_tri,
        "log_scales": first.log_scales,
        "logit_opacities": first.logit_opacities,
        "sh": sh,
        "means_delta": torch.zeros(n, b, 3),
        "sh_delta": torch.zeros(n, b, 3),
    }
    return _state.fresh(scene.reel.motion, first.face_ids, params, torch.Generator().manual_seed(config.seed))


def _next_frame(scene: _Scene, state: TrainState) -> int:
    if len(state.order) == 0:
        if state.step:
            for rows in scene.reel.rows:
                state.refinement.anchor(scene.reel.motion, rows)
        usable = scene.reel.usable
        state.order = usable[torch.randperm(len(usable), generator=state.generator)]
    frame = int(state.order[0])
    state.order = state.order[1:]
    return frame


def _target(scene: _Scene, frame: int, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Picture [h w 3], matte [h w] and background at this scale, on the scene's device.

    Without a plate the person is trained on mid grey: what moves behind must not be painted onto the splats.
    """
    image = scene.reel.image(frame).to(scene.device)
    matte = scene.reel.matte(frame).to(scene.device).float() / 255
    plate = scene.plates[scene.reel.at(frame)[0]]
    background = torch.full((3,), 0.5, device=scene.device)
    if plate is None:
        image = image * matte[..., None] + background * (1 - matte[..., None])
    if scale != 1:
        image, matte = _shrink(image, scale), _shrink(matte[..., None], scale)[..., 0]
    if plate is not None:
        background = _shrink(plate, scale) if scale != 1 else plate
    return image, matte, background


def _shrink(image: Tensor, scale: float) -> Tensor:
    size = (round(image.shape[0] * scale), round(image.shape[1] * scale))
    return torch.nn.functional.interpolate(image.permute(2, 0, 1)[None], size, mode="area")[0].permute(1, 2, 0)


def _one_step(scene: _Scene, state: TrainState, config: AvatarConfig, crew: Crew, work: Path) -> tuple[float, float]:
    """A step of the optimiser on ``config.batch`` frames, of which this process draws its share; mean loss and PSNR."""
    frames = [_next_frame(scene, state) for _ in range(config.batch)]
    leaves = [state.refinement.leaf(frame) for frame in frames]
    seen = _density.GradientRecord.empty(len(state.face_ids), scene.device)
    told = torch.zeros(2, device=scene.device)
    for i in crew.share(config.batch):
        loss, drawn, image = _one_frame(scene, state, config, frames[i], leaves[i])
        loss = loss / config.batch
        if i == 0:
            loss = loss + _from_the_side(scene, state, config)
        loss.backward()
        seen.add(drawn)
        with torch.no_grad():
            told += torch.stack((loss, (drawn.rgb[0] - image).square().mean() / config.batch))
    gradients = _gradients(state, config, frames, leaves)
    crew.sum([*gradients.values(), seen.total, seen.seen, told])
    if not torch.isfinite(torch.stack([told[0], *(g.sum().to(scene.device) for g in gradients.values())])).all():
        raise DivergedError(_diagnosis(state, gradients, told[0], work))
    gradients["means_delta"] *= scene.soft[state.face_ids][:, None, None]
    state.record.total += seen.total
    state.record.seen += seen.seen
    _set_learning_rates(state, config)
    for optimizer in (state.optimizer, *([state.voice.optimizer] if state.voice else ())):
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if config.pose_refinement:
        for frame, leaf in zip(frames, leaves, strict=True):
            assert leaf.grad is not None
            state.refinement.step(frame, leaf.grad)
    state.step += 1
    return float(told[0]), -10 * math.log10(max(float(told[1]), 1e-10))


def _one_frame(
    scene: _Scene, state: TrainState, config: AvatarConfig, frame: int, leaf: Tensor
) -> tuple[Tensor, Rendered, Tensor]:
    """Loss of one frame, what was drawn, and the picture that it should be."""
    scale = 0.5 if state.step < config.coarse_until * config.steps else 1.0
    image, matte, background = _target(scene, frame, scale)
    motion: Motion = scene.reel.motion[frame]
    if config.pose_refinement:
        motion = state.refinement.apply(motion, leaf)
    motion = motion.to(scene.device)
    rigged = state.rigged()
    deltas = Correctives(
        scene.corrective_mean, scene.corrective_basis, state.params["means_delta"], state.params["sh_delta"]
    )
    with torch.no_grad():
        weights = deltas.weights(motion)
    carried = deltas.apply(rigged, weights[0])
    carried, said = _spoken(scene, state, config, carried, motion)
    splats = render.rig(carried, scene.shaped.posed(motion))
    rendered = render.render(splats, scene.cameras(scene.reel.at(frame)[0], scale), background=background)
    h, w = matte.shape
    weight_map = _losses.pixel_weights(scene.reel.landmarks(frame) * scale, h, w, config.loss).to(scene.device)
    size = scene.face_size[state.face_ids]
    limits = _losses.Bounds.of(state.face_ids, scene.face_size, scene.max_offset, scene.max_scale)
    loss = _losses.picture(rendered, image, matte, weight_map, config.loss)
    loss = loss + _losses.bounds(rigged, limits, config.loss)
    around = _losses.Neighbourhood(size, state.lent, state.pull, state.height)
    loss = loss + _losses.priors(rigged, around, config.loss)
    loss = loss + config.loss.corrective * _losses.mean_square(deltas.means_delta, deltas.sh_delta)
    loss = loss + state.refinement.penalty(leaf).to(scene.device) + config.loss.field * said
    return loss, rendered, image


def _from_the_side(scene: _Scene, state: TrainState, config: AvatarConfig) -> Tensor:
    """Price of what shines through, in one view from where no camera was, once bare surface is covered."""
    if not scene.sides or state.step < config.settle * config.steps:
        return torch.zeros((), device=scene.device)
    side = scene.sides[state.step % len(scene.sides)]
    motion = scene.reel.motion[side.frame].to(scene.device)
    splats = render.rig(state.rigged(), scene.shaped.posed(motion))
    return config.loss.leak * _sides.leak(splats, side.hidden[state.face_ids], side.close(state.step))


def _spoken(
    scene: _Scene, state: TrainState, config: AvatarConfig, splats: RiggedSplats, motion: Motion
) -> tuple[RiggedSplats, Tensor]:
    """The splats as the audio field moves them, and its price; as they are before the field's turn has come."""
    if state.voice is None or not _field_learns(state.step, config):
        return splats, torch.zeros((), device=scene.device)
    field = state.voice.field
    listeners = Listeners.of(scene.shaped, splats)
    delta = field(field.features(listeners.points), listeners.inside, motion)
    return listeners.moved(splats, delta), field.price(delta)


def _gradients(state: TrainState, config: AvatarConfig, frames: list[int], leaves: list[Tensor]) -> dict[str, Tensor]:
    """Of all that this step may change, by name; zeros where this process drew nothing that tells."""
    owners = dict(state.params)
    if state.voice is not None and _field_learns(state.step, config):
        owners |= {f"field.{name}": p for name, p in state.voice.field.named_parameters()}
    owners |= {f"motion {i} (frame {frames[i]})": leaf for i, leaf in enumerate(leaves)}
    gradients = {}
    for name, owner in owners.items():
        if owner.grad is None:
            owner.grad = torch.zeros_like(owner)
        gradients[name] = owner.grad
    return gradients


def _diagnosis(state: TrainState, gradients: dict[str, Tensor], loss: Tensor, work: Path) -> str:
    wild = [name for name, g in gradients.items() if not torch.isfinite(g).all()]
    what = f"the gradient of {', '.join(wild)}" if torch.isfinite(loss) else "the loss (look at the track)"
    last = max(work.glob("checkpoint-*.safetensors"), default=None)
    return (
        f"step {state.step}: {what} stopped being finite; the splats are still good, and so is the last checkpoint: "
        f"{last or 'none yet'}. The same command goes on from there; where it stops again, give another seed"
    )


def _set_learning_rates(state: TrainState, config: AvatarConfig) -> None:
    progress = state.step / config.steps
    if state.voice is not None:
        for group in state.voice.optimizer.param_groups:
            group["lr"] = group["first"][0] * (group["first"][1] / group["first"][0]) ** progress
    for group in state.optimizer.param_groups:
        start, end = _state.LEARNING_RATES[group["name"]]
        group["lr"] = start * (end / start) ** progress


def _field_learns(step: int, config: AvatarConfig) -> bool:
    # A field on splats that do not yet know their places would learn what the rig is to say.
    return step >= _FIELD_FROM * config.steps


def _checkpoint_due(step: int, config: AvatarConfig) -> bool:
    return step % config.checkpoint_every == 0 and step < config.steps


def _settle_due(step: int, config: AvatarConfig) -> bool:
    return step == round(config.settle * config.steps) < config.steps


def _density_due(step: int, config: AvatarConfig) -> bool:
    d = config.density
    return d.every > 0 and step % d.every == 0 and d.start * config.steps <= step <= d.stop * config.steps


def _track_unseen(scene: _Scene, state: TrainState, made: Avatar) -> Iterator[Event]:
    """Photometric tracking of the frames held out: their motion moves, the avatar does not.

    Training frames had their landmark track refined while the splats learned; without the same here, scores of unseen
    frames would measure the landmark detector. At most ``_UNSEEN_PX`` wide, for speed.
    """
    unseen = scene.reel.tracks[0].found.nonzero()[:, 0]
    unseen = unseen[unseen >= made.source.train_frames].tolist()
    scale = min(1.0, _UNSEEN_PX / made.cameras.width)
    cameras, tracked = scene.cameras(0, scale), made.motion.to(_HOST)
    for done, frame in enumerate(unseen, 1):
        image, _, background = _target(scene, frame, scale)
        for _ in range(_UNSEEN_STEPS):
            leaf = state.refinement.leaf(frame)
            motion = state.refinement.apply(tracked[frame], leaf)
            drawn = render.render(made.pose(motion.to(scene.device)), cameras, background=background)
            loss = render.l1_ssim_loss(drawn.rgb[0], image) + state.refinement.penalty(leaf).to(scene.device)
            loss.backward()
            assert leaf.grad is not None
            state.refinement.step(frame, leaf.grad)
        if done % 5 == 0 or done == len(unseen):
            yield Step("track unseen frames", done, len(unseen))


def _own(scene: _Scene, state: TrainState, motion: Motion) -> Motion:
    """Of a motion of all frames, that of the avatar's own clip; sound is only for those who listen."""
    own = motion[scene.reel.rows[0]]
    return own if state.voice else own.replace(audio=None)


def _avatar(scene: _Scene, state: TrainState) -> Avatar:
    reel, track = scene.reel, scene.reel.tracks[0]
    p = {name: value.detach().to(_HOST) for name, value in state.params.items()}
    correctives = None
    if len(scene.corrective_basis):
        mean, basis = scene.corrective_mean.to(_HOST), scene.corrective_basis.to(_HOST)
        correctives = Correctives(mean, basis, p["means_delta"], p["sh_delta"])
    return Avatar(
        head=scene.head,
        identity=track.identity,
        splats=RiggedSplats(state.face_ids.to(_HOST), **{n: p[n] for n in p if n not in ("means_delta", "sh_delta")}),
        cameras=track.cameras,
        motion=_own(scene, state, reel.motion),
        field=Field.of({n: t.to(_HOST) for n, t in state.voice.field.tensors().items()}) if state.voice else None,
        source=Source(
            clip_path=track.clip.path,
            sha256=artifacts.sha256(track.clip.path),
            fps=track.clip.fps,
            crop_px=track.crop_px,
            train_frames=reel.train_frames,
            frame_ids=track.frame_ids,
            landmarks_px=track.landmarks_px,
            found=track.found,
            error_pct=track.error_pct,
        ),
        plate=track.plate,
        correctives=correctives,
        meta={"trained_range": trained_range(frames_of(reel.motion, reel.learned), scene.head.expression_names)}
        | more_clips(reel),
    )


def _held(scene: _Scene, state: TrainState) -> Avatar:
    """The avatar as it is now, with splats of its own: the next steps do not change them."""
    return _avatar(scene, state).taken(torch.arange(len(state.face_ids)))


def _looked_at(reel: Reel, model: HeadModel) -> Views:
    return look(reel, model, spread_frames(reel, VIEWS))


def _settle(scene: _Scene, state: TrainState, config: AvatarConfig) -> None:
    """Drop what no frame shows, and cover the bare surface; what hardly shows goes on from its neighbours' looks."""
    views = _looked_at(scene.reel, scene.head)
    wears = _cover.worn(views, scene.head, scene.shaped.rest)
    room = config.max_splats - len(state.face_ids)
    made = replace(_avatar(scene, state), motion=scene.reel.motion)
    settled = _complete.settle(made, views, wears, room, config.seed)
    new, kept = settled.added, settled.kept
    values = {}
    for name, p in state.params.items():
        rows = p.detach()[kept]
        more = getattr(new, name) if hasattr(new, name) else rows.new_zeros(len(new.face_ids), *rows.shape[1:])
        values[name] = torch.cat((rows, more))
    values["sh"] = torch.lerp(values["sh"], settled.lent, settled.pull[:, None, None])
    # Moments of the new rows are zeroed; whose they were does not matter.
    source = torch.cat((kept, kept.new_zeros(len(new.face_ids))))
    _state.put_rows(state, values, _density.Change(source, len(new.face_ids)))
    state.face_ids = torch.cat((state.face_ids[: len(kept)], new.face_ids))
    state.lent, state.pull, state.height = settled.lent, settled.pull, settled.height
