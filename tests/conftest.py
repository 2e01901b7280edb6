"""What all tests share: seeds, threads, and the recorded clips where they are."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

CLIPS = Path(__file__).resolve().parents[2] / "shared" / "clips"
EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Two threads, as on the machines that the time limits are meant for; one in each process of ``pytest -n 2``.

    Before and after every test: what one leaves behind must not round another's sums differently.
    """
    import torch

    count = max(1, 2 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(count)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets torch's thread count for one test."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Shells start background jobs deaf to Ctrl+C, and programs inherit that; those that tests start must hear it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _config_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Signing keys are made here, and not in the user's own folder; programs that tests start inherit it."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Every test starts from the same random numbers, in whatever order they run."""
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def clips() -> Path:
    """Folder of recorded clips; a test that asks for it is skipped where it is absent."""
    if not CLIPS.is_dir():
        pytest.skip(
            f"needs recorded clips of people, which are not part of the repository (looked in ../{CLIPS.parent.name})"
        )
    return CLIPS


@pytest.fixture(scope="session")
def launch_chromium() -> Iterator[Callable[[list[str]], Any]]:
    """Starts a browser with the given flags. One playwright for all tests: a process can have only one at a time."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is absent: pip install 'gsth[dev]'")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with sync_api.sync_playwright() as p:
        yield lambda flags: p.chromium.launch(executable_path=program, args=flags)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], ModuleType]]:
    """Makes docs/examples/NAME.py a plug-in of a room, by the entry point that another package would declare."""
    from gsth import registry

    def install(room: str, name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        declared = EntryPoint(name, f"{spec.name}:Config", f"gsth.{room}")
        monkeypatch.setattr(
            registry,
            "entry_points",
            lambda group: [*entry_points(group=group), *[declared] * (declared.group == group)],
        )
        registry.names.cache_clear()
        return module

    yield install
    registry.names.cache_clear()
