"""The definition itself: closed forms where there are some, numeric gradients, memory bounds, conventions."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from render_scenes import FIELDS, make_cameras, make_splats

from gsth.render import torch_ref
from gsth.types import Cameras, Mesh, RiggedSplats, Splats


def single(opacity: float = 0.8, scale: float = 0.05, z: float = 2.0) -> Splats:
    return Splats(
        means=torch.tensor([[0.0, 0.0, z]]),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        scales=torch.full((1, 3), scale),
        opacities=torch.tensor([opacity]),
        sh=torch.tensor([[[1.0, 0.0, -1.0]]]),
    )


def straight(width: int, height: int, focal: float = 100.0) -> Cameras:
    K = torch.tensor(((focal, 0, width / 2), (0, focal, height / 2), (0, 0, 1)))
    return Cameras(torch.eye(4)[None], K[None], width, height)


def test_one_splat_has_its_closed_form() -> None:
    opacity, scale, z, focal = 0.8, 0.05, 2.0, 100.0
    r = torch_ref.render(single(opacity, scale, z), straight(41, 41, focal), torch.tensor([0.2, 0.4, 0.6]))
    variance = (focal * scale / z) ** 2 + 0.3
    xs = torch.arange(41) + 0.5 - 20.5
    squared = xs[None] ** 2 + xs[:, None] ** 2
    alpha = opacity * torch.exp(-0.5 * squared / variance)
    alpha = torch.where(alpha >= 1 / 255, alpha, 0)
    torch.testing.assert_close(r.alpha[0], alpha, atol=1e-6, rtol=1e-5)
    color = (0.28209479 * torch.tensor([1.0, 0.0, -1.0]) + 0.5).clamp_min(0)
    want = alpha[..., None] * color + (1 - alpha[..., None]) * torch.tensor([0.2, 0.4, 0.6])
    torch.testing.assert_close(r.rgb[0], want, atol=1e-6, rtol=1e-5)
    assert torch.equal(r.depth[0] > 0, alpha > 0)
    torch.testing.assert_close(r.depth[0][alpha > 0], torch.full_like(alpha[alpha > 0], z), atol=1e-5, rtol=1e-5)
    assert r.radii_px.item() == pytest.approx(math.sqrt(2 * math.log(255 * opacity) * variance), rel=1e-5)


def test_nearer_splats_cover_those_behind_whatever_their_order() -> None:
    near, far = single(0.7, z=1.0), single(0.9, z=3.0)
    far = far.replace(sh=torch.tensor([[[-1.0, 1.0, 0.5]]]))
    both = [Splats(*(torch.cat((getattr(a, f), getattr(b, f))) for f in FIELDS)) for a, b in ((near, far), (far, near))]
    first, second = (torch_ref.render(s, straight(9, 9), torch.zeros(3)) for s in both)
    torch.testing.assert_close(first.rgb, second.rgb)
    colors = [0.28209479 * s.sh[0, 0] + 0.5 for s in (near, far)]
    want = 0.7 * colors[0].clamp_min(0) + 0.3 * 0.9 * colors[1].clamp_min(0)
    torch.testing.assert_close(first.rgb[0, 4, 4], want, atol=1e-5, rtol=1e-4)
    assert first.depth[0, 4, 4].item() == pytest.approx((0.7 * 1 + 0.27 * 3) / 0.97, rel=1e-4)


def test_a_pixel_finishes_before_its_transmittance_falls_to_1e_4() -> None:
    layers = 40
    s = single(1.0)
    stack = Splats(*(getattr(s, f).repeat(layers, *[1] * (getattr(s, f).dim() - 1)) for f in FIELDS))
    stack = stack.replace(means=stack.means + torch.linspace(0, 1, layers)[:, None] * torch.tensor([0.0, 0.0, 1.0]))
    r = torch_ref.render(stack, straight(3, 3), torch.zeros(3))
    # Alpha is held at 0.99: one layer leaves 1e-2, and the second would leave 1e-4, so it is not drawn any more.
    assert r.alpha[0, 1, 1].item() == pytest.approx(0.99, abs=1e-6)


@pytest.mark.parametrize("scale", (0.04, 0.004, 0.002))
def test_antialiased_a_splats_light_goes_with_its_area_however_small(scale: float) -> None:
    """From 2 px to 0.1 px standard deviation; undisturbed by dilation, which alone holds its size up."""
    variance = (100 * scale / 2) ** 2
    soft, classic = (torch_ref.render(single(0.9, scale), straight(41, 41), torch.zeros(3), aa) for aa in (True, False))
    # What lies below 1/255 is cut off: of the faintest splat 8 %.
    assert soft.alpha.sum().item() == pytest.approx(0.9 * 2 * math.pi * variance, rel=0.1)
    assert soft.alpha[0, 20, 20].item() == pytest.approx(0.9 * variance / (variance + 0.3), rel=1e-4)
    assert classic.alpha[0, 20, 20].item() == pytest.approx(0.9, rel=1e-4)


@pytest.mark.parametrize(("bases", "antialiased"), ((1, False), (1, True), (4, False), (9, False), (16, False)))
def test_gradients_of_everything_are_right(bases: int, antialiased: bool) -> None:
    splats, cameras = make_splats(4, bases, torch.float64, 0.15), make_cameras(7, 6, dtype=torch.float64)
    background = torch.rand(6, 7, 3, dtype=torch.float64)

    def outputs(viewmats: torch.Tensor, plate: torch.Tensor, *fields: torch.Tensor) -> tuple[torch.Tensor, ...]:
        r = torch_ref.render(Splats(*fields), cameras.replace(viewmats=viewmats), plate, antialiased)
        return r.rgb, r.alpha, r.depth, r.means2d

    inputs = [cameras.viewmats, background, *(getattr(splats, f) for f in FIELDS)]
    leaves = [t.clone().requires_grad_() for t in inputs]
    assert torch.autograd.gradcheck(outputs, leaves, atol=1e-5, fast_mode=bases > 1)


def test_chunks_and_tiles_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    splats, cameras = make_splats(400), make_cameras(50, 45)
    whole = torch_ref.render(splats, cameras, torch.ones(3))
    monkeypatch.setattr(torch_ref, "_CHUNK", 7)
    monkeypatch.setattr(torch_ref, "_TILE_PX", 13)
    pieces = torch_ref.render(splats, cameras, torch.ones(3))
    torch.testing.assert_close(whole.rgb, pieces.rgb, atol=1e-5, rtol=0)


def test_grad_px_is_the_norm_of_the_gradient_of_means2d() -> None:
    splats, cameras = make_splats(20, dtype=torch.float64), make_cameras(30, 30, dtype=torch.float64)
    means = splats.means.clone().requires_grad_()
    r = torch_ref.render(splats.replace(means=means), cameras, torch.zeros(3, dtype=torch.float64))
    (r.means2d[0, 3] * torch.tensor([3.0, 4.0])).sum().backward()
    assert r.grad_px is not None
    assert r.grad_px[0, 3].item() == pytest.approx(5.0)
    assert r.grad_px.sum().item() == pytest.approx(5.0)


def test_rig_follows_a_rigid_motion_and_a_scale() -> None:
    verts = torch.rand(4, 3, dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [2, 1, 3]])
    n = 6
    rigged = RiggedSplats(
        torch.tensor([0, 1, 0, 1, 1, 0]),
        torch.randn(n, 3).double(),
        torch.randn(n, 4).double(),
        torch.randn(n, 3).double(),
        torch.randn(n).double(),
        torch.zeros(n, 1, 3).double(),
    )
    R = torch_ref.math3d.quat_to_mat(torch.tensor([0.3, 0.8, -0.2, 0.4], dtype=torch.float64))
    moved = 2.5 * verts @ R.T + torch.tensor([1.0, 2.0, 3.0])
    a, b = (torch_ref.rig(rigged, Mesh(v[None], faces)) for v in (verts, moved))
    torch.testing.assert_close(b.means, 2.5 * a.means @ R.T + torch.tensor([1.0, 2.0, 3.0]).double())
    torch.testing.assert_close(b.scales, 2.5 * a.scales)
    turned = [torch_ref.math3d.quat_to_mat(s.quats) for s in (a, b)]
    torch.testing.assert_close(turned[1], R @ turned[0])
    torch.testing.assert_close(a.opacities, b.opacities)


def test_triangle_frames_are_centroid_first_edge_normal_and_mean_size() -> None:
    verts = torch.tensor([[0.0, 0, 0], [4, 0, 0], [1, 2, 0]])
    origins, quats, sizes = torch_ref.triangle_frames(verts, torch.tensor([[0, 1, 2]]))
    torch.testing.assert_close(origins, torch.tensor([[5 / 3, 2 / 3, 0]]))
    columns = torch_ref.math3d.quat_to_mat(quats)[0].T
    torch.testing.assert_close(columns, torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), atol=1e-6, rtol=0)
    assert sizes.item() == pytest.approx(0.5 * (4 + 2))


def test_loss_agrees_with_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is a development package")
    a, b = torch.rand(40, 50, 3, dtype=torch.float64), torch.rand(40, 50, 3, dtype=torch.float64)
    _, full = metrics.structural_similarity(
        a.numpy(), b.numpy(), channel_axis=2, data_range=1, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    inner = torch.zeros(40, 50, dtype=torch.float64)
    inner[6:-6, 6:-6] = 1  # its border rule differs
    ours = torch_ref.l1_ssim_loss(a, b, inner, 1.0)
    # Its window is 11 wide as ours (truncate 3.5 at sigma 1.5).
    assert ours.item() == pytest.approx(1 - full[6:-6, 6:-6].mean(), abs=1e-9)
    assert torch_ref.l1_ssim_loss(a, b, None, 0.0).item() == pytest.approx((a - b).abs().mean().item())
    assert torch_ref.l1_ssim_loss(a, a, None, 0.2).item() == pytest.approx(0.0, abs=1e-12)


def test_projection_is_gsplats() -> None:
    """Centres, conics, depths, compensation and colours: splats and cameras can be swapped between the two."""
    package = importlib.util.find_spec("gsplat")
    if package is None:
        pytest.skip("gsplat is not installed")
    path = Path(str(package.origin)).parent / "cuda" / "_torch_impl.py"
    spec = importlib.util.spec_from_file_location("gsplat_torch_impl", path)
    gsplat = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gsplat)  # the package itself would compile its CUDA sources
    splats, cameras = make_splats(60, 16, torch.float64, 0.03), make_cameras(70, 50, dtype=torch.float64)
    ours, soft = (torch_ref.project(splats, cameras.viewmats[0], cameras.Ks[0], (70, 50), aa) for aa in (False, True))
    covars, _ = gsplat._quat_scale_to_covar_preci(splats.quats, splats.scales, compute_preci=False)
    _, means2d, depths, conics, compensations = gsplat._fully_fused_projection(
        splats.means, covars, cameras.viewmats, cameras.Ks, 70, 50, calc_compensations=True
    )
    torch.testing.assert_close(ours.means2d, means2d[0, ours.ids])
    torch.testing.assert_close(ours.depths, depths[0, ours.ids])
    torch.testing.assert_close(ours.conics, conics[0, ours.ids], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(soft.opacities, (splats.opacities * compensations[0])[soft.ids], rtol=1e-6, atol=1e-9)
    eye = torch.linalg.inv(cameras.viewmats[0])[:3, 3]
    colors = (gsplat._spherical_harmonics(3, splats.means - eye, splats.sh) + 0.5).clamp_min(0)
    torch.testing.assert_close(ours.colors, colors[ours.ids])
