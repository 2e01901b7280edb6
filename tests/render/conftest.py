"""Fixtures of the renderer's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from gsth.errors import BackendError
from gsth.render import native


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


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets torch's thread count for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
