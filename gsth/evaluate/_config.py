"""What can be chosen about scoring. Imports no torch, so that ``--help`` stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gsth.errors import InputError


@dataclass(frozen=True)
class EvalConfig:
    """What to score, and what to write."""

    driven: Literal["track", "audio"] = "track"
    """track: the tracked motion of the held-out frames. audio: expressions from the clip's own sound; head pose, gaze
    and blinks from the track."""
    audio: Path | None = None
    """Cross-driven: speak this sound, of anybody in any language, instead. Only what needs no reference is scored."""
    motion: Path | None = None
    """Reenacted: play this Motion or Track artifact instead. Only what needs no reference is scored."""
    split: str | None = None
    """Score only the test part of one of the field's splits: "10/11", "last 350", "last 500" or "first 10 s"."""
    views: bool = False
    """Also compare with views from the sides; their truth is known for clips of the synthetic actor only."""
    thorough: bool = True
    """Also take the slow measures (ST-LPIPS, FLIP, MS-SSIM, NIQE, identity, expression and pose, and those that
    need weights)."""
    weights: Path | None = None
    """Folder with weights that cannot be shipped (SyncNet, ArcFace, LPIPS, FID; docs/evaluation.md names the files)."""
    json: Path | None = None
    """Write the figures to this file."""
    html: Path | None = None
    """Write a report of one file, with plots and a side-by-side video."""
    sheet: Path | None = None
    """Write a picture sheet (.png): truth, avatar, difference, mouth, side views, turntable, expressions never
    made."""
    frames: Path | None = None
    """Write every held-out frame, as rendered, into this folder: <frame number in the clip>.png and frames.json.
    Each is signed as AI-generated; no pixel is changed."""
    clip: Path | None = None
    """The source video, where it has moved since training; it must be the very same file."""

    def __post_init__(self) -> None:
        if self.audio is not None and self.motion is not None:
            raise InputError("give --audio or --motion, not both: one motion can be scored at a time")
        if self.foreign and self.driven == "audio":
            raise InputError("--driven audio means the clip's own sound; leave it out beside --audio or --motion")
        if self.foreign and (self.split is not None or self.frames is not None or self.views):
            raise InputError(
                "--split, --frames and --views belong to the held-out frames; leave out --audio and --motion"
            )

    @property
    def foreign(self) -> bool:
        """Whether the motion is of something else than the clip itself."""
        return self.audio is not None or self.motion is not None
