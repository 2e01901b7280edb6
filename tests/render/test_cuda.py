"""The CUDA kernels against the definition: emulated on any machine, and on the GPU where there is one."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import small_work
import torch
from render_scenes import FIELDS, in_double, make_cameras, make_splats, noise, run
from test_native import rigged
from torch import Tensor

from gsth import avatar, head, render
from gsth.avatar import _train
from gsth.avatar._reel import Reel
from gsth.avatar._scene import Scene
from gsth.errors import BackendError, InputError
from gsth.render import _cuda_ops, cuda, native, torch_ref
from gsth.types import Cameras, Mesh, Splats

ORDERS = {"forward": 0, "backward": 1, "shuffled": 2}


def to(device: str, splats: Splats, cameras: Cameras) -> tuple[Splats, Cameras]:
    moved = Splats(*(getattr(splats, f).to(device) for f in FIELDS))
    return moved, cameras.replace(viewmats=cameras.viewmats.to(device), Ks=cameras.Ks.to(device))


def assert_agree(device: str, splats: Splats, cameras: Cameras, background: Tensor) -> None:
    """As in the suite for all backends, which has the common scenes; here are those that stress these kernels."""
    a, grads_a = run(cuda, *to(device, splats, cameras), background.to(device))
    b, grads_b = run(torch_ref, *in_double(splats, cameras), background.double())
    for name in ("rgb", "alpha", "depth", "means2d", "radii_px"):
        torch.testing.assert_close(getattr(a, name).cpu().double(), getattr(b, name), atol=1e-4, rtol=1e-4, msg=name)
    for name, want in grads_b.items():
        got = grads_a[name].cpu().double()
        assert got.isfinite().all(), name
        assert (got - want).norm() <= 1e-3 * want.norm() + 1e-7, f"{name}: {(got - want).norm() / want.norm()}"


def test_cameras_share_a_colour(cuda_device: str) -> None:
    assert_agree(cuda_device, make_splats(200, 4), make_cameras(40, 30, count=3), torch.rand(3))


def test_splats_over_more_tiles_than_a_thread_handles_alone(cuda_device: str) -> None:
    assert_agree(cuda_device, make_splats(40, size_m=1.5), make_cameras(100, 90), torch.rand(3))


@pytest.mark.parametrize("count", (2049, 5000))
def test_lists_that_do_not_fit_shared_memory(cuda_device: str, count: int) -> None:
    """Every splat in one tile, in random order of depth, some of equal depth."""
    splats = make_splats(count, size_m=0.01)
    narrow = splats.means * torch.tensor((0.2, 0.2, 1.0))
    splats = splats.replace(opacities=0.01 + 0.02 * splats.opacities, means=(narrow * 50).round() / 50)
    splats, cameras = to(cuda_device, splats, make_cameras(16, 16))
    background = torch.zeros(3, device=cuda_device)
    raster = _cuda_ops.raster(
        *(getattr(splats, f) for f in FIELDS),
        cameras.viewmats,
        cameras.Ks,
        background,
        torch.zeros(1, count),
        16,
        16,
        False,
    )
    firsts, keys = raster[8], raster[9]
    assert firsts[-1] == len(keys) > 0.9 * count
    assert torch.equal(keys, keys.unique(sorted=True))


def test_a_plate_that_is_not_finite_is_named_where_there_is_no_splat(cuda_device: str) -> None:
    splats, cameras = to(cuda_device, make_splats(0), make_cameras(40, 30))
    plate = torch.zeros(30, 40, 3, device=cuda_device)
    plate[29, 39, 2] = float("inf")
    with pytest.raises(InputError, match="^background: .*not finite"):
        cuda.render(splats, cameras, plate)


def test_wrong_dtype_device_and_gradients_of_intrinsics_are_refused(cuda_device: str) -> None:
    splats, cameras = to(cuda_device, make_splats(5), make_cameras(8, 8))
    background = torch.zeros(3, device=cuda_device)
    with pytest.raises(InputError, match="scales: .*float64"):
        cuda.render(splats.replace(scales=splats.scales.double()), cameras, background)
    with pytest.raises(InputError, match="Ks"):
        cuda.render(splats, cameras.replace(Ks=cameras.Ks.requires_grad_()), background)
    with pytest.raises(InputError, match="background: .*meta"):
        cuda.render(splats, cameras, background.to("meta"))


def test_strided_inputs_and_partial_losses(cuda_device: str) -> None:
    splats, cameras = to(cuda_device, make_splats(100), make_cameras(32, 32))
    background = torch.zeros(3, device=cuda_device)
    want = cuda.render(splats, cameras, background)
    transposed = splats.replace(means=splats.means.T.contiguous().T, quats=splats.quats.T.contiguous().T)
    assert torch.equal(cuda.render(transposed, cameras, background).rgb, want.rgb)
    for output in ("alpha", "depth"):
        got = []
        for module, dtype in ((cuda, torch.float32), (torch_ref, torch.float64)):
            s, c = (splats, cameras) if dtype == torch.float32 else in_double(splats, cameras)
            means = s.means.clone().requires_grad_()
            getattr(module.render(s.replace(means=means), c, background.to(dtype)), output).sum().backward()
            got.append(means.grad.double())
        assert (got[0] - got[1]).norm() < 1e-3 * got[1].norm()


@pytest.mark.parametrize("n", (0, 1, 300))
def test_rig_is_that_of_the_definition(cuda_device: str, n: int) -> None:
    splats, mesh = rigged(n)
    names = ("means_tri", "quats_tri", "log_scales", "logit_opacities")
    results = []
    for module, dtype, device in ((cuda, torch.float32, cuda_device), (torch_ref, torch.float64, "cpu")):
        verts = mesh.verts.to(device, dtype).clone().requires_grad_()
        params = {name: getattr(splats, name).to(device, dtype).clone().requires_grad_() for name in names}
        moved = splats.replace(sh=splats.sh.to(device, dtype), face_ids=splats.face_ids.to(device), **params)
        out = module.rig(moved, Mesh(verts, mesh.faces.to(device)))
        values = [getattr(out, f) for f in FIELDS[:4]]
        torch.stack([(v * noise(v, i)).sum() for i, v in enumerate(values)]).sum().backward()
        results.append([t.cpu() for t in (*values, verts.grad, *(p.grad for p in params.values()))])
    for got, want in zip(*results, strict=True):
        assert (got.double() - want).norm() <= 1e-5 * want.norm()


def test_rig_refuses_indices_that_do_not_exist(cuda_device: str) -> None:
    splats, mesh = rigged(10)
    params = ("means_tri", "quats_tri", "log_scales", "logit_opacities", "sh", "face_ids")
    splats = splats.replace(**{name: getattr(splats, name).to(cuda_device) for name in params})
    mesh = Mesh(mesh.verts.to(cuda_device), mesh.faces.to(cuda_device))
    with pytest.raises(InputError, match="face_ids"):
        cuda.rig(splats.replace(face_ids=splats.face_ids + 25), mesh)
    with pytest.raises(InputError, match="faces"):
        cuda.rig(splats, mesh.replace(faces=mesh.faces - 1))
    cuda.rig(splats, mesh)
    splats.face_ids[0] = -1  # known ids that change are looked at again
    with pytest.raises(InputError, match="face_ids"):
        cuda.rig(splats, mesh)


def test_frames_of_a_mesh_are_drawn_in_one_launch(cuda_device: str) -> None:
    """As one by one, in values and gradients."""
    splats, mesh = rigged(60)
    splats = splats.replace(log_scales=splats.log_scales - 3)
    g = torch.Generator().manual_seed(5)
    verts = mesh.verts[0] + 0.1 * torch.randn(3, 30, 3, generator=g) + torch.tensor((-0.5, -0.5, 1.5))
    names = ("means_tri", "quats_tri", "log_scales", "logit_opacities", "sh", "face_ids")
    splats = splats.replace(**{name: getattr(splats, name).to(cuda_device) for name in names})
    cameras = make_cameras(40, 32, 3)
    cameras = cameras.replace(viewmats=cameras.viewmats.to(cuda_device), Ks=cameras.Ks.to(cuda_device))
    faces, background = mesh.faces.to(cuda_device), torch.rand(3, generator=g).to(cuda_device)
    results = []
    for together in (True, False):
        leaves = {name: getattr(splats, name).clone().requires_grad_() for name in names[:5]}
        moving = verts.to(cuda_device).requires_grad_()
        own = splats.replace(**leaves)
        if together:
            rgb = cuda.render_frames(own, Mesh(moving, faces), cameras, background).rgb
        else:
            parts = []
            for t in range(3):
                one = cameras.replace(viewmats=cameras.viewmats[t : t + 1], Ks=cameras.Ks[t : t + 1])
                parts.append(cuda.render(cuda.rig(own, Mesh(moving[t : t + 1], faces)), one, background).rgb)
            rgb = torch.cat(parts)
        (rgb * noise(rgb, 1)).sum().backward()
        results.append([rgb.detach(), moving.grad, *(leaf.grad for leaf in leaves.values())])
    assert results[0][0].std() > 0.01
    assert torch.equal(results[0][0], results[1][0])
    for a, b in zip(*results, strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm()
    with pytest.raises(InputError, match="one camera per frame"):
        cuda.render_frames(splats, Mesh(verts[:2].to(cuda_device), faces), cameras, background)


@pytest.mark.parametrize("size", ((1, 1), (5, 3), (40, 67)))
@pytest.mark.parametrize("weighted", (False, True))
@pytest.mark.parametrize("ssim_weight", (0.0, 0.2, 1.0))
def test_loss_is_that_of_the_definition(
    cuda_device: str, size: tuple[int, int], weighted: bool, ssim_weight: float
) -> None:
    image, target = torch.rand(*size, 3), torch.rand(*size, 3)
    weights = torch.rand(size) if weighted else None
    results = []
    for module, dtype, device in ((cuda, torch.float32, cuda_device), (torch_ref, torch.float64, "cpu")):
        leaf = image.to(device, dtype).clone().requires_grad_()
        weight_map = None if weights is None else weights.to(device, dtype)
        loss = module.l1_ssim_loss(leaf, target.to(device, dtype), weight_map, ssim_weight)
        (3 * loss).backward()
        results.append((loss.item(), leaf.grad.cpu().double()))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-6)
    assert (results[0][1] - results[1][1]).norm() <= 1e-5 * results[1][1].norm()


def test_loss_without_weight_or_gradient(cuda_device: str) -> None:
    image, target = torch.rand(8, 8, 3, device=cuda_device), torch.rand(8, 8, 3, device=cuda_device)
    assert cuda.l1_ssim_loss(image, target, torch.zeros(8, 8, device=cuda_device), 0.2).item() == 0.0
    want = torch_ref.l1_ssim_loss(image.double(), target.double(), None, 0.2).item()
    assert cuda.l1_ssim_loss(image, target, None, 0.2).item() == pytest.approx(want, abs=1e-6)


def everything(device: str) -> list[Tensor]:
    """Pictures and gradients of a scene that uses all kernels."""
    splats, cameras = to(device, make_splats(300, 4, size_m=0.3), make_cameras(70, 50, 2))
    r, grads = run(cuda, splats, cameras, torch.full((3,), 0.5, device=device))
    image = r.rgb[0].detach().requires_grad_()
    loss = cuda.l1_ssim_loss(image, torch.full_like(image, 0.4), None, 0.2)
    loss.backward()
    results = [r.rgb, r.alpha, r.depth, *grads.values(), loss, image.grad]
    rigged_splats, mesh = rigged(300)
    verts = mesh.verts.to(device).requires_grad_()
    names = ("means_tri", "quats_tri", "log_scales", "logit_opacities", "sh", "face_ids")
    moved = rigged_splats.replace(**{name: getattr(rigged_splats, name).to(device) for name in names})
    posed = cuda.rig(moved, Mesh(verts, mesh.faces.to(device)))
    (posed.means.sum() + posed.scales.sum()).backward()
    return [t.detach().clone() for t in (*results, posed.means, posed.quats, verts.grad)]


def test_the_order_of_blocks_and_threads_does_not_change_a_bit(emulated: ctypes.CDLL) -> None:
    """What a missing barrier or a sum by atomics would break; on a GPU the order is never the same."""
    results = []
    try:
        for order in ORDERS.values():
            emulated.gsth_emulate_order(order)
            results.append(everything("cpu"))
    finally:
        emulated.gsth_emulate_order(0)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.gpu
def test_every_run_on_a_gpu_gives_the_same_bits() -> None:
    reason = cuda.unavailable(torch.device("cuda"))
    if reason is not None:
        pytest.skip(reason)
    first = everything("cuda")
    assert all(torch.equal(a, b) for _ in range(5) for a, b in zip(first, everything("cuda"), strict=True))


def test_too_small_buffers_are_noticed_and_grown(cuda_device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    splats, cameras = to(cuda_device, make_splats(400, size_m=0.3), make_cameras(64, 64))
    background = torch.rand(3, device=cuda_device)
    want, want_grads = run(cuda, splats, cameras, background)
    monkeypatch.setattr(_cuda_ops, "FIRST_PAIRS", 0.01)
    monkeypatch.setattr(_cuda_ops, "SPARE", 7)
    _cuda_ops.pairs_per_splat.clear()
    got, got_grads = run(cuda, splats, cameras, background)
    assert torch.equal(got.rgb, want.rgb)
    assert all(torch.equal(want_grads[name], got_grads[name]) for name in want_grads)
    # Captured, nobody may look; the picture is NaN, gradients are 0, and the room says that it was too small.
    _cuda_ops.pairs_per_splat.clear()
    with cuda.recording() as rooms:
        lost, lost_grads = run(cuda, splats, cameras, background)
    assert lost.rgb.isnan().all() and lost.alpha.isnan().all() and lost.depth.isnan().all()
    assert [room.fits() for room in rooms] == [False]
    assert not any(lost_grads[name].any() for name in (*FIELDS, "viewmats"))
    cuda.render(splats, cameras, background)
    with cuda.recording() as rooms:
        again = cuda.render(splats, cameras, background)
    assert [room.fits() for room in rooms] == [True]
    assert torch.equal(again.rgb, want.rgb)


def test_a_graphed_function_grows_with_its_inputs(cuda_device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if cuda_device == "cpu":  # a stand-in for graphs: what was captured runs again, with the buffers of the capture
        monkeypatch.setattr(cuda, "_on_a_side_stream", lambda run: run())
        monkeypatch.setattr(cuda, "_captured", captured_emulated)
    splats, cameras = to(cuda_device, make_splats(300), make_cameras(64, 64))
    background = torch.zeros(3, device=cuda_device)
    monkeypatch.setattr(_cuda_ops, "SPARE", 7)
    _cuda_ops.pairs_per_splat.clear()

    def picture(means: Tensor, scales: Tensor) -> Tensor:
        return cuda.render(splats.replace(means=means, scales=scales), cameras, background).rgb

    graphed = cuda.Graphed(picture, splats.means, splats.scales)
    for factor in (1.0, 0.8, 6.0, 6.0, 1.0):
        scales = splats.scales * factor
        assert torch.equal(graphed(splats.means, scales), picture(splats.means, scales))
    with pytest.raises(InputError, match="captured for"):
        graphed(splats.means, splats.scales[:5])
    with pytest.raises(InputError, match="scales: .*not finite"):
        graphed(splats.means, splats.scales * float("nan"))


def captured_emulated(function):  # type: ignore[no-untyped-def]
    ratios, rooms = dict(_cuda_ops.pairs_per_splat), _cuda_ops.recordings[-1]
    outputs, room = function(), rooms[0]

    def replay() -> None:
        grown = dict(_cuda_ops.pairs_per_splat)
        _cuda_ops.pairs_per_splat.clear()
        _cuda_ops.pairs_per_splat.update(ratios)
        with cuda.recording() as new:
            outputs.copy_(function())
        room.status.copy_(new[0].status)
        _cuda_ops.pairs_per_splat.update(grown)

    return replay, outputs


def test_sizes_beyond_the_kernels_are_refused(cuda_device: str) -> None:
    splats, cameras = to(cuda_device, make_splats(5), make_cameras(8, 8))
    with pytest.raises(BackendError, match="one launch"):
        cuda.render(splats, cameras.replace(width=70000), torch.zeros(3, device=cuda_device))


def test_operators_obey_torch(cuda_device: str) -> None:
    """Schema, autograd registration, fake tensors and ahead-of-time tracing (torch.library.opcheck)."""
    s, c = to(cuda_device, make_splats(40, 4), make_cameras(20, 18, 2))
    leaves = [getattr(s, f).clone().requires_grad_() for f in FIELDS]
    background, grad_px = torch.rand(3, device=cuda_device), torch.zeros(2, 40, device=cuda_device)
    args = (*leaves, c.viewmats, c.Ks, background, grad_px, c.width, c.height, False)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(_cuda_ops.raster, args, test_utils=checks)
    splats, mesh = rigged(12)
    params = [getattr(splats, f).to(cuda_device) for f in ("means_tri", "quats_tri", "log_scales", "logit_opacities")]
    leaves = [t.clone().requires_grad_() for t in (mesh.verts.to(cuda_device), *params)]
    ids, faces = splats.face_ids.to(cuda_device), mesh.faces.to(cuda_device)
    torch.library.opcheck(_cuda_ops.rig, (*leaves, ids, faces, cuda._owners(ids, faces, 30)))
    image = torch.rand(9, 9, 3, device=cuda_device).requires_grad_()
    torch.library.opcheck(_cuda_ops.l1_ssim, (image, torch.rand_like(image), None, 0.2, True))


def test_training_by_these_kernels_learns_what_the_processor_learns(
    emulated: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole steps: rig, picture, loss and all gradients."""
    track = small_work.track(tmp_path / "clip.mp4")
    config = small_work.config(steps=6, splats=300, max_splats=300, coarse_until=0.0, settle=1.0).avatar
    made = []
    for module in (native, cuda):
        monkeypatch.setattr(render, "_module", lambda *_, module=module: module)
        *_, done = avatar.train(track, config, tmp_path / module.__name__, 8)
        made.append(avatar.Avatar.load(done.path))
    start = _train._start(Scene.of(Reel.of(track, 8), head.load(), config, torch.device("cpu")), config)
    for name in ("means_tri", "log_scales", "sh"):
        ours, theirs = (getattr(a.splats, name) for a in made)
        moved = (ours - start.params[name].detach()).abs().mean()
        assert float(moved) > 1e-3 and float((ours - theirs).abs().mean()) < 0.02 * float(moved)
