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
import pickle
import platform
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import wave
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from gsth import _config, artifacts, head, media, provenance
from gsth.avatar import Avatar, Source
from gsth.drive import _curves, motion, script
from gsth.errors import GsthError
from gsth.export import _bin, _import, gaussianavatars, glb, ply, spz, web
from gsth.head import _flame_file
from gsth.serve import protocol
from gsth.track import importers
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


def _page(folder: Path, made: Avatar) -> Path:
    list(web.Config(single_file=True).build().write(made, folder / "a.html"))
    return folder / "a.html"


def _bin_file(folder: Path, made: Avatar) -> Path:
    (folder / "a.bin").write_bytes(_bin.pack(made, made.motion))
    return folder / "a.bin"


def _flame() -> dict[str, np.ndarray]:
    """FLAME's layout on twelve vertices, which is all that its reader looks at."""
    rng = np.random.default_rng(0)
    shapes = {"v_template": (12, 3), "shapedirs": (12, 3, 400), "J_regressor": (5, 12), "weights": (12, 5)}
    made: dict[str, np.ndarray] = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return {"f": np.arange(12).reshape(4, 3).astype(np.uint32), **made}


class _Ch:
    """A chumpy object or a scipy matrix as pickles hold them: a class and its state."""

    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)


def _flame_pickle(folder: Path, made: Avatar) -> Path:
    """As FLAME 2020 comes: protocol 2, shapedirs a chumpy object, the regressor a sparse matrix by columns."""
    data: dict[str, Any] = _flame()
    data["shapedirs"] = _Ch(x=data["shapedirs"])
    columns, rows = np.nonzero(data["J_regressor"].T)
    indptr = np.arange(13, dtype=np.int32) * 5
    held = _Ch(_shape=(5, 12), data=data["J_regressor"][rows, columns], indices=rows.astype(np.int32), indptr=indptr)
    data["J_regressor"] = held
    named = pickle.dumps(data, protocol=2).replace(f"c{__name__}\n_Ch\n".encode(), b"cchumpy.ch\nCh\n")
    (folder / "flame.pkl").write_bytes(named)
    return folder / "flame.pkl"


def _flame_npz(folder: Path, made: Avatar) -> Path:
    np.savez(folder / "flame.npz", **_flame())
    return folder / "flame.npz"


def _flame_param(folder: Path, made: Avatar) -> Path:
    """As GaussianAvatars leaves it, on twelve vertices and teeth."""
    rows = {name: np.zeros((2, size if size > 0 else 100)) for name, size in gaussianavatars.PER_FRAME.items()}
    offsets = {"static_offset": np.zeros((1, 132, 3)), "dynamic_offset": np.zeros((2, 132, 3))}
    np.savez(folder / "flame_param.npz", shape=np.zeros(300), **offsets, **rows)
    return folder / "flame_param.npz"


def _pictures(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / name), np.zeros((8, 8, 3), np.uint8))


def _vhap(name: str) -> Callable[[Path, Avatar], Path]:
    def make(folder: Path, made: Avatar) -> Path:
        sizes = {"translation": 3, "rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6, "expr": 100}
        camera = {"cx": 4, "cy": 4, "fl_x": 20, "fl_y": 20, "h": 8, "w": 8, "transform_matrix": np.eye(4).tolist()}
        frames, rows = [], {n: np.full((1, k), 0.1) for n, k in sizes.items()} | {"shape": np.zeros(300)}
        for i in range(3):
            frame: dict[str, Any] = {"timestep_index": i, "camera_index": 0, "flame_param_path": f"{i}.npz", **camera}
            frames.append(frame | {"file_path": f"images/{i}.png", "fg_mask_path": f"fg_masks/{i}.png"})
            _pictures(folder, f"images/{i}.png", f"fg_masks/{i}.png")
            np.savez(folder / f"{i}.npz", **rows, static_offset=np.zeros((1, 12, 3)))
        (folder / "transforms.json").write_text(json.dumps({"frames": frames}))
        return folder / name

    return make


def _insta(folder: Path, made: Avatar) -> Path:
    flame = {n: np.full((1, k), 0.1, np.float32) for n, k in {"exp": 100, "shape": 300, "eyelids": 2}.items()}
    turns = {n: np.tile(np.eye(3, dtype=np.float32)[:2].reshape(-1), k)[None] for n, k in {"eyes": 2, "jaw": 1}.items()}
    K = np.array([[[20, 0, 4], [0, 20, 4], [0, 0, 1]]], np.float32)
    camera = {"R": np.eye(3, dtype=np.float32)[None], "t": np.zeros((1, 3), np.float32), "K": K}
    (folder / "checkpoint").mkdir()
    for i in range(2):
        torch.save({"flame": flame | turns, "opencv": camera}, folder / f"checkpoint/{i:05d}.frame")
        _pictures(folder, f"input/{i:05d}.png")
    return folder / "checkpoint/00000.frame"


def _adnerf(folder: Path, made: Avatar) -> Path:
    for i in range(3):
        _pictures(folder, f"ori_imgs/{i}.jpg", f"parsing/{i}.png", "bc.jpg")
    _sound(folder, made).rename(folder / "aud.wav")
    for part, ids in {"train": (0, 1), "val": (2,)}.items():
        content = {"focal_len": 1100.0, "cx": 4.0, "cy": 4.0, "frames": [{"img_id": i} for i in ids]}
        (folder / f"transforms_{part}.json").write_text(json.dumps(content))
    return folder / "transforms_train.json"


def _messages(path: Path, made: Avatar) -> None:
    """What a page says, a message a line; a refused one must not keep the next from being read."""
    for line in path.read_bytes().decode("utf-8", "replace").splitlines():
        try:
            protocol.parse(line)
        except GsthError:
            continue


MESSAGES = "\n".join(
    json.dumps(message)
    for message in (
        {"do": "hello", "visitor": 1, "state": "e30", "dark": False},
        {"do": "key", "name": "play"},
        {"do": "file", "name": "a.wav", "size": 5000, "purpose": "sound"},
        {"do": "listen", "rate": 16000},
        {"do": "hush"},
        {"do": "player", "on": True},
    )
)
STATE = protocol.pack_state({"yaw": 0.3, "sliders": {"jawOpen": 0.5}, "names": ["a", "b"]})
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
    "glb": Loader(_exported(glb.Config(), "a.glb"), lambda path, _: _import.read_avatar(path)),
    "bin": Loader(_bin_file, lambda path, _: _import.read_avatar(path), broken_bin),
    "ply": Loader(_exported(ply.Config(), "a.ply"), lambda path, _: _import.read_splats(path)),
    "spz": Loader(_exported(spz.Config(), "a.spz"), lambda path, _: _import.read_splats(path), broken_gzip),
    "flame pickle": Loader(_flame_pickle, lambda path, _: _flame_file.read(path)),
    "motion npz": Loader(_npz, lambda path, made: motion.Config(path).build(made), broken_zip),
    "insta": Loader(_insta, lambda path, _: importers.recognised(path.parents[1]), broken_zip),
    "vhap npz": Loader(_vhap("1.npz"), lambda path, _: importers.recognised(path.parent), broken_zip),
    "vhap json": Loader(_vhap("transforms.json"), lambda path, _: importers.recognised(path.parent)),
    "adnerf": Loader(_adnerf, lambda path, _: importers.recognised(path.parent)),
    "messages": Loader(_text("a.txt", MESSAGES), _messages),
    "state": Loader(_text("a.txt", STATE), lambda path, _: protocol.unpack_state(path.read_text("utf-8", "replace"))),
    "video": Loader(_video, _frames),
    "motion meta": Loader(_motion("meta.json"), lambda path, _: artifacts.load(Motion, path.parent)),
    "motion arrays": Loader(_motion("arrays.safetensors"), lambda path, _: artifacts.load(Motion, path.parent)),
    "motion csv": Loader(_csv, lambda path, made: motion.Config(path).build(made)),
    "motion json": Loader(_text("a.json", WEIGHTS), lambda path, made: motion.Config(path).build(made)),
    "flame npz": Loader(_flame_npz, lambda path, _: _flame_file.read(path), broken_zip),
    "gaussianavatars": Loader(_flame_param, lambda path, _: gaussianavatars.parameters(path, 12), broken_zip),
    "page": Loader(_page, lambda path, _: _import.read_avatar(path), broken_page),
    "settings": Loader(_text("a.yaml", SETTINGS), lambda path, _: _config.read(Settings, path)),
    "script": Loader(_text("a.yaml", SCRIPT), lambda path, _: script.read(path)),
    "sound": Loader(_sound, lambda path, _: media.sound(path)),
    "sound of video": Loader(_video, lambda path, _: media.sound(path)),
    "verify": Loader(_picture, lambda path, _: provenance.verify(path)),
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
    """Break files of one loader for so long, or until ten were findings."""
    loader, made = LOADERS[name], person()
    rng = random.Random(seed)
    findings: list[str] = []
    tried = 0
    with tempfile.TemporaryDirectory() as folder:
        path = loader.make(Path(folder), made)
        data = path.read_bytes()
        loader.read(path, made)  # the whole one must be read
        end, cpu = time.monotonic() + seconds, time.process_time()
        while time.monotonic() < end and len(findings) < 10:
            bad = loader.spoil(data, rng)
            path.write_bytes(bad)
            tried += 1
            found = attempt(loader, path, made)
            if found is not None:
                file = kept / f"{name.replace(' ', '_')}-{seed}-{tried}{path.suffix}"
                file.write_bytes(bad)
                findings.append(f"{file}:\n{found}")
        cpu = time.process_time() - cpu
    return Outcome(tried, cpu, findings)


def record(results: Path, name: str, outcome: Outcome, args: argparse.Namespace) -> None:
    """Put one loader's counts into the file."""
    known = json.loads(results.read_text())["loaders"] if results.exists() else {}
    row = {"seed": args.seed, "seconds": args.seconds, "cpu_seconds": round(outcome.cpu_s)}
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
    parser.add_argument("--seconds", type=float, default=600)
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
