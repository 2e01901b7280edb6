"""What the watermark costs and what it survives: ``python benchmarks/watermark.py [CLIP ...]``.

Without clips, the synthetic actor. Frames are cut square and scaled to 512 px. Bit accuracy is of single frames, before
votes are added and without the check sum's help; *read* is whether the whole id comes out of the votes of one clip.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from gsth import media, synth
from gsth.provenance import _watermark

ID = 0xC0FFEE12
SIDE = 512
FRAMES = 30
Pictures = list[np.ndarray]


def frames_of(clip: Path) -> Pictures:
    """Some frames from the start, square."""
    found = []
    for picture in media.frames(media.probe(clip), 0, FRAMES):
        height, width = picture.shape[:2]
        side = min(height, width)
        x, y = (width - side) // 2, (height - side) // 2
        found.append(scaled(picture[y : y + side, x : x + side], SIDE))
    return found


def scaled(picture: np.ndarray, side: int) -> np.ndarray:
    """A square picture at another size."""
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))


def jpeg(picture: np.ndarray, quality: int = 80) -> np.ndarray:
    """Through JPEG."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def mp4(pictures: Pictures, crf: int = 23) -> Pictures:
    """Through H.264."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        media.write_video(path, pictures, 30, crf=crf)
        return list(media.frames(media.probe(path)))


ATTACKS: dict[str, Callable[[Pictures], Pictures]] = {
    "none": lambda pictures: pictures,
    "mp4 crf 23": mp4,
    "JPEG 80": lambda pictures: [jpeg(p) for p in pictures],
    "half size": lambda pictures: [scaled(p, SIDE // 2) for p in pictures],
    "half size, JPEG 80": lambda pictures: [jpeg(scaled(p, SIDE // 2)) for p in pictures],
    "half size, mp4 crf 23": lambda pictures: mp4([scaled(p, SIDE // 2) for p in pictures]),
}


def accuracy(pictures: Pictures) -> float:
    """Share of right bits, single frames."""
    code = _watermark.code(ID)
    return float(np.mean([(_watermark.read([p]).bits > 0) == code for p in pictures]))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def milliseconds(pictures: Pictures) -> float:
    """Of this thread's time, the median."""
    taken = []
    for picture in pictures:
        began = time.thread_time()
        _watermark.embed(picture, ID)
        taken.append(time.thread_time() - began)
    return float(np.median(taken)) * 1e3


def measured(pictures: Pictures) -> dict[str, object]:
    """All figures of one clip."""
    marked = [_watermark.embed(p, ID) for p in pictures]
    quality = [psnr(a, b) for a, b in zip(pictures, marked, strict=True)]
    rows = {}
    for name, attack in ATTACKS.items():
        left = attack(marked)
        rows[name] = {"bit_accuracy": accuracy(left), "read": _watermark.read(left).id == ID}
    return {
        "psnr_db_mean": float(np.mean(quality)),
        "psnr_db_worst": min(quality),
        "embed_ms": milliseconds(pictures),
        "unmarked_reads_none": all(_watermark.read([p]).id is None for p in pictures),
        "attacks": rows,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        clips = list(args.clips)
        if not clips:
            clips = [Path(folder) / "actor.mp4"]
            for _ in synth.film(synth.SynthConfig(seconds=2.0), clips[0]):
                pass
        found = {clip.stem: measured(frames_of(clip)) for clip in clips}
    for clip, figures in found.items():
        print(f"{clip}: PSNR {figures['psnr_db_mean']:.2f} dB, worst {figures['psnr_db_worst']:.2f}; ", end="")
        print(f"{figures['embed_ms']:.2f} ms a frame; unmarked frames read none: {figures['unmarked_reads_none']}")
        for name, row in figures["attacks"].items():  # type: ignore[attr-defined]
            print(f"  {name:24} bits {100 * row['bit_accuracy']:6.2f} %   id read: {row['read']}")
    if args.json is not None:
        told = {"machine": platform.processor() or platform.machine(), "side_px": SIDE, "clips": found}
        args.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
