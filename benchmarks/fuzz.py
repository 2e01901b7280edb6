"""Breaks files and reads them: ``python benchmarks/fuzz.py [LOADER ...] [--seconds 600] [--seed 0]``.

Every reader of gsth gets whole files with a few bytes, numbers or words changed. It must read them, or refuse them with
a GsthError; anything else (another exception, more than ``SLOW_S`` seconds, more than ``MEMORY`` bytes, a crash of the
process) is a finding, and its file is kept. Each loader runs in a process of its own; a seed tries the same files.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import wave
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gsth import _config, artifacts, head, media, provenance
from gsth.avatar import Avatar, Source
from gsth.drive import _curves, motion, script
from gsth.errors import GsthError
from gsth.export import _import, glb, ply, spz
from gsth.types import Cameras, Identity, Motion, RiggedSplats

SLOW_S = 10.0
MEMORY = 6 * 2**30
"""Of address space, above what the process has when it begins."""
WORDS = (
    *(b"null", b"-1", b"1e999", b"NaN", b"99999999999999999999", b"true", b'"', b"[" * 2000, b"{", b"../../x", b"\xff"),
    *(b"!!python/object/apply:os.system", b"&a [*a]", b"\x00" * 64, b"\r\n", b"%s", b"0" * 5000),
)
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**64 - 1)


def person(frames: int = 4, splats: int = 40) -> Avatar:
    """An avatar on the built-in head that nobody trained."""
    model = head.load("builtin")
    generator = torch.Generator().manual_seed(0)
    e, n = len(model.expression_names), splats
    place = torch.tensor((1.0, 0, 0, 0, 0, 0, 0.6)).expand(frames, 7)
    joints = torch.tensor((1.0, 0, 0, 0)).expand(frames, 5, 4)
    moved = Motion(model.id, 25.0, torch.rand(frames, e, generator=generator) * 0.3, joints, place)
    K = torch.tensor([[300.0, 0, 32], [0, 300, 32], [0, 0, 1]])
    quats = torch.tensor((1.0, 0, 0, 0)).expand(n, 4)
    ids = torch.randint(0, len(model.faces), (n,), generator=generator)
    scales = torch.full((n, 3), -2.0)
    look = RiggedSplats(ids, torch.zeros(n, 3), quats, scales, torch.ones(n), torch.zeros(n, 1, 3))
    seen = torch.zeros(frames, 478, 2), torch.ones(frames, dtype=torch.bool), torch.zeros(frames)
    source = Source(Path("a.mp4"), "00", 25.0, (0, 0, 64, 64), 3, torch.arange(frames), *seen)
    who = Identity(model.id, torch.zeros(len(model.shape_basis)))
    meta = provenance.record({}, provenance.SYNTHETIC, "00")
    return Avatar(model, who, look, Cameras(torch.eye(4)[None], K[None], 64, 64), moved, source, meta=meta)


# ------------------------------------------------------------------------------------------------ loaders


@dataclass(frozen=True)
class Loader:
    """One reader, and how a whole file of its is made."""

    make: Callable[[Path, Avatar], Path]
    """Writes into a folder; the file that will be broken."""
    read: Callable[[Path, Avatar], Any]
    """Reads the file, or the artifact around it."""


def _avatar(name: str) -> Callable[[Path, Avatar], Path]:
    def make(folder: Path, made: Avatar) -> Path:
        made.save(folder / "a.avatar")
        _unsealed(folder / "a.avatar")
        return folder / "a.avatar" / name

    return make


def _motion(name: str) -> Callable[[Path, Avatar], Path]:
    def make(folder: Path, made: Avatar) -> Path:
        artifacts.save(made.motion, folder / "m")
        _unsealed(folder / "m")
        return folder / "m" / name

    return make


def _unsealed(folder: Path) -> None:
    """Without hashes, which would stop every change at the door: what an attacker writes has right ones."""
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"files": {}}))


def _exported(exporter: Any, name: str) -> Callable[[Path, Avatar], Path]:
    def make(folder: Path, made: Avatar) -> Path:
        list(exporter.build().write(made, folder / name))
        return folder / name

    return make


def _text(name: str, text: str) -> Callable[[Path, Avatar], Path]:
    def make(folder: Path, made: Avatar) -> Path:
        (folder / name).write_text(text)
        return folder / name

    return make


def _csv(folder: Path, made: Avatar) -> Path:
    names = tuple(made.head.expression_names)
    _curves.write(folder / "a.csv", _curves.Curves(25.0, names, made.motion.expr))
    return folder / "a.csv"


def _npz(folder: Path, made: Avatar) -> Path:
    names = np.array(made.head.expression_names)
    np.savez(folder / "a.npz", expr=made.motion.expr.numpy(), names=names, fps=np.float64(25))
    return folder / "a.npz"


def _video(folder: Path, made: Avatar) -> Path:
    pictures = [np.full((64, 64, 3), 20 * i, np.uint8) for i in range(6)]
    tone = np.sin(np.arange(4000) / 8).astype(np.float32)
    media.write_video(folder / "a.mp4", pictures, 25, tone, 16000)
    return folder / "a.mp4"


def _sound(folder: Path, made: Avatar) -> Path:
    with wave.open(str(folder / "a.wav"), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16000)
        out.writeframes(bytes(4000))
    return folder / "a.wav"


def _picture(folder: Path, made: Avatar) -> Path:
    picture = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    provenance.write_image(folder / "a.png", picture, provenance.about([made.meta]), provenance.STAMPED)
    return folder / "a.png"


def _frames(path: Path, made: Avatar) -> None:
    clip = media.probe(path)
    for _, _ in zip(media.frames(clip), range(50), strict=False):
        pass


SETTINGS = "steps: 300\nrates: {means: 0.01, sh: 0.02}\nname: quick\n"
SCRIPT = "speakers:\n  ada: {avatar: a.avatar}\nlines:\n  - ada: Hello.\n  - {ada: Good bye., pause_s: 1.5}\n"
WEIGHTS = json.dumps({"fps": 25, "names": ["jawOpen", "eyeBlinkLeft"], "frames": [[0.1, 0.2], [0.3, 0.4]]})


@dataclass(frozen=True)
class Rates:
    """Part of what the settings are read into."""

    means: float = 0.0
    sh: float = 0.0


@dataclass(frozen=True)
class Settings:
    """What the settings are read into."""

    steps: int = 1
    rates: Rates = Rates()
    name: str = ""


LOADERS: Mapping[str, Loader] = {
    "avatar meta": Loader(_avatar("meta.json"), lambda path, _: Avatar.load(path.parent)),
    "avatar arrays": Loader(_avatar("arrays.safetensors"), lambda path, _: Avatar.load(path.parent)),
    "motion meta": Loader(_motion("meta.json"), lambda path, _: artifacts.load(Motion, path.parent)),
    "motion arrays": Loader(_motion("arrays.safetensors"), lambda path, _: artifacts.load(Motion, path.parent)),
    "motion csv": Loader(_csv, lambda path, made: motion.Config(path).build(made)),
    "motion json": Loader(_text("a.json", WEIGHTS), lambda path, made: motion.Config(path).build(made)),
    "motion npz": Loader(_npz, lambda path, made: motion.Config(path).build(made)),
    "glb": Loader(_exported(glb.Config(), "a.glb"), lambda path, _: _import.read_avatar(path)),
    "ply": Loader(_exported(ply.Config(), "a.ply"), lambda path, _: _import.read_splats(path)),
    "spz": Loader(_exported(spz.Config(), "a.spz"), lambda path, _: _import.read_splats(path)),
    "settings": Loader(_text("a.yaml", SETTINGS), lambda path, _: _config.read(Settings, path)),
    "script": Loader(_text("a.yaml", SCRIPT), lambda path, _: script.read(path)),
    "video": Loader(_video, _frames),
    "sound": Loader(_sound, lambda path, _: media.sound(path)),
    "sound of video": Loader(_video, lambda path, _: media.sound(path)),
    "verify": Loader(_picture, lambda path, _: provenance.verify(path)),
}


# ------------------------------------------------------------------------------------------------ breaking


def broken(data: bytes, rng: random.Random) -> bytes:
    """The bytes after one to six changes; sometimes cut off."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = min(int(len(out) * rng.random() ** rng.choice((1, 4))), max(len(out) - 1, 0))  # heads matter more
        kind = rng.randrange(6)
        if kind == 0 and out:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            size = rng.choice((1, 2, 4, 8))
            number = rng.choice(NUMBERS) & (1 << 8 * size) - 1
            out[at : at + size] = number.to_bytes(size, rng.choice(("little", "big")))
        elif kind == 2:
            del out[at : at + rng.choice((1, 4, 100))]
        elif kind == 3:
            out[at:at] = rng.choice(WORDS)
        elif kind == 4:
            out[at:at] = out[at : at + rng.choice((1, 8, 200))]
        elif rng.random() < 0.3:
            del out[at:]
    return bytes(out)


def attempt(loader: Loader, path: Path, made: Avatar) -> str | None:
    """Read; None where it went well or was refused as it should, else what happened."""
    began = time.monotonic()
    try:
        loader.read(path, made)
    except GsthError:
        pass
    except Exception:  # whatever it is, it is a finding
        return traceback.format_exc()
    took = time.monotonic() - began
    return f"took {took:.1f} s" if took > SLOW_S else None


def fuzz(name: str, seconds: float, seed: int, kept: Path) -> tuple[int, list[str]]:
    """Break files of one loader for so long; how many were tried, and the findings."""
    loader, made = LOADERS[name], person()
    rng = random.Random(seed)
    findings, tried = [], 0
    with tempfile.TemporaryDirectory() as folder:
        path = loader.make(Path(folder), made)
        data = path.read_bytes()
        loader.read(path, made)  # the whole one must be read
        end = time.monotonic() + seconds
        while time.monotonic() < end and len(findings) < 10:
            bad = broken(data, rng)
            path.write_bytes(bad)
            tried += 1
            found = attempt(loader, path, made)
            if found is not None:
                file = kept / f"{name.replace(' ', '_')}-{seed}-{tried}{path.suffix}"
                file.write_bytes(bad)
                findings.append(f"{file}:\n{found}")
    return tried, findings


def main() -> int:
    """Fuzz, each loader in a process of its own; the exit code is 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loaders", nargs="*", metavar="LOADER", help=", ".join(LOADERS))
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kept", type=Path, default=Path("fuzz_findings"), help="folder for files that were findings")
    args = parser.parse_args()
    args.kept.mkdir(parents=True, exist_ok=True)
    if len(args.loaders) == 1:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        tried, findings = fuzz(args.loaders[0], args.seconds, args.seed, args.kept)
        print(f"{args.loaders[0]}: seed {args.seed}, {tried} files, {len(findings)} finding(s)", flush=True)
        print(*findings, sep="\n", end="\n" if findings else "")
        return bool(findings)
    options = ["--seconds", str(args.seconds), "--seed", str(args.seed), "--kept", str(args.kept)]
    codes = [subprocess.run([sys.executable, __file__, n, *options]).returncode for n in args.loaders or LOADERS]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
