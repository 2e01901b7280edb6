"""The room's door: choice of backend, and what it says when something cannot run."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

import pytest
import torch
from render_scenes import make_cameras, make_splats

from gsth import render
from gsth.errors import BackendError, InputError
from gsth.render import _build, _library, native
from gsth.types import Mesh, RiggedSplats


def test_every_backend_says_whether_it_runs() -> None:
    reasons = render.backends()
    assert list(reasons) == ["native", "gsplat", "torch_ref"]
    assert reasons["torch_ref"] is None
    if not torch.cuda.is_available():
        assert "GPU" in str(reasons["gsplat"])


def test_backends_that_cannot_run_are_refused_with_the_reason() -> None:
    splats, cameras = make_splats(3), make_cameras(8, 8)
    with pytest.raises(BackendError, match="no render backend is called 'opengl'.*torch_ref"):
        render.render(splats, cameras, background=torch.zeros(3), backend="opengl")
    if not torch.cuda.is_available():
        with pytest.raises(BackendError, match="gsplat cannot run: .*GPU"):
            render.render(splats, cameras, background=torch.zeros(3), backend="gsplat")


def test_auto_takes_the_kernels_for_float32_and_the_definition_for_float64(caplog: pytest.LogCaptureFixture) -> None:
    render._announce.cache_clear()
    with caplog.at_level(logging.INFO, logger="gsth.render"):
        for _ in range(2):
            render.render(make_splats(3), make_cameras(8, 8), background=torch.zeros(3))
    expected = "torch_ref" if render.backends()["native"] else "native"
    assert [expected in r.message for r in caplog.records] == [True]  # said once
    double = make_splats(3, dtype=torch.float64), make_cameras(8, 8, dtype=torch.float64)
    assert render.render(*double, background=torch.zeros(3).double()).rgb.dtype == torch.float64


def test_without_kernels_all_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSTH_NO_NATIVE", "1")
    _library.find.cache_clear()
    try:
        assert "GSTH_NO_NATIVE" in str(render.backends()["native"])
        assert render.render(make_splats(3), make_cameras(8, 8), background=torch.zeros(3)).rgb.shape == (1, 8, 8, 3)
        assert render.l1_ssim_loss(torch.zeros(4, 4, 3), torch.ones(4, 4, 3), None, 0.0).item() == pytest.approx(1.0)
        mesh = Mesh(torch.rand(1, 3, 3), torch.tensor([[0, 1, 2]]))
        params = (torch.zeros(2, 3), torch.ones(2, 4), torch.zeros(2, 3), torch.zeros(2), torch.zeros(2, 1, 3))
        rigged = RiggedSplats(torch.zeros(2, dtype=torch.int64), *params)
        assert render.rig(rigged, mesh).opacities.tolist() == [0.5, 0.5]
        with pytest.raises(BackendError, match="GSTH_NO_NATIVE"):
            render.render(make_splats(3), make_cameras(8, 8), background=torch.zeros(3), backend="native")
    finally:
        _library.find.cache_clear()


@pytest.mark.parametrize(
    ("change", "message"),
    (
        ({"background": torch.zeros(4)}, "background: want"),
        ({"background": torch.zeros(3).double()}, "background: is torch.float64"),
        ({"splats": make_splats(3, 5)}, "sh: want 1, 4, 9 or 16"),
        ({"cameras": make_cameras(8, 8).replace(width=0)}, "cameras: want"),
    ),
)
def test_bad_input_is_named(change: dict[str, object], message: str) -> None:
    arguments = {"splats": make_splats(3), "cameras": make_cameras(8, 8), "background": torch.zeros(3)} | change
    with pytest.raises(InputError, match=message):
        render.render(**arguments)  # type: ignore[arg-type]


def test_loss_and_rig_check_their_shapes() -> None:
    image = torch.zeros(4, 4, 3)
    with pytest.raises(InputError, match="one shape"):
        render.l1_ssim_loss(image, torch.zeros(4, 5, 3))
    with pytest.raises(InputError, match="weight_map"):
        render.l1_ssim_loss(image, image, torch.zeros(4, 4, 1))
    params = (torch.zeros(1, 3), torch.ones(1, 4), torch.zeros(1, 3), torch.zeros(1), torch.zeros(1, 1, 3))
    with pytest.raises(InputError, match="1 frame"):
        render.rig(RiggedSplats(torch.zeros(1).long(), *params), Mesh(torch.rand(2, 3, 3), torch.tensor([[0, 1, 2]])))


@pytest.mark.slow
def test_first_use_compiles_into_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an install without a compiler, or after the sources changed."""
    root = _build.source_root()
    if root is None or native.unavailable(torch.device("cpu")):
        pytest.skip("needs the kernel sources and a compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(_build, "FLAGS", ("-O0", *_build.FLAGS[1:]))  # another build id: what is installed is stale
    _library.find.cache_clear()
    try:
        library = _library.find()
        assert not isinstance(library, str), library
        assert library.gsth_build_id().decode() == _build.build_id(root)
        assert [p.name for p in (tmp_path / "gsth").iterdir()] == [Path(library._name).name]
    finally:
        _library.find.cache_clear()


def test_a_missing_compiler_is_a_reason_and_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if _build.source_root() is None:
        pytest.skip("needs the kernel sources")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "/no/such/compiler")
    monkeypatch.setattr(_build, "FLAGS", ("-O1", *_build.FLAGS[1:]))
    _library.find.cache_clear()
    try:
        assert "install g++" in str(render.backends()["native"])
        monkeypatch.setattr(_build, "compiler", lambda: "false")
        with pytest.raises(subprocess.CalledProcessError):
            _build.compile_cpu(_build.source_root(), tmp_path / "k.so")
        assert not (tmp_path / "k.so").exists()
    finally:
        _library.find.cache_clear()
