"""Training shared by two processes over gloo: the same as one with the same frames, and gone with its leader."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_work
import torch

from gsth import pipeline, render
from gsth.avatar import Avatar, check_crew
from gsth.avatar._crew import device_of
from gsth.errors import BackendError, InputError
from gsth.provenance import SYNTHETIC
from gsth.types import Densified, Event, Saved, Step


@pytest.fixture(autouse=True)
def _two_threads(threads: Callable[[int], None]) -> None:
    """There are no more processes than threads."""
    threads(2)


@pytest.fixture
def fitted(tmp_path: Path) -> Callable[..., list[Event]]:
    """Trains from a finished track, with two frames a step; the run's name is that of its folder."""

    def go(name: str, devices: int, stop_at: int | None = None) -> list[Event]:
        out = tmp_path / f"{name}.avatar"
        if not pipeline.work_folder(out).exists():
            small_work.write(tmp_path / "clip.mp4", out)
        order = pipeline.Order(small_work.config(batch=2), SYNTHETIC, devices)
        events = []
        for event in pipeline.fit_stage(tmp_path / "clip.mp4", out, order):
            events.append(event)
            if isinstance(event, Saved) and len([e for e in events if isinstance(e, Saved)]) == stop_at:
                for child in multiprocessing.active_children():
                    assert child.pid is not None
                    os.kill(child.pid, signal.SIGKILL)
        return events

    return go


def assert_same(tmp_path: Path, *names: str) -> None:
    """Their avatars are equal, but for what the order of float sums can do."""
    a, b = (Avatar.load(tmp_path / f"{name}.avatar.work" / "train" / "avatar") for name in names)
    for f in dataclasses.fields(a.splats):
        torch.testing.assert_close(getattr(a.splats, f.name), getattr(b.splats, f.name), rtol=0, atol=1e-3)
    torch.testing.assert_close(a.motion.expr, b.motion.expr, rtol=0, atol=1e-4)


def test_two_processes_are_one_with_twice_the_batch(fitted: Callable[..., list[Event]], tmp_path: Path) -> None:
    """Outcome: the same splats and motion, density changes included; and after one of them was killed, from the
    checkpoint that it leaves, by one process alone."""
    alone, shared = fitted("alone", 1), fitted("shared", 2)
    assert [type(e) for e in shared] == [type(e) for e in alone]
    assert [e for e in shared if isinstance(e, Densified)] == [e for e in alone if isinstance(e, Densified)] != []
    assert torch.get_num_threads() == 2 and not multiprocessing.active_children()
    assert_same(tmp_path, "alone", "shared")
    with pytest.raises(BackendError, match=r"gsth train 1 with code -9.*the same command goes on from the last"):
        fitted("killed", 2, stop_at=2)
    assert not multiprocessing.active_children()
    rest = fitted("killed", 1)
    assert next(e for e in rest if isinstance(e, Step)).done == 40  # the first is told at 20, which it went on from
    assert_same(tmp_path, "alone", "killed")


def children(pid: int) -> list[int]:
    """Processes that a process has started, and theirs."""
    mine: list[int] = []
    for task in Path("/proc").glob(f"{pid}/task/*"):
        with contextlib.suppress(OSError):  # the thread, or the whole process, ended while it was looked at
            mine += map(int, (task / "children").read_text().split())
    return mine + [p for child in mine for p in children(child)]


def lives(pid: int) -> bool:
    """Whether a process is there, and not only its entry."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def waited(what: Callable[[], object], seconds: float = 900.0) -> bool:
    """Whether it comes true before a generous end: a first checkpoint takes minutes on a tenth of a processor."""
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(what())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_others_end_with_the_leader(number: signal.Signals, tmp_path: Path) -> None:
    """Outcome of kill -9 and of Ctrl+C, which a terminal sends to all: no process stays, and the checkpoints do."""
    clip, out = tmp_path / "clip.mp4", tmp_path / "a.avatar"
    small_work.write(clip, out)
    endless = small_work.arguments(clip, out, "--avatar.batch", 2, "--avatar.steps", 100_000)
    args = [sys.executable, "-m", "gsth", endless[0], "--devices", "2", *endless[1:]]
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    two = os.environ | {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    with subprocess.Popen(args, **pipes, env=two, start_new_session=True) as run:
        try:
            work = pipeline.work_folder(out)
            assert waited(lambda: list(work.glob("train/checkpoint-*")) or run.poll() is not None)
            assert run.poll() is None, run.communicate()
            others = children(run.pid)
            assert others
            os.kill(run.pid, number) if number == signal.SIGKILL else os.killpg(run.pid, number)
            assert waited(lambda: not any(map(lives, others)))
            assert run.stderr is not None
            said = run.stderr.read()
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert "Traceback" not in said and (number == signal.SIGKILL or "goes on from the last checkpoint" in said)
    assert list(work.glob("train/checkpoint-*")) and not out.exists()


def test_what_cannot_be_shared_is_refused_before_the_work(tmp_path: Path) -> None:
    for devices, says in {
        0: "devices is 0; want 1 to 2",
        3: "devices is 3; want 1 to 2",
        2: r"batch = 3 frame\(s\), which 2 processes cannot share evenly.*--avatar.batch 2",
    }.items():
        order = pipeline.Order(small_work.config(batch=3), SYNTHETIC, devices)
        events = pipeline.train(tmp_path / "none.mp4", tmp_path / "a", order)
        with pytest.raises(InputError, match=says):
            next(events)


def test_processes_that_cannot_talk_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(BackendError, match="in use by this program already; train with devices 1"):
        check_crew(2, 2)
    check_crew(1, 1)


def test_a_gpu_that_cannot_be_used_is_refused_with_the_reason_and_auto_goes_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto").type == device_of("cpu", 3).type == "cpu"
    with pytest.raises(BackendError, match="not possible: torch .* finds no GPU"):
        check_crew(1, 1, "cuda")
    with pytest.raises(InputError, match="device is 'tpu'; want auto, cpu, cuda"):
        device_of("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(render, "backends", lambda where: {"native": "no nvcc", "gsplat": "absent", "torch_ref": None})
    assert device_of("auto").type == "cpu"  # plain torch on a GPU is slower than our kernels on the processor
    with pytest.raises(BackendError, match="not possible: native: no nvcc; gsplat: absent"):
        device_of("cuda")
    monkeypatch.setattr(render, "backends", lambda where: {"native": None, "gsplat": "absent", "torch_ref": None})
    assert device_of("auto", 2) == device_of("cuda", 2) == torch.device("cuda", 2)
    check_crew(4, 4)
    with pytest.raises(InputError, match="devices is 5; want 1 to 4, the number of GPUs"):
        check_crew(5, 5)
