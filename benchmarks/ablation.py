"""What each part of the avatar is worth on a clip: trains variants of the preset quick and scores held-out frames.

    python benchmarks/ablation.py me.mp4 --work DIR     # table; writes benchmarks/results/ablation_me.json
    python benchmarks/ablation.py me.mp4 --work DIR --only seed_1 seed_2

What is done is kept in the work folder; the same command goes on. All variants share one track. Pictures are scored
with the motion that tracking gave (what a variant learned, not what refinement mends), and beside it with refined
motion; rows that the voice can change also with expressions from the clip's own sound. The last line is the spread of
the shipped settings over their seeds: what differs by less says nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from gsth import artifacts, avatar, drive, evaluate, media, pipeline, track
from gsth._config import presets
from gsth.audio import RATE
from gsth.avatar import Avatar, AvatarConfig, DensityConfig, LossWeights
from gsth.types import Track

RESULTS = Path(__file__).parent / "results"
QUICK = presets(pipeline.TrainConfig, "train")["quick"]
BASE = QUICK.avatar
SEEDS = ("shipped", "seed_1", "seed_2")
VARIANTS: dict[str, AvatarConfig] = {
    "shipped": BASE,
    "seed_1": replace(BASE, seed=1),
    "seed_2": replace(BASE, seed=2),
    "field_attention": replace(BASE, field="attention"),
    "field_region": replace(BASE, field="region"),
    "no_correctives": replace(BASE, correctives=0),
    "no_refinement": replace(BASE, pose_refinement=False),
    "fixed_number": replace(BASE, density=DensityConfig(every=0)),
    "sides_leak": replace(BASE, loss=LossWeights(leak=0)),
    "no_completion_no_priors": replace(BASE, settle=1.0, loss=LossWeights(height=0, needle=0, lent=0, leak=0)),
}
HEARD = ("shipped", "field_attention", "field_region")
"""Rows that are driven by the clip's sound too."""
COLUMNS = {
    "full": ("track", "avatar", "psnr_db"),
    "face": ("track", "avatar", "face_psnr_db"),
    "mouth": ("track", "avatar", "mouth_psnr_db"),
    "lips %": ("track", "avatar", "lips_pct_iod"),
    "refined": ("track", "refined", "psnr_db"),
    "trained": ("track", "train", "psnr_db"),
    "heard %": ("audio", "avatar", "lips_pct_iod"),
    "heard r": ("audio", "avatar", "lip_correlation"),
    "heard span": ("audio", "avatar", "lip_ratio"),
}
"""Titles of the table, and the figures under them: PSNR, dB, or % of the inter-ocular distance."""

Rows = dict[str, dict[str, float | None]]


def scores(folder: Path, driven: Literal["track", "audio"]) -> Rows:
    """What ``gsth eval`` says of an avatar, by row."""
    report = folder.with_name(f"{folder.name}.{driven}.json")
    for _ in evaluate.run(folder, evaluate.EvalConfig(driven=driven, thorough=False, json=report)):
        pass
    return json.loads(report.read_text())["rows"]


def trained(tracked: Track, name: str, work: Path) -> dict[str, Rows | float]:
    """Figures of one variant."""
    began = time.perf_counter()
    count = QUICK.track.train_frames(len(tracked.frame_ids))
    *_, done = avatar.train(tracked, VARIANTS[name], work, count)
    values: dict[str, Rows | float] = {"seconds": time.perf_counter() - began}
    clip = tracked.clip
    if clip.wav is not None and name in HEARD:
        made = Avatar.load(done.path)
        replace(made, speech=drive.fit_speech(made, media.sound(clip.wav, RATE), drive.SpeechConfig())).save(done.path)
        values["audio"] = scores(done.path, "audio")
    return values | {"track": scores(done.path, "track")}


def tracked(clip: Path, folder: Path) -> Track:
    """The clip's track, with what the speech network hears."""
    if not artifacts.is_kind(folder, "track"):
        for _ in track.track(media.probe(clip), replace(QUICK.track, report=False), folder):
            pass
    found = artifacts.load(Track, folder)
    return found if found.clip.wav is None else pipeline.heard(found)


def figures(values: dict) -> dict[str, float | None]:
    """A variant's figures, by the titles of the table."""
    found = {title: values.get(driven, {}).get(row, {}).get(name) for title, (driven, row, name) in COLUMNS.items()}
    return found | {"s": values["seconds"]}


def line(name: str, found: dict[str, float | None]) -> str:
    """A variant's row, as Markdown."""
    cells = ["-" if v is None else f"{v:.0f}" if title == "s" else f"{v:.2f}" for title, v in found.items()]
    return " | ".join(("", f"{name:<24}", *cells, "")).strip()


def main() -> None:
    """Run the variants; print the table; write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=VARIANTS, default=tuple(VARIANTS), metavar="VARIANT")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    seen = tracked(args.clip, args.work / "track")
    rows: dict[str, dict[str, float | None]] = {}
    print(" | ".join(("", f"{'':<24}", *COLUMNS, "s", "")).strip())
    print("|---" * (len(COLUMNS) + 2) + "|")
    for name in VARIANTS:
        kept = args.work / f"{name}.json"
        if not kept.exists() and name in args.only:
            kept.write_text(json.dumps(trained(seen, name, args.work / name)))
        if kept.exists():
            rows[name] = figures(json.loads(kept.read_text()))
            print(line(name, rows[name]), flush=True)
    info = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    machine = named[1] if named else platform.machine()
    about = {"clip": args.clip.name, "machine": machine, "torch": torch.__version__}
    about |= {"threads": torch.get_num_threads(), "steps": BASE.steps, "size": QUICK.track.size}
    if all(name in rows for name in SEEDS):
        found = [rows[name]["full"] or 0.0 for name in SEEDS]
        about["spread_db"] = max(found) - min(found)
        print(f"spread over {len(SEEDS)} seeds: {about['spread_db']:.2f} dB")
    (RESULTS / f"ablation_{args.clip.stem}.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
