"""Compiles the kernels; for setup.py at install time and for first use. Imports the standard library only."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FLAGS = (
    "-O3",
    "-std=c++17",
    "-fPIC",
    "-fopenmp",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    # Both passes must take the same decisions at thresholds, so no compiler may fuse on its own.
    "-ffp-contract=off",
)
CUDA_FLAGS = ("-O3", "-std=c++17", "-Xcompiler", "-fPIC,-fvisibility=hidden")
_PACKAGE = Path(__file__).parents[1]


def source_root() -> Path | None:
    """Folder of the kernel sources: inside an installed package, or beside it in a checkout."""
    for root in (_PACKAGE / "_kernels_src", _PACKAGE.parent / "cuda_ext"):
        if (root / "cpu" / "abi.cpp").is_file():
            return root
    return None


def compiler() -> str:
    """The C++ compiler: the environment's CXX, or g++."""
    return os.environ.get("CXX", "g++")


def build_id(root: Path) -> str:
    """Hash over sources and flags; a library that reports another one is stale."""
    return _hash(FLAGS, (*root.glob("cpu/*"), *root.glob("include/*")))


def compile_cpu(root: Path, out: Path) -> None:
    """Build the shared library ``out`` from the sources under ``root``, whole or not at all.

    Raises:
        OSError: There is no compiler.
        subprocess.CalledProcessError: It failed; ``stderr`` says why.
    """
    define = f'-DGSTH_BUILD_ID="{build_id(root)}"'
    _compile([compiler(), *FLAGS, define], sorted(root.glob("cpu/*.cpp")), [compiler(), "-fopenmp"], out)


def nvcc() -> str:
    """The CUDA compiler: the environment's NVCC, or nvcc."""
    return os.environ.get("NVCC", "nvcc")


def cuda_archs() -> list[str]:
    """Compute capabilities to build for, as "90": GSTH_CUDA_ARCHS ("80 90"), or those of this machine's GPUs."""
    asked = os.environ.get("GSTH_CUDA_ARCHS")
    if asked is not None:
        return asked.replace(",", " ").replace(".", "").split()
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, check=True, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return sorted({line.strip().replace(".", "") for line in found.splitlines() if line.strip()})


def cuda_build_id(root: Path) -> str:
    """As ``build_id``, for the CUDA library; the architectures are not part of it."""
    return _hash(CUDA_FLAGS, (*root.glob("cuda/*"), *root.glob("include/*")))


def compile_cuda(root: Path, out: Path, archs: Sequence[str]) -> None:
    """Build the CUDA library ``out`` for the given compute capabilities, whole or not at all.

    Machine code for each, and code for the newest that the driver can compile for still newer GPUs.

    Raises:
        OSError: There is no nvcc.
        subprocess.CalledProcessError: It failed; ``stderr`` says why.
    """
    newest = max(archs, key=int)
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    targets.append(f"-gencode=arch=compute_{newest},code=compute_{newest}")
    define = f'-DGSTH_BUILD_ID="{cuda_build_id(root)}"'
    _compile([nvcc(), *CUDA_FLAGS, *targets, define], sorted(root.glob("cuda/*.cu")), [nvcc()], out)


def switched_off() -> bool:
    """Whether the environment asks to do without compiled kernels."""
    return os.environ.get("GSTH_NO_NATIVE", "0") not in ("", "0")


def _hash(flags: Sequence[str], paths: Iterable[Path]) -> str:
    digest = hashlib.sha256(" ".join(flags).encode())
    for path in sorted(paths):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _compile(command: list[str], sources: Sequence[Path], link: list[str], out: Path) -> None:
    """Sources to objects, side by side, then to the shared library ``out``."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:

        def compile_one(source: Path) -> str:
            target = str(Path(temporary) / f"{source.stem}.o")
            _run([*command, "-c", str(source), "-o", target])
            return target

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, sources))
        library = Path(temporary) / out.name
        _run([*link, "-shared", *objects, "-o", str(library)])
        os.replace(library, out)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
