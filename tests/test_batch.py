"""Many identities on Ray: made-up stages that crash, refuse and get killed, and three real clips."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gsth import batch, cli
from gsth.batch import BatchConfig, Stage
from gsth.errors import GsthError, InputError, MissingExtraError
from gsth.types import Done, Event, Notice, Step

ray = pytest.importorskip("ray", reason="needs the extra 'scale'")
pytestmark = pytest.mark.cluster
PATIENCE_S = 240.0
"""No machine needs so long to start Ray, or to end it; outcomes are waited for."""


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    """One Ray of two processors for all tests; ``run`` uses the Ray that is there."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not know where tests lie
    ray.init("local", num_cpus=2, log_to_driver=False, configure_logging=False, include_dashboard=False)
    yield
    ray.shutdown()


@dataclass(frozen=True)
class Settings:
    """Stages count their runs in this folder."""

    counts: Path
    size: int = 1

    def count(self, stage: str, clip: Path) -> int:
        """Runs of a stage on a clip, this one included."""
        with (self.counts / f"{stage}-{clip.stem}").open("a") as file:
            file.write("x")
        return self.runs(stage, clip.stem)

    def runs(self, stage: str, name: str) -> int:
        file = self.counts / f"{stage}-{name}"
        return len(file.read_text()) if file.exists() else 0


def first(clip: Path, avatar: Path, settings: Settings) -> Iterator[Event]:
    runs = settings.count("first", clip)
    yield Step("looking", 1, 1)
    if "refused" in clip.stem:
        raise InputError(f"{clip.name}: shows <no> face")
    if "dies" in clip.stem or ("once" in clip.stem and runs == 1):
        os._exit(9)  # as the system does when memory ends
    if "defect" in clip.stem:
        raise ZeroDivisionError("a defect")


def second(clip: Path, avatar: Path, settings: Settings) -> Iterator[Event]:
    settings.count("second", clip)
    avatar.mkdir(exist_ok=True)
    yield Notice(f"threads {os.environ['OMP_NUM_THREADS']}")
    yield Done(avatar, {"psnr_db": 30.0 + settings.size})


STAGES = [Stage("first", first), Stage("second", second)]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "counts").mkdir()
    return Settings(tmp_path / "counts")


@pytest.fixture
def ran(tmp_path: Path, settings: Settings):
    """Runs clips of these names into ``out`` and gives the events."""

    def go(*names: str, retries: int = 1, settings: Settings = settings, stages: list[Stage] = STAGES) -> list[Event]:
        clips = [tmp_path / f"{name}.mp4" for name in names]
        for clip in clips:
            if not clip.exists():
                clip.write_bytes(b"a film")
        return list(batch.run(clips, tmp_path / "out", stages, settings, BatchConfig(retries=retries)))

    return go


def record(tmp_path: Path, name: str) -> dict:
    return json.loads((tmp_path / "out" / f"{name}.json").read_text())


def test_every_clip_goes_through_all_stages_and_is_not_made_twice(ran, tmp_path: Path, settings: Settings) -> None:
    names = ("a", "b", "c.d", "e", "f", "g")  # more than are open at a time
    events = ran(*names)
    assert isinstance(events[-1], Done) and events[-1].values == {"identities": 6}
    counted = [e for e in events if isinstance(e, Step)]
    assert [e.done for e in counted] == sorted(e.done for e in counted) and counted[-1].done == counted[-1].total == 6
    for name in names:
        assert [settings.runs(s, name) for s in ("first", "second")] == [1, 1]
        known = record(tmp_path, name)
        assert known["state"] == "done" and list(known["seconds"]) == ["first", "second"]
        assert known["values"] == {"psnr_db": 31.0}
        log = (tmp_path / "out" / f"{name}.log").read_text()
        assert "first: looking 1/1" in log and "second: ends after" in log
    table = next(e.text for e in reversed(events) if isinstance(e, Notice))
    assert "6 done" in table and "c.d" in table and "31" in table
    ran(*names, "new")
    assert [settings.runs("first", n) for n in (*names, "new")] == [1] * 7


def test_what_changed_is_made_anew(ran, tmp_path: Path, settings: Settings) -> None:
    ran("a", "b", "c")
    (tmp_path / "a.mp4").write_bytes(b"another film")
    (tmp_path / "out" / "b.avatar").rmdir()
    ran("a", "b", "c")
    assert [settings.runs("second", n) for n in "abc"] == [2, 2, 1]
    ran("c", settings=dataclasses.replace(settings, size=2))
    assert settings.runs("second", "c") == 2 and record(tmp_path, "c")["values"]["psnr_db"] == 32


def test_a_killed_worker_is_replaced(ran, tmp_path: Path, settings: Settings) -> None:
    events = ran("once", "fine")
    assert any("once: first crashed" in e.text for e in events if isinstance(e, Notice))
    assert record(tmp_path, "once")["crashes"] == 1 and record(tmp_path, "once")["state"] == "done"
    assert settings.runs("first", "once") == 2 and settings.runs("first", "fine") == 1


def test_bad_ones_do_not_stop_the_others_and_are_tried_again(ran, tmp_path: Path, settings: Settings) -> None:
    for runs in (1, 2):
        with pytest.raises(GsthError, match="3 of 4 identities have no avatar"):
            ran("refused<b>", "dies", "defect", "fine")
        assert settings.runs("first", "refused<b>") == runs  # a reason is not doubted in the same run
        assert settings.runs("first", "dies") == settings.runs("first", "defect") == 2 * runs
        assert settings.runs("first", "fine") == settings.runs("second", "fine") == 1
    assert record(tmp_path, "refused<b>")["state"] == "refused" and record(tmp_path, "dies")["state"] == "failed"
    assert "ZeroDivisionError: a defect" in record(tmp_path, "defect")["reason"]
    assert "Traceback" in (tmp_path / "out" / "defect.log").read_text()
    page = (tmp_path / "out" / "batch.html").read_text()
    assert "refused&lt;b&gt;" in page and "&lt;no&gt; face" in page and "<b>" not in page and "<no>" not in page
    assert "1 done, 1 refused, 2 failed" in page


def hangs(clip: Path, avatar: Path, settings: Settings) -> Iterator[Event]:
    """``slow`` never ends; the other ends once ``slow`` has begun."""
    settings.count("second", clip)
    while clip.stem == "slow" or not settings.runs("second", "slow"):
        time.sleep(0.02)
    avatar.mkdir()
    yield Done(avatar)


def test_a_stopped_batch_goes_on_with_the_stage_that_was_next(ran, tmp_path: Path, settings: Settings) -> None:
    for name in ("slow", "quick"):
        (tmp_path / f"{name}.mp4").write_bytes(b"a film")
    clips, stages = [tmp_path / "slow.mp4", tmp_path / "quick.mp4"], [STAGES[0], Stage("second", hangs)]
    events = batch.run(clips, tmp_path / "out", stages, settings, BatchConfig())
    assert any(e == Notice("quick: done") for e in events)  # stops listening there
    events.close()  # type: ignore[attr-defined] (a generator)
    assert list(record(tmp_path, "slow")["seconds"]) == ["first"]
    ran("slow", "quick")
    assert settings.runs("first", "slow") == 1 and settings.runs("second", "slow") == 2
    assert settings.runs("second", "quick") == 1 and record(tmp_path, "slow")["state"] == "done"


def test_two_batches_cannot_write_one_folder(ran, tmp_path: Path) -> None:
    code = (
        "import sys; from gsth import artifacts\nwith artifacts.lock(sys.argv[1]): print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out" / "batch")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None and other.stdout is not None
        other.stdout.readline()
        with pytest.raises(InputError, match=str(other.pid)):
            ran("a")
        other.stdin.close()
    assert isinstance(ran("a")[-1], Done)


def test_what_cannot_work_is_refused_at_once(ran, tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        list(batch.run([tmp_path / "x.mp4"], tmp_path / "out", STAGES, settings, BatchConfig()))
    with pytest.raises(InputError, match="no clip was given"):
        list(batch.run([], tmp_path / "out", STAGES, settings, BatchConfig()))
    with pytest.raises(InputError, match="wants 64 processors and 0 GPUs on one machine; the largest has 2"):
        ran("a", stages=[Stage("first", first, cpus=64)])
    (tmp_path / "b").mkdir()
    for clip in (tmp_path / "a.mp4", tmp_path / "b" / "a.mp4"):
        clip.write_bytes(b"a film")
    with pytest.raises(InputError, match=r"would both be a\.avatar"):
        list(batch.run([tmp_path / "a.mp4", tmp_path / "b" / "a.mp4"], tmp_path, STAGES, settings, BatchConfig()))


def test_without_ray_the_extra_is_named(ran, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else real(name))
    with pytest.raises(MissingExtraError, match=r"gsth\[scale\]"):
        ran("a")


@pytest.mark.slow
def test_three_clips_become_three_avatars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line on a Ray of its own, the real stages, three actors; and again, which must cost nothing."""
    pytest.importorskip("mediapipe", reason="needs the extra 'track'")
    from gsth import synth
    from gsth.avatar import Avatar

    clips = []
    for seed in (1, 2, 3):
        clips.append(tmp_path / f"actor{seed}.mp4")
        list(synth.film(synth.SynthConfig(seconds=1.0, size=160, seed=seed), clips[-1]))
    options = [
        "--consent",
        "A made-up actor.",
        "quick",
        "--track.size",
        "96",
        "--track.no-report",
        "--track.no-photometric",
        "--avatar.steps",
        "40",
        "--avatar.splats",
        "800",
    ]
    command = ["batch", *map(str, clips), "--out", str(tmp_path / "avatars"), *options]
    ray.shutdown()
    assert cli.run(command) == 0
    assert "dashboard: " in capsys.readouterr().out and not ray.is_initialized()
    for clip in clips:
        known = json.loads((tmp_path / "avatars" / f"{clip.stem}.json").read_text())
        made = Avatar.load(tmp_path / "avatars" / f"{clip.stem}.avatar")
        assert made.source.clip_path == clip and list(known["seconds"]) == ["track", "fit", "speech", "score"]
        assert known["values"]["psnr_db"] > 15
        assert not (tmp_path / "avatars" / f"{clip.stem}.avatar.work").exists()
    monkeypatch.setattr(ray, "init", None)  # nothing is left to hand out
    assert cli.run(command) == 0


ENDLESS = """
import os, signal, sys, time
from pathlib import Path
from typing import Any
from gsth import batch, cli
from gsth.types import Done

def made(clip, avatar, settings):
    with open(f"{avatar}.runs", "a") as file:
        file.write("made ")
    yield Done(avatar)

def hangs(clip, avatar, settings):
    with open(f"{avatar}.runs", "a") as file:
        file.write("hangs ")
    while not avatar.with_name("go").exists():
        time.sleep(0.1)
    avatar.mkdir()
    yield Done(avatar)

def play(argv):
    import ray
    stages = [batch.Stage("made", made, 0.5), batch.Stage("hangs", hangs, 0.5)]
    clips = [Path(f"{name}.mp4").absolute() for name in "ab"]
    return batch.run(clips, Path("out"), stages, None, batch.BatchConfig())

cli.VERBS = {"batch": cli.Verb("", "", play, cli.GOES_ON)}
cli.main()
"""


def descendants(pid: int) -> set[int]:
    """Processes that a process has started, and theirs."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            mine = {int(p) for p in (task / "children").read_text().split()}
            found |= mine.union(*map(descendants, mine))
    return found


def command(pid: int) -> str:
    """Its command line; empty where it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def lives(pid: int) -> bool:
    """Whether a process is there, and not only its entry."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_batch_leaves_nothing_running(number: signal.Signals, tmp_path: Path) -> None:
    """Outcome of Ctrl+C, which a terminal sends to all, and of SIGTERM: exit 130, what to do is said, and no process of
    Ray or of a stage stays. Of kill -9: no stage stays (Ray's own agents notice within about a minute). Of all: the
    same command goes on at once, with the stage that was next."""
    for name in "ab":
        (tmp_path / f"{name}.mp4").write_bytes(b"a film")
    runs = [tmp_path / "out" / f"{name}.avatar.runs" for name in "ab"]
    program = [sys.executable, "-c", ENDLESS, "batch"]
    said = tmp_path / "said.txt"  # no pipe: what lives on would hold it open
    with said.open("w") as err:
        pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": err, "cwd": tmp_path}
        run = subprocess.Popen(program, **pipes, start_new_session=True)
        try:
            end = time.monotonic() + PATIENCE_S
            while not all(p.exists() and "hangs" in p.read_text() for p in runs):
                assert run.poll() is None and time.monotonic() < end, said.read_text()
                time.sleep(0.1)
            started = descendants(run.pid)
            if number == signal.SIGKILL:
                started = {p for p in started if "ray::hangs" in command(p)}
                assert len(started) == 2
            (os.killpg if number == signal.SIGINT else os.kill)(run.pid, number)
            code = run.wait(timeout=PATIENCE_S)
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert len(started) >= 3  # Ray's own, and two workers
        assert code == 130 and "goes on from the last checkpoint" in said.read_text()
    assert "Traceback" not in said.read_text()
    end = time.monotonic() + PATIENCE_S
    while any(map(lives, started)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not [p for p in started if lives(p)]
    (tmp_path / "out" / "go").touch()
    again = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE_S)
    assert again.returncode == 0, again.stderr
    assert [p.read_text() for p in runs] == ["made hangs hangs "] * 2
