"""What runs on this machine, why the rest does not, and what to do about it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from gsth.errors import GsthError

MODULES = {
    "c2pa-python": "c2pa",
    "dlib-bin": "dlib",
    "hibari-tts": "hibari",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-video": "skvideo",
    "usd-core": "pxr",
}
"""Distributions whose module has another name than they have."""
SHOWN_EXTRAS = ("track", "audio", "voices", "viewer", "export", "eval", "trust", "scale", "gpu", "flame")
LOW_DISK_GB = 2.0
"""Tracking and training an 8 s clip at 512 px keep some hundred MB beside the avatar."""


@dataclass(frozen=True)
class Row:
    """One finding."""

    topic: str
    name: str
    fine: bool
    detail: str
    """What was found, or what to do."""


def check() -> list[Row]:
    """Look at everything that gsth can use. Never raises because of what is absent."""
    return [*_python(), *_kernels(), *_extras(), *_tracking(), *_media(), *_speech(), *_gpu(), *_disk()]


def table(rows: Sequence[Row]) -> str:
    """The findings as plain text, one line each."""
    topic, name = (max((len(getattr(r, field)) for r in rows), default=0) for field in ("topic", "name"))
    return "\n".join(f"{'ok' if r.fine else '--':2}  {r.topic:{topic}}  {r.name:{name}}  {r.detail}" for r in rows)


def licences() -> str:
    """What gsth ships and finds installed, under which licence, and what follows, as plain text."""
    from gsth import provenance

    return "\n".join(f"{one.part}\n    {one.licence}\n    {one.follows}" for one in provenance.licences())


def _python() -> Iterator[Row]:
    import torch

    yield Row("system", "python", True, f"{platform.python_version()} on {platform.platform()}")
    yield Row("system", "torch", True, f"{torch.__version__}, {torch.get_num_threads()} thread(s)")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Row("system", "cores", True, f"{cores} usable")
    absent = [name for name in _wanted("") if _installed(name) is None]
    if absent:
        yield Row("system", "core packages", False, f"missing {', '.join(absent)}; run: pip install gsth")


def _kernels() -> Iterator[Row]:
    from gsth import render

    for name, reason in render.backends().items():
        yield Row("render", name, reason is None, reason or "runs")


def _extras() -> Iterator[Row]:
    if _installed("gsth") is None:
        yield Row(
            "extra", "gsth", False, "runs from its sources, without its list of packages; run: pip install -e '.[all]'"
        )
        return
    for extra in SHOWN_EXTRAS:
        wanted = _wanted(extra)
        absent = [name for name in wanted if _installed(name) is None]
        present = ", ".join(f"{name} {_installed(name)}" for name in wanted if name not in absent)
        todo = f"missing {', '.join(absent)}; run: pip install 'gsth[{extra}]'"
        yield Row("extra", extra, not absent, todo if absent else present)


def _tracking() -> Iterator[Row]:
    """Which face detector is in use, and which FLAME models were read."""
    from gsth.head import flame
    from gsth.track.detectors import builtin

    have = _installed("mediapipe")
    if have is None:
        yield Row("track", "face detector", False, "none: mediapipe is missing; run: pip install 'gsth[track]'")
    else:
        try:
            builtin.solutions()
        except GsthError as error:
            yield Row("track", "face detector", False, str(error))
        except Exception as error:  # a broken install raises anything
            yield Row("track", "face detector", False, f"mediapipe {have} cannot be loaded ({error}); install it again")
        else:
            yield Row("track", "face detector", True, f"builtin: the models inside mediapipe {have}'s wheel, offline")
    read = flame.known()
    detail = (
        ", ".join(read) if read else "none read yet; with a file of yours: gsth track --head flame --flame-path FILE"
    )
    yield Row("track", "FLAME models", True, detail)


def _media() -> Iterator[Row]:
    import av

    for codec, use in (("libx264", "writes video"), ("aac", "writes its sound"), ("hevc", "reads phone videos")):
        have = codec in av.codec.codecs_available
        yield Row("media", codec, have, use if have else f"PyAV {av.__version__} lacks it; pip install --upgrade av")


def _speech() -> Iterator[Row]:
    if _installed("espeakng-loader") is None:
        yield Row("speech", "espeak-ng", False, "text cannot be spoken; run: pip install 'gsth[audio]'")
        return
    from gsth import speech

    try:
        count = len(tuple(speech.voices()))
    except (GsthError, OSError) as error:
        yield Row("speech", "espeak-ng", False, str(error))
    else:
        yield Row("speech", "espeak-ng", count > 0, f"{count} voices")


def _gpu() -> Iterator[Row]:
    import torch

    if torch.cuda.is_available():
        from gsth import render

        yield Row("gpu", torch.cuda.get_device_name(0), True, f"CUDA {torch.version.cuda}")
        reason = render.backends("cuda")["native"]
        yield Row("gpu", "own kernels", reason is None, reason or "run")
    else:
        built = "this torch was built without CUDA" if torch.version.cuda is None else "torch sees no CUDA device"
        yield Row("gpu", "none", False, f"{built}; everything runs on the CPU")


def _disk() -> Iterator[Row]:
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    few = free_gb < LOW_DISK_GB
    yield Row("disk", "here", not few, f"{free_gb:.1f} GB free" + ("; free some space before training" if few else ""))


def _wanted(extra: str) -> list[str]:
    """Names of the distributions that an extra asks for; those of the core for an empty name."""
    try:
        lines = requires("gsth") or []
    except PackageNotFoundError:
        return []
    mark = f'extra == "{extra}"' if extra else None
    chosen = [line for line in lines if (mark in line if mark else "extra ==" not in line)]
    names = ["".join(c if c.isalnum() or c in "-_." else " " for c in line.split(";")[0]).split()[0] for line in chosen]
    return sorted({*names} - {"gsth"})  # an extra may ask for another one of ours


def _installed(distribution: str) -> str | None:
    """Its version, or None where it is absent or lacks its module (a broken install)."""
    try:
        found = version(distribution)
    except PackageNotFoundError:
        return None
    module = MODULES.get(distribution, distribution.replace("-", "_"))
    return found if importlib.util.find_spec(module) is not None else None
