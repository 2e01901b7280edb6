"""Broken files are read or refused, never more. The long run, and how files are broken: benchmarks/fuzz.py."""

from __future__ import annotations

import importlib.util
import random
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("c2pa", reason="needs the extra 'trust'")

ROOT = Path(__file__).resolve().parents[1]
CORPUS = sorted((ROOT / "tests" / "fuzz_corpus").iterdir())


def _module() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))  # its samples lie beside it
    spec = importlib.util.spec_from_file_location("fuzz", ROOT / "benchmarks" / "fuzz.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    sys.path.remove(str(ROOT / "benchmarks"))
    return module


fuzz = _module()


@pytest.fixture(scope="module")
def person() -> object:
    return fuzz.samples.person()


@pytest.mark.parametrize("name", fuzz.LOADERS)
def test_broken_files_are_read_or_refused(name: str, person: object, tmp_path: Path) -> None:
    loader = fuzz.LOADERS[name]
    path = loader.make(tmp_path, person)
    data = path.read_bytes()
    loader.read(path, person)  # the whole one is read

    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**32 - 1))
    def broken(seed: int) -> None:
        path.write_bytes(loader.spoil(data, random.Random(seed)))
        assert (found := fuzz.attempt(loader, path, person)) is None, found

    broken()


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_what_was_once_found_stays_mended(file: Path, person: object, tmp_path: Path) -> None:
    """Files that once raised something else than a GsthError, where the reader looks for them."""
    loader = fuzz.LOADERS[file.name.split("-")[0].replace("_", " ")]
    path = loader.make(tmp_path, person)
    assert path.suffix == file.suffix
    shutil.copy(file, path)
    assert (found := fuzz.attempt(loader, path, person)) is None, found


def test_a_finding_would_be_seen(person: object, tmp_path: Path) -> None:
    crash = fuzz.Loader(None, lambda path, made: {}["x"])
    assert "KeyError" in fuzz.attempt(crash, tmp_path, person)
