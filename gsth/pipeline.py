"""The whole road: a video in, a talking avatar out. Calls the rooms in order and passes their events on."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsth import _pipeline_clips as _clips
from gsth.avatar._config import AvatarConfig
from gsth.errors import InputError
from gsth.provenance import STAMPED, StampConfig
from gsth.track._config import TrackConfig
from gsth.types import Done, Event, Notice, Saved, Step

if TYPE_CHECKING:
    from gsth.avatar import Avatar, Crew
    from gsth.batch import BatchConfig
    from gsth.drive import Sound
    from gsth.provenance import Consent
    from gsth.types import Motion, Track

SOUND_RATE = 48_000
"""Of the sound in videos that gsth writes, Hz."""


@dataclass(frozen=True)
class TrainConfig:
    """Track a clip, train an avatar on it, teach it to speak, and score it on the part it never saw."""

    track: TrackConfig = field(default_factory=TrackConfig)
    avatar: AvatarConfig = field(default_factory=AvatarConfig)


@dataclass(frozen=True)
class Order:
    """What all stages of a training are told."""

    config: TrainConfig
    consent: Consent
    """That the person who is shown agreed; recorded in the avatar."""
    devices: int = 1
    """Processes that share the frames of each training step."""
    device: str = "auto"
    """Where splats are trained: "cpu", "cuda", or "auto" for the GPU where one can be used."""
    more: tuple[Path, ...] = ()
    """Further clips of the same person, in which all frames are learned from; lens, background and light are theirs."""


def work_folder(out: Path) -> Path:
    """Where a run keeps its track and checkpoints until ``out`` is complete."""
    return out.with_name(out.name + ".work")


def train(clip_path: Path, out: Path, order: Order) -> Iterator[Event]:
    """Make the avatar artifact ``out`` from a video; goes on where a killed run stopped.

    Args:
        clip_path: Video of one person; ``order.more`` are further ones.
        out: The avatar.
        order: How to track and train. Neither ``devices`` nor ``device`` changes what comes out, but for the rounding
            of sums. With more than one of ``devices``, a script must start under ``if __name__ == "__main__":``.

    Raises:
        InputError: The video cannot be used, ``out`` is something else than an avatar, or ``devices`` does not fit.
        BackendError: ``device`` cannot be used; says why.
    """
    from gsth import artifacts, avatar

    artifacts.check_out(out, "avatar")
    avatar.check_crew(order.devices, order.config.avatar.batch, order.device)
    with artifacts.lock(work_folder(out)):
        for _, stage in STAGES:
            for event in stage(clip_path, out, order):
                if not isinstance(event, Done) or stage is score_stage:
                    yield event


def track_stage(clip_path: Path, out: Path, order: Order) -> Iterator[Event]:
    """Track the clip, and then the further ones as the same person, into the work folder of ``out``, unless done."""
    from gsth import artifacts

    artifacts.check_out(out, "avatar")
    with artifacts.lock(work_folder(out)):
        yield from _clips.tracked((clip_path, *order.more), work_folder(out), order.config.track)


def fit_stage(clip_path: Path, out: Path, order: Order) -> Iterator[Event]:
    """Train splats on the track, from the last checkpoint."""
    from gsth import artifacts

    work = work_folder(out)
    with artifacts.lock(work):
        yield from _trained(work, order)


def speech_stage(clip_path: Path, out: Path, order: Order) -> Iterator[Event]:
    """Add the person's speech network and write the avatar artifact."""
    from gsth import artifacts

    work = work_folder(out)
    with artifacts.lock(work):
        yield from _finished(work / "train" / "avatar", out, order.consent)


def score_stage(clip_path: Path, out: Path, order: Order) -> Iterator[Event]:
    """Remove the work folder and score the avatar on what training never saw; the last event holds the figures."""
    shutil.rmtree(work_folder(out), ignore_errors=True)  # absent where an earlier run was killed while scoring
    yield from _scored(out)


STAGES: tuple[tuple[str, Callable[[Path, Path, Order], Iterator[Event]]], ...] = (
    ("track", track_stage),
    ("fit", fit_stage),
    ("speech", speech_stage),
    ("score", score_stage),
)
"""The way from a clip to a scored avatar. Each goes on by itself where it was killed, on any machine."""


def batch(clips: Sequence[Path], out: Path, order: Order, scale: BatchConfig) -> Iterator[Event]:
    """Make an avatar of every clip, on one machine or on a Ray cluster. See ``gsth.batch.run``."""
    from gsth import batch as ray_batch

    stages = [ray_batch.Stage(name, stage) for name, stage in STAGES]
    return ray_batch.run(clips, out, stages, order, scale)


def _trained(work: Path, order: Order) -> Iterator[Event]:
    from gsth import avatar

    with avatar.crew(order.devices, order.device, _follow, work, order.config) as crew:
        for event in _fitted(crew, work, order.config):
            if not isinstance(event, Done):
                yield event


def _follow(crew: Crew, work: Path, config: TrainConfig) -> None:
    """What the other processes of a training do; they have nothing to say."""
    for _ in _fitted(crew, work, config):
        pass


def _fitted(crew: Crew, work: Path, config: TrainConfig) -> Iterator[Event]:
    from gsth import avatar

    track, *more = map(heard, _clips.tracks(work)) if config.avatar.field != "none" else _clips.tracks(work)
    count = config.track.train_frames(len(track.frame_ids))
    return avatar.train(track, config.avatar, work / "train", count, crew, more)


def heard(track: Track) -> Track:
    """The track with what is heard in each frame, for the audio field.

    Raises:
        InputError: The clip has no sound.
    """
    from gsth import audio, drive, media

    clip = track.clip
    if clip.wav is None:
        raise InputError(f"{clip.path}: has no sound for an audio field to learn from; train with field none")
    features = drive.hear(media.sound(clip.wav, audio.RATE), clip.fps, clip.frames)
    return track.replace(motion=track.motion.replace(audio=features[track.frame_ids]))


def _finished(trained: Path, out: Path, consent: Consent) -> Iterator[Event]:
    """Add the person's speech network, consent and licences, and write the artifact."""
    from gsth import media, provenance
    from gsth.avatar import Avatar
    from gsth.drive import SpeechConfig, describe, fit_speech

    made = Avatar.load(trained)
    clip = media.probe(made.source.clip_path)
    if clip.wav is None:
        yield Notice(f"{clip.path} has no sound: the avatar will speak with the general voice model alone")
    else:
        yield Step("speech", 0, 1)
        weights = fit_speech(made, media.sound(clip.wav), SpeechConfig())
        made = replace(made, speech=weights)
        yield Notice(describe(weights))
        yield Step("speech", 1, 1)
    meta = provenance.record(made.meta, consent, made.source.sha256)
    meta["licences"] = [asdict(part) for part in provenance.licences_of(made.head.id.name, bool(made.speech))]
    replace(made, meta=meta).save(out)
    yield Saved(out)


def _scored(out: Path) -> Iterator[Event]:
    from gsth import evaluate

    for event in evaluate.run(out, evaluate.EvalConfig(thorough=False)):
        yield Done(out, event.values) if isinstance(event, Done) else event


def drive(
    avatar_path: Path, driver: Any, out: Path, curves: Path | None = None, stamp: StampConfig = STAMPED
) -> Iterator[Event]:
    """Render a driven avatar from its training camera into a video with sound.

    Args:
        avatar_path: The avatar artifact.
        driver: A driver's ``Config``, for example ``gsth.drive.audio.Config(wav=...)``.
        out: The video, .mp4.
        curves: Where to write the motion as a CSV that ``gsth.drive.motion`` reads again; None: nowhere.
        stamp: What the video carries of where it comes from.
    """
    from gsth import provenance
    from gsth.avatar import Avatar
    from gsth.drive import offline, save_curves

    _check_video(out)
    provenance.check(stamp)
    made = Avatar.load(avatar_path)
    moved = driver.build(made)
    motion = offline(moved)
    if curves is not None:
        save_curves(motion, made, curves)
        yield Saved(curves)
    yield from film([(made, motion)], moved.sound, out, stamp)
    yield Done(out, {"frames": float(len(motion)), "seconds": len(motion) / motion.fps})


def converse(script_path: Path, out: Path, stamp: StampConfig = STAMPED) -> Iterator[Event]:
    """Render the avatars of a script file side by side, in the order of its speakers, with their sound."""
    from gsth import provenance
    from gsth.avatar import Avatar
    from gsth.drive import offline, script

    _check_video(out)
    provenance.check(stamp)
    play = script.read(script_path)
    avatars = {name: Avatar.load(role.avatar) for name, role in play.roles.items()}
    fps = max(made.motion.fps for made in avatars.values())
    avatars = {n: replace(made, motion=made.motion.replace(fps=fps)) for n, made in avatars.items()}
    drivers, sound = script.perform(play, avatars)
    cast = [(avatars[n], offline(driver)) for n, driver in drivers.items()]
    yield from film(cast, sound, out, stamp)
    yield Done(out, {"frames": float(len(cast[0][1])), "seconds": len(cast[0][1]) / fps})


def _check_video(out: Path) -> None:
    if out.suffix.lower() != ".mp4":
        raise InputError(f"{out}: the video is written as .mp4, give it that ending")


def film(cast: Sequence[tuple[Avatar, Motion]], sound: Sound | None, out: Path, stamp: StampConfig) -> Iterator[Event]:
    """Render every frame of motions of one length and rate, each avatar from its training camera, side by side."""
    from gsth import provenance

    who = provenance.about([made.meta for made, _ in cast])
    motion = cast[0][1]
    total = len(motion)
    heard = (None, SOUND_RATE) if sound is None else (sound.samples, sound.rate)
    with _Encoder(lambda frames: provenance.write_video(out, frames, motion.fps, heard, who, stamp)) as encoder:
        for done, pictures in enumerate(zip(*(_pictures(*one) for one in cast), strict=True), 1):
            encoder.put(_beside(pictures))
            yield Step("render", done, total)


def _beside(pictures: Sequence[Any]) -> Any:
    """Pictures uint8 [h w 3] next to each other, as high as the highest; lower ones stand in the middle on black."""
    import numpy as np

    height = max(p.shape[0] for p in pictures)
    padded = []
    for p in pictures:
        above = (height - p.shape[0]) // 2
        padded.append(np.pad(p, ((above, height - p.shape[0] - above), (0, 0), (0, 0))))
    return np.concatenate(padded, 1)


def _pictures(made: Avatar, motion: Motion) -> Iterator[Any]:
    """Frames of the training camera over the background, uint8 [h w 3]."""
    import torch

    from gsth import render

    background = made.background()
    for i in range(len(motion)):
        with torch.no_grad():
            drawn = render.render(made.pose(motion[i]), made.cameras, background=background)
        yield (drawn.rgb[0].clamp(0, 1) * 255).round().byte().numpy()


class _Encoder:
    """Feeds a writer that pulls from an iterator, in a thread of its own: rendering and encoding overlap."""

    def __init__(self, write: Callable[[Iterator[Any]], None]) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=8)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(write,), daemon=True)

    def _run(self, write: Callable[[Iterator[Any]], None]) -> None:
        try:
            write(self._items())
        except BaseException as e:  # handed to the caller's thread, which raises it
            self._error = e

    def _items(self) -> Iterator[Any]:
        while (item := self._queue.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item

    def put(self, item: Any) -> None:
        """Hand over one picture; raises what the writer raised."""
        while self._error is None:
            try:
                return self._queue.put(item, timeout=0.2)
            except queue.Full:
                continue
        raise self._error

    def __enter__(self) -> _Encoder:
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._error is None:
            # An error here must reach the writer too, so that it drops its half-written file.
            self.put(_END if error is None else error)
            self._thread.join()
        if error is None and self._error is not None:
            raise self._error


_END = object()


DEMO_SENTENCE = (
    "Hello! I was made on a laptop, from a few seconds of video. Nobody ever filmed me saying this sentence."
)


def demo(out: Path) -> Iterator[Event]:
    """The main job on an embedded default: film the synthetic actor, train on the film, make the avatar speak.

    Writes ``actor.mp4``, ``actor.avatar/``, ``hello.wav`` and ``demo.mp4`` into ``out``; what is there already and
    whole is kept, so an interrupted demo goes on.
    """
    from gsth import artifacts, evaluate, media, provenance, speech, synth
    from gsth._config import presets
    from gsth.avatar import Avatar
    from gsth.drive import audio

    clip, avatar_path, wav, video = (out / n for n in ("actor.mp4", "actor.avatar", "hello.wav", "demo.mp4"))
    provenance.check(STAMPED)
    out.mkdir(parents=True, exist_ok=True)
    if not clip.exists():
        yield from (e for e in synth.film(synth.SynthConfig(), clip) if not isinstance(e, Done))
    scores: dict[str, float] = {}
    if not artifacts.is_kind(avatar_path, "avatar"):
        order = Order(presets(TrainConfig, "train")["quick"], provenance.SYNTHETIC)
        for event in train(clip, avatar_path, order):
            scores = event.values if isinstance(event, Done) else scores
            if not isinstance(event, Done):
                yield event
    said = speech.synthesize(DEMO_SENTENCE)
    media.write_sound(wav, said.samples, said.sample_rate)
    for event in drive(avatar_path, audio.Config(wav=wav), video):
        if not isinstance(event, Done):
            yield event
    evaluate.sheet(Avatar.load(avatar_path), media.probe(clip), out / "sheet.png")
    yield Notice(
        f"{video}: the avatar, saying what it never said\n"
        f"{out / 'sheet.png'}: the film, the avatar on frames that it never saw, and from the sides\n"
        f"next: gsth view {avatar_path}, or gsth export {avatar_path} web --out {out / 'page'}"
    )
    yield Done(out, scores)
