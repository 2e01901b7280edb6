"""The CUDA kernels compiled for the CPU (cuda_ext/emulate): the same .cu files, run thread by thread."""

from __future__ import annotations

import ctypes
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gsth.render import _build, _cuda_library
from gsth.render._library import with_signatures

FLAGS = ("-O2", "-std=c++17", "-fPIC", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Werror")
# The checked longjmp of hardened builds takes a switch to another stack for an error.
FLAGS += ("-U_FORTIFY_SOURCE",)
CHECKS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1")
"""Reads and writes out of bounds end the process: .ci/run sets GSTH_EMULATED_CHECKS and preloads libasan."""


def compile_emulated(folder: Path) -> ctypes.CDLL:
    """Build and load the emulated library; skips nothing, raises CalledProcessError where g++ fails."""
    root = _build.source_root()
    assert root is not None
    return with_signatures(build(sorted(root.glob("cuda/*.cu")), folder), _cuda_library.SIGNATURES)


def build(sources: list[Path], folder: Path) -> ctypes.CDLL:
    """Some .cu files and the emulator as one library."""
    root = _build.source_root()
    assert root is not None
    checks = CHECKS if os.environ.get("GSTH_EMULATED_CHECKS") else ()

    def compile_one(source: Path) -> str:
        target = str(folder / f"{source.stem}.o")
        command = [_build.compiler(), *FLAGS, *checks, f"-I{root / 'emulate'}", "-x", "c++", "-c", str(source)]
        subprocess.run([*command, "-o", target], check=True, capture_output=True, text=True)
        return target

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, [*sources, root / "emulate" / "cuda_runtime.cpp"]))
    library = folder / f"{sources[0].stem}_emulated.so"
    subprocess.run([_build.compiler(), *checks, "-shared", *objects, "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))
