"""What each part of the avatar is worth on a clip: trains variants at 256 px and scores them on held-out frames.

    python benchmarks/ablation.py me.mp4            # table; writes benchmarks/results/ablation.json

Every variant shares one track; scores are means over the held-out frames with their landmark motion alone (what a
variant learned, not what refinement mends) and with refined motion.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from gsth import artifacts, avatar, media, metrics, render, track
from gsth.avatar import Avatar, AvatarConfig, LossWeights
from gsth.types import Motion, Track

RESULTS = Path(__file__).parent / "results" / "ablation.json"
BASE = AvatarConfig(steps=1500, splats=12_000, max_splats=18_000)
VARIANTS = {
    "as shipped": BASE,
    "no correctives": replace(BASE, correctives=0),
    "6 correctives": replace(BASE, correctives=6),
    "20 correctives": replace(BASE, correctives=20),
    "correctives almost free": replace(BASE, loss=LossWeights(corrective=0.02)),
    "fixed number of splats": replace(BASE, density=replace(BASE.density, every=0)),
    "no matte loss": replace(BASE, loss=LossWeights(matte=0.0)),
}


def scores(made: Avatar, pictures: Track, motion: Motion) -> dict[str, float]:
    """Mean PSNR over the whole picture and inside the face's bounds, held-out frames."""
    full, face = [], []
    w, h = made.cameras.width, made.cameras.height
    for t in range(made.source.train_frames, len(motion)):
        with torch.no_grad():
            drawn = render.render(made.pose(motion[t]), made.cameras, background=made.background())
        picture = (drawn.rgb[0].clamp(0, 1) * 255).round().byte().numpy()
        box = metrics.face_box(made.source.landmarks_px[t].double().numpy(), w, h)
        full.append(metrics.psnr(picture, pictures.images[t]))
        if box is not None:
            face.append(metrics.psnr(metrics.cut(picture, box), metrics.cut(pictures.images[t], box)))
    return {"psnr_db": sum(full) / len(full), "face_psnr_db": sum(face) / len(face)}


def main() -> None:
    """Run all variants."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        config = track.TrackConfig(size=256, report=False)
        for _ in track.track(media.probe(args.clip), config, Path(scratch) / "track"):
            pass
        tracked = artifacts.load(Track, Path(scratch) / "track")
        count = config.train_frames(len(tracked.frame_ids))
        print(f"{'':<26}{'full dB':>10}{'face dB':>10}{'refined':>10}{'face':>10}{'s':>8}")
        for name, variant in VARIANTS.items():
            began = time.perf_counter()
            *_, done = avatar.train(tracked, variant, Path(scratch) / name.replace(" ", "_"), count)
            seconds = time.perf_counter() - began
            made = Avatar.load(done.path)
            by_landmarks = scores(made, tracked, made.landmark_motion or made.motion)
            refined = scores(made, tracked, made.motion)
            rows[name] = {"landmark_track": by_landmarks, "refined": refined, "seconds": seconds}
            cells = (*by_landmarks.values(), *refined.values())
            print(f"{name:<26}" + "".join(f"{c:>10.2f}" for c in cells) + f"{seconds:>8.0f}", flush=True)
    about = {"clip": args.clip.name, "machine": platform.processor() or platform.machine(), "torch": torch.__version__}
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps({**about, "threads": torch.get_num_threads(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
