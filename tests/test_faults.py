"""What goes wrong around a training: each test says what the user gets, and that the same command goes on from there.

Elsewhere: kill -9 in the middle (tests/test_pipeline.py, tests/avatar/test_crew.py, tests/test_batch.py), a full disk
while tracking and while filming (tests/test_pipeline.py, tests/test_media.py), locks (tests/test_artifacts.py).
"""

from __future__ import annotations

import errno
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import small_work
import torch

from gsth import artifacts, cli, pipeline
from gsth.avatar import Avatar
from gsth.errors import gave_out
from gsth.provenance import SYNTHETIC
from gsth.render import native
from gsth.types import Cameras, Done, Event, Rendered, Saved, Splats, Step

RESUMES = "the same command goes on from the last checkpoint"


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """One thread, which is enough for so small pictures; and no scores, which are half of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def scored(out: Path) -> Iterator[Event]:
        yield Done(out)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_scored", scored)
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Its tracking is done for ``a.avatar`` beside it."""
    small_work.write(tmp_path / "clip.mp4", tmp_path / "a.avatar")
    return tmp_path / "clip.mp4"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Avatar:
    """What a run gives that nothing happens to."""
    folder = tmp_path_factory.mktemp("whole")
    small_work.write(folder / "clip.mp4", folder / "a.avatar")
    assert train(folder / "clip.mp4") == cli.OK
    return Avatar.load(folder / "a.avatar")


def train(clip: Path, *more: object) -> int:
    return cli.run(small_work.arguments(clip, clip.with_name("a.avatar"), *more))


def checkpoints(clip: Path) -> list[str]:
    return sorted(p.name for p in clip.with_name("a.avatar.work").glob("train/checkpoint-*"))


def assert_goes_on(clip: Path, whole: Avatar) -> None:
    """The same command ends as if nothing had been, and leaves nothing but the avatar."""
    assert train(clip) == cli.OK
    made = Avatar.load(clip.with_name("a.avatar"))
    for name in ("means_tri", "sh", "logit_opacities"):
        torch.testing.assert_close(getattr(made.splats, name), getattr(whole.splats, name), rtol=0, atol=0)
    assert sorted(p.name for p in clip.parent.iterdir()) == ["a.avatar", "clip.mp4"]


def breaking(at: int, fault: Callable[[Rendered], None]) -> Callable[..., Rendered]:
    """A renderer that does ``fault`` to its picture number ``at``."""
    drawn, real = 0, native.render

    def draw(splats: Splats, cameras: Cameras, background: torch.Tensor, antialiased: bool) -> Rendered:
        nonlocal drawn
        drawn += 1
        made = real(splats, cameras, background, antialiased)
        if drawn == at:
            fault(made)
        return made

    return draw


def gpu_falls_off_the_bus(_: Rendered) -> None:
    raise torch.AcceleratorError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA")


def gpu_memory_ends(_: Rendered) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.1 GiB free")


def gradients_become_nan(drawn: Rendered) -> None:
    drawn.rgb.register_hook(lambda g: g * float("nan"))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (gpu_falls_off_the_bus, rf"the GPU was lost.*unspecified launch failure.*nvidia-smi.*{RESUMES.capitalize()}"),
        (gpu_memory_ends, rf"the GPU has too little free memory.*2.00 GiB.*{RESUMES.capitalize()}"),
        (gradients_become_nan, r"step 14: the gradient of .*stopped being finite.*checkpoint-0000010.*same command"),
    ],
)
def test_a_step_that_breaks_stops_with_the_reason(
    fault: Callable[[Rendered], None],
    says: str,
    clip: Path,
    whole: Avatar,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Outcome of a lost GPU, of one without memory, and of gradients that are not finite: exit 2, the reason, the
    checkpoint before is whole, and the same command ends as if nothing had been."""
    with monkeypatch.context() as patch:
        patch.setattr(native, "render", breaking(15, fault))
        assert train(clip) == cli.REFUSED
    said = capsys.readouterr().err
    assert re.search(says, said, re.DOTALL) and "Traceback" not in said
    assert checkpoints(clip) == ["checkpoint-0000010.safetensors"]
    assert_goes_on(clip, whole)


LIMITED = """
import resource, sys
from gsth import avatar, cli, evaluate, pipeline
import torch, gsth.avatar._train
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
which, extra = sys.argv[1], int(sys.argv[2])
resource.setrlimit(getattr(resource, which), (extra + taken * (which == "RLIMIT_AS"),) * 2)
sys.exit(cli.run(sys.argv[3:]))
"""


def limited(which: str, extra: int, args: list[str]) -> subprocess.CompletedProcess[str]:
    """``gsth`` under a limit of this many bytes; for RLIMIT_AS, on top of what it takes before it begins."""
    program = [sys.executable, "-c", LIMITED, which, str(extra), *args]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}  # threads that cannot start end a program without a word
    return subprocess.run(program, capture_output=True, text=True, timeout=240, env=alone)


def test_no_memory(clip: Path) -> None:
    """Outcome: exit 2, how much was wanted and what to do; nothing half-written; the same command goes on with the
    tracking that is done."""
    many = ("--avatar.splats", 150_000, "--avatar.max-splats", 150_000)
    ran = limited("RLIMIT_AS", 250 * 2**20, small_work.arguments(clip, clip.with_name("a.avatar"), *many))
    assert ran.returncode == cli.REFUSED, ran.stderr
    assert "too little free memory" in ran.stderr and "fewer splats" in ran.stderr and "Traceback" not in ran.stderr
    assert RESUMES in ran.stderr.lower() and "going on with the track" in ran.stdout
    assert not clip.with_name("a.avatar").exists() and not list(clip.parent.rglob("*.part"))
    order = pipeline.Order(small_work.config(splats=150_000, max_splats=150_000, checkpoint_every=1), SYNTHETIC)
    again = pipeline.train(clip, clip.with_name("a.avatar"), order)
    assert "going on with the track" in str(next(again))
    assert isinstance(next(again), Saved)  # the first step is done
    again.close()


def test_no_memory_to_decode(clip: Path) -> None:
    """Outcome: exit 2, and the file alone is not blamed."""
    ran = limited("RLIMIT_AS", 4 * 2**20, small_work.arguments(clip, clip.with_name("a.avatar")))
    assert ran.returncode == cli.REFUSED, ran.stderr
    assert "too little free memory" in ran.stderr and "Traceback" not in ran.stderr


def test_kernels_without_memory_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outcome: MemoryError, which the command line explains; not a word about the input."""
    with pytest.raises(MemoryError, match="rasterizer") as caught:
        native._check(native._NO_MEMORY)
    assert "too little free memory" in (gave_out(caught.value) or "")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "free memory (MemoryError)"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "free memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "free memory"),
        (RuntimeError("CUDA error: device-side assert"), "GPU was lost"),
    ],
)
def test_what_libraries_raise_is_known(error: Exception, says: str) -> None:
    assert says in (gave_out(error) or "")


@pytest.mark.parametrize("error", [ValueError("memory"), RuntimeError("shapes differ"), OSError(errno.EIO, "I/O")])
def test_other_errors_are_not_explained_away(error: Exception) -> None:
    assert gave_out(error) is None


def test_disk_full_at_a_checkpoint(clip: Path, whole: Avatar) -> None:
    """Outcome: exit 2 with the name of the file; no half-written checkpoint; the same command goes on."""
    ran = limited("RLIMIT_FSIZE", 50_000, small_work.arguments(clip, clip.with_name("a.avatar")))
    assert ran.returncode == cli.REFUSED, ran.stderr
    assert "checkpoint-0000010.safetensors: cannot be written" in ran.stderr and "Traceback" not in ran.stderr
    assert checkpoints(clip) == [] and not list(clip.parent.rglob("*.part"))
    assert_goes_on(clip, whole)


@pytest.fixture
def write_protected(clip: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The clip's folder, read-only. Root may write everywhere, so for root the system's answer is made up."""
    if os.geteuid():
        clip.parent.chmod(0o500)
        return clip
    real = os.open

    def refusing(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_CREAT and str(path).startswith(str(clip.parent)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refusing)
    return clip


def test_read_only_folder(write_protected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Outcome: exit 2 before any work, with the folder and what to do."""
    assert train(write_protected) == cli.REFUSED
    out, err = capsys.readouterr()
    assert "a.avatar.work.lock: cannot be written" in err and "choose a folder that you may write in" in err
    assert out == ""


HOLD = """
import sys
from pathlib import Path
from gsth import artifacts
with artifacts.lock(Path(sys.argv[1])):
    print(flush=True)
    sys.stdin.read()
"""


def test_two_runs_on_one_folder(clip: Path, whole: Avatar, capsys: pytest.CaptureFixture[str]) -> None:
    """Outcome: the second is refused, with process, machine and age of the first, also where the clock was set back
    meanwhile; once the first has ended, however, the same command works."""
    work = clip.with_name("a.avatar.work")
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(work)], **pipes) as first:
        assert first.stdout is not None and first.stdout.readline()
        assert train(clip) == cli.REFUSED
        assert re.search(rf"written by process {first.pid} on \S+ for \d+ s; wait", capsys.readouterr().err)
        ahead = time.time() + 3600
        os.utime(work.with_name(f".{work.name}.lock"), (ahead, ahead))
        assert train(clip) == cli.REFUSED
        assert "since before the clock was set back" in capsys.readouterr().err
        first.kill()
    assert_goes_on(clip, whole)


def test_clock_set_back(clip: Path, whole: Avatar, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outcome: nothing; the newest checkpoint is the one of the latest step, whatever the files' times say, and time
    left is counted by a clock that nobody sets."""
    events = pipeline.train(clip, clip.with_name("a.avatar"), pipeline.Order(small_work.config(), SYNTHETIC))
    for event in events:
        if isinstance(event, Step) and event.done == 20:
            events.close()
    assert checkpoints(clip)[-1] == "checkpoint-0000010.safetensors"
    work = clip.with_name("a.avatar.work")
    older = work / "train" / "checkpoint-0000005.safetensors"
    older.write_bytes(b"torn")  # it would be refused, were it taken for the newest
    os.utime(older, (2e9, 2e9))
    now = 2e9
    monkeypatch.setattr(time, "time", lambda: now - 86400)
    assert_goes_on(clip, whole)


def test_time_left_does_not_follow_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outcome: the same lines, whatever the wall clock does."""
    monkeypatch.setattr(time, "time", lambda: pytest.fail("the wall clock was asked"))
    out = io.StringIO()
    show = cli.Show(out)
    for done in (1, 2):
        show(Step("train", done, 2))
    assert "took 0:00" in out.getvalue()


def test_lock_of_a_killed_run_is_free(clip: Path) -> None:
    """Outcome: a lock file that a killed run left holds nobody up."""
    work = clip.with_name("a.avatar.work")
    work.with_name(f".{work.name}.lock").write_text("process 1 on nowhere")
    with artifacts.lock(work):
        pass
    assert not work.with_name(f".{work.name}.lock").exists()
