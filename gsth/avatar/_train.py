"""Training: a Track in, events out, an avatar artifact and resumable checkpoints in the work folder.

With a ``Crew`` of several processes every one runs ``train``; they share the frames of each step.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load as tensors_of

from gsth import artifacts, head, render
from gsth.avatar import _complete, _cover, _density, _state
from gsth.avatar._avatar import Avatar, Correctives, Source, trained_range, trained_views
from gsth.avatar._config import AvatarConfig
from gsth.avatar._crew import Crew
from gsth.avatar._field import Field
from gsth.avatar._init import initial_splats
from gsth.avatar._reel import Reel, frames_of, more_clips
from gsth.avatar._scene import Scene
from gsth.avatar._state import TrainState
from gsth.avatar._step import one_step
from gsth.avatar._views import looked_at
from gsth.errors import InputError
from gsth.types import Densified, Done, Event, Formed, Motion, RiggedSplats, Saved, Step, Track

_REPORT_EVERY = 20
_UNSEEN_STEPS = 25
_UNSEEN_PX = 256
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
    scene = Scene.of(Reel.of(track, train_frames, more), model, config, crew.device)
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
        loss, psnr = one_step(scene, state, config, crew, work)
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


def _handed_out(crew: Crew, state: TrainState | None, scene: Scene, voice: _state.Voice | None) -> TrainState:
    """The leader's state, in every process."""
    if crew.size > 1:
        data = crew.handed_out(_state.packed(state, "") if crew.leads and state is not None else b"")
        if not crew.leads:
            return _state.unpacked(tensors_of(data), scene.reel.motion, voice)
    assert state is not None
    return state


def _made(scene: Scene, state: TrainState, config: AvatarConfig) -> Generator[Event, None, Avatar]:
    """The avatar of the trained splats, with the motion of frames never seen."""
    made, motion = _avatar(scene, state), scene.reel.motion
    if config.pose_refinement:
        yield from _track_unseen(scene, state, made.to(scene.device))
        motion = state.refinement.applied(motion)
        made = replace(made, motion=_own(scene, state, motion), landmark_motion=made.motion)
    if config.settle < 1:
        made = replace(made, unseen=_complete.unseen(replace(made, motion=motion), looked_at(scene.reel, scene.head)))
    return made


def _voice(scene: Scene, config: AvatarConfig) -> _state.Voice | None:
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


def _start(scene: Scene, config: AvatarConfig) -> TrainState:
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


def _checkpoint_due(step: int, config: AvatarConfig) -> bool:
    return step % config.checkpoint_every == 0 and step < config.steps


def _settle_due(step: int, config: AvatarConfig) -> bool:
    return step == max(1, round(config.settle * config.steps)) < config.steps


def _density_due(step: int, config: AvatarConfig) -> bool:
    d = config.density
    return d.every > 0 and step % d.every == 0 and d.start * config.steps <= step <= d.stop * config.steps


def _track_unseen(scene: Scene, state: TrainState, made: Avatar) -> Iterator[Event]:
    """Photometric tracking of the frames held out: their motion moves, the avatar does not.

    Training frames had their landmark track refined while the splats learned; without the same here, scores of unseen
    frames would measure the landmark detector. At most ``_UNSEEN_PX`` wide, for speed.
    """
    unseen = scene.reel.tracks[0].found.nonzero()[:, 0]
    unseen = unseen[unseen >= made.source.train_frames].tolist()
    scale = min(1.0, _UNSEEN_PX / made.cameras.width)
    cameras, tracked = scene.cameras(0, scale), made.motion.to(_HOST)
    for done, frame in enumerate(unseen, 1):
        image, _, background = scene.target(frame, scale)
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


def _own(scene: Scene, state: TrainState, motion: Motion) -> Motion:
    """Of a motion of all frames, that of the avatar's own clip; sound is only for those who listen."""
    own = motion[scene.reel.rows[0]]
    return own if state.voice else own.replace(audio=None)


def _avatar(scene: Scene, state: TrainState) -> Avatar:
    reel, track = scene.reel, scene.reel.tracks[0]
    learned = frames_of(reel.motion, reel.usable)
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
            found=track.found,
            error_pct=track.error_pct,
        ),
        plate=track.plate,
        correctives=correctives,
        meta={
            "trained_range": trained_range(learned, scene.head.expression_names),
            "trained_views": trained_views(scene.head.shaped(track.identity), learned),
            **more_clips(reel),
        },
    )


def _held(scene: Scene, state: TrainState) -> Avatar:
    """The avatar as it is now, with splats of its own: the next steps do not change them."""
    return _avatar(scene, state).taken(torch.arange(len(state.face_ids)))


def _settle(scene: Scene, state: TrainState, config: AvatarConfig) -> None:
    """Drop what no frame shows, and cover the bare surface; what hardly shows goes on from its neighbours' looks."""
    views = looked_at(scene.reel, scene.head)
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
