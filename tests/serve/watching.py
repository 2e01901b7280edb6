"""Waiting for outcomes: what a busy machine delays is late, not wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


def until(holds: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    """The first array, or other value that is true; fails where none comes in a time that no machine needs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = holds()
        if isinstance(value, np.ndarray) or value:
            return value
        time.sleep(0.05)
    pytest.fail(f"waited {seconds} s in vain for {what}")
