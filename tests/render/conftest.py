"""Fixtures of the renderer's tests."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Iterator

import pytest
import torch
from emulated import compile_emulated

from gsth.errors import BackendError
from gsth.render import _build, _cuda_library, cuda, native


@pytest.fixture(params=("avx512", "avx2", "plain"))
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set that this CPU has; the best is restored."""
    reason = native.unavailable(torch.device("cpu"))
    if reason is not None:
        pytest.skip(reason)
    best = native.instruction_set()
    try:
        native.set_instruction_set(request.param)
    except BackendError as error:
        pytest.skip(str(error))
    yield request.param
    native.set_instruction_set(best)


@pytest.fixture(scope="session")
def emulated_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The CUDA kernels for the CPU, compiled once."""
    if _build.source_root() is None or shutil.which(_build.compiler()) is None:
        pytest.skip("needs the kernel sources and a compiler")
    return compile_emulated(tmp_path_factory.mktemp("emulated"))


@pytest.fixture
def emulated(emulated_library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL:
    """CUDA kernels run emulated, on CPU tensors, for one test."""
    monkeypatch.setattr(_cuda_library, "find", lambda: emulated_library)
    monkeypatch.setattr(cuda, "DEVICE", "cpu")
    return emulated_library


@pytest.fixture(params=("emulated", pytest.param("cuda", marks=pytest.mark.gpu)))
def cuda_device(request: pytest.FixtureRequest) -> str:
    """Where tensors for the CUDA kernels go: the CPU, with the kernels emulated, and a GPU where there is one."""
    if request.param == "emulated":
        request.getfixturevalue("emulated")
        return "cpu"
    reason = cuda.unavailable(torch.device("cuda"))
    if reason is not None:
        pytest.skip(reason)
    return "cuda"
