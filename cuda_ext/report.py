"""Compiles the CUDA kernels for some compute capabilities and prints what each kernel takes.

    python cuda_ext/report.py 80 90

One line per kernel: registers, bytes of shared memory and bytes spilled, for each capability. Ends with an error where
nvcc fails or warns.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent
ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<arch>\d+)'.*?"
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def compile_one(source: Path, archs: list[str], folder: Path) -> str:
    """What nvcc and ptxas say about a source."""
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    flags = ["-O3", "-std=c++17", "-Xptxas", "-v", "-Werror", "all-warnings"]
    command = [os.environ.get("NVCC", "nvcc"), *flags, *targets, "-c", str(source), "-o", str(folder / source.stem)]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"{source}: {ran.stdout}{ran.stderr}")
    return ran.stdout + ran.stderr


def readable(name: str) -> str:
    """``blend_backward_kernel<1>`` from a mangled name."""
    match = re.search(r"\d([a-z_]+_kernel)(?:IL[ib](\d+)E)?", name)
    if match is None:
        return name
    return match[1] + (f"<{match[2]}>" if match[2] else "")


def main() -> None:
    """Compile, parse, print."""
    archs = sys.argv[1:] or ["90"]
    sources = sorted((ROOT / "cuda").glob("*.cu"))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        said = "".join(pool.map(lambda source: compile_one(source, archs, Path(folder)), sources))
    rows: dict[str, dict[str, str]] = {}
    for entry in ENTRY.finditer(said):
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        spilled = int(entry["stores"]) + int(entry["loads"])
        cell = f"{entry['registers']} / {shared[1] if shared else 0} / {spilled}"
        rows.setdefault(readable(entry["name"]), {})[entry["arch"]] = cell
    print(f"{'registers / shared bytes / spilled bytes':42}" + "".join(f"{'sm_' + arch:>18}" for arch in archs))
    for name, cells in sorted(rows.items()):
        print(f"{name:42}" + "".join(f"{cells.get(arch, '-'):>18}" for arch in archs))


if __name__ == "__main__":
    main()
