"""Training in several processes: each takes its share of every step's frames, and what they find is summed.

Every process runs the same program on the same state, as with torch's DistributedDataParallel. One leads: it is the
one that was asked; it starts the others, speaks in events, writes, and hands out its state where more than arithmetic
was done (start, density, checkpoint). The others end with it, however it ends. They talk over gloo on this machine's
loopback, so no port is open to a network.
"""

from __future__ import annotations

import contextlib
import datetime
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from gsth import render
from gsth.errors import BackendError, DivergedError, InputError

DEVICES = ("auto", "cpu", "cuda")
_PATIENCE = datetime.timedelta(days=1)
"""How long the others wait for one that is busy; one that has ended is noticed at once."""


@dataclass(frozen=True)
class Crew:
    """The processes of one training, seen from one of them; alone by default."""

    rank: int = 0
    size: int = 1
    others: tuple[BaseProcess, ...] = ()
    """Known to the leader."""
    threads: int = 0
    """Of all together."""
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (immutable)
    """Where this process computes."""

    @property
    def leads(self) -> bool:
        """Whether this is the process that was asked."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Which of so many things this process does."""
        return range(self.rank, count, self.size)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace float tensors, of the same shapes everywhere, by their sums over all processes; equal to the bit.

        Raises:
            BackendError: Another process has ended.
        """
        if self.size == 1:
            return
        flat = torch.cat([t.flatten().cpu() for t in tensors])
        with self._together():
            dist.all_reduce(flat)
        for t, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            t.copy_(total.view_as(t))

    def handed_out(self, data: bytes) -> bytes:
        """The leader's bytes, in every process. Raises as ``sum``."""
        if self.size == 1:
            return data
        length = torch.tensor(len(data))
        with self._together():
            dist.broadcast(length, 0)
            content = torch.frombuffer(bytearray(data or bytes(int(length))), dtype=torch.uint8)
            dist.broadcast(content, 0)
        return content.numpy().tobytes()

    def dismiss(self) -> None:
        """Said by the leader when nothing is left to share: it has all threads again."""
        if self.size > 1:
            torch.set_num_threads(self.threads)

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            for other in self.others:
                other.join(1)  # its end is known a moment after its lines are cut
            text = _lost(self.others) or f"the processes of this training lost each other: {error}"
            raise BackendError(text) from error


def device_of(name: str, rank: int = 0) -> torch.device:
    """Where a process of a training computes.

    Args:
        name: "cpu"; "cuda", each process on a GPU of its own; "auto", the GPU where gsth's kernels or gsplat run on it,
            else the processor.
        rank: Of the process.

    Raises:
        BackendError: The GPU is asked for and cannot be used; says why.
        InputError: No such name.
    """
    if name not in DEVICES:
        raise InputError(f"device is {name!r}; want {', '.join(DEVICES)}")
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        why = f"torch {torch.__version__} finds no GPU here"
    else:
        reasons = {n: r for n, r in render.backends("cuda").items() if n != "torch_ref"}
        if None in reasons.values():
            return torch.device("cuda", rank)
        why = "; ".join(f"{n}: {r}" for n, r in reasons.items())
    if name == "cuda":
        raise BackendError(f"training on the GPU is not possible: {why}; gsth doctor says more")
    return torch.device("cpu")


def check_crew(size: int, batch: int, device: str = "auto") -> None:
    """Say no before long work where ``size`` processes cannot share this machine, or steps of ``batch`` frames.

    Raises:
        InputError: The reason.
        BackendError: Processes cannot talk to each other here, or the device cannot be used.
    """
    if device_of(device).type == "cuda":
        most, what = torch.cuda.device_count(), "the number of GPUs; --device cpu counts processors"
    else:
        most, what = torch.get_num_threads(), "the number of processors that torch may use here"
    if not 1 <= size <= most:
        raise InputError(f"devices is {size}; want 1 to {most}, {what}")
    if batch % size:
        raise InputError(
            f"a step takes batch = {batch} frame(s), which {size} processes cannot share evenly; want a multiple, for "
            f"example --avatar.batch {size}"
        )
    if size > 1 and (not dist.is_available() or dist.is_initialized()):
        why = "is in use by this program already" if dist.is_available() else "is not part of this torch"
        raise BackendError(f"devices is {size}, and torch.distributed {why}; train with devices 1")


@contextlib.contextmanager
def crew(size: int, device: str, follow: Callable[..., None], *args: Any) -> Iterator[Crew]:
    """This process as the leader of ``size``, which share its threads; the others end with the block.

    Args:
        size: 1: no other is started.
        device: As for ``device_of``.
        follow: What the others do: ``follow(crew, *args)``, a function that can be imported; GsthErrors that all
            processes meet are left to the leader.
        args: What can be pickled, and small: paths and settings.

    Raises:
        BackendError: Another process could not be started.
    """
    if size == 1:
        yield Crew(device=device_of(device))
        return
    threads = torch.get_num_threads()
    context, others = multiprocessing.get_context("spawn"), []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for rank in range(1, size):
                job = (Crew(rank, size, device=device_of(device, rank)), Path(folder), threads // size, follow, args)
                others.append(context.Process(target=_follow, args=job, name=f"gsth train {rank}", daemon=True))
                others[-1].start()
            torch.set_num_threads(threads // size)
            while len(list(Path(folder).glob("ready-*"))) < len(others):
                if text := _lost(others):
                    raise BackendError(text)
                time.sleep(0.02)
            leader = Crew(0, size, tuple(others), threads, device_of(device))
            _meet(leader, Path(folder))
            yield leader
        finally:
            torch.set_num_threads(threads)
            for other in others:
                other.terminate()
                other.join()
            if dist.is_initialized():
                dist.destroy_process_group()


def _lost(others: Sequence[BaseProcess]) -> str:
    """What to say where some have ended; empty where all live."""
    ended = [f"{p.name} with code {p.exitcode}" for p in others if p.exitcode is not None]
    if not ended:
        return ""
    return (
        f"a process of this training ended ({', '.join(ended)}): stopped, or out of memory; the same command goes on "
        "from the last checkpoint, with fewer --devices if it was the memory"
    )


def _meet(me: Crew, folder: Path) -> None:
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    if loopback is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    meeting = dist.FileStore(str(folder / "meeting"), me.size)
    dist.init_process_group("gloo", store=meeting, rank=me.rank, world_size=me.size, timeout=_PATIENCE)


def _follow(me: Crew, folder: Path, threads: int, follow: Callable[..., None], args: tuple[Any, ...]) -> None:
    """The life of a process that does not lead."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches all; the leader cleans up, then ends the others
    threading.Thread(target=_end_with_the_leader, daemon=True).start()
    torch.set_num_threads(threads)
    (folder / f"ready-{me.rank}").touch()
    _meet(me, folder)
    with contextlib.suppress(BackendError, DivergedError):  # the leader has ended, or says the same
        follow(me, *args)


def _end_with_the_leader() -> None:
    """However it ends, and whatever this process is doing."""
    leader = multiprocessing.parent_process()
    assert leader is not None
    leader.join()
    signal.raise_signal(signal.SIGTERM)
