"""Builds the compiled kernels; everything else about the package is in pyproject.toml.

The extensions are optional: without a compiler the install succeeds, and gsth compiles at first use or runs in torch.
GSTH_CUDA_ARCHS ("80 86 90") says for which GPUs to build the CUDA kernels; by default those of this machine.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent


def _recipe():
    """gsth/render/_build.py, loaded by path because importing gsth.render needs torch."""
    spec = importlib.util.spec_from_file_location("_gsth_build", ROOT / "gsth" / "render" / "_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildKernels(build_ext):
    """Calls the compiler directly: a plain C library needs no Python headers and no ABI tag in its name."""

    def get_ext_filename(self, fullname: str) -> str:
        """The library's path inside the package."""
        return os.path.join(*fullname.split(".")) + ".so"

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """None: the library is not a Python module."""
        return []

    def build_extension(self, ext: Extension) -> None:
        """Compile; on failure warn and go on."""
        out = Path(self.get_ext_fullpath(ext.name)).resolve()
        if not self.inplace and not self.editable_mode:
            # A wheel carries the sources too, so that a machine that cannot use this build can make its own.
            shutil.copytree(ROOT / "cuda_ext", out.parent / "_kernels_src", dirs_exist_ok=True)
        recipe = _recipe()
        try:
            if ext.name == CPU:
                recipe.compile_cpu(ROOT / "cuda_ext", out)
            elif archs := recipe.cuda_archs():
                recipe.compile_cuda(ROOT / "cuda_ext", out, archs)
        except (OSError, subprocess.CalledProcessError) as error:
            detail = (getattr(error, "stderr", None) or "").strip()[-2000:]
            self.warn(f"{ext.name} was not built ({error}); gsth will try again at first use. {detail}")


CPU, CUDA = "gsth._kernels_cpu", "gsth._kernels_cuda"


def _extension(name: str, pattern: str) -> Extension:
    sources = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "cuda_ext").glob(pattern))
    headers = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "cuda_ext").glob("*/*.*h"))
    return Extension(name, sources, depends=headers, optional=True)


setup(
    ext_modules=[_extension(CPU, "cpu/*.cpp"), _extension(CUDA, "cuda/*.cu")],
    cmdclass={"build_ext": BuildKernels},
)
