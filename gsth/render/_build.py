"""Compiles the CPU kernels; used by setup.py at install time and by native.py at first use. Standard library only."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
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
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for path in sorted((*root.glob("cpu/*"), *root.glob("include/*"))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def compile_cpu(root: Path, out: Path) -> None:
    """Build the shared library ``out`` from the sources under ``root``, whole or not at all.

    Raises:
        OSError: There is no compiler.
        subprocess.CalledProcessError: It failed; ``stderr`` says why.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        define = f'-DGSTH_BUILD_ID="{build_id(root)}"'

        def compile_one(source: Path) -> str:
            target = str(Path(temporary) / f"{source.stem}.o")
            _run([compiler(), *FLAGS, define, "-c", str(source), "-o", target])
            return target

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, sorted(root.glob("cpu/*.cpp"))))
        library = Path(temporary) / out.name
        _run([compiler(), "-shared", "-fopenmp", *objects, "-o", str(library)])
        os.replace(library, out)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
