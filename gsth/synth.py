"""The synthetic actor: a clip of a talking person of whom everything is known, so that every claim can be tested.

The built-in head, with painted skin, eyes, hair and clothes, speaks synthetic speech before a still wall. ``film``
writes the clip and its truth; ``Actor.render_view`` shows the same frame from any other side.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import torch
from torch import Tensor

from gsth import _synth_hair, _synth_motion, _synth_paint, _synth_shade, artifacts, math3d, media, speech
from gsth import head as heads
from gsth.errors import InputError
from gsth.head import HeadModel, ShapedHead
from gsth.render import render
from gsth.speech import Phoneme
from gsth.types import Cameras, Done, Event, HeadId, Identity, Motion, Saved, Step

_TEXT = (
    "Hello, nice to meet you. My name is Ash, and nobody like me has ever lived. "
    "Every movement of my face is known, so you can measure how well you follow it. "
    "Both of us could say something about the warm weather, or five big blue boats. "
)
_FOCAL = 2.3
"""Focal length in picture heights: a portrait lens."""
_FILM_DIAGONAL_MM = math.hypot(36, 24)
"""Of 35 mm film."""
_PAUSE_S = 0.40
_WORKERS = min(os.cpu_count() or 1, 8)


@dataclass(frozen=True)
class SynthConfig:
    """Which actor, saying what, filmed how."""

    seed: int = 8
    """Of the shape of the head and of its behaviour."""
    look: str = "ash"
    """Colours: ash, umber, sand or rose."""
    seconds: float = 8.0
    """Length of the clip."""
    fps: float = 25.0
    """Frame rate, Hz."""
    size: int = 512
    """Width and height, px."""
    turn_deg: float = 20.0
    """How far the head turns to either side, degrees."""
    text: str = _TEXT
    """What to say; said again until the clip is full, and cut at its end."""
    voice: str = "en-us+m3"
    """One of gsth.speech.voices()."""
    rate_wpm: int = 160
    """Speed of speech, words per minute."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What a tracker should find in the clip."""

    head: HeadId
    cameras: Cameras
    """One camera; its viewmat is the identity, so world = camera."""
    identity: Identity
    """Its offsets are the clothes."""
    motion: Motion
    landmarks_px: Tensor
    """The 478 MediaPipe landmarks of the head model, px, [t 478 2]."""
    phonemes: tuple[tuple[str, float, float], ...]
    """Symbol (IPA), start and end, s, of what is said."""


@dataclass(frozen=True, eq=False)
class Actor:
    """A filmed person who never was."""

    config: SynthConfig
    head: HeadModel
    truth: Truth
    sound: np.ndarray
    """float32 mono, as long as the clip."""
    sound_rate: int

    @cached_property
    def shaped(self) -> ShapedHead:
        """The head of this person."""
        return self.head.shaped(self.truth.identity)

    @cached_property
    def _surface(self) -> _synth_paint.Surface:
        look = _synth_paint.LOOKS[self.config.look]
        return _synth_paint.surface(self.head, self.shaped.rest, look, self.config.seed)

    @cached_property
    def _strands(self) -> _synth_hair.Strands:
        return _synth_hair.grow(self.head, self._surface, self.config.seed)

    def moving(self, motion: Motion) -> Actor:
        """The same person with the same sound, moving otherwise (as many frames)."""
        K = self.truth.cameras.Ks[0]
        points = math3d.project(_landmarks(self.head, self.truth.identity, motion), K)
        return replace(self, truth=replace(self.truth, motion=motion, landmarks_px=points))

    def prepare(self) -> None:
        """Paint the surface and grow the hair now, instead of with the first frame."""
        _ = self._strands

    def frame(self, index: int) -> np.ndarray:
        """One frame of the clip, uint8 [h w 3]."""
        return self.render_view(index, self.truth.cameras)

    def render_view(self, index: int, cameras: Cameras) -> np.ndarray:
        """The moment of one frame, seen by another camera (one, of any size), uint8 [h w 3].

        The wall is painted on the picture: it looks the same from everywhere.
        """
        motion = self.truth.motion[index]
        with torch.no_grad():
            mesh = self.shaped.posed(motion)
            light = _synth_shade.light(self._surface, mesh, motion)
            picture, depth = _synth_shade.shade(self._surface, light, cameras)
            hair = _synth_hair.lit(self._strands, self._surface, light, mesh, cameras, depth)
            picture = render(hair, cameras, background=picture).rgb[0]
        return (picture.clamp(0, 1) * 255).round().byte().numpy()


def orbit(cameras: Cameras, yaw: float, pitch: float = 0.0) -> Cameras:
    """The truth's camera, walked around the actor: the same distance and lens, another side.

    Args:
        cameras: One camera with the identity as its viewmat.
        yaw: rad; positive walks towards the right of the picture.
        pitch: rad; positive walks upwards.
    """
    centre = torch.tensor((_synth_motion.PLACE_M[0], 0.0, _synth_motion.PLACE_M[2]))
    return cameras.replace(viewmats=math3d.orbit(centre, yaw, pitch)[None])


def actor(config: SynthConfig | None = None) -> Actor:
    """Make an actor: who it is, what is said and how it moves. Drawing starts with the first frame asked for.

    Raises:
        InputError: A value of the config cannot be used.
        MissingExtraError: No speech synthesis (extra "audio").
    """
    config = config or SynthConfig()
    if config.look not in _synth_paint.LOOKS:
        raise InputError(f"no actor looks {config.look!r}; there are: {', '.join(_synth_paint.LOOKS)}")
    if not (config.seconds > 0 and config.fps > 0 and config.size >= 16):
        raise InputError(
            f"seconds {config.seconds}, fps {config.fps}, size {config.size}: "
            "want seconds and fps above 0 and a size of at least 16"
        )
    head = heads.load("builtin")
    frames = max(round(config.seconds * config.fps), 1)
    sound, rate, phonemes = _speech(config, frames / config.fps)
    identity = _person(head, config.seed)
    motion = _synth_motion.perform(head, phonemes, config.fps, frames, config.seed, config.turn_deg)
    cameras = _camera(config.size)
    points = _landmarks(head, identity, motion)
    truth = Truth(
        head=head.id,
        cameras=cameras,
        identity=identity,
        motion=motion,
        landmarks_px=math3d.project(points, cameras.Ks[0]),
        phonemes=tuple((p.symbol, p.start_s, p.end_s) for p in phonemes),
    )
    return Actor(config, head, truth, sound, rate)


def _landmarks(head: HeadModel, identity: Identity, motion: Motion) -> Tensor:
    """Landmarks of every frame [t l 3], world frame, by posing only the vertices that carry them."""
    ids, corners = torch.unique(head.faces[head.landmark_faces], return_inverse=True)
    offsets = None if identity.offsets is None else identity.offsets[ids]
    verts = head.subset(ids).shaped(identity.replace(offsets=offsets)).posed(motion).verts
    return (verts[:, corners] * head.landmark_bary[..., None]).sum(-2)


def _camera(size: int) -> Cameras:
    K = torch.tensor([[_FOCAL * size, 0, size / 2], [0, _FOCAL * size, size / 2], [0, 0, 1]])
    return Cameras(torch.eye(4)[None], K[None], size, size)


def _lens_tags(cameras: Cameras) -> dict[str, str]:
    """What a phone writes into its film about the lens."""
    mm = float(cameras.Ks[0, 0, 0]) / math.hypot(cameras.width, cameras.height) * _FILM_DIAGONAL_MM
    return {
        "com.apple.quicktime.camera.focal_length.35mm_equivalent": f"{mm:.2f}mm",
        "com.apple.quicktime.camera.lens_model": "synthetic actor's camera",
    }


def _person(head: HeadModel, seed: int) -> Identity:
    """A head of everyday shape (half a standard deviation in each direction), dressed."""
    generator = torch.Generator().manual_seed(seed)
    bare = Identity(head.id, 0.5 * torch.randn(len(head.shape_basis), generator=generator))
    weld = _synth_paint.welded(head.template)
    return bare.replace(offsets=_synth_paint.dress(head, head.shaped(bare).rest, weld))


def _speech(config: SynthConfig, seconds: float) -> tuple[np.ndarray, int, tuple[Phoneme, ...]]:
    """Sound of exactly the clip's length, its rate, and what is said when."""
    said = speech.synthesize(config.text, config.voice, config.rate_wpm)
    samples = round(seconds * said.sample_rate)
    sound = np.zeros(samples, np.float32)
    phonemes: list[Phoneme] = []
    at = _PAUSE_S
    while at < seconds:
        start = round(at * said.sample_rate)
        part = said.samples[: samples - start]
        sound[start : start + len(part)] = part
        for p in said.phonemes:
            if at + p.start_s < seconds:
                phonemes.append(Phoneme(p.symbol, at + p.start_s, min(at + p.end_s, seconds)))
        at += said.seconds + _PAUSE_S
    return sound, said.sample_rate, tuple(phonemes)


def truth_folder(clip: Path) -> Path:
    """Where ``film`` writes what is known about a clip."""
    return clip.with_suffix(".truth")


def film(config: SynthConfig, out: Path) -> Iterator[Event]:
    """Write the actor's clip with sound to ``out`` (.mp4) and the ``Truth`` beside it (``truth_folder``).

    The clip's tags tell the lens, as those of a phone's film do.

    Raises:
        InputError: As ``actor``; or ``out`` is not an .mp4.
    """
    yield from shoot(actor(config), out)


def shoot(made: Actor, out: Path) -> Iterator[Event]:
    """``film`` of an actor who is made already, for instance one who was given another motion (``Actor.moving``)."""
    if out.suffix.lower() != ".mp4":
        raise InputError(f"{out}: the actor's clip is written as .mp4, give it that ending")
    artifacts.save(made.truth, truth_folder(out), config=made.config)
    yield Saved(truth_folder(out))
    total = len(made.truth.motion)
    events: SimpleQueue[Event | None] = SimpleQueue()
    abandoned = False

    def pictures() -> Iterator[np.ndarray]:
        for i, picture in enumerate(_drawn(made)):
            if abandoned:
                raise InterruptedError(f"{out}: filming was stopped at frame {i}")
            yield picture
            events.put(Step("film", i + 1, total))

    # The writer pulls the pictures in a thread of its own, so that events come while it works.
    with ThreadPoolExecutor(1) as pool:
        tags = _lens_tags(made.truth.cameras)
        job = pool.submit(media.write_video, out, pictures(), made.config.fps, made.sound, made.sound_rate, tags=tags)
        job.add_done_callback(lambda _: events.put(None))
        try:
            while (event := events.get()) is not None:
                yield event
        finally:
            abandoned = True
    job.result()
    yield Done(out, {"frames": float(total), "seconds": total / made.config.fps})


def _drawn(made: Actor) -> Iterator[np.ndarray]:
    """All frames in order, several drawn at a time, each by one thread."""
    threads = torch.get_num_threads()
    ahead: deque[Future[np.ndarray]] = deque()
    # Most of a frame is many small operations: two frames at once are faster than one with two threads.
    torch.set_num_threads(1)
    try:
        made.prepare()
        with ThreadPoolExecutor(_WORKERS) as pool:
            for i in range(len(made.truth.motion)):
                ahead.append(pool.submit(made.frame, i))
                if len(ahead) > _WORKERS:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
    finally:
        torch.set_num_threads(threads)
