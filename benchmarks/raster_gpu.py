"""Times the CUDA kernels against gsplat on synthetic heads, on an NVIDIA GPU, in turns within one run.

    python benchmarks/raster_gpu.py                     # everything; prints a table, writes results/raster_gpu.json
    python benchmarks/raster_gpu.py --only 20k/512/0    # splats / image size / SH degree

Each work is timed from the call to the finished picture, as the caller waits for it (wall), and between two events on
the GPU (device). Peers: gsplat's rasterization() unpacked, its inference renderer (HiGS) with the repacking that a
moving head needs at every frame, and for training gsplat with plain-torch rig and loss (or fused-ssim where installed)
and torch's fused Adam. What is not installed is named and left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from raster import head_scene
from torch import Tensor

from gsth import head
from gsth.render import cuda, torch_ref
from gsth.types import Cameras, Identity, Mesh, Motion, RiggedSplats, Splats

SCENES = ("20k/512/0", "60k/512/0", "100k/512/0", "150k/512/0", "20k/1024/0", "60k/1024/0", "150k/1024/0", "60k/512/3")
RESULTS = Path(__file__).parent / "results" / "raster_gpu.json"
FIELDS = ("means", "quats", "scales", "opacities", "sh")
BATCH = 8
Work = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Medians of one thing, ms."""

    scene: str
    what: str
    wall_ms: float
    device_ms: float
    repeats: int


def interleaved(scene: str, works: dict[str, Work], repeats: int) -> list[Timing]:
    """Three rounds to warm up, then all works in turn."""
    wall: dict[str, list[float]] = {name: [] for name in works}
    device: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 3):
        for name, work in works.items():
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            start = time.perf_counter()
            begin.record()
            work()
            end.record()
            torch.cuda.synchronize()
            if turn >= 3:
                wall[name].append(1e3 * (time.perf_counter() - start))
                device[name].append(begin.elapsed_time(end))
    median = statistics.median
    return [Timing(scene, name, median(wall[name]), median(device[name]), repeats) for name in works]


def gsplat_rgb(splats: Splats, cameras: Cameras) -> Tensor:
    """One call of gsplat, unpacked, white behind: as gsth.render.gsplat, without depth."""
    import gsplat

    degree = {1: 0, 4: 1, 9: 2, 16: 3}[splats.sh.shape[1]]
    white = splats.means.new_ones(len(cameras.Ks), 3)
    rgb, _, _ = gsplat.rasterization(
        *(getattr(splats, f) for f in FIELDS), cameras.viewmats, cameras.Ks, cameras.width, cameras.height,
        near_plane=0.01, eps2d=0.3, sh_degree=degree, packed=False, backgrounds=white,
    )  # fmt: skip
    return rgb


def higs_work(splats: Splats, cameras: Cameras) -> Work:
    """gsplat's inference renderer, the scene packed anew each time because a moving head changes it each time."""
    from gsplat.experimental.render.kernels.gaussian_inference_ops import gaussian_render_inference_only
    from gsplat.scene.functional.gaussian_inference import pack_gaussian_inference_scene
    from gsplat.scene.sh_compression import SHCompressionMode

    degree, mode = {1: 0, 4: 1, 9: 2, 16: 3}[splats.sh.shape[1]], SHCompressionMode.NONE
    fields, white = [getattr(splats, f) for f in FIELDS], splats.means.new_ones(3)

    def work() -> object:
        with torch.inference_mode():
            packed = pack_gaussian_inference_scene(*fields, degree, mode)
            size = (cameras.width, cameras.height, degree, 8)
            how = (0.01, 1e10, 0.0, 0.3, mode, white)
            return gaussian_render_inference_only(*packed, cameras.viewmats[0], cameras.Ks[0], *size, *how)

    return work


def raster_works(splats: Splats, cameras: Cameras, peers: set[str]) -> dict[str, Work]:
    """Inference, and forward with backward."""
    white = splats.means.new_ones(3)
    leaves = splats.replace(**{f: getattr(splats, f).clone().requires_grad_() for f in FIELDS})
    v_rgb = torch.randn(1, cameras.height, cameras.width, 3, device="cuda")

    def picture(*fields: Tensor) -> Tensor:
        return cuda.render(Splats(*fields), cameras, white).rgb

    def both(rgb: Tensor) -> object:
        return torch.autograd.grad(rgb, [getattr(leaves, f) for f in FIELDS], v_rgb)

    fields = [getattr(splats, f) for f in FIELDS]
    graphed = cuda.Graphed(picture, *fields)
    works: dict[str, Work] = {
        "gsth graph, fwd": lambda: graphed(*fields),
        "gsth eager, fwd": torch.no_grad()(lambda: picture(*fields)),
        "gsth eager, fwd+bwd": lambda: both(cuda.render(leaves, cameras, white).rgb),
    }
    if "gsplat" in peers:
        works["gsplat, fwd"] = torch.no_grad()(lambda: gsplat_rgb(splats, cameras))
        works["gsplat, fwd+bwd"] = lambda: both(gsplat_rgb(leaves, cameras))
    if "higs" in peers:
        works["gsplat HiGS with packing, fwd"] = higs_work(splats, cameras)
    return works


@dataclass(frozen=True)
class Actor:
    """Splats on the built-in head, cameras before it, and motion to drive it."""

    rigged: RiggedSplats
    shaped: head.ShapedHead
    motion: Motion
    cameras: Cameras

    @staticmethod
    def make(count: int, size: int, bases: int) -> Actor:
        """On random triangles, a third of a triangle in size."""
        model = head.load()
        g = torch.Generator().manual_seed(0)
        tensors = {name: v.cuda() for name, v in vars(model).items() if isinstance(v, Tensor)}
        model = type(model)(**{**vars(model), **tensors})
        shaped = model.shaped(Identity(model.id, torch.zeros(len(model.shape_basis), device="cuda"), None))
        joints = torch.zeros(BATCH, len(model.pivots), 4)
        joints[..., 0] = 1
        place = torch.tensor((1.0, 0, 0, 0, 0, 0, 0)).repeat(BATCH, 1)
        expr = 0.3 * torch.rand(BATCH, len(model.expr_basis), generator=g)
        motion = Motion(model.id, 25.0, expr.cuda(), joints.cuda(), place.cuda())
        params = [0.3 * torch.randn(count, d, generator=g) for d in (3, 4, 3)]
        params[1][:, 0] += 1
        params[2] -= 1.2
        rigged = RiggedSplats(
            torch.randint(0, len(model.faces), (count,), generator=g).cuda(), *(p.cuda() for p in params),
            torch.randn(count, generator=g).cuda(), torch.randn(count, bases, 3, generator=g).cuda(),
        )  # fmt: skip
        verts = shaped.rest
        centre, span = (verts.amax(0) + verts.amin(0)) / 2, (verts.amax(0) - verts.amin(0)).amax()
        viewmat = torch.eye(4, device="cuda")  # the model frame is y down, the face towards -z
        viewmat[:3, 3] = -centre
        viewmat[2, 3] += 2.5 * span
        K = torch.tensor(((2.5 * size, 0, size / 2), (0, 2.5 * size, size / 2), (0, 0, 1.0)), device="cuda")
        cameras = Cameras(viewmat.repeat(BATCH, 1, 1), K.repeat(BATCH, 1, 1), size, size)
        return Actor(rigged, shaped, motion, cameras)

    def view(self, count: int) -> Cameras:
        """The first cameras."""
        return self.cameras.replace(viewmats=self.cameras.viewmats[:count], Ks=self.cameras.Ks[:count])


def frame_works(actor: Actor, peers: set[str]) -> dict[str, Work]:
    """Head parameters to pictures: one frame, and eight at once."""
    white, motion = torch.ones(3, device="cuda"), actor.motion

    def pictures(expr: Tensor, joints: Tensor) -> Tensor:
        moved = Motion(motion.head, motion.fps, expr, joints, motion.T_world_head[: len(expr)])
        return cuda.render_frames(actor.rigged, actor.shaped.posed(moved), actor.view(len(expr)), white).rgb

    def peer(frames: int) -> object:
        with torch.no_grad():
            for t in range(frames):
                gsplat_rgb(torch_ref.rig(actor.rigged, actor.shaped.posed(motion[t])), actor.view(1))

    one, eight = (motion.expr[:1], motion.joints[:1]), (motion.expr, motion.joints)
    graphed_one, graphed_eight = cuda.Graphed(pictures, *one), cuda.Graphed(pictures, *eight)
    works: dict[str, Work] = {
        "gsth graph, head parameters to picture": lambda: graphed_one(*one),
        f"gsth graph, {BATCH} frames in one launch": lambda: graphed_eight(*eight),
    }
    if "gsplat" in peers:
        works["torch rig + gsplat, head parameters to picture"] = lambda: peer(1)
        works[f"torch rig + gsplat, {BATCH} calls"] = lambda: peer(BATCH)
    return works


def training_works(actor: Actor, peers: set[str]) -> dict[str, Work]:
    """A whole step: rig, picture, L1 + SSIM, backward, Adam."""
    white, cameras = torch.ones(3, device="cuda"), actor.view(1)
    mesh = Mesh(actor.shaped.posed(actor.motion[0]).verts, actor.shaped.model.faces)
    target = torch.rand(cameras.height, cameras.width, 3, device="cuda")
    names = ("means_tri", "quats_tri", "log_scales", "logit_opacities", "sh")

    def start() -> tuple[RiggedSplats, torch.optim.Adam]:
        leaves = {name: getattr(actor.rigged, name).clone().requires_grad_() for name in names}
        return actor.rigged.replace(**leaves), torch.optim.Adam(leaves.values(), 1e-4, fused=True, capturable=True)

    def step(rigged: RiggedSplats, adam: torch.optim.Adam, loss_of: Callable[[RiggedSplats], Tensor]) -> None:
        adam.zero_grad(set_to_none=True)
        loss_of(rigged).backward()
        adam.step()

    def ours(rigged: RiggedSplats) -> Tensor:
        return cuda.l1_ssim_loss(cuda.render(cuda.rig(rigged, mesh), cameras, white).rgb[0], target, None, 0.2)

    def theirs(rigged: RiggedSplats) -> Tensor:
        image = gsplat_rgb(torch_ref.rig(rigged, mesh), cameras)[0]
        if "fused-ssim" not in peers:
            return torch_ref.l1_ssim_loss(image, target, None, 0.2)
        from fused_ssim import fused_ssim

        planes = [t.movedim(-1, 0)[None].contiguous() for t in (image, target)]
        return 0.8 * (image - target).abs().mean() + 0.2 * (1 - fused_ssim(*planes))

    eager = start()
    works: dict[str, Work] = {
        "gsth graph, training step": captured_step(start(), lambda s: step(*s, ours)),
        "gsth eager, training step": lambda: step(*eager, ours),
    }
    if "gsplat" in peers:
        peer = start()
        ssim = "fused-ssim" if "fused-ssim" in peers else "torch SSIM"
        works[f"torch rig + gsplat + {ssim} + fused Adam, training step"] = lambda: step(*peer, theirs)
    return works


def captured_step(state: tuple[RiggedSplats, torch.optim.Adam], step: Callable[..., None]) -> Work:
    """A training step as one CUDA graph; says so where its buffers do not suffice."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(state)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with cuda.recording() as rooms, torch.cuda.graph(graph):
        step(state)

    def work() -> None:
        graph.replay()
        if not all([room.fits() for room in rooms]):
            raise SystemExit("the captured training step outgrew its buffers")

    return work


def list_statistics(splats: Splats, cameras: Cameras) -> dict[str, float]:
    """How many splats are seen, and how long the tiles' lists are."""
    from gsth.render import _cuda_ops

    fields = [getattr(splats, f) for f in FIELDS]
    white, grad_px = splats.means.new_ones(3), splats.means.new_zeros(1, len(splats.means))
    how = (cameras.width, cameras.height, False)
    out = _cuda_ops.raster(*fields, cameras.viewmats, cameras.Ks, white, grad_px, *how)
    lengths = out[8].diff()
    return {
        "visible": int((out[4] > 0).sum()),
        "covered": (out[1] > 0.5).float().mean().item(),
        "tile_pairs": len(out[9]),
        "longest_list": int(lengths.max()),
        "mean_list": lengths[lengths > 0].float().mean().item(),
    }


def found_peers() -> set[str]:
    """Which of the rivals are installed."""
    have = {name for name, module in (("gsplat", "gsplat"), ("fused-ssim", "fused_ssim")) if _installed(module)}
    if "gsplat" in have and _installed("gsplat.experimental.render.kernels.gaussian_inference_ops"):
        have.add("higs")
    for name in sorted({"gsplat", "higs", "fused-ssim"} - have):
        print(f"not installed, left out: {name}")
    return have


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def machine() -> dict[str, object]:
    """What a figure depends on."""
    properties = torch.cuda.get_device_properties(0)
    versions = {}
    if _installed("gsplat"):
        from importlib.metadata import version

        versions["gsplat"] = version("gsplat")
    return {
        "gpu": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        **versions,
    }


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(SCENES), help="scenes, as splats/size/degree")
    parser.add_argument("--repeats", type=int, default=51)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    reason = cuda.unavailable(torch.device("cuda"))
    if reason is not None:
        raise SystemExit(f"cannot run: {reason}")
    peers, timings, scenes = found_peers(), [], {}
    for scene in args.only:
        count, size, degree = (int(part.replace("k", "000")) for part in scene.split("/"))
        splats, cameras = head_scene(count, size, degree)
        splats = Splats(*(getattr(splats, f).cuda() for f in FIELDS))
        cameras = cameras.replace(viewmats=cameras.viewmats.cuda(), Ks=cameras.Ks.cuda())
        scenes[scene] = list_statistics(splats, cameras)
        timings += interleaved(scene, raster_works(splats, cameras, peers), args.repeats)
        actor = Actor.make(count, size, (degree + 1) ** 2)
        timings += interleaved(scene, frame_works(actor, peers) | training_works(actor, peers), args.repeats)
    report = {"machine": machine(), "scenes": scenes, "timings": [asdict(t) for t in timings]}
    print(json.dumps(report["machine"], indent=1))
    for t in timings:
        print(f"{t.scene:12} {t.what:60} {t.wall_ms:9.3f} ms  (device {t.device_ms:.3f})")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = args.out.with_suffix(".tmp")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    temporary.replace(args.out)


if __name__ == "__main__":
    main()
