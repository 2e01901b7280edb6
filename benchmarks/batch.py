"""What a batch costs: Ray's share by stages that do nothing, and the work's share by the records of a real batch.

python benchmarks/batch.py [--identities 200] [--avatars DIR] [--plan 10000] [--track DIR --devices 2]. DIR is what
``gsth batch`` wrote; without it only Ray is measured. With what ``gsth track`` wrote, one training is measured with one
process and with several. Prints the tables of docs/scale.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gsth import artifacts, avatar, batch
from gsth.batch import BatchConfig, Stage
from gsth.types import Done, Event, Step, Track

STAGES = ("track", "fit", "speech", "score")


@dataclasses.dataclass(frozen=True)
class Nothing:
    """Settings of stages that have none."""


def nothing(clip: Path, out: Path, settings: Any) -> Iterator[Event]:
    out.mkdir(exist_ok=True)
    yield Done(out)


def overhead(identities: int) -> None:
    """Ray, the driver, records and logs, without any work."""
    import ray

    processors = os.cpu_count() or 1
    ray.init("local", log_to_driver=False, configure_logging=False)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with tempfile.TemporaryDirectory() as folder:
        clips = [Path(folder) / f"{i}.mp4" for i in range(identities)]
        for clip in clips:
            clip.touch()
        stages = [Stage(name, nothing) for name in STAGES]
        for what in ("first run", "again, all done"):
            began = time.perf_counter()
            list(batch.run(clips, Path(folder) / "out", stages, Nothing(), BatchConfig()))
            took = time.perf_counter() - began
            print(f"| {what} | {identities} | {took:.1f} s | {1000 * took / identities:.1f} ms |")
    ray.shutdown()
    print(f"\n{platform.machine()}, {processors} processors, {platform.system()}, ray {ray.__version__}\n")


def steps_of(crew: avatar.Crew, track: Path, work: Path, config: avatar.AvatarConfig) -> float:
    """Mean time of a training step, ms, without the first 20."""
    tracked = artifacts.load(Track, track)
    times = {}
    for event in avatar.train(tracked, config, work, len(tracked.frame_ids), crew):
        if isinstance(event, Step) and event.stage == "train":
            times[event.done] = time.perf_counter()
            if event.done == config.steps:
                break
    return 1000 * (times[config.steps] - times[20]) / (config.steps - 20) if crew.leads else math.nan


def devices(track: Path, most: int) -> None:
    """Steps of equal work, by one process with all threads and by several that share them."""
    config = avatar.AvatarConfig(steps=100, batch=most, coarse_until=0.0, settle=1.0)
    for size in (1, most):
        with tempfile.TemporaryDirectory() as work:
            job = (track, Path(work), config)
            with avatar.crew(size, "cpu", steps_of, *job) as crew:
                print(f"| {size} | {most} | {steps_of(crew, *job):.0f} ms |")


def size_mb(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def plan(avatars: Path, identities: int) -> None:
    """Medians of a real batch, and what they make of many identities."""
    records = [json.loads(p.read_text()) for p in sorted(avatars.glob("*.json"))]
    done = [r for r in records if r["state"] == "done"]
    if not done:
        raise SystemExit(f"{avatars}: no identity is done there")
    seconds = {s: statistics.median(r["seconds"][s] for r in done) for s in done[0]["seconds"]}
    kept = statistics.median(size_mb(avatars / f"{r['name']}.avatar") for r in done)
    total = sum(seconds.values())
    for stage, took in seconds.items():
        print(f"| {stage} | {took:.1f} s | {identities * took / 3600:.0f} h |")
    print(f"| all | {total:.1f} s | {identities * total / 3600:.0f} h |")
    print(f"\nan avatar: {kept:.1f} MB; {identities}: {identities * kept / 1000:.0f} GB")
    for processors in (2, 64, 1000):
        print(f"{processors} processors: {identities * total / processors / 86400:.2f} days")
    print(f"done {len(done)} of {len(records)}, crashes {sum(r['crashes'] for r in records)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--identities", type=int, default=200)
    parser.add_argument("--avatars", type=Path)
    parser.add_argument("--plan", type=int, default=10_000)
    parser.add_argument("--track", type=Path)
    parser.add_argument("--devices", type=int, default=2)
    args = parser.parse_args()
    if args.track is not None:
        devices(args.track, args.devices)
    overhead(args.identities)
    if args.avatars is not None:
        plan(args.avatars, args.plan)


if __name__ == "__main__":
    main()
