"""What each part of the avatar is worth on a clip: trains variants at 256 px and scores them on held-out frames.

    python benchmarks/ablation.py me.mp4            # table; writes benchmarks/results/ablation.json

Every variant shares one track. Pictures are scored with the landmark motion of the held-out frames alone (what a
variant learned, not what refinement mends) and with refined motion, lips also with expressions from the clip's sound:
distance of lip landmarks, correlation of the mouth's opening with the real one, and its span.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from gsth import artifacts, avatar, drive, evaluate, media, pipeline, track
from gsth.audio import RATE
from gsth.avatar import Avatar, AvatarConfig, LossWeights
from gsth.types import Track

RESULTS = Path(__file__).parent / "results" / "ablation.json"
BASE = AvatarConfig(steps=1500, splats=12_000, max_splats=18_000, coarse_until=0.3)
VARIANTS = {
    "as shipped": BASE,
    "field attention": replace(BASE, field="attention"),
    "field region": replace(BASE, field="region"),
    "no correctives": replace(BASE, correctives=0),
    "20 correctives": replace(BASE, correctives=20),
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
    *_, done = evaluate.run(folder, evaluate.EvalConfig(driven=driven))
    return dict(done.values)


def trained(tracked: Track, config: AvatarConfig, work: Path, count: int) -> dict[str, float]:
    """Figures of one variant."""
    began = time.perf_counter()
    *_, done = avatar.train(tracked, config, work, count)
    seconds = time.perf_counter() - began
    values = {"seconds": seconds}
    clip = tracked.clip
    if clip.wav is not None:
        made = Avatar.load(done.path)
        replace(made, speech=drive.fit_speech(made, media.sound(clip.wav, RATE))).save(done.path)
        values |= {f"audio.{name}": value for name, value in scores(done.path, "audio").items()}
    return values | scores(done.path, "track")


def main() -> None:
    """Run all variants."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    args.out.parent.mkdir(exist_ok=True)
    rows: dict[str, dict[str, float]] = {}
    about = {"clip": args.clip.name, "machine": platform.processor() or platform.machine(), "torch": torch.__version__}
    about |= {"threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as scratch:
        config = track.TrackConfig(size=256, report=False)
        for _ in track.track(media.probe(args.clip), config, Path(scratch) / "track"):
            pass
        tracked = artifacts.load(Track, Path(scratch) / "track")
        if tracked.clip.wav is not None:
            tracked = pipeline.heard(tracked)
        count = config.train_frames(len(tracked.frame_ids))
        print(f"{'':<26}" + "".join(f"{title:>11}" for title in COLUMNS) + f"{'s':>8}")
        for name, variant in VARIANTS.items():
            values = trained(tracked, variant, Path(scratch) / name.replace(" ", "_"), count)
            rows[name] = values
            cells = (values.get(key) for key in COLUMNS.values())
            text = "".join(f"{'-':>11}" if c is None else f"{c:>11.2f}" for c in cells)
            print(f"{name:<26}{text}{values['seconds']:>8.0f}", flush=True)
            args.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
