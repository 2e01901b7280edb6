"""The command line: parses, calls one room, shows its events. The only module that prints and exits."""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, TypeVar

from gsth.errors import GsthError, InputError
from gsth.types import Densified, Done, Event, Notice, Saved, Step

if TYPE_CHECKING:
    from gsth.doctor import Row

T = TypeVar("T")

OK, CRASHED, REFUSED, INTERRUPTED = 0, 1, 2, 130
LINE_EVERY_S = 15.0
"""Without a terminal, a stage says how far it is at most this often."""
REDRAW_EVERY_S = 0.1


@dataclass(frozen=True)
class Verb:
    """One command."""

    usage: str
    summary: str
    start: Callable[[Sequence[str]], Iterator[Event]]
    resumes: bool = False
    """An interrupted run goes on where it stopped when the same command is given again."""


# ------------------------------------------------------------------------------------------------ verbs
# Each imports what it needs when it is called: help must not wait for torch.


def _demo(argv: Sequence[str]) -> Iterator[Event]:
    @dataclass(frozen=True)
    class Demo:
        """Film a synthetic actor, train an avatar on the film, and make it speak a sentence that it never heard."""

        out: Path = Path("demo")
        """Folder for actor.mp4, actor.avatar, hello.wav and demo.mp4."""

    args = _parse("demo", Demo, argv)
    from gsth import pipeline

    return pipeline.demo(args.out)


def _train(argv: Sequence[str]) -> Iterator[Event]:
    import dataclasses
    from typing import Annotated

    import tyro

    from gsth import pipeline
    from gsth._config import presets

    choices = presets(pipeline.TrainConfig, "train")
    preset = tyro.extras.subcommand_type_from_defaults(choices, prefix_names=False)
    # The presets are files, so this class can only be made when they have been read.
    args_type = dataclasses.make_dataclass(
        "Train",
        [
            ("clip", Annotated[tyro.conf.Positional[Path], tyro.conf.arg(help="Video of one person facing the camera.")]),
            ("out", Annotated[Path, tyro.conf.arg(help="Folder for the avatar, for example me.avatar.")]),
            (
                "preset",
                Annotated[preset, tyro.conf.arg(name="")],
                dataclasses.field(default=choices["standard"]),
            ),
        ],
        frozen=True,
    )
    args_type.__doc__ = (
        "Track a video, train an avatar on it, and score it on the part it never saw.\n\n"
        "Write a preset after the rest and its settings after it: gsth train me.mp4 --out me.avatar quick "
        "--avatar.steps 800. Without a word it is standard. An interrupted run goes on when given again."
    )
    args: Any = _parse("train", args_type, argv)
    return pipeline.train(args.clip, args.out, args.preset)


def _track(argv: Sequence[str]) -> Iterator[Event]:
    from typing import Annotated

    import tyro

    from gsth.track import TrackConfig

    @dataclass(frozen=True)
    class Track:
        """Only the tracking: head, expression, matte and background of every frame, with a report."""

        clip: _positional(Path)  # type: ignore[valid-type]
        """Video of one person facing the camera."""
        out: Path
        """Folder for the track, for example me.track."""
        config: Annotated[TrackConfig, tyro.conf.arg(name="")]

    del annotations
    args = _parse("track", Track, argv)
    from gsth import track

    return track.run(args.clip, args.out, args.config)
