"""What only the compiled CPU kernels promise, for every instruction set; test_backends.py has what all backends do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from render_scenes import FIELDS, in_double, make_cameras, make_splats, noise, run

from gsth.errors import InputError
from gsth.render import native, torch_ref
from gsth.types import Mesh, RiggedSplats

pytestmark = pytest.mark.usefixtures("instruction_set")


def test_a_picture_without_gradients_is_the_same() -> None:
    """Without a backward pass to follow the kernels keep no record of what they touched."""
    splats, cameras = make_splats(900, 4, size_m=0.2), make_cameras(50, 61)
    plain = native.render(splats, cameras, torch.ones(3))
    recorded = native.render(splats.replace(means=splats.means.requires_grad_()), cameras, torch.ones(3))
    assert torch.equal(plain.rgb, recorded.rgb) and torch.equal(plain.depth, recorded.depth)


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
