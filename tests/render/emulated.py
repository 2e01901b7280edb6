"""The CUDA kernels compiled for the CPU (cuda_ext/emulate): the same .cu files, run thread by thread."""

from __future__ import annotations

import ctypes
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gsth.render import _build, _cuda_library

FLAGS = ("-O2", "-std=c++17", "-fPIC", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Werror")
# The checked longjmp of hardened builds takes a switch to another stack for an error.
FLAGS += ("-U_FORTIFY_SOURCE",)


def compile_emulated(folder: Path) -> ctypes.CDLL:
    """Build and load the emulated library; skips nothing, raises CalledProcessError where g++ fails."""
    root = _build.source_root()
    assert root is not None
    sources = [*sorted(root.glob("cuda/*.cu")), root / "emulate" / "cuda_runtime.cpp"]

    def compile_one(source: Path) -> str:
        target = str(folder / f"{source.stem}.o")
        command = [_build.compiler(), *FLAGS, f"-I{root / 'emulate'}", "-x", "c++", "-c", str(source), "-o", target]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return target

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, sources))
    library = folder / "kernels_cuda_emulated.so"
    subprocess.run([_build.compiler(), "-shared", *objects, "-o", str(library)], check=True)
    return _cuda_library.open_library(library)
