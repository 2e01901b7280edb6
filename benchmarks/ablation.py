"""What each part of the avatar is worth on a clip: trains variants at 256 px and scores them on held-out frames.

    python benchmarks/ablation.py me.mp4 --work DIR     # table; writes benchmarks/results/ablation_me.json

What is done is kept in the work folder; the same command goes on. Every variant shares one track. Pictures are scored
with the landmark motion of the held-out frames alone (what a variant learned, not what refinement mends) and with
refined motion, lips also with expressions from the clip's sound: distance of lip landmarks, correlation of the mouth's
opening with the real one, and its span.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from gsth import artifacts, avatar, drive, evaluate, media, pipeline, track
from gsth.audio import RATE
from gsth.avatar import Avatar, AvatarConfig, LossWeights
from gsth.types import Track

RESULTS = Path(__file__).parent / "results"
BASE = AvatarConfig(steps=1500, splats=12_000, max_splats=18_000, coarse_until=0.3)
VARIANTS = {
    "as shipped": BASE,
    "field attention": replace(BASE, field="attention"),
    "field region": replace(BASE, field="region"),
    "no correctives": replace(BASE, correctives=0),
    "sides leak": replace(BASE, loss=LossWeights(leak=0)),
    "no completion, no priors": replace(BASE, settle=1.0, loss=LossWeights(height=0, needle=0, lent=0)),
    "no matte loss": replace(BASE, loss=LossWeights(matte=0)),
}
COLUMNS = {
    "full": "landmark_track.psnr_db",
    "face": "landmark_track.face_psnr_db",
    "mouth": "landmark_track.mouth_psnr_db",
    "full ref.": "psnr_db",
    "face ref.": "face_psnr_db",
    "mouth ref.": "mouth_psnr_db",
    "lips %": "lips_pct_iod",
    "heard %": "audio.lips_pct_iod",
    "heard r": "audio.lip_correlation",
    "heard span": "audio.lip_ratio",
}
"""Titles of the table and the figures under them: dB, or % of the inter-ocular distance."""


def scores(folder: Path, driven: Literal["track", "audio"]) -> dict[str, float]:
    """What ``gsth eval`` says of an avatar."""
    *_, done = evaluate.run(folder, evaluate.EvalConfig(driven=driven, thorough=False))
    return dict(done.values)


def trained(tracked: Track, config: AvatarConfig, work: Path, count: int) -> dict[str, float]:
    """Figures of one variant."""
    began = time.perf_counter()
    *_, done = avatar.train(tracked, config, work, count)
    values = {"seconds": time.perf_counter() - began}
    clip = tracked.clip
    if clip.wav is not None:
        made = Avatar.load(done.path)
        replace(made, speech=drive.fit_speech(made, media.sound(clip.wav, RATE))).save(done.path)
        values |= {f"audio.{name}": value for name, value in scores(done.path, "audio").items()}
    return values | scores(done.path, "track")


def tracked(clip: Path, folder: Path) -> Track:
    """The clip's track, with what the speech network hears."""
    if not artifacts.is_kind(folder, "track"):
        for _ in track.track(media.probe(clip), track.TrackConfig(size=256, report=False), folder):
            pass
    found = artifacts.load(Track, folder)
    return found if found.clip.wav is None else pipeline.heard(found)


def main() -> None:
    """Run all variants."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    about = {"clip": args.clip.name, "machine": platform.processor() or platform.machine(), "torch": torch.__version__}
    about |= {"threads": torch.get_num_threads()}
    seen = tracked(args.clip, args.work / "track")
    count = track.TrackConfig().train_frames(len(seen.frame_ids))
    rows: dict[str, dict[str, float]] = {}
    print(f"{'':<26}" + "".join(f"{title:>11}" for title in COLUMNS) + f"{'s':>8}")
    for name, variant in VARIANTS.items():
        kept = args.work / f"{name.replace(' ', '_')}.json"
        if not kept.exists():
            kept.write_text(json.dumps(trained(seen, variant, args.work / kept.stem, count)))
        values = rows[name] = json.loads(kept.read_text())
        cells = (values.get(key) for key in COLUMNS.values())
        text = "".join(f"{'-':>11}" if c is None else f"{c:>11.2f}" for c in cells)
        print(f"{name:<26}{text}{values['seconds']:>8.0f}", flush=True)
        (RESULTS / f"ablation_{args.clip.stem}.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
