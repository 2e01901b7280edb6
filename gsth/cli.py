"""The command line: parses, calls one room, shows its events. The only module that prints and exits."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import select
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, NoReturn

from gsth.errors import GsthError, InputError, gave_out
from gsth.types import Densified, Done, Event, Notice, Saved, Step

OK, CRASHED, REFUSED, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141
LINE_EVERY_S = 15.0
"""Without a terminal, a stage says how far it is at most this often."""
REDRAW_EVERY_S = 0.1
_CODES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

Argv = Sequence[str]


# ------------------------------------------------------------------------------------------------ verbs
# Each imports what it needs when it is called, so that the list of verbs costs nothing and help needs no torch.


def _demo(argv: Argv) -> Iterator[Event]:
    from gsth import _cli_args, pipeline

    return pipeline.demo(_cli_args.parse("demo", _cli_args.Demo, argv).out)


def _train(argv: Argv) -> Iterator[Event]:
    from gsth import _cli_args, pipeline

    args: Any = _cli_args.parse("train", _cli_args.train(), argv)
    if not args.clips:
        raise InputError("gsth train: give a video of the person, or several")
    order = pipeline.Order(args.preset, _consent(args.consent), args.devices, args.device, args.clips[1:])
    events = pipeline.train(args.clips[0], args.out, order)
    if not args.view:
        return events
    from gsth.serve import app, watch

    return watch.watched(events, args.out, pipeline.work_folder(args.out), app.ViewConfig())


def _batch(argv: Argv) -> Iterator[Event]:
    from gsth import _cli_args, pipeline

    args: Any = _cli_args.parse("batch", _cli_args.batch(), argv)
    order = pipeline.Order(args.preset, _consent(args.consent))
    return pipeline.batch(args.clips, args.out, order, args.scale)


def _consent(given: str | None) -> Any:
    """What the option says, or the answer at the terminal."""
    from gsth import provenance

    return provenance.consent_from(given, input if sys.stdin.isatty() and sys.stdout.isatty() else None)


def _track(argv: Argv) -> Iterator[Event]:
    from gsth import _cli_args

    args = _cli_args.parse("track", _cli_args.Track, argv)
    if (args.out is None) != args.check_only:
        raise InputError("gsth track: give exactly one of --out FOLDER and --check-only")
    from gsth import track  # only now: it brings torch

    if args.out is None:
        return track.check(args.clip, args.config)
    return track.run(args.clip, args.out, args.config)


def _drive(argv: Argv) -> Iterator[Event]:
    from gsth import _cli_args, pipeline

    args: Any = _cli_args.parse("drive", _cli_args.Drive, argv)
    sources = ("audio", "text", "text_file", "script", "video", "webcam", "motion")
    given = [name for name in sources if getattr(args, name) is not None]
    if len(given) != 1:
        options = ", ".join("--" + name.replace("_", "-") for name in sources)
        raise InputError(f"gsth drive: give exactly one of {options}")
    if (args.avatar is None) != (given[0] == "script"):
        raise InputError("gsth drive: give an avatar, and none with --script, which names its own")
    _check_drive(given[0], args)
    if args.script is not None:
        return pipeline.converse(args.script, args.out, args.stamp)
    return pipeline.drive(args.avatar, _driver(given[0], args), args.out, args.curves, args.stamp)


def _check_drive(source: str, args: Any) -> None:
    """Refuse what the source would not look at: a setting that does nothing would be taken for a defect."""
    from gsth.drive import Manner

    spoken = source in ("text", "text_file")
    unused = {
        "--voice and --lang": (args.voice or args.lang) and not spoken,
        "--emotion, --seed, --expressiveness and --idle": args.manner != Manner() and not spoken and source != "audio",
        "--pose and --gain": (args.pose, args.gain) != ("relative", 1.0) and source not in ("video", "webcam"),
        "--curves": args.curves and source == "script",
    }
    if wrong := [name for name, given in unused.items() if given]:
        more = "; a script says it per speaker" if source == "script" else ""
        raise InputError(f"gsth drive: {wrong[0]} have no meaning with --{source.replace('_', '-')}{more}")


def _driver(source: str, args: Any) -> Any:
    """The config of the driver that the arguments name."""
    from gsth import registry
    from gsth.drive import text

    if source == "audio":
        return registry.plugin("drive", "audio")(args.audio, args.manner)
    if source in ("text", "text_file"):
        words = args.text if source == "text" else text.read(args.text_file)
        return text.Config(words, args.voice, args.lang, args.manner)
    if source == "video":
        return registry.plugin("drive", "video")(args.video, args.pose, args.gain)
    if source == "webcam":
        return registry.plugin("drive", "webcam")(args.webcam, args.seconds, args.pose, args.gain)
    return registry.plugin("drive", "motion")(args.motion)


def _eval(argv: Argv) -> Iterator[Event]:
    from gsth import _cli_args, evaluate

    args: Any = _cli_args.parse("eval", _cli_args.Eval, argv)
    if (args.avatar is not None) + bool(args.compare) + (args.frames_of is not None) != 1:
        raise InputError("gsth eval: give one of AVATAR, --compare A B and --frames-of X (with --reference Y)")
    if args.frames_of is not None and args.reference is not None:
        return evaluate.score_pictures(args.frames_of, args.reference, args.config)
    if args.frames_of is not None or args.reference is not None:
        raise InputError("gsth eval: --frames-of X and --reference Y belong together")
    if args.compare:
        return evaluate.compare(args.compare, args.config)
    return evaluate.run(args.avatar, args.config)


def _view(argv: Argv) -> Iterator[Event]:
    from gsth import _cli_args
    from gsth.serve import app

    args = _cli_args.parse("view", _cli_args.View, argv)
    return app.run(args.avatar, args.config)


def _export(argv: Argv) -> Iterator[Event]:
    from gsth import _cli_args, export

    args: Any = _cli_args.parse("export", _cli_args.export(), argv)
    return export.run(args.avatar, args.format, args.out, args.slim)


def _import(argv: Argv) -> Iterator[Event]:
    from gsth import _cli_args, export

    args = _cli_args.parse("import", _cli_args.Import, argv)
    return export.read(args.file, args.config, args.out)


def _doctor(argv: Argv) -> Iterator[Event]:
    from gsth import _cli_args

    args = _cli_args.parse("doctor", _cli_args.Doctor, argv)
    from gsth import doctor  # only now: it brings torch

    yield Notice(doctor.licences() if args.licences else doctor.table(doctor.check()))


def _verify(argv: Argv) -> Iterator[Event]:
    from gsth import _cli_args, provenance

    args = _cli_args.parse("verify", _cli_args.Verify, argv)
    yield from map(Notice, provenance.verify(args.file))


NOTHING_LEFT = "nothing half-written was left"
GOES_ON = "the same command goes on from the last checkpoint"
LANDMARKS_KEPT = (
    "nothing half-written was left; with --out, what was found in a video's frames so far is kept for the same "
    "command, and the rest begins anew"
)


@dataclass(frozen=True)
class Verb:
    """One command."""

    usage: str
    summary: str
    start: Callable[[Argv], Iterator[Event]]
    afterwards: str = NOTHING_LEFT
    """What an interrupted run leaves, and what the same command, given again, makes of it."""


VERBS: Mapping[str, Verb] = {
    "demo": Verb("[--out DIR]", "the whole road on a synthetic actor, without any video of yours", _demo, GOES_ON),
    "train": Verb(
        "CLIP [CLIP ...] --out A [quick|standard|high]", "make an avatar from video of a person", _train, GOES_ON
    ),
    "drive": Verb("A --text T --out V.mp4", "make an avatar speak (or --audio, --video, --motion, --script)", _drive),
    "view": Verb("A [--port N]", "look at an avatar from any side, live, in the browser", _view),
    "eval": Verb("A [--html F] [--json F]", "score an avatar on what it never saw", _eval),
    "export": Verb("A FORMAT --out F", "write an avatar for headsets, browsers, DCC tools and engines", _export),
    "import": Verb(
        "FILE --out A", "bring a .glb, web page, .ply, .spz or GaussianAvatars in, as an avatar or a prop", _import
    ),
    "track": Verb("CLIP --out T", "only the tracking, with a report (or --check-only)", _track, LANDMARKS_KEPT),
    "verify": Verb("FILE", "what a picture, video or avatar says of where it comes from", _verify),
    "batch": Verb("CLIPS --out DIR [quick|...]", "many avatars, on this machine or on a Ray cluster", _batch, GOES_ON),
    "doctor": Verb("", "what runs on this machine, and how to get the rest", _doctor),
}


# ------------------------------------------------------------------------------------------------ running


def main() -> NoReturn:
    """The program ``gsth``."""
    # TensorFlow Lite and glog, inside mediapipe, would write their own log between our lines.
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", "SymbolDatabase", UserWarning)  # the old protobuf that it needs
    signal.signal(signal.SIGTERM, _terminated)  # so that temporary files go, as with Ctrl+C
    try:
        try:
            code = run(sys.argv[1:])
        finally:  # help leaves by SystemExit
            sys.stdout.flush()
    except BrokenPipeError:  # `gsth ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains as it ends
        code = UNREAD
    sys.exit(code)


def run(argv: Argv) -> int:
    """Run one command line (without the program's name); the exit code.

    0 done, 1 a defect of gsth (with traceback), 2 refused with a reason, 130 interrupted. Where nobody reads what is
    printed any more, ``BrokenPipeError`` leaves it.
    """
    if not argv or argv[0] in ("-h", "--help", "help"):
        _say(overview())
        return OK
    if argv[0] in ("-V", "--version"):
        import gsth

        _say(f"gsth {gsth.__version__}")
        return OK
    name, verb = argv[0], VERBS.get(argv[0])
    if verb is None:
        near = difflib.get_close_matches(name, VERBS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(VERBS)}"
        return _fail(f"gsth: no command is called {name!r}; {hint}")
    show = Show(sys.stdout)
    try:
        with contextlib.closing(_events(verb, argv[1:])) as events:
            for event in events:
                show(event)
        return OK
    except KeyboardInterrupt:
        show.clear()
        _fail(f"gsth {name}: stopped; {verb.afterwards}")
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _unread():
            raise
        show.clear()
        if text := gave_out(error):
            return _fail(f"gsth {name}: {text}. {verb.afterwards.capitalize()}")
        if isinstance(error, GsthError):
            return _fail(f"gsth {name}: {error}")
        traceback.print_exc()  # a defect of ours: the traceback is what a report needs
        return CRASHED


def _events(verb: Verb, argv: Argv) -> Generator[Event, None, None]:
    """The events of a verb; closing it ends the work at once, with its clean-up."""
    yield from verb.start(argv)


def overview() -> str:
    """The list of verbs."""
    width = max(len(f"{name} {verb.usage}") for name, verb in VERBS.items())
    lines = [f"  gsth {f'{name} {verb.usage}':{width}}   {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(
        (
            "gsth: from a short video of a person to an avatar that speaks.",
            "",
            *lines,
            "",
            "gsth VERB --help says more.",
        )
    )


def _unread() -> bool:
    """Whether the reader of what is printed has gone, as ``head`` goes after some lines."""
    pipe = select.poll()
    pipe.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in pipe.poll(0))


def _terminated(*_: object) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, flush=True)


def _fail(text: str) -> int:
    print(_harmless(text), file=sys.stderr, flush=True)
    return REFUSED


def _harmless(text: str) -> str:
    """Names and texts out of files may hold codes that a terminal obeys, or that turn the reading order."""
    return _CODES.sub("\N{REPLACEMENT CHARACTER}", text)


# ------------------------------------------------------------------------------------------------ showing


class Show:
    """Shows events: one live line on a terminal, sparse plain lines elsewhere."""

    def __init__(self, out: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._out, self._clock = out, clock
        self._live = out.isatty()
        self._last = clock()
        self._running: dict[str, tuple[float, Step, Step]] = {}
        """Of each stage: when it began, its step then (what a resumed run had done says nothing of its speed), and its
        last step. Stages may take turns."""
        self._drawn = False

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Step):
            self._step(event)
        elif isinstance(event, Notice):
            self._line(event.text)
        elif isinstance(event, Saved):
            self._line(f"saved {event.path}")
        elif isinstance(event, Done):
            self._line("\n".join((f"done: {event.path}", *_figures(event.values))))
        elif isinstance(event, Densified) and self._live:
            self._line(f"{event.splats} splats at step {event.step}")

    def clear(self) -> None:
        """Take the live line away, so that something else can be written."""
        if self._drawn:
            self._out.write("\r\x1b[2K")
            self._out.flush()
            self._drawn = False

    def _step(self, step: Step) -> None:
        now = self._clock()
        began, first, last = self._running.get(step.stage, (now, step, step))
        new = step.stage not in self._running or step.done < last.done
        if new:
            began, first = now, step
        self._running[step.stage] = began, first, step
        final = step.done >= step.total
        if not (new or final) and now - self._last < (REDRAW_EVERY_S if self._live else LINE_EVERY_S):
            return
        self._last = now
        text = _progress(step, now - began, first.done)
        if not self._live:
            self._line(text)
            return
        width = shutil.get_terminal_size().columns
        self._out.write(f"\r\x1b[2K{text[: width - 1]}" + ("\n" if final else ""))
        self._out.flush()
        self._drawn = not final

    def _line(self, text: str) -> None:
        self.clear()
        self._out.write(_harmless(text) + "\n")
        self._out.flush()


def _progress(step: Step, elapsed_s: float, first: int) -> str:
    """``train  1200/6000  20 %  loss 0.031  psnr_db 29.4  1:52 left``."""
    parts = [step.stage, f"{step.done}/{step.total}", f"{100 * step.done // max(step.total, 1)} %"]
    parts += [f"{name} {_number(value)}" for name, value in step.values.items()]
    if step.done >= step.total:
        parts.append(f"took {_minutes(elapsed_s)}")
    elif step.done > first and elapsed_s > 1:
        parts.append(f"{_minutes(elapsed_s / (step.done - first) * (step.total - step.done))} left")
    return "  ".join(parts)


def _figures(values: Mapping[str, float]) -> Iterable[str]:
    width = max(map(len, values), default=0)
    return (f"  {name:{width}}  {_number(value)}" for name, value in values.items())


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e9 else f"{value:.4g}"


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
