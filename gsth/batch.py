"""Many identities on Ray: every clip becomes an avatar, one stage of it a task, on this machine or on a cluster.

One process (the driver) keeps a window of identities open and hands out their stages one after the other, so that the
disk never holds the frames of all clips. It is the only one that decides: Ray is told not to repeat anything. A stage
that crashes (a lost machine, memory, a defect) is handed out again, and goes on from its own checkpoint; a clip that is
refused with a reason is not. What is done is noted per identity in ``NAME.json``, so a killed batch goes on.

Clips and ``out`` must lie where every machine sees them under the same path. What the stages do is the caller's
(``gsth.pipeline.batch``): this module moves no pixel.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import platform
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gsth import _batch_report
from gsth._batch_report import DONE, FAILED, OPEN, REFUSED, Record
from gsth.errors import GsthError, InputError, MissingExtraError
from gsth.types import Done, Event, Notice, Saved, Step

__all__ = ["BatchConfig", "Record", "Stage", "run"]

_WINDOW_PER_CPU = 2
"""Identities open at once for each processor: enough that no processor waits, few enough for the disk."""
_REPORT_EVERY_S = 10.0


@dataclass(frozen=True)
class BatchConfig:
    """Where a batch runs, and how often a crash is forgiven."""

    address: str | None = None
    """A Ray cluster: its address, or auto for the one that this machine belongs to. Default: this machine alone."""
    retries: int = 2
    """How often a stage that crashed is tried again. Clips that are refused with a reason are not."""


@dataclass(frozen=True)
class Stage:
    """A piece of one identity's work that runs on one machine and goes on by itself where it was killed."""

    name: str
    run: Callable[[Path, Path, Any], Iterator[Event]]
    """Takes clip, avatar to make, and settings; importable on every machine. Figures of a ``Done`` are kept."""
    cpus: float = 1
    """Processors to reserve; torch uses as many threads."""
    gpus: float = 0
    """GPUs to reserve; with 0 the stage sees none."""


@dataclass(frozen=True)
class _Answer:
    """What a task says when it did not crash."""

    seconds: float
    machine: str
    values: dict[str, float]
    refused: str | None


@dataclass
class _Item:
    """One identity while the batch runs."""

    clip: Path
    avatar: Path
    record: Record
    attempts: int = 0
    """Crashes of the present stage."""

    @property
    def note(self) -> Path:
        return self.avatar.with_suffix(".json")


@dataclass
class _Batch:
    """The state of the driver."""

    out: Path
    stages: Sequence[Stage]
    settings: Any
    retries: int
    waiting: deque[_Item] = field(default_factory=deque)
    running: dict[Any, _Item] = field(default_factory=dict)
    """By the reference that Ray gave for its stage."""
    task: Any = None
    """``_work`` as Ray's."""


def run(
    clips: Sequence[Path], out: Path, stages: Sequence[Stage], settings: Any, config: BatchConfig
) -> Iterator[Event]:
    """Take every clip through all stages; what an earlier run with these settings finished is kept.

    Writes ``NAME.avatar``, ``NAME.json`` (the record) and ``NAME.log`` for each clip, and ``batch.html``, into ``out``.

    Args:
        clips: Videos; their names without ending must differ.
        out: Folder; two batches cannot write it at a time.
        stages: In order; each is a task with its own needs.
        settings: A frozen dataclass that is handed to every stage.
        config: Cluster and retries.

    Raises:
        InputError: A clip is missing, two would get one name, or a stage needs more than any machine has.
        MissingExtraError: Ray is absent.
        GsthError: At the end, where identities failed or were refused; all others are done.
    """
    from gsth import artifacts  # numpy: not for those who only want the help of a verb

    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("ray", "scale", "gsth batch")
    named = _named(clips)
    out = out.absolute()
    with artifacts.lock(out / "batch"):
        key = hashlib.sha256(repr(settings).encode()).hexdigest()[:16]
        items = [_resumed(clip.absolute(), out / f"{name}.avatar", key) for name, clip in named.items()]
        yield from _worked(items, _Batch(out, stages, settings, config.retries), config.address)
        yield Saved(_batch_report.write(out, [item.record for item in items], [s.name for s in stages]))
    records = [item.record for item in items]
    yield Notice(_batch_report.table(records, [s.name for s in stages]))
    if bad := [r for r in records if r.state != DONE]:
        raise GsthError(
            f"{len(bad)} of {len(records)} identities have no avatar (first: {bad[0].name}: {bad[0].reason}); see "
            f"{out / _batch_report.PAGE} and the logs beside it. The same command tries them again"
        )
    yield Done(out, {"identities": float(len(records))})


def _named(clips: Sequence[Path]) -> dict[str, Path]:
    """Clips by the names of their avatars."""
    named: dict[str, Path] = {}
    for clip in clips:
        if not clip.is_file():
            raise InputError(f"{clip}: there is no such file; want a video")
        if (other := named.setdefault(clip.stem, clip)) != clip:
            raise InputError(f"{clip} and {other} would both be {clip.stem}.avatar; rename one of them")
    if not named:
        raise InputError("gsth batch: no clip was given; want one video or more")
    return named


def _resumed(clip: Path, avatar: Path, key: str) -> _Item:
    """An identity with what an earlier run noted, if that was about this very clip and these settings."""
    facts = clip.stat()
    key = f"{key}-{facts.st_size}-{facts.st_mtime_ns}"
    item = _Item(clip, avatar, Record(avatar.stem, str(clip), key))
    try:
        known = Record(**json.loads(item.note.read_text()))
    except (OSError, ValueError, TypeError):
        return item
    if known.key == key and (known.state != DONE or avatar.is_dir()):
        item.record = known if known.state == DONE else dataclasses.replace(known, state=OPEN, reason="")
    return item


def _worked(items: Sequence[_Item], batch: _Batch, address: str | None) -> Iterator[Event]:
    """Hand out stages until nothing is left; progress counts identities."""
    import ray

    batch.waiting.extend(item for item in items if item.record.state == OPEN)
    yield from _progress(items, batch)
    if not batch.waiting:
        return
    mine = not ray.is_initialized()
    if mine:
        with _own_sigterm():
            context = ray.init(address or "local", log_to_driver=False, configure_logging=False)
        url = context.dashboard_url
        yield Notice(f"dashboard: http://{url}" if url else "dashboard: none here; pip install 'ray[default]' has it")
    try:
        _check_needs(batch.stages, ray.nodes())
        shown = time.monotonic()
        while batch.waiting or batch.running:
            _fill(batch)
            ready, _ = ray.wait(list(batch.running), timeout=_REPORT_EVERY_S)
            for reference in ready:
                yield from _settled(batch, batch.running.pop(reference), reference)
            if ready:
                yield from _progress(items, batch)
            if time.monotonic() - shown > _REPORT_EVERY_S:
                _batch_report.write(batch.out, [i.record for i in items], [s.name for s in batch.stages])
                shown = time.monotonic()
    finally:
        for reference in batch.running:
            ray.cancel(reference)
        if mine:
            ray.shutdown()


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray's answer to SIGTERM would end the program with code 15, and nobody would say that the batch goes on."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _check_needs(stages: Sequence[Stage], nodes: Sequence[dict[str, Any]]) -> None:
    """A task that fits no machine would wait for ever."""
    machines = [n["Resources"] for n in nodes if n["Alive"]]
    for stage in stages:
        if not any(m.get("CPU", 0) >= stage.cpus and m.get("GPU", 0) >= stage.gpus for m in machines):
            most = max((m.get("CPU", 0), m.get("GPU", 0)) for m in machines)
            raise InputError(
                f"stage {stage.name} wants {stage.cpus:g} processors and {stage.gpus:g} GPUs on one machine; the "
                f"largest has {most[0]:g} and {most[1]:g}"
            )


def _fill(batch: _Batch) -> None:
    """Open as many identities as the machines that are there now can use; clusters grow and shrink."""
    import ray

    window = max(1, int(_WINDOW_PER_CPU * ray.cluster_resources().get("CPU", 1)))
    while batch.waiting and len(batch.running) < window:
        _hand_out(batch, batch.waiting.popleft())


def _hand_out(batch: _Batch, item: _Item) -> None:
    """The next stage of an identity becomes a task."""
    import ray

    stage = batch.stages[len(item.record.seconds)]
    if batch.task is None:
        batch.task = ray.remote(_work)  # once: each remote function is sent to every worker
    task = batch.task.options(
        name=f"{stage.name} {item.record.name}", num_cpus=stage.cpus, num_gpus=stage.gpus, max_retries=0
    )
    batch.running[task.remote(stage, item.clip, item.avatar, batch.settings)] = item


def _work(stage: Stage, clip: Path, avatar: Path, settings: Any) -> _Answer:
    """The task: run one stage, and write what it says into the identity's log."""
    began, values, refused = time.monotonic(), {}, None
    with avatar.with_suffix(".log").open("a", buffering=1) as log:

        def say(text: str) -> None:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {platform.node()} {stage.name}: {text}\n")

        say("begins")
        try:
            for event in stage.run(clip, avatar, settings):
                if isinstance(event, Done):
                    values = dict(event.values)
                elif isinstance(event, Notice):
                    say(event.text)
                elif isinstance(event, Step) and event.done >= event.total:
                    say(f"{event.stage} {event.done}/{event.total}")
        except GsthError as error:
            refused = str(error)
            say(f"refused: {error}")
        except BaseException:
            say(f"crashed\n{traceback.format_exc()}")
            raise
        seconds = time.monotonic() - began
        say(f"ends after {seconds:.1f} s")
    return _Answer(seconds, platform.node(), values, refused)


def _settled(batch: _Batch, item: _Item, reference: Any) -> Iterator[Event]:
    """Note what became of a stage, and go on: next stage, another try, or the end of this identity."""
    import ray

    from gsth.media import whole_file  # only now: it brings PyAV

    stage, record = batch.stages[len(item.record.seconds)], item.record
    try:
        answer: _Answer = ray.get(reference)
    except ray.exceptions.RayError as error:
        item.attempts += 1
        record.crashes += 1
        cause = str(error).strip().splitlines()[-1]
        if item.attempts <= batch.retries:
            yield Notice(f"{record.name}: {stage.name} crashed ({cause}); try {item.attempts + 1}")
            _hand_out(batch, item)
            return
        record.state, record.reason = FAILED, f"{stage.name}: {cause}"
    else:
        record.machine = answer.machine
        if answer.refused is not None:
            record.state, record.reason = REFUSED, f"{stage.name}: {answer.refused}"
        else:
            item.attempts = 0
            record.seconds[stage.name] = round(answer.seconds, 3)
            record.values |= answer.values
            if len(record.seconds) == len(batch.stages):
                record.state = DONE
    with whole_file(item.note) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(record), indent=1))
    if record.state == OPEN:
        _hand_out(batch, item)
    else:
        yield Notice(f"{record.name}: {record.state}" + (f": {record.reason}" if record.reason else ""))


def _progress(items: Sequence[_Item], batch: _Batch) -> Iterator[Event]:
    """How many identities have come to their end."""
    states = [item.record.state for item in items]
    over = len(states) - states.count(OPEN)
    values = {"no avatar": float(over - states.count(DONE)), "open": float(len(batch.running))}
    yield Step("identities", over, len(items), values)
