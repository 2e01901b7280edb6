"""What each verb takes. The classes' docstrings are the help; nothing here may import torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from tyro.conf import Positional, arg

from gsth.batch import BatchConfig
from gsth.drive import Manner
from gsth.evaluate import EvalConfig
from gsth.export import ImportConfig, SlimConfig
from gsth.provenance import StampConfig
from gsth.serve.app import ViewConfig
from gsth.track import TrackConfig

T = TypeVar("T")
CONSENT_HELP = (
    "That the person who is shown agreed to this avatar: a statement, or a text file that holds it. It is kept in the "
    "avatar and goes along with every export. Without it, one line is asked for on a terminal."
)


@dataclass(frozen=True)
class Demo:
    """Film a synthetic actor, train an avatar on the film, and make it say a sentence that it never heard."""

    out: Path = Path("demo")
    """Folder for actor.mp4, actor.avatar, hello.wav and demo.mp4."""


@dataclass(frozen=True)
class Track:
    """Only the tracking: head, expression, matte and background of every frame, with a report.

    FLAME (--head flame) is licensed by its makers; gsth ships no part of it, you bring your own file.
    """

    clip: Positional[Path]
    """Video of one person facing the camera; or a folder made by VHAP, GaussianAvatars, metrical-tracker, INSTA or an
    AD-NeRF-like project, to be brought over."""
    out: Path | None = None
    """Folder for the track, for example me.track; needed unless --check-only is given."""
    check_only: bool = False
    """Say within some seconds whether the video can be used, and write nothing."""
    config: Annotated[TrackConfig, arg(name="")] = TrackConfig()


@dataclass(frozen=True)
class Drive:
    """Make an avatar speak or move, and write the video. Give exactly one of --audio, --text, --text-file, --script,
    --video, --webcam and --motion."""

    out: Path
    """Video to write, .mp4."""
    avatar: Annotated[Positional[Path | None], arg(metavar="AVATAR")] = None
    """Folder that gsth train wrote; a script names its own."""
    audio: Path | None = None
    """Speech: a wav, or any file with sound."""
    text: str | None = None
    """Speech from text. [0.5s] is a pause, *word* is emphasis; SSML's break, emphasis and prosody work too."""
    text_file: Path | None = None
    """Speech from a text file."""
    script: Path | None = None
    """A conversation: YAML with speakers (each an avatar and a voice) and lines; see docs/driving.md."""
    video: Path | None = None
    """Reenact: a video of another person, or its track."""
    webcam: str | None = None
    """Live: number of a camera, or a video file in its place."""
    motion: Path | None = None
    """A Motion artifact, Live Link Face CSV, 52-weight JSON, or npz."""
    voice: str | None = None
    """For text: an espeak-ng voice (en-gb+f3; f3 with --lang), hibari, the file of a Piper voice, or
    kokoro:FILE@NAME."""
    lang: str | None = None
    """For text: language code, for example en, de, zh."""
    pose: Literal["relative", "absolute", "none"] = "relative"
    """For video and webcam: head pose, relative to the mean, absolute, or the avatar's own."""
    gain: float = 1.0
    """For video and webcam: factor on the expressions, 0 to 2."""
    seconds: float = 10.0
    """For webcam: how long."""
    curves: Path | None = None
    """Write the motion as a CSV too, to edit it and give it back as --motion."""
    manner: Annotated[Manner, arg(name="")] = Manner()
    stamp: Annotated[StampConfig, arg(name="")] = StampConfig()


@dataclass(frozen=True)
class Eval:
    """Score an avatar on the part of its video that training never saw; or several; or anybody's pictures.

    gsth eval A, or gsth eval --compare A B, or gsth eval --frames-of X --reference Y.
    """

    avatar: Positional[Path | None] = None
    """Folder that gsth train wrote."""
    compare: tuple[Path, ...] = ()
    """Two or more avatars of one clip: scored side by side on the frames that none of them saw."""
    frames_of: Path | None = None
    """Pictures of anybody's making: a folder of numbered stills, or a video."""
    reference: Path | None = None
    """What --frames-of should show: the video, or a folder."""
    config: Annotated[EvalConfig, arg(name="")] = EvalConfig()


@dataclass(frozen=True)
class View:
    """Look at an avatar from any side, live, in the browser."""

    avatar: Positional[Path]
    """Folder that gsth train wrote."""
    config: Annotated[ViewConfig, arg(name="")] = ViewConfig()


@dataclass(frozen=True)
class Import:
    """Bring a file in: a .glb, web page or folder of GaussianAvatars as an avatar, a .ply or .spz as a prop or, with
    --onto, an avatar."""

    file: Positional[Path]
    """The .glb, .ply or .spz; a page of the web export: its folder, its avatar.gsth.bin, or the single .html; a folder
    of GaussianAvatars; or a checkpoint (.ckpt) of nerfstudio's method gsth."""
    out: Path
    """Folder to write."""
    config: Annotated[ImportConfig, arg(name="")] = ImportConfig()


@dataclass(frozen=True)
class Doctor:
    """Say what runs on this machine, and how to get what does not."""

    licences: bool = False
    """Instead: what gsth ships and finds installed, under which licence, and what follows."""


@dataclass(frozen=True)
class Verify:
    """Say in plain words what a picture, a video or an avatar carries of where it comes from."""

    file: Positional[Path]
    """An .mp4, .png, .jpg or .webp, or an avatar's folder."""


def train() -> type[Any]:
    """The arguments of ``gsth train``: its presets are files, so the class can only be made once they are read."""
    clips = (
        "clips",
        Annotated[
            Positional[tuple[Path, ...]],
            arg(
                help="Video of one person facing the camera; further videos of the same person teach more. Camera, "
                "background and voice are those of the first, and its last part is what is scored."
            ),
        ],
    )
    out = ("out", Annotated[Path, arg(help="Folder for the avatar, for example me.avatar.")])
    devices = (
        "devices",
        Annotated[
            int, arg(help="Processes (GPUs) that share the frames of each training step; give --avatar.batch, too.")
        ],
        1,
    )
    device = (
        "device",
        Annotated[
            Literal["auto", "cpu", "cuda"],
            arg(help="Where splats are trained; auto takes the GPU where one can be used."),
        ],
        "auto",
    )
    view = ("view", Annotated[bool, arg(help="Show the avatar in the live viewer while it forms.")], False)
    return _with_presets(
        "Train",
        [clips, out, _CONSENT],
        [devices, device, view],
        "Track a video, train an avatar on it, and score it on the part it never saw.\n\n"
        "Options come after the videos, a preset and its settings last: gsth train me.mp4 --out me.avatar quick "
        "--avatar.steps 800. Without a preset it is standard. An interrupted run goes on when the same command is "
        "given again.",
    )


def batch() -> type[Any]:
    """The arguments of ``gsth batch``: those of many trainings."""
    clips = ("clips", Annotated[Positional[tuple[Path, ...]], arg(help="Videos of one person each.")])
    out = ("out", Annotated[Path, arg(help="Folder for NAME.avatar, NAME.json and NAME.log of each, and batch.html.")])
    scale = ("scale", Annotated[BatchConfig, arg(name="")], dataclasses.field(default=BatchConfig()))
    return _with_presets(
        "Batch",
        [clips, out, _CONSENT, scale],
        [],
        "Make an avatar of every video, on this machine or on a Ray cluster (docs/scale.md).\n\n"
        "Options come after the videos, a preset last: gsth batch clips/*.mp4 --out avatars quick. An interrupted "
        "batch goes on when the same command is given again; only what failed or changed is made anew.",
    )


_CONSENT = ("consent", Annotated[str | None, arg(help=CONSENT_HELP)], None)


def _with_presets(name: str, fields: list[Any], more: list[Any], doc: str) -> type[Any]:
    """Arguments, one of the presets of training (``standard`` where none is given), and more arguments."""
    from gsth._config import presets
    from gsth.pipeline import TrainConfig

    choices = presets(TrainConfig, "train")
    preset = tyro.extras.subcommand_type_from_defaults(choices, prefix_names=False)
    choice = ("preset", Annotated[preset, arg(name="")], dataclasses.field(default=choices["standard"]))
    made = dataclasses.make_dataclass(name, [*fields, choice, *more], frozen=True)
    made.__doc__ = doc
    return made


def export() -> type[Any]:
    """The arguments of ``gsth export``: its formats are the files of the room."""
    from gsth import registry

    choices = {name: registry.plugin("export", name)() for name in registry.names("export")}
    formats = tyro.extras.subcommand_type_from_defaults(choices, prefix_names=False)
    fields: list[Any] = [
        ("avatar", Annotated[Positional[Path], arg(help="Folder that gsth train wrote.")]),
        ("format", Annotated[formats, arg(name="")]),
        ("out", Annotated[Path, arg(help="File or folder to write.")]),
        ("slim", Annotated[SlimConfig, arg(name="")], dataclasses.field(default=SlimConfig())),
    ]
    made = dataclasses.make_dataclass("Export", fields, frozen=True)
    made.__doc__ = (
        "Write an avatar in a format that other programs open: gsth export me.avatar glb --out me.glb.\n\n"
        "gsth export me.avatar FORMAT --help shows the format's own options."
    )
    return tyro.conf.CascadeSubcommandArgs[made]


def parse(verb: str, cls: type[T], argv: Sequence[str]) -> T:
    """Arguments of one verb; --help and wrong ones end the program, as tyro does it."""
    return tyro.cli(cls, prog=f"gsth {verb}", args=list(argv), config=(tyro.conf.OmitSubcommandPrefixes,))
