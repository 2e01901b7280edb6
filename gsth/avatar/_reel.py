"""The frames of several clips of one person as one row: training looks a frame up by its number in the row.

Every clip keeps its own lens, crop, background and light. The first one is the avatar's own: its frames come first, its
camera, plate and sound go into the artifact, its last part is held out, and its light is that in which the person is
learned: ``grades`` brings the colours of the others there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gsth import artifacts
from gsth.avatar._config import AvatarConfig
from gsth.errors import InputError
from gsth.types import HeadId, Identity, Motion, Track


@dataclass(frozen=True, eq=False)
class Reel:
    """Tracks of one person with one identity, the avatar's own clip first."""

    tracks: tuple[Track, ...]
    train_frames: int
    """How many frames of the first clip, from its start, may be learned from; of the others all may."""
    grades: Tensor
    """Gain and bias of each colour that bring a clip's light to that of the first, [c 2 3]."""

    @classmethod
    def of(cls, track: Track, train_frames: int, more: Sequence[Track] = ()) -> Reel:
        """Join tracks.

        Raises:
            InputError: They are of different sizes, heads or people, or the first shows no face that may be learned.
        """
        for other in more:
            _check_alike(track, other)
        if not track.found[:train_frames].any():
            raise InputError(f"{track.clip.path}: no face was found in the {train_frames} training frames")
        plain = torch.tensor(((1.0,) * 3, (0.0,) * 3))
        return cls((track, *more), train_frames, plain.repeat(1 + len(more), 1, 1))

    @property
    def identity(self) -> Identity:
        """Who it is, in all clips."""
        return self.tracks[0].identity

    @property
    def head(self) -> HeadId:
        """The head model on which all were tracked."""
        return self.identity.head

    @cached_property
    def rows(self) -> tuple[slice, ...]:
        """Which frames of the row are those of each clip."""
        ends = torch.tensor([len(t.frame_ids) for t in self.tracks]).cumsum(0).tolist()
        return tuple(slice(a, b) for a, b in zip((0, *ends), ends, strict=False))

    @cached_property
    def motion(self) -> Motion:
        """Of all frames; at the first clip's rate, which only its own frames keep to."""
        all_heard = all(t.motion.audio is not None for t in self.tracks)
        names = ("expr", "joints", "T_world_head", *(("audio",) if all_heard else ()))
        first = self.tracks[0].motion if all_heard else self.tracks[0].motion.replace(audio=None)
        return first.replace(**{n: torch.cat([getattr(t.motion, n) for t in self.tracks]) for n in names})

    @cached_property
    def learned(self) -> Tensor:
        """Frames that may be learned from, whether a face was found there or not, int64 [m]."""
        own, *others = self.rows
        parts = (range(min(self.train_frames, own.stop)), *(range(r.start, r.stop) for r in others))
        return torch.tensor([frame for part in parts for frame in part])

    @cached_property
    def usable(self) -> Tensor:
        """Those of ``learned`` that show a face, int64."""
        found = torch.cat([t.found for t in self.tracks])
        return self.learned[found[self.learned]]

    def at(self, frame: int) -> tuple[int, int]:
        """The clip of a frame, and its row there."""
        clip = next(i for i, rows in enumerate(self.rows) if frame < rows.stop)
        return clip, frame - self.rows[clip].start

    def image(self, frame: int) -> Tensor:
        """A frame [h w 3] in the light of the first clip; 0 to 1, but for what that brings beyond."""
        clip, row = self.at(frame)
        return self.graded(torch.from_numpy(self.tracks[clip].images[row].copy()).float() / 255, clip)

    def graded(self, colours: Tensor, clip: int) -> Tensor:
        """Colours [... 3] of a clip in the light of the first."""
        if clip == 0:
            return colours
        gain, bias = self.grades[clip]
        return colours * gain + bias

    def matte(self, frame: int) -> Tensor:
        """uint8 [h w], 255 is person."""
        clip, row = self.at(frame)
        return torch.from_numpy(self.tracks[clip].mattes[row].copy())

    def landmarks(self, frame: int) -> Tensor:
        """px, [l 2]."""
        clip, row = self.at(frame)
        return self.tracks[clip].landmarks_px[row]

    def digest(self, config: AvatarConfig) -> str:
        """What a checkpoint must share with a run to be continued by it."""
        h = hashlib.sha256(json.dumps(dataclasses.asdict(config), sort_keys=True).encode())
        for track in self.tracks:
            h.update(f"{track.clip.path.name} {self.train_frames} {self.head}".encode())
            for t in (track.motion.expr, track.motion.T_world_head, track.identity.shape, track.cameras.Ks):
                h.update(t.numpy().tobytes())
        return h.hexdigest()

    def K(self, frame: int) -> Tensor:
        """Intrinsics, px, [3 3]."""
        return self.tracks[self.at(frame)[0]].cameras.Ks[0]


def frames_of(motion: Motion, frames: Sequence[int] | Tensor) -> Motion:
    """Some frames of a motion, without sound."""
    index = torch.as_tensor(frames)
    fields = {n: getattr(motion, n)[index] for n in ("expr", "joints", "T_world_head")}
    return motion.replace(**fields, audio=None)


def _check_alike(own: Track, other: Track) -> None:
    """Refuse a track that does not go with the first."""
    sizes = [f"{t.cameras.width} x {t.cameras.height} px" for t in (own, other)]
    if sizes[0] != sizes[1]:
        raise InputError(
            f"{other.clip.path}: was tracked at {sizes[1]}, {own.clip.path} at {sizes[0]}; track them at one size"
        )
    if own.identity.head != other.identity.head:
        raise InputError(
            f"{other.clip.path}: was tracked with head {other.identity.head}, {own.clip.path} with "
            f"{own.identity.head}; track them with one head model"
        )
    pairs = [(getattr(own.identity, n), getattr(other.identity, n)) for n in ("shape", "offsets")]
    if not all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs):
        raise InputError(
            f"{other.clip.path}: was tracked as somebody else than {own.clip.path}; give both to gsth train, which "
            "tracks the second with the first one's identity"
        )


def more_clips(reel: Reel) -> dict[str, Any]:
    """What an avatar's artifact says of the clips beside its own; nothing where there are none."""
    told = [
        {"name": t.clip.path.name, "sha256": artifacts.sha256(t.clip.path), "frames": len(t.frame_ids)}
        for t in reel.tracks[1:]
    ]
    return {"more_clips": told} if told else {}
