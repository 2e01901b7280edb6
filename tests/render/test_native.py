"""The compiled kernels against the definition, for every instruction set that this CPU has."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from render_scenes import DEGENERATE, FIELDS, degenerate, make_cameras, make_splats
from torch import Tensor

from gsth.errors import InputError
from gsth.render import native, torch_ref
from gsth.types import Cameras, Mesh, Rendered, RiggedSplats, Splats

pytestmark = pytest.mark.usefixtures("instruction_set")


def noise(like: Tensor, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(like.shape, generator=g).to(like.dtype) - 0.3


def run(
    module: object, splats: Splats, cameras: Cameras, background: Tensor, antialiased: bool = False
) -> tuple[Rendered, dict[str, Tensor]]:
    """Everything rendered, and the gradient of everything for a loss on all outputs."""
    leaves = {f: getattr(splats, f).clone().requires_grad_() for f in FIELDS}
    leaves |= {"background": background.clone().requires_grad_(), "viewmats": cameras.viewmats.clone().requires_grad_()}
    fields = [leaves[f] for f in FIELDS]
    posed = cameras.replace(viewmats=leaves["viewmats"])
    r = module.render(Splats(*fields), posed, leaves["background"], antialiased)  # type: ignore[attr-defined]
    outputs = (r.rgb, r.alpha, r.depth, 0.01 * r.means2d[r.radii_px > 0])
    torch.stack([(o * noise(o, i)).sum() for i, o in enumerate(outputs)]).sum().backward()
    grads = {name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for name, leaf in leaves.items()}
    return r, grads | {"grad_px": r.grad_px}


def in_double(splats: Splats, cameras: Cameras) -> tuple[Splats, Cameras]:
    double = Splats(*(getattr(splats, f).double() for f in FIELDS))
    return double, cameras.replace(viewmats=cameras.viewmats.double(), Ks=cameras.Ks.double())


def assert_agree(splats: Splats, cameras: Cameras, background: Tensor, antialiased: bool = False) -> None:
    a, grads_a = run(native, splats, cameras, background, antialiased)
    b, grads_b = run(torch_ref, *in_double(splats, cameras), background.double(), antialiased)
    for name in ("rgb", "alpha", "depth", "means2d", "radii_px"):
        torch.testing.assert_close(getattr(a, name).double(), getattr(b, name), atol=1e-4, rtol=1e-4, msg=name)
    for name, want in grads_b.items():
        got = grads_a[name].double()
        assert got.isfinite().all(), name
        assert (got - want).norm() <= 1e-3 * want.norm() + 1e-7, f"{name}: {(got - want).norm() / want.norm()}"


@pytest.mark.parametrize(
    ("n", "bases", "width", "height"), ((200, 1, 70, 53), (400, 4, 64, 64), (300, 9, 37, 70), (300, 16, 71, 33))
)
def test_values_and_gradients_are_those_of_the_definition(n: int, bases: int, width: int, height: int) -> None:
    background = torch.rand(height, width, 3) if bases == 4 else torch.rand(3)
    assert_agree(make_splats(n, bases), make_cameras(width, height), background)


def test_antialiased_is_that_of_the_definition() -> None:
    """With splats from far below a pixel to many pixels."""
    assert_agree(make_splats(400, 4, size_m=0.02), make_cameras(50, 61), torch.rand(3), antialiased=True)


def test_a_picture_without_gradients_is_the_same() -> None:
    """Without a backward pass to follow the kernels keep no record of what they touched."""
    splats, cameras = make_splats(900, 4, size_m=0.2), make_cameras(50, 61)
    plain = native.render(splats, cameras, torch.ones(3))
    recorded = native.render(splats.replace(means=splats.means.requires_grad_()), cameras, torch.ones(3))
    assert torch.equal(plain.rgb, recorded.rgb) and torch.equal(plain.depth, recorded.depth)


def test_several_cameras() -> None:
    assert_agree(make_splats(200, 4), make_cameras(40, 30, count=3), torch.rand(30, 40, 3))


def test_lists_longer_than_a_chunk_and_dense_layers() -> None:
    """More entries per tile than are handled at once, many of them behind finished pixels."""
    splats = make_splats(700, size_m=0.3)
    assert_agree(splats.replace(opacities=splats.opacities.clamp_min(0.3)), make_cameras(40, 40), torch.zeros(3))


@pytest.mark.parametrize("n", (0, 1, 17))
@pytest.mark.parametrize("size", ((1, 1), (1, 40), (33, 1)))
def test_few_splats_and_tiny_images(n: int, size: tuple[int, int]) -> None:
    assert_agree(make_splats(n), make_cameras(*size), torch.rand(3))


@pytest.mark.parametrize("antialiased", (False, True))
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_scenes(name: str, antialiased: bool) -> None:
    cameras = make_cameras(31, 29)
    cameras = cameras.replace(viewmats=torch.eye(4)[None])  # camera z is exactly the world's
    assert_agree(degenerate(name), cameras, torch.rand(3), antialiased)


@pytest.mark.parametrize("field", (*FIELDS, "viewmats", "Ks", "background"))
@pytest.mark.parametrize("value", (float("nan"), float("inf")))
@pytest.mark.parametrize("module", (native, torch_ref), ids=("native", "torch_ref"))
def test_a_tensor_that_is_not_finite_is_named(field: str, value: float, module: object) -> None:
    splats, cameras, background = make_splats(50, 4), make_cameras(16, 16), torch.rand(3)
    tensors = {f: getattr(splats, f) for f in FIELDS}
    tensors |= {"viewmats": cameras.viewmats, "Ks": cameras.Ks, "background": background}
    tensors[field].view(-1)[-1] = value
    with pytest.raises(InputError, match=f"^{field}: .*not finite"):
        module.render(splats, cameras, background)  # type: ignore[attr-defined]


def test_thread_count_does_not_change_a_bit(threads: Callable[[int], None]) -> None:
    splats, cameras, results = make_splats(5000, 4), make_cameras(90, 80), []
    for count in (1, 2, 3):
        threads(count)
        r, grads = run(native, splats, cameras, torch.rand(3, generator=torch.Generator().manual_seed(0)))
        results.append([r.rgb, r.alpha, r.depth, *grads.values()])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_wrong_dtype_and_gradients_of_intrinsics_are_refused() -> None:
    splats, cameras = make_splats(5), make_cameras(8, 8)
    with pytest.raises(InputError, match="scales: .*float64"):
        native.render(splats.replace(scales=splats.scales.double()), cameras, torch.zeros(3))
    with pytest.raises(InputError, match="Ks"):
        native.render(splats, cameras.replace(Ks=cameras.Ks.requires_grad_()), torch.zeros(3))


def test_strided_inputs_and_partial_losses() -> None:
    """Views are read right, and a loss on alpha or depth alone, or on a part of the inputs, works."""
    splats, cameras = make_splats(100), make_cameras(32, 32)
    want = native.render(splats, cameras, torch.zeros(3))
    transposed = splats.replace(means=splats.means.T.contiguous().T, quats=splats.quats.T.contiguous().T)
    torch.testing.assert_close(native.render(transposed, cameras, torch.zeros(3)).rgb, want.rgb)
    for output in ("alpha", "depth"):
        got = []
        for module, dtype in ((native, torch.float32), (torch_ref, torch.float64)):
            s, c = (splats, cameras) if dtype == torch.float32 else in_double(splats, cameras)
            means = s.means.clone().requires_grad_()
            getattr(module.render(s.replace(means=means), c, torch.zeros(3, dtype=dtype)), output).sum().backward()
            got.append(means.grad.double())
        assert (got[0] - got[1]).norm() < 1e-3 * got[1].norm()


def rigged(n: int) -> tuple[RiggedSplats, Mesh]:
    g = torch.Generator().manual_seed(3)
    faces = torch.stack([torch.randperm(30, generator=g)[:3] for _ in range(25)])
    sizes = ((n, 3), (n, 4), (n, 3), (n,), (n, 1, 3))
    params = [torch.randn(size, generator=g) for size in sizes]
    ids, verts = torch.randint(0, 25, (n,), generator=g), torch.rand(1, 30, 3, generator=g)
    return RiggedSplats(ids, *params), Mesh(verts, faces)


@pytest.mark.parametrize("n", (0, 1, 300))
def test_rig_is_that_of_the_definition(n: int) -> None:
    splats, mesh = rigged(n)
    names = ("means_tri", "quats_tri", "log_scales", "logit_opacities")
    results = []
    for module, dtype in ((native, torch.float32), (torch_ref, torch.float64)):
        verts = mesh.verts.to(dtype).clone().requires_grad_()
        params = {name: getattr(splats, name).to(dtype).clone().requires_grad_() for name in names}
        out = module.rig(splats.replace(sh=splats.sh.to(dtype), **params), mesh.replace(verts=verts))
        values = [getattr(out, f) for f in FIELDS[:4]]
        torch.stack([(v * noise(v, i)).sum() for i, v in enumerate(values)]).sum().backward()
        results.append([*values, verts.grad, *(p.grad for p in params.values())])
    for got, want in zip(*results, strict=True):
        assert (got.double() - want).norm() <= 1e-5 * want.norm()


def test_rig_refuses_faces_that_do_not_exist() -> None:
    splats, mesh = rigged(10)
    with pytest.raises(InputError, match="face_ids"):
        native.rig(splats.replace(face_ids=splats.face_ids + 25), mesh)
    with pytest.raises(InputError, match="faces"):
        native.rig(splats, mesh.replace(faces=mesh.faces + 30))


def test_rig_survives_triangles_without_area() -> None:
    splats, mesh = rigged(50)
    verts = torch.zeros_like(mesh.verts).requires_grad_()
    out = native.rig(splats, mesh.replace(verts=verts))
    (out.means.sum() + out.quats.sum() + out.scales.sum()).backward()
    assert verts.grad.isfinite().all()
    assert not out.scales.any()


@pytest.mark.parametrize("size", ((1, 1), (5, 3), (40, 67)))
@pytest.mark.parametrize("weighted", (False, True))
@pytest.mark.parametrize("ssim_weight", (0.0, 0.2, 1.0))
def test_loss_is_that_of_the_definition(size: tuple[int, int], weighted: bool, ssim_weight: float) -> None:
    image, target = torch.rand(*size, 3), torch.rand(*size, 3)
    weights = torch.rand(size) if weighted else None
    results = []
    for module, dtype in ((native, torch.float32), (torch_ref, torch.float64)):
        leaf = image.to(dtype).clone().requires_grad_()
        loss = module.l1_ssim_loss(leaf, target.to(dtype), None if weights is None else weights.to(dtype), ssim_weight)
        (3 * loss).backward()
        results.append((loss.detach().double(), leaf.grad.double()))
    assert results[0][0].item() == pytest.approx(results[1][0].item(), abs=1e-6)
    assert (results[0][1] - results[1][1]).norm() <= 1e-5 * results[1][1].norm()


def test_loss_without_weight_anywhere_is_zero() -> None:
    loss = native.l1_ssim_loss(torch.rand(8, 8, 3), torch.rand(8, 8, 3), torch.zeros(8, 8), 0.2)
    assert loss.item() == 0.0


def test_operators_obey_torch() -> None:
    """Schema, autograd registration, fake tensors and ahead-of-time tracing (torch.library.opcheck)."""
    s, c = make_splats(40, 4), make_cameras(20, 18)
    leaves = [getattr(s, f).clone().requires_grad_() for f in FIELDS]
    args = (*leaves, c.viewmats[0], c.Ks[0], torch.rand(3), torch.zeros(40), c.width, c.height, True, True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(native._raster, args, test_utils=checks)
    splats, mesh = rigged(12)
    params = [getattr(splats, f) for f in ("means_tri", "quats_tri", "log_scales", "logit_opacities")]
    leaves = [t.clone().requires_grad_() for t in (mesh.verts[0], *params)]
    torch.library.opcheck(native._rig, (*leaves, splats.face_ids, mesh.faces))
    image = torch.rand(9, 9, 3).requires_grad_()
    torch.library.opcheck(native._l1_ssim, (image, torch.rand(9, 9, 3), None, 0.2, True))
