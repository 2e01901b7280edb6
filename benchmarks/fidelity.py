"""Trains an avatar of every clip and scores it.

    python benchmarks/fidelity.py CLIP [CLIP ...] --work DIR --json FILE

Each clip is trained with the preset by ``gsth train`` (an avatar that lies in the work folder already is taken as it
is; what its training cost is then unknown unless this script made it) and scored by ``gsth eval`` on its held-out part:
driven by the track, and, for clips named with --speaks, by its own sound. With --actor the synthetic actor is filmed
and scored too, also from the side. What is done is kept; the same command goes on. What a training cost is unknown
where it went on with an earlier run's work.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run_all import figures

KEPT = ("rows", "beaten_by", "absent", "speed", "splats", "size", "scored_frames", "train_frames", "background")


FILM = "import pathlib, sys; from gsth import synth; [*synth.film(synth.SynthConfig(), pathlib.Path(sys.argv[1]))]"
"""Makes the clip of ``gsth demo``."""


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    seconds: float
    memory_mb: float
    """The most that it, or a process of its own, held at once. Linux tells no less than this script holds itself,
    because every process begins as a copy of its parent: so nothing heavy is imported here."""


def ran(command: Sequence[str]) -> Cost:
    """Run a command, which must succeed."""
    began = time.perf_counter()
    with subprocess.Popen(command) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Cost(time.perf_counter() - began, usage.ru_maxrss / 1024)


def gsth(*args: object) -> Cost:
    """Run a gsth command."""
    print("$ gsth", *args, flush=True)
    return ran([sys.executable, "-m", "gsth", *map(str, args)])


def trained(clip: Path, preset: str, work: Path) -> tuple[Path, dict[str, float | None]]:
    """The avatar of a clip and what its training cost; None where an earlier run did a part of it."""
    out = work / f"{clip.stem}-{preset}.avatar"
    cost = work / f"{clip.stem}-{preset}.cost.json"
    unknown: dict[str, float | None] = {"train_seconds": None, "train_peak_memory_mb": None}
    if not out.exists():
        # gsth train keeps its work there until the avatar is whole
        begun = out.with_name(f"{out.name}.work").exists()
        spent = gsth("train", clip, "--out", out, "--consent", "benchmark on a clip licensed for it", preset)
        known: dict[str, float | None] = {"train_seconds": spent.seconds, "train_peak_memory_mb": spent.memory_mb}
        cost.write_text(json.dumps(unknown if begun else known))
    return out, json.loads(cost.read_text()) if cost.exists() else unknown


def scored(avatar: Path, work: Path, clip: Path, driven: str, *options: str) -> dict[str, Any]:
    """One report of ``gsth eval``, without its curves; kept in the work folder until the avatar is newer."""
    report = work / f"{avatar.stem}.{driven}.json"
    if not report.exists() or report.stat().st_mtime < (avatar / "meta.json").stat().st_mtime:
        spent = gsth("eval", avatar, "--driven", driven, "--json", report, "--clip", clip, *options)
        told = json.loads(report.read_text()) | {"eval_seconds": spent.seconds}
        report.write_text(json.dumps(told))
    told = json.loads(report.read_text())
    return {k: told[k] for k in (*KEPT, "eval_seconds") if k in told}


def table(results: dict[str, Any]) -> str:
    """The README's figures, the sides and the memory: a line for each, a column for each clip."""
    cells = {clip: figures(entry) | _sides(entry) | _memory(entry) for clip, entry in results.items()}
    heads = list(dict.fromkeys(head for found in cells.values() for head in found))
    width = max((len(head) for head in heads), default=0)
    columns = {clip: max(len(text) for text in (clip, *found.values())) + 2 for clip, found in cells.items()}
    lines = [" " * width + "".join(f"{clip:>{columns[clip]}}" for clip in cells)]
    lines += [
        f"{head:<{width}}" + "".join(f"{found.get(head, '-'):>{columns[clip]}}" for clip, found in cells.items())
        for head in heads
    ]
    return "\n".join(lines)


def _sides(entry: dict[str, Any]) -> dict[str, str]:
    """PSNR of the side views that were scored."""
    rows = entry["track"]["rows"]
    views = (name for name in rows if name.startswith("view_"))
    return {f"{name[len('view_') :]} degrees to the side, dB": f"{rows[name]['psnr_db']:.2f}" for name in views}


def _memory(entry: dict[str, Any]) -> dict[str, str]:
    memory = entry["train_peak_memory_mb"]
    return {"training, peak memory, MB": "-" if memory is None else f"{memory:.0f}"}


def main() -> None:
    """Train and score; print the table; write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--speaks", nargs="*", default=[], help="stems of the clips whose sound is their own speech")
    parser.add_argument("--actor", action="store_true", help="the synthetic actor too")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    clips = [(clip, []) for clip in args.clips]
    if args.actor:
        actor = args.work / "actor.mp4"
        if not actor.exists():
            ran([sys.executable, "-c", FILM, str(actor)])
        clips.append((actor, ["--views"]))
    for clip, options in clips:
        avatar, cost = trained(clip, args.preset, args.work)
        entry = {"preset": args.preset, **cost, "track": scored(avatar, args.work, clip, "track", *options)}
        if clip.stem in (*args.speaks, "actor"):
            entry["audio"] = scored(avatar, args.work, clip, "audio")
        results[clip.stem] = entry
    args.json.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
