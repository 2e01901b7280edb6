"""Times our rasterizer, rig and loss against the plain-torch definition, side by side, on synthetic heads.

    python benchmarks/raster.py                     # the whole table; writes benchmarks/results/raster.json
    python benchmarks/raster.py --only 20k/512/0 --repeats 21 --no-reference

The scene is an ellipsoid shell with skin and hair splats that covers about half of the image. Implementations take
turns within one run, because a shared machine's speed drifts; the table gives medians, and minima in brackets.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from gsth import render
from gsth.render import native, torch_ref
from gsth.types import Cameras, Mesh, RiggedSplats, Splats

SCENES = ("20k/256/0", "20k/512/0", "60k/256/0", "60k/512/0", "20k/256/3", "60k/512/3", "100k/1024/0")
"""Splats / image size / SH degree."""
RESULTS = Path(__file__).parent / "results" / "raster.json"


@dataclass(frozen=True)
class Timing:
    """Wall times of one thing, ms."""

    scene: str
    what: str
    median_ms: float
    min_ms: float
    repeats: int


def head_scene(count: int, size: int, degree: int, seed: int = 0) -> tuple[Splats, Cameras]:
    """Splats on a head-sized ellipsoid shell before a camera at five units, as in the module's text."""
    g = torch.Generator().manual_seed(seed)
    normal = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=-1)
    axes = torch.tensor((0.62, 0.82, 0.70))
    hair = torch.rand(count, generator=g) < 0.2
    jitter = torch.randn(count, generator=g)
    radius = torch.where(hair, 1.04 + (0.05 * jitter).abs(), 1 + 0.01 * jitter)
    means = normal * axes * radius[:, None] + torch.tensor((0.0, 0.0, 5.0))
    spacing = (4 * torch.pi * 0.71**2 / count) ** 0.5
    sigma = 0.75 * spacing * torch.exp(0.5 * torch.randn(count, generator=g))
    sigma = sigma.clamp_max(0.08 / 6 * 5 / 2.5)
    second = sigma * (0.25 + 0.75 * torch.rand(count, generator=g))
    tilt = torch.nn.functional.normalize(normal + torch.tensor((0.0, 0.0, 1.0)), dim=-1)  # half-way to +z
    to_normal = torch.cat((torch.zeros(count, 1), tilt), -1)  # 180 degrees about it takes z to the normal
    angle = torch.pi * torch.rand(count, generator=g)
    spin = torch.stack((angle.cos(), 0 * angle, 0 * angle, angle.sin()), -1)
    sh = 0.05 * torch.randn(count, (degree + 1) ** 2, 3, generator=g)
    sh[:, 0] = normal
    splats = Splats(
        means=means,
        quats=torch_ref.math3d.quat_mul(to_normal, spin),
        scales=torch.stack((sigma, second, 0.15 * sigma), -1),
        opacities=torch.sigmoid(0.5 + 2 * torch.randn(count, generator=g)),
        sh=sh,
    )
    focal = 2.5 * size
    K = torch.tensor(((focal, 0, size / 2), (0, focal, size / 2), (0, 0, 1)))
    return splats, Cameras(viewmats=torch.eye(4)[None], Ks=K[None], width=size, height=size)


def interleaved(scene: str, works: dict[str, Callable[[], object]], repeats: int) -> list[Timing]:
    """Runs every work once to warm up, then all in turn."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if turn:
                times[name].append(1e3 * (time.perf_counter() - start))
    return [Timing(scene, name, statistics.median(t), min(t), repeats) for name, t in times.items()]


def raster_works(splats: Splats, cameras: Cameras, backends: dict[str, object]) -> dict[str, Callable[[], object]]:
    """Forward, and forward with backward, of each backend."""
    fields = ("means", "quats", "scales", "opacities", "sh")
    leaves = splats.replace(**{f: getattr(splats, f).clone().requires_grad_() for f in fields})
    background = torch.ones(3)
    v_rgb = torch.randn(1, cameras.height, cameras.width, 3, generator=torch.Generator().manual_seed(1))

    def forward(backend: str) -> None:
        with torch.no_grad():
            render.render(splats, cameras, background=background, backend=backend)

    def both(backend: str) -> None:
        rendered = render.render(leaves, cameras, background=background, backend=backend)
        torch.autograd.grad(rendered.rgb, [getattr(leaves, f) for f in fields], v_rgb)

    works: dict[str, Callable[[], object]] = {}
    for label, backend in backends.items():
        isa = label.partition(" ")[2]
        for what, work in (("fwd", forward), ("fwd+bwd", both)):
            works[f"{label} {what}"] = lambda work=work, backend=backend, isa=isa: (
                native.set_instruction_set(isa) if isa else None,
                work(backend),
            )
    return works


def list_statistics(splats: Splats, cameras: Cameras) -> dict[str, float]:
    """How many splats are seen, how large they are and how many (tile, splat) pairs they make."""
    rendered = render.render(splats, cameras, background=torch.ones(3), backend="native")
    args = (splats.means, splats.quats, splats.scales, splats.opacities, splats.sh)
    grad_px = torch.empty(len(splats.means))
    lists = native._raster(
        *args, cameras.viewmats[0], cameras.Ks[0], torch.ones(3), grad_px, cameras.width, cameras.height
    )
    hits = lists[9].numpy().view("uint64")
    radii = rendered.radii_px[rendered.radii_px > 0]
    return {
        "visible": len(radii),
        "median_radius_px": radii.median().item(),
        "covered": (rendered.alpha > 0.5).float().mean().item(),
        "tile_pairs": len(hits),
        "block_pairs": int(sum(bin(int(h)).count("1") for h in hits)),
    }


def part_works(count: int, size: int) -> dict[str, Callable[[], object]]:
    """Rig and loss, forward with backward, ours and plain torch."""
    g = torch.Generator().manual_seed(2)
    image = torch.rand(size, size, 3, generator=g).requires_grad_()
    target, weights = torch.rand(size, size, 3, generator=g), torch.rand(size, size, generator=g)
    faces = torch.randint(0, 15000, (30000, 3), generator=g)
    params: list[Tensor] = [torch.randn(count, d, generator=g).requires_grad_() for d in (3, 4, 3)]
    params.append(torch.randn(count, generator=g).requires_grad_())
    verts = torch.rand(1, 15000, 3, generator=g).requires_grad_()
    ids, sh = torch.randint(0, 30000, (count,), generator=g), torch.zeros(count, 1, 3)

    def loss(module: object) -> None:
        torch.autograd.grad(module.l1_ssim_loss(image, target, weights, 0.2), image)  # type: ignore[attr-defined]

    def rig(module: object) -> None:
        s = module.rig(RiggedSplats(ids, *params, sh), Mesh(verts, faces))  # type: ignore[attr-defined]
        out = (s.means, s.quats, s.scales, s.opacities)
        torch.autograd.grad(out, (verts, *params), [o.detach() for o in out])

    works: dict[str, Callable[[], object]] = {}
    for label, module in (("native", native), ("torch_ref", torch_ref)):
        works[f"{label} l1+ssim fwd+bwd"] = lambda module=module: loss(module)
        works[f"{label} rig fwd+bwd"] = lambda module=module: rig(module)
    return works


def machine() -> dict[str, object]:
    """What a figure depends on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = next(iter(names), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instruction_set": native.instruction_set(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(SCENES), help="scenes, as splats/size/degree")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--no-reference", action="store_true", help="leave torch_ref out (it takes seconds a pass)")
    parser.add_argument("--isas", nargs="*", default=[], help="also time these instruction sets of the kernels")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    best = native.instruction_set()
    report: dict[str, object] = {"machine": machine(), "scenes": {}, "timings": []}
    timings: list[Timing] = []
    for scene in args.only:
        count, size, degree = (int(part.replace("k", "000")) for part in scene.split("/"))
        splats, cameras = head_scene(count, size, degree)
        report["scenes"][scene] = list_statistics(splats, cameras)  # type: ignore[index]
        own = {f"native {isa}": "native" for isa in (best, *args.isas)}
        timings += interleaved(scene, raster_works(splats, cameras, own), args.repeats)
        if not args.no_reference:
            both = {f"native {best}": "native", "torch_ref": "torch_ref"}
            timings += [
                t for t in interleaved(scene, raster_works(splats, cameras, both), 2) if t.what.startswith("torch_ref")
            ]
        native.set_instruction_set(best)
    for size in (256, 512):
        timings += interleaved(f"20k/{size}", part_works(20000, size), args.repeats)
    report["timings"] = [asdict(t) for t in timings]
    print(json.dumps(report["machine"], indent=1))
    for t in timings:
        print(f"{t.scene:12} {t.what:32} {t.median_ms:9.2f} ms  ({t.min_ms:.2f})")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = args.out.with_suffix(".tmp")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    temporary.replace(args.out)


if __name__ == "__main__":
    main()
