"""Breaks files and reads them: ``python benchmarks/fuzz.py [LOADER ...] [--seconds 600] [--seed 0]``.

Every reader of gsth gets whole files with a few bytes, numbers or words changed; what is packed with a checksum is
changed inside, too. It must read them, or refuse them with a GsthError; anything else (another exception, more than
``SLOW_S`` seconds of the processor, more than ``MEMORY`` bytes, a crash of the process) is a finding, and its file is
kept. Each loader runs in a process of its own; a seed tries the same files. With ``--results`` the counts go into a
JSON file, where those of other loaders stay.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import gzip
import io
import json
import os
import platform
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _fuzz_samples as samples

from gsth import _config, artifacts, media, provenance
from gsth.avatar import Avatar
from gsth.drive import motion, script
from gsth.errors import GsthError
from gsth.export import _import, gaussianavatars, glb, ply, spz, web
from gsth.head import _flame_file
from gsth.serve import protocol
from gsth.track import importers
from gsth.types import Motion

SLOW_S = 10.0
MEMORY = 6 * 2**30
"""Of address space, above what the process has when it begins."""
WORDS = (
    *(b"null", b"-1", b"1e999", b"NaN", b"99999999999999999999", b"true", b'"', b"[" * 2000, b"{", b"../../x", b"\xff"),
    *(b"!!python/object/apply:os.system", b"&a [*a]", b"\x00" * 64, b"\r\n", b"%s", b"0" * 5000),
)
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**64 - 1)


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


def broken_gzip(data: bytes, rng: random.Random) -> bytes:
    """The file changed, or more often what is packed in it."""
    if rng.random() < 0.25:
        return broken(data, rng)
    return gzip.compress(broken(gzip.decompress(data), rng), 1, mtime=0)


def broken_zip(data: bytes, rng: random.Random) -> bytes:
    """The archive changed, or more often one of its members."""
    if rng.random() < 0.25:
        return broken(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = rng.choice(sorted(members))
    members[chosen] = broken(members[chosen], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def broken_bin(data: bytes, rng: random.Random) -> bytes:
    """The file of the web player changed: anywhere, in its header, or in its packed arrays."""
    kind, length = rng.randrange(4), struct.unpack_from("<I", data, 12)[0]
    header, payload = data[16 : 16 + length], data[16 + length :]
    if kind == 0:
        return broken(data, rng)
    if kind == 1:
        payload = broken_gzip(payload, rng)
    else:
        header = broken(header, rng)
    return data[:12] + struct.pack("<I", len(header)) + header + payload


def broken_page(data: bytes, rng: random.Random) -> bytes:
    """The page changed, or the avatar in it."""
    found = web.avatar_in(data, Path("page"))
    if rng.random() < 0.25:
        return broken(data, rng)
    return data.replace(base64.b64encode(found), base64.b64encode(broken_bin(found, rng)))


# ------------------------------------------------------------------------------------------------ loaders


@dataclass(frozen=True)
class Loader:
    """One reader, and how a whole file of its is made."""

    make: Callable[[Path, Avatar], Path]
    """Writes into a folder; the file that will be broken."""
    read: Callable[[Path, Avatar], Any]
    """Reads the file, or the artifact around it."""
    spoil: Callable[[bytes, random.Random], bytes] = broken
    """Breaks its bytes."""


def _frames(path: Path, made: Avatar) -> None:
    clip = media.probe(path)
    for _, _ in zip(media.frames(clip), range(50), strict=False):
        pass


def _messages(path: Path, made: Avatar) -> None:
    """What a page says, a message a line; a refused one must not keep the next from being read."""
    for line in path.read_bytes().decode("utf-8", "replace").splitlines():
        try:
            protocol.parse(line)
        except GsthError:
            continue


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
    "avatar meta": Loader(samples.avatar_part("meta.json"), lambda path, _: Avatar.load(path.parent)),
    "avatar arrays": Loader(samples.avatar_part("arrays.safetensors"), lambda path, _: Avatar.load(path.parent)),
    "glb": Loader(samples.exported(glb.Config(), "a.glb"), lambda path, _: _import.read_avatar(path)),
    "bin": Loader(samples.bin_file, lambda path, _: _import.read_avatar(path), broken_bin),
    "ply": Loader(samples.exported(ply.Config(), "a.ply"), lambda path, _: _import.read_splats(path)),
    "spz": Loader(samples.exported(spz.Config(), "a.spz"), lambda path, _: _import.read_splats(path), broken_gzip),
    "flame pickle": Loader(samples.flame_pickle, lambda path, _: _flame_file.read(path)),
    "motion npz": Loader(samples.npz, lambda path, made: motion.Config(path).build(made), broken_zip),
    "insta": Loader(samples.insta, lambda path, _: importers.recognised(path.parents[1]), broken_zip),
    "vhap npz": Loader(samples.vhap("1.npz"), lambda path, _: importers.recognised(path.parent), broken_zip),
    "vhap json": Loader(samples.vhap("transforms.json"), lambda path, _: importers.recognised(path.parent)),
    "adnerf": Loader(samples.adnerf, lambda path, _: importers.recognised(path.parent)),
    "messages": Loader(samples.text("a.txt", samples.MESSAGES), _messages),
    "state": Loader(
        samples.text("a.txt", samples.STATE), lambda path, _: protocol.unpack_state(path.read_text("utf-8", "replace"))
    ),
    "video": Loader(samples.video, _frames),
    "motion meta": Loader(samples.motion_part("meta.json"), lambda path, _: artifacts.load(Motion, path.parent)),
    "motion arrays": Loader(
        samples.motion_part("arrays.safetensors"), lambda path, _: artifacts.load(Motion, path.parent)
    ),
    "motion csv": Loader(samples.csv, lambda path, made: motion.Config(path).build(made)),
    "motion json": Loader(samples.text("a.json", samples.WEIGHTS), lambda path, made: motion.Config(path).build(made)),
    "flame npz": Loader(samples.flame_npz, lambda path, _: _flame_file.read(path), broken_zip),
    "gaussianavatars": Loader(samples.flame_param, lambda path, _: gaussianavatars.parameters(path, 12), broken_zip),
    "page": Loader(samples.page, lambda path, _: _import.read_avatar(path), broken_page),
    "settings": Loader(samples.text("a.yaml", samples.SETTINGS), lambda path, _: _config.read(Settings, path)),
    "script": Loader(samples.text("a.yaml", samples.SCRIPT), lambda path, _: script.read(path)),
    "sound": Loader(samples.sound, lambda path, _: media.sound(path)),
    "sound of video": Loader(samples.video, lambda path, _: media.sound(path)),
    "verify": Loader(samples.picture, lambda path, _: provenance.verify(path)),
}


# ------------------------------------------------------------------------------------------------ trying


def attempt(loader: Loader, path: Path, made: Avatar) -> str | None:
    """Read; None where it went well or was refused as it should, else what happened."""
    began = time.process_time()  # not the clock: other programs may hold the processor
    try:
        loader.read(path, made)
    except GsthError:
        pass
    except Exception:  # whatever it is, it is a finding
        return traceback.format_exc()
    took = time.process_time() - began
    return f"took {took:.1f} s" if took > SLOW_S else None


@dataclass(frozen=True)
class Outcome:
    """Of one loader."""

    files: int
    """How many broken files were read."""
    cpu_s: float
    findings: list[str]


def fuzz(name: str, seconds: float, seed: int, kept: Path) -> Outcome:
    """Break files of one loader for so many seconds of the processor, or until ten were findings."""
    loader, made = LOADERS[name], samples.person()
    rng = random.Random(seed)
    findings: list[str] = []
    tried = 0
    with tempfile.TemporaryDirectory() as folder:
        path = loader.make(Path(folder), made)
        data = path.read_bytes()
        loader.read(path, made)  # the whole one must be read
        began = time.process_time()
        while time.process_time() - began < seconds and len(findings) < 10:
            bad = loader.spoil(data, rng)
            path.write_bytes(bad)
            tried += 1
            found = attempt(loader, path, made)
            if found is not None:
                file = kept / f"{name.replace(' ', '_')}-{seed}-{tried}{path.suffix}"
                file.write_bytes(bad)
                findings.append(f"{file}:\n{found}")
        cpu = time.process_time() - began
    return Outcome(tried, cpu, findings)


def record(results: Path, name: str, outcome: Outcome, args: argparse.Namespace) -> None:
    """Put one loader's counts into the file."""
    known = json.loads(results.read_text())["loaders"] if results.exists() else {}
    row: dict[str, object] = {"seed": args.seed, "cpu_seconds": round(outcome.cpu_s)}
    row |= {"files": outcome.files, "findings": len(outcome.findings), "date": datetime.date.today().isoformat()}
    known[name] = row
    missing = [n for n in LOADERS if n not in known]
    machine = (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors, Python {sys.version.split()[0]}"
    )
    content = {"machine": machine, "loaders": {n: known[n] for n in LOADERS if n in known}, "not_run": missing}
    part = results.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.replace(results)


def main() -> int:
    """Fuzz, each loader in a process of its own; the exit code is 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loaders", nargs="*", metavar="LOADER", help=", ".join(LOADERS))
    parser.add_argument("--seconds", type=float, default=600, help="of the processor, for each loader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kept", type=Path, default=Path("fuzz_findings"), help="folder for files that were findings")
    parser.add_argument("--results", type=Path, help="JSON file that takes the counts")
    args = parser.parse_args()
    args.kept.mkdir(parents=True, exist_ok=True)
    if len(args.loaders) != 1:
        options = ["--seconds", str(args.seconds), "--seed", str(args.seed), "--kept", str(args.kept)]
        options += [] if args.results is None else ["--results", str(args.results)]
        codes = [subprocess.run([sys.executable, __file__, n, *options]).returncode for n in args.loaders or LOADERS]
        return int(any(codes))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    name = args.loaders[0]
    outcome = fuzz(name, args.seconds, args.seed, args.kept)
    count = len(outcome.findings)
    print(f"{name}: seed {args.seed}, {outcome.files} files, {count} finding(s)", flush=True)
    print(*outcome.findings, sep="\n", end="\n" if count else "")
    if args.results is not None:
        record(args.results, name, outcome, args)
    return bool(count)


if __name__ == "__main__":
    sys.exit(main())
