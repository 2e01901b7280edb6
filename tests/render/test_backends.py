"""Every backend against the definition in float64, on scenes that all share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

import pytest
import torch
from render_scenes import DEGENERATE, FIELDS, degenerate, in_double, make_cameras, make_splats, run
from torch import Tensor

from gsth.errors import BackendError, InputError
from gsth.render import cuda, gsplat, native, torch_ref
from gsth.types import Cameras, Splats


@dataclass(frozen=True)
class Backend:
    """One backend on one device."""

    module: ModuleType
    device: str
    exact: bool = True
    """Ours. gsplat holds alpha at 0.999 instead of 0.99, cuts boxes in its own way and checks no values."""

    def there(self, coin: Any) -> Any:
        """The coin with its tensors on the device."""
        tensors = {f.name: getattr(coin, f.name) for f in fields(coin)}
        return coin.replace(**{n: t.to(self.device) for n, t in tensors.items() if isinstance(t, Tensor)})

    def skip_unless_exact(self) -> None:
        """For scenes and promises at the edge of the definition."""
        if not self.exact:
            pytest.skip("only for our own backends")

    def assert_agree(self, splats: Splats, cameras: Cameras, background: Tensor, antialiased: bool = False) -> None:
        """Values to 1e-4 and gradients to 1e-3 (gsplat, with opacities that it does not clamp: ten times that)."""
        if not self.exact:
            splats = splats.replace(opacities=splats.opacities.clamp_max(0.98))
        scene = (self.there(splats), self.there(cameras), background.to(self.device))
        a, grads_a = run(self.module, *scene, antialiased)
        b, grads_b = run(torch_ref, *in_double(splats, cameras), background.double(), antialiased)
        slack = 1 if self.exact else 10
        for name in ("rgb", "alpha", "depth", "means2d", "radii_px") if self.exact else ("rgb", "alpha", "depth"):
            got = getattr(a, name).double().cpu()
            torch.testing.assert_close(got, getattr(b, name), atol=1e-4 * slack, rtol=1e-4 * slack, msg=name)
        for name, want in grads_b.items():
            got = grads_a[name].double().cpu()
            assert got.isfinite().all(), name
            bound = 1e-3 * slack * want.norm() + 1e-7
            assert (got - want).norm() <= bound, f"{name}: {(got - want).norm() / want.norm()}"


CHOICES = (
    *(f"native-{isa}" for isa in ("avx512", "avx2", "plain")),
    "cuda-emulated",
    "torch_ref",
    *(pytest.param(f"{name}-cuda", marks=pytest.mark.gpu) for name in ("cuda", "torch_ref", "gsplat")),
)


@pytest.fixture(params=CHOICES)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Every backend that runs here; the kernels with every instruction set of this CPU, those for GPUs emulated."""
    name, _, detail = request.param.partition("-")
    module = {"native": native, "cuda": cuda, "torch_ref": torch_ref, "gsplat": gsplat}[name]
    if detail == "emulated":
        request.getfixturevalue("emulated")
    device = "cuda" if detail == "cuda" else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no NVIDIA GPU")
    reason = module.unavailable(torch.device(device))
    if reason is not None:
        pytest.skip(reason)
    best = native.instruction_set() if name == "native" and device == "cpu" else None
    if best is not None:
        try:
            native.set_instruction_set(detail)
        except BackendError as error:
            pytest.skip(str(error))
    yield Backend(module, device, exact=name != "gsplat")
    if best is not None:
        native.set_instruction_set(best)


@pytest.mark.parametrize(
    ("n", "bases", "width", "height"), ((200, 1, 70, 53), (400, 4, 64, 64), (300, 9, 37, 70), (300, 16, 71, 33))
)
def test_values_and_gradients_are_those_of_the_definition(
    backend: Backend, n: int, bases: int, width: int, height: int
) -> None:
    background = torch.rand(height, width, 3) if bases == 4 else torch.rand(3)
    backend.assert_agree(make_splats(n, bases), make_cameras(width, height), background)


def test_antialiased_is_that_of_the_definition(backend: Backend) -> None:
    """With splats from far below a pixel to many pixels."""
    backend.assert_agree(make_splats(400, 4, size_m=0.02), make_cameras(50, 61), torch.rand(3), antialiased=True)


def test_several_cameras(backend: Backend) -> None:
    backend.assert_agree(make_splats(200, 4), make_cameras(40, 30, count=3), torch.rand(30, 40, 3))


def test_lists_longer_than_a_chunk_and_dense_layers(backend: Backend) -> None:
    """More entries per tile than are handled at once, many of them behind finished pixels."""
    splats = make_splats(700, size_m=0.3)
    backend.assert_agree(
        splats.replace(opacities=splats.opacities.clamp_min(0.3)), make_cameras(40, 40), torch.zeros(3)
    )


@pytest.mark.parametrize("n", (0, 1, 17))
@pytest.mark.parametrize("size", ((1, 1), (1, 40), (33, 1)))
def test_few_splats_and_tiny_images(backend: Backend, n: int, size: tuple[int, int]) -> None:
    backend.assert_agree(make_splats(n), make_cameras(*size), torch.rand(3))


@pytest.mark.parametrize("antialiased", (False, True))
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_scenes(backend: Backend, name: str, antialiased: bool) -> None:
    backend.skip_unless_exact()
    cameras = make_cameras(31, 29)
    cameras = cameras.replace(viewmats=torch.eye(4)[None])  # camera z is exactly the world's
    backend.assert_agree(degenerate(name), cameras, torch.rand(3), antialiased)


@pytest.mark.parametrize("field", (*FIELDS, "viewmats", "Ks", "background"))
@pytest.mark.parametrize("value", (float("nan"), float("inf")))
def test_a_tensor_that_is_not_finite_is_named(backend: Backend, field: str, value: float) -> None:
    backend.skip_unless_exact()
    splats, cameras, background = make_splats(50, 4), make_cameras(16, 16), torch.rand(3)
    tensors = {f: getattr(splats, f) for f in FIELDS}
    tensors |= {"viewmats": cameras.viewmats, "Ks": cameras.Ks, "background": background}
    tensors[field].view(-1)[-1] = value
    with pytest.raises(InputError, match=f"^{field}: .*not finite"):
        backend.module.render(*(backend.there(part) for part in (splats, cameras)), background.to(backend.device))
