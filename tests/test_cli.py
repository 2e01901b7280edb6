"""The command line: fast help, one clear line for what the user can mend, exit codes, progress."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from gsth import _config, cli, doctor
from gsth.errors import GsthError, InputError, MissingExtraError
from gsth.track.detectors import builtin
from gsth.types import Done, Event, Notice, Saved, Step

ROOT = Path(__file__).resolve().parents[1]
HELP = [
    [],
    ["--help"],
    *([verb, "--help"] for verb in cli.VERBS),
    ["train", "x.mp4", "--out", "a", "quick", "--help"],
    ["export", "a", "glb", "--help"],
]


def gsth(*argv: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gsth", *argv],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        **more,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("argv", HELP, ids=" ".join)
def test_help_comes_at_once_and_without_torch(argv: Sequence[str]) -> None:
    """At once means: of what is slow to import, nothing is (how long it takes, benchmarks/startup.py measures)."""
    code = (
        "import sys\n"
        "from gsth import cli\n"
        "try: rc = cli.run(sys.argv[1:])\n"
        "except SystemExit as stop: rc = stop.code\n"
        "ours = {name for name in sys.modules if name.startswith('gsth.')}\n"
        "print('RESULT', rc, sorted({'torch', 'mediapipe', 'viser', 'scipy', 'cv2', 'numpy', 'ray', 'av', 'PIL',\n"
        "      'imageio', 'trimesh', 'onnxruntime'} & set(sys.modules)), len(ours), len(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert "Traceback" not in ran.stderr
    *text, result = ran.stdout.splitlines()
    assert result.startswith("RESULT 0 [] "), result + ran.stderr
    ours, every = map(int, result.split()[-2:])
    assert ours < 35 and every < 400, f"modules imported: {ours} of gsth, {every} in all"
    assert len(text) > 3


def test_verbs_are_listed() -> None:
    listed = gsth().stdout
    assert all(f"gsth {verb} " in listed for verb in cli.VERBS)
    assert gsth("--version").stdout.startswith("gsth ")


def test_unknown_verb_is_guessed() -> None:
    ran = gsth("trian", "me.mp4")
    assert (ran.returncode, ran.stdout) == (2, "") and "did you mean 'train'?" in ran.stderr


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["train", "absent.mp4", "--out", "{tmp}/a"], "--consent"),
        (["train", "absent.mp4", "--out", "{tmp}/a", "--consent", ""], "consent statement must be"),
        (["train", "absent.mp4", "--out", "{tmp}/a", "--consent", "I am"], "absent.mp4: there is no such file"),
        (["verify", "{tmp}/a.mp4"], "a.mp4: there is no such file"),
        (["verify", "{tmp}/a.txt"], "wanted an avatar's folder or a file"),
        (["track", "absent.mp4", "--out", "{tmp}/a"], "absent.mp4: there is no such file"),
        (["eval", "{tmp}"], "is not a avatar|not an avatar"),
        (["eval"], "give one of AVATAR, --compare A B and --frames-of X"),
        (["eval", "{tmp}", "--compare", "a", "b"], "give one of"),
        (["eval", "--compare", "{tmp}"], "two avatars or more"),
        (["eval", "--frames-of", "{tmp}"], "belong together"),
        (["eval", "--frames-of", "{tmp}/a.mp4", "--reference", "{tmp}/b.mp4"], "a.mp4: there is no such file"),
        (["eval", "{tmp}", "--weights", "{tmp}/w"], "no such folder of weights"),
        (["eval", "{tmp}", "--html", "{tmp}/x.txt"], "ends in .html"),
        (["eval", "{tmp}", "--audio", "a.wav", "--motion", "m"], "not both"),
        (["view", "{tmp}/absent"], "there is no such avatar"),
        (["drive", "{tmp}", "--out", "{tmp}/v.mp4"], "exactly one of"),
        (["drive", "{tmp}", "--out", "{tmp}/v.mp4", "--audio", "a.wav", "--motion", "m"], "exactly one of"),
        (["drive", "--out", "{tmp}/v.mp4", "--text", "Hi"], "give an avatar"),
        (["drive", "{tmp}", "--out", "{tmp}/v.mp4", "--script", "s.yaml"], "names its own"),
        (["drive", "{tmp}", "--out", "{tmp}/v.mp4", "--audio", "a.wav", "--lang", "de"], "no meaning with --audio"),
        (["drive", "{tmp}", "--out", "{tmp}/v.mp4", "--motion", "m", "--emotion", "sad"], "no meaning with --motion"),
        (["drive", "--out", "{tmp}/v.mp4", "--script", "s.yaml", "--curves", "c.csv"], "no meaning with --script"),
        (["drive", "--out", "{tmp}/v.mp4", "--script", "absent.yaml"], "cannot be read"),
    ],
)
def test_what_the_user_can_mend_is_one_line(tmp_path: Path, argv: Sequence[str], reason: str) -> None:
    ran = gsth(*(a.replace("{tmp}", str(tmp_path)) for a in argv))
    assert ran.returncode == 2, ran.stderr
    assert "Traceback" not in ran.stderr and len(ran.stderr.strip().splitlines()) == 1
    assert any(part in ran.stderr for part in reason.split("|")), ran.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argv", [["--help"], ["track", "--help"], ["doctor"]], ids=" ".join)
def test_a_reader_who_leaves_is_no_defect(argv: Sequence[str]) -> None:
    """As in ``gsth doctor | head -3``: no traceback, and the code of a program that SIGPIPE ended."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "gsth", *argv],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            cwd=ROOT,
        )
    finally:
        os.close(writer)
    assert (ran.returncode, ran.stderr) == (cli.UNREAD, "")


def test_wrong_option_is_refused() -> None:
    ran = gsth("train", "me.mp4", "--out", "a", "quick", "--avatar.stepz", "3")
    assert ran.returncode == 2 and "stepz" in ran.stdout + ran.stderr


def test_presets_and_their_settings_reach_the_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    from gsth import pipeline

    got = []
    monkeypatch.setattr(pipeline, "train", lambda *args: iter(got.append(args) or ()))
    presets = _config.presets(pipeline.TrainConfig, "train")
    assert set(presets) >= {"quick", "standard"}
    for argv in (
        ["standard"],
        [],
        ["quick"],
        ["--devices", "2", "--device", "cpu", "quick", "--avatar.steps", "7", "--track.size", "128"],
    ):
        assert cli.run(["train", "me.mp4", "--out", "me.avatar", "--consent", "I am me", *argv]) == 0
    assert all(clip == Path("me.mp4") and out == Path("me.avatar") for clip, out, _ in got)
    orders = [order for _, _, order in got]
    assert {order.consent.statement for order in orders} == {"I am me"}
    assert [(order.devices, order.device) for order in orders] == [(1, "auto")] * 3 + [(2, "cpu")]
    configs = [order.config for order in orders]
    assert configs[:3] == [presets["standard"], presets["standard"], presets["quick"]]
    assert (configs[3].avatar.steps, configs[3].track.size) == (7, 128)
    assert configs[3].avatar.splats == presets["quick"].avatar.splats


def test_preset_files_are_checked(tmp_path: Path) -> None:
    from gsth.pipeline import TrainConfig

    file = tmp_path / "p.yaml"
    for text, reason in {
        "avatar: {stepz: 3}": "avatar: unknown key 'stepz'",
        "avatar: {steps: many}": "avatar: steps: want int, got 'many'",
        "avatar: {steps: true}": "want int",
        "avatar: 3": "want the settings of AvatarConfig",
        "avatar: [": "cannot be read as YAML",
    }.items():
        file.write_text(text)
        with pytest.raises(InputError, match="p.yaml") as caught:
            _config.read(TrainConfig, file)
        assert reason in str(caught.value)
    file.write_text("avatar: {steps: 5, loss: {ssim: 1}}")
    made = _config.read(TrainConfig, file)
    assert (made.avatar.steps, made.avatar.loss.ssim, made.track) == (5, 1.0, TrainConfig().track)
    file.write_text("")
    assert _config.read(TrainConfig, file) == TrainConfig()


def played(monkeypatch: pytest.MonkeyPatch, play: Callable[[], Iterator[Event]]) -> int:
    verb = cli.Verb("", "", lambda argv: play(), cli.GOES_ON)
    monkeypatch.setattr(cli, "VERBS", {"play": verb})
    return cli.run(["play"])


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (InputError("me.mp4: too dark"), 2, "gsth play: me.mp4: too dark\n"),
        (GsthError("no"), 2, "gsth play: no\n"),
        (MissingExtraError("viser", "viewer", "the viewer"), 2, "pip install 'gsth[viewer]'"),
        (KeyboardInterrupt(), 130, "goes on from the last checkpoint"),
        (ZeroDivisionError("oops"), 1, "Traceback"),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, text: str
) -> None:
    closed = []

    def play() -> Iterator[Event]:
        try:
            yield Notice("hello")
            raise error
        finally:
            closed.append(True)

    assert played(monkeypatch, play) == code
    out, err = capsys.readouterr()
    assert out == "hello\n" and text in err and closed == [True]


def test_a_stopped_track_says_what_is_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(argv: Sequence[str]) -> Iterator[Event]:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "VERBS", {"track": replace(cli.VERBS["track"], start=stopped)})
    assert cli.run(["track", "me.mp4", "--out", "me.track"]) == cli.INTERRUPTED
    said = capsys.readouterr().err
    assert "so far is kept" in said and "begins anew" in said and "checkpoint" not in said


def test_texts_out_of_files_give_a_terminal_no_orders(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outcome: what somebody wrote into a file name, a consent or a signature is shown, and obeyed by nobody."""

    def play() -> Iterator[Event]:
        yield Notice("tool \x1b]0;mine\x07 \x9b2J\r\u202egpj.\n\tsecond line, Zo\u00eb \u738b")
        yield Saved(Path("\x1b[31m.mp4"))
        raise InputError("\x1b[2Jno such file")

    assert played(monkeypatch, play) == cli.REFUSED
    out, err = capsys.readouterr()
    assert all(c.isprintable() or c in "\n\t" for c in out + err)
    assert "tool \ufffd]0;mine" in out and "\n\tsecond line, Zo\u00eb \u738b\n" in out and "no such file" in err


STUCK = """
import signal, sys, time
from gsth import cli
from gsth.types import Notice
def play(argv):
    try:
        yield Notice("running")
        time.sleep(30)
    finally:
        print("cleaned up", flush=True)
cli.VERBS = {"play": cli.Verb("", "", play)}
sys.argv = ["gsth", "play"]
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_cleans_up(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as run:
        assert run.stdout is not None and run.stdout.readline() == "running\n"
        run.send_signal(number)
        out, err = run.communicate(timeout=20)
    assert (run.returncode, out) == (130, "cleaned up\n") and "stopped" in err and "Traceback" not in err


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def show(events: Sequence[Event], out: io.StringIO, seconds: float = 1.0) -> str:
    clock = Clock()
    shown = cli.Show(out, clock)
    for event in events:
        shown(event)
        clock.now += seconds
    return out.getvalue()


def test_plain_output_is_sparse_and_says_time_left() -> None:
    steps = [Step("train", i, 1000, {"loss": 0.5}) for i in range(0, 1001)]
    text = show([*steps, Saved(Path("a")), Done(Path("a"), {"psnr_db": 31.25, "frames": 40.0})], io.StringIO())
    lines = text.splitlines()
    assert 60 < len(lines) < 80 and "\r" not in text
    assert lines[0] == "train  0/1000  0 %  loss 0.5"
    assert lines[4] == "train  60/1000  6 %  loss 0.5  15:40 left"
    assert "train  1000/1000  100 %  loss 0.5  took 16:40" in lines
    assert lines[-4:] == ["saved a", "done: a", "  psnr_db  31.25", "  frames   40"]


def test_resumed_work_does_not_boast() -> None:
    text = show([Step("train", 900, 1000), *(Step("train", i, 1000) for i in range(901, 940))], io.StringIO())
    assert "train  930/1000  93 %  1:10 left" in text


def test_each_stage_starts_its_own_clock() -> None:
    text = show([Step("a", 0, 10), Step("a", 10, 10), Step("b", 0, 10), Step("b", 10, 10)], io.StringIO(), 20)
    assert text.splitlines()[1::2] == ["a  10/10  100 %  took 0:20", "b  10/10  100 %  took 0:20"]


def test_stages_may_take_turns_and_a_stage_may_come_again() -> None:
    turns = [Step(stage, i, 60) for i in range(61) for stage in ("a", "b")]
    lines = show([*turns, Step("a", 1, 2), Step("a", 2, 2)], io.StringIO()).splitlines()
    assert len(lines) < 20 and lines[:2] == ["a  0/60  0 %", "b  0/60  0 %"]
    assert lines[-4:-2] == ["a  60/60  100 %  took 2:00", "b  60/60  100 %  took 2:00"]
    assert lines[-2:] == ["a  1/2  50 %", "a  2/2  100 %  took 0:01"]


def test_terminal_has_one_live_line() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    text = show([Step("train", i, 100) for i in range(50)] + [Notice("note"), Done(Path("a"))], Terminal())
    assert text.count("\n") == 2  # the notice and the end: everything else redraws the same line
    assert text.count("\r\x1b[2K") == 51 and text.endswith("note\ndone: a\n")


def test_real_terminal(tmp_path: Path) -> None:
    """On a pseudo terminal the line is redrawn, and cut to its width."""
    code = (
        "import sys, time; from gsth import cli; from gsth.types import Step\n"
        "show = cli.Show(sys.stdout)\n"
        "for i in range(3): show(Step('a' * 300, i, 3)); time.sleep(0.15)"
    )
    parent, child = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=child, cwd=ROOT, env={**os.environ, "COLUMNS": "60"}
    ) as run:
        os.close(child)
        run.wait(20)
    time.sleep(0.05)
    text = os.read(parent, 10000).decode()
    os.close(parent)
    assert text.count("\x1b[2K") == 3 and max(map(len, text.replace("\x1b[2K", "").split("\r"))) <= 59


def test_doctor_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requires", lambda name: ["numpy>=1", 'no-such-thing>=2; extra == "track"'])
    monkeypatch.setattr(doctor, "version", lambda name: "1.0")
    rows = {(r.topic, r.name): r for r in doctor.check()}
    assert rows["extra", "track"].fine is False
    assert rows["extra", "track"].detail == "missing no-such-thing; run: pip install 'gsth[track]'"
    assert rows["system", "python"].fine and rows["media", "libx264"].fine and rows["render", "torch_ref"].fine
    text = doctor.table(list(rows.values()))
    assert len(text.splitlines()) == len(rows) and "--  extra" in text


@pytest.mark.parametrize(
    ("have", "models", "python", "fine", "says"),
    [
        (None, False, (3, 11), False, r"mediapipe is missing; run: pip install 'gsth\[track\]'"),
        ("0.10.14", True, (3, 11), True, "inside mediapipe 0.10.14's wheel"),
        ("0.10.21", True, (3, 12), True, "inside mediapipe 0.10.21's wheel"),
        ("1.2.2", False, (3, 12), False, "1.2.2 ships no models; install mediapipe 0.10.14, or .*--face-landmarker"),
        ("1.2.2", False, (3, 13), False, r"1.2.2 ships no models; use Python 3.12 \(this is 3.13\).*--face-landmarker"),
    ],
)
def test_doctor_knows_face_detectors_by_their_models(
    monkeypatch: pytest.MonkeyPatch, have: str | None, models: bool, python: tuple[int, int], fine: bool, says: str
) -> None:
    fake = SimpleNamespace(__version__=have, **({"solutions": object()} if models else {}))
    monkeypatch.setitem(sys.modules, "mediapipe", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(doctor, "_installed", lambda name: have)
    monkeypatch.setattr(builtin, "PYTHON", python)
    row = next(r for r in doctor._tracking() if r.name == "face detector")
    assert row.fine == fine and re.search(says, row.detail), row.detail


def test_doctor_tells_a_broken_mediapipe(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise TypeError("Descriptors cannot be created directly")

    monkeypatch.setattr(builtin, "solutions", broken)
    monkeypatch.setattr(doctor, "_installed", lambda name: "0.10.14")
    row = next(r for r in doctor._tracking() if r.name == "face detector")
    assert not row.fine and "cannot be loaded (Descriptors" in row.detail


@pytest.mark.parametrize("extra", ["track", "eval", "flame"])
def test_every_python_finds_a_mediapipe(extra: str) -> None:
    """0.10.14 has no wheel for Python 3.13: there another one is asked for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [Requirement(line) for line in project["optional-dependencies"][extra] if line.startswith("mediapipe")]
    for python, wanted in (("3.11", True), ("3.12", True), ("3.13", False), ("3.14", False)):
        (asked,) = (r for r in lines if r.marker and r.marker.evaluate({"python_version": python}))
        assert asked.specifier.contains("0.10.14") == wanted, python


@pytest.mark.parametrize("extra", ["dependencies", *doctor.SHOWN_EXTRAS])
def test_doctor_knows_the_modules_of_every_package(extra: str) -> None:
    """What pip installed is not called missing: the module of a package may have another name than the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] if extra == "dependencies" else project["optional-dependencies"][extra]
    names = {re.split(r"[\[<>=!~; ]", line)[0] for line in wanted} - {"gsth"}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            assert doctor._installed(name) == version(name), name


def test_doctor_runs_as_a_command() -> None:
    ran = gsth("doctor")
    assert ran.returncode == 0 and "python" in ran.stdout and "libx264" in ran.stdout, ran.stderr
