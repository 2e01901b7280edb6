"""Trains an avatar of every clip and scores it.

    python benchmarks/fidelity.py CLIP [CLIP ...] --work DIR --json FILE

Each clip is trained with the preset by ``gsth train`` (an avatar that lies in the work folder already is taken as it
is, its training time is then unknown unless this script made it) and scored by ``gsth eval`` on its held-out part:
driven by the track, and, for clips named with --speaks, by its own sound. With --actor the synthetic actor is filmed
and scored too, also from the side. What is done is kept; the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

KEPT = ("rows", "beaten_by", "absent", "speed", "splats", "size", "scored_frames", "train_frames", "background")


def gsth(*args: object) -> float:
    """Run a gsth command; the seconds it took."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "gsth", *map(str, args)]
    print("$ gsth", *args, flush=True)
    subprocess.run(command, check=True)
    return time.perf_counter() - began


def trained(clip: Path, preset: str, work: Path) -> tuple[Path, dict[str, float | None]]:
    """The avatar of a clip and what its training cost."""
    out = work / f"{clip.stem}-{preset}.avatar"
    cost = work / f"{clip.stem}-{preset}.cost.json"
    if not out.exists():
        seconds = gsth("train", clip, "--out", out, "--consent", "benchmark on a clip licensed for it", preset)
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        cost.write_text(json.dumps({"train_seconds": seconds, "train_peak_memory_mb": memory}))
    unknown: dict[str, float | None] = {"train_seconds": None, "train_peak_memory_mb": None}
    return out, json.loads(cost.read_text()) if cost.exists() else unknown


def scored(avatar: Path, work: Path, clip: Path, driven: str, *options: str) -> dict[str, Any]:
    """One report of ``gsth eval``, without its curves; kept in the work folder until the avatar is newer."""
    report = work / f"{avatar.stem}.{driven}.json"
    if not report.exists() or report.stat().st_mtime < (avatar / "meta.json").stat().st_mtime:
        seconds = gsth("eval", avatar, "--driven", driven, "--json", report, "--clip", clip, *options)
        told = json.loads(report.read_text()) | {"eval_seconds": seconds}
        report.write_text(json.dumps(told))
    told = json.loads(report.read_text())
    return {k: told[k] for k in (*KEPT, "eval_seconds") if k in told}


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
            film_actor(actor)
        clips.append((actor, ["--views"]))
    for clip, options in clips:
        avatar, cost = trained(clip, args.preset, args.work)
        entry = {"preset": args.preset, **cost, "track": scored(avatar, args.work, clip, "track", *options)}
        if clip.stem in (*args.speaks, "actor"):
            entry["audio"] = scored(avatar, args.work, clip, "audio")
        results[clip.stem] = entry
        row = entry["track"]["rows"]["avatar"]
        print(f"{clip.stem:<12}{row['psnr_db']:8.2f} dB  face {row['face_psnr_db']:6.2f} dB", flush=True)
    args.json.write_text(json.dumps(results, indent=1) + "\n")


def film_actor(out: Path) -> None:
    """The clip of ``gsth demo``."""
    from gsth import synth

    for _ in synth.film(synth.SynthConfig(), out):
        pass


if __name__ == "__main__":
    main()
