"""Times the CPU kernels side by side with their peers: raster, rig, loss, training step and a trained avatar's frame.

    python benchmarks/raster.py                          # the whole table; writes benchmarks/results/raster.json
    python benchmarks/raster.py --avatar me.avatar       # also a trained avatar and its per-frame pipeline
    python benchmarks/raster.py --scenes 20k/512/0 --repeats 21 --peer-repeats 0

The scene is an ellipsoid shell with skin and hair splats that covers about half of the image. Implementations take
turns within one run, because a shared machine's speed drifts; the table gives medians, and minima in brackets. Peers
are the definition in plain torch and, where gsplat is installed, its torch reference completed for the CPU
(``_gsplat_cpu.py``).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

import _gsplat_cpu
import torch
from torch import Tensor

from gsth import math3d, render
from gsth.avatar import Avatar
from gsth.render import _library, native, torch_ref
from gsth.types import Cameras, Mesh, RiggedSplats, Splats

SCENES = ("20k/256/0", "20k/512/0", "60k/512/0", "20k/512/3", "60k/512/3", "100k/512/0", "100k/1024/0")
"""Splats / image size / SH degree."""
PEER_SCENES = ("20k/256/0", "20k/512/0", "60k/512/0")
"""Where the slow peers are run too."""
FIELDS = ("means", "quats", "scales", "opacities", "sh")
RESULTS = Path(__file__).parent / "results" / "raster.json"
Works = dict[str, Callable[[], object]]


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
        quats=math3d.quat_mul(to_normal, spin),
        scales=torch.stack((sigma, second, 0.15 * sigma), -1),
        opacities=torch.sigmoid(0.5 + 2 * torch.randn(count, generator=g)),
        sh=sh,
    )
    focal = 2.5 * size
    K = torch.tensor(((focal, 0, size / 2), (0, focal, size / 2), (0, 0, 1)))
    return splats, Cameras(viewmats=torch.eye(4)[None], Ks=K[None], width=size, height=size)


def interleaved(scene: str, works: Works, repeats: int) -> list[Timing]:
    """Runs every work once to warm up, then all in turn."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if turn:
                times[name].append(1e3 * (time.perf_counter() - start))
    return [Timing(scene, name, statistics.median(t), min(t), repeats) for name, t in times.items()]


def with_threads(threads: int, work: Callable[[], object]) -> Callable[[], None]:
    """The work on so many threads; the setting is restored after it."""

    def run() -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        work()
        torch.set_num_threads(before)

    return run


def raster_works(splats: Splats, cameras: Cameras) -> Works:
    """Forward, and forward with backward, of ours and of the peers."""
    leaves = splats.replace(**{f: getattr(splats, f).clone().requires_grad_() for f in FIELDS})
    background = torch.ones(3)
    v_rgb = torch.randn(cameras.height, cameras.width, 3, generator=torch.Generator().manual_seed(1))

    def ours(backend: str) -> Callable[[Splats], Tensor]:
        return lambda s: render.render(s, cameras, background=background, backend=backend).rgb[0]

    draws = {"native": ours("native"), "torch_ref": ours("torch_ref")}
    if _gsplat_cpu.reference() is not None:
        draws["gsplat torch"] = lambda s: _gsplat_cpu.render(s, cameras, background)[0]
    works: Works = {}
    for label, draw in draws.items():

        def forward(draw: Callable[[Splats], Tensor] = draw) -> None:
            with torch.no_grad():
                draw(splats)

        def both(draw: Callable[[Splats], Tensor] = draw) -> None:
            torch.autograd.grad(draw(leaves), [getattr(leaves, f) for f in FIELDS], v_rgb)

        works |= {f"{label} fwd": forward, f"{label} fwd+bwd": both}
    return works


def scaling_works(works: Works, threads: int) -> Works:
    """Ours on one thread, and on as many as there are."""
    own = {name: work for name, work in works.items() if name.startswith("native")}
    return own | {f"{name}, 1 thread": with_threads(1, work) for name, work in own.items()} if threads > 1 else own


def isa_works(works: Works, isas: list[str]) -> Works:
    """Ours with other instruction sets than the best."""

    def switched(isa: str, work: Callable[[], object]) -> None:
        best = native.instruction_set()
        native.set_instruction_set(isa)
        work()
        native.set_instruction_set(best)

    return {
        f"{name}, {isa}": lambda isa=isa, work=work: switched(isa, work)
        for isa in isas
        for name, work in works.items()
        if name.startswith("native")
    }


def list_statistics(splats: Splats, cameras: Cameras) -> dict[str, float]:
    """How many splats are seen, how large they are, how many pairs they make and what memory the lists take."""
    rendered = render.render(splats, cameras, background=torch.ones(3), backend="native")
    args = [getattr(splats, f) for f in FIELDS]
    view = (cameras.viewmats[0], cameras.Ks[0], torch.ones(3), torch.empty(len(splats.means)))
    lists = native._raster(*args, *view, cameras.width, cameras.height, False, True)[5:]
    hits = lists[-1].numpy().view("uint64")
    radii = rendered.radii_px[rendered.radii_px > 0]
    return {
        "visible": len(radii),
        "median_radius_px": radii.median().item(),
        "covered": (rendered.alpha > 0.5).float().mean().item(),
        "tile_pairs": len(hits),
        "longest_list": int(lists[3].diff().max()),
        "block_pairs": int(sum(bin(int(h)).count("1") for h in hits)),
        "lists_mb": sum(t.numel() * t.element_size() for t in lists) / 1e6,
        "slot_gradients_mb": len(hits) * native._SLOT_FLOATS * 4 / 1e6,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


STAGES = {"gsth_project": "project", "gsth_blend": "sort, bin and blend", "gsth_backward": "backward"}


def stages(scene: str, splats: Splats, cameras: Cameras, repeats: int) -> list[Timing]:
    """Where the time of forward with backward goes: inside the library's calls, and outside of them (Python, torch)."""
    library = _library.kernels()
    spent: dict[str, float] = {}
    rows: dict[str, list[float]] = {label: [] for label in (*STAGES.values(), "outside the library")}

    class Timed:
        """The library, with a clock around its calls."""

        def __getattr__(self, name: str) -> object:
            def call(*args: object) -> object:
                start = time.perf_counter()
                result = getattr(library, name)(*args)
                spent[name] = spent.get(name, 0.0) + 1e3 * (time.perf_counter() - start)
                return result

            return call

    work = raster_works(splats, cameras)["native fwd+bwd"]
    timed = Timed()
    for _ in range(repeats + 1):
        spent.clear()
        with mock.patch.object(_library, "kernels", lambda: timed):
            start = time.perf_counter()
            work()
            whole = 1e3 * (time.perf_counter() - start)
        for name, label in STAGES.items():
            rows[label].append(spent[name])
        rows["outside the library"].append(whole - sum(spent[name] for name in STAGES))
    return [Timing(scene, f"stage: {w}", statistics.median(t[1:]), min(t[1:]), repeats) for w, t in rows.items()]


def head_mesh(rows: int = 70, columns: int = 140) -> tuple[Mesh, Callable[[Tensor], Tensor]]:
    """An ellipsoid of 2 * rows * columns triangles under the splats, and the triangle that faces a direction [n 3]."""
    theta, phi = torch.meshgrid(
        torch.linspace(0.01, torch.pi - 0.01, rows + 1), torch.linspace(-torch.pi, torch.pi, columns + 1), indexing="ij"
    )
    normal = torch.stack((theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()), -1).reshape(-1, 3)
    verts = normal * torch.tensor((0.62, 0.82, 0.70)) + torch.tensor((0.0, 0.0, 5.0))
    i, j = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    corner = (i * (columns + 1) + j).reshape(-1)
    quads = torch.stack((corner, corner + columns + 1, corner + 1, corner + columns + 2), -1)
    faces = torch.stack((quads[:, [0, 1, 2]], quads[:, [1, 3, 2]]), 1).reshape(-1, 3)

    def face_of(directions: Tensor) -> Tensor:
        row = (directions[:, 2].clamp(-1, 1).acos() / torch.pi * rows).long().clamp(0, rows - 1)
        turn = torch.atan2(directions[:, 1], directions[:, 0]) / (2 * torch.pi) + 0.5
        return 2 * (row * columns + (turn * columns).long().clamp(0, columns - 1))

    return Mesh(verts[None], faces), face_of


def rigged_scene(count: int, size: int) -> tuple[RiggedSplats, Mesh, Cameras]:
    """The synthetic head bound to an ellipsoid mesh: carried by its triangles, the splats lie where they were."""
    splats, cameras = head_scene(count, size, 0)
    mesh, face_of = head_mesh()
    ids = face_of(torch.nn.functional.normalize(splats.means - torch.tensor((0.0, 0.0, 5.0)), dim=-1))
    origins, quats, sizes = (part[ids] for part in torch_ref.triangle_frames(mesh.verts[0], mesh.faces))
    back = quats * torch.tensor((1.0, -1.0, -1.0, -1.0))
    rigged = RiggedSplats(
        face_ids=ids,
        means_tri=math3d.quat_rotate(back, splats.means - origins) / sizes[:, None],
        quats_tri=math3d.quat_mul(back, splats.quats),
        log_scales=(splats.scales / sizes[:, None]).log(),
        logit_opacities=splats.opacities.logit(),
        sh=splats.sh,
    )
    return rigged, mesh, cameras


def part_works(count: int, size: int) -> Works:
    """Rig, loss and whole training step, ours and the definition's rig and loss."""
    rigged, mesh, cameras = rigged_scene(count, size)
    names = ("means_tri", "quats_tri", "log_scales", "logit_opacities", "sh")
    params = {name: getattr(rigged, name).clone().requires_grad_() for name in names}
    leaves, verts = rigged.replace(**params), mesh.verts.clone().requires_grad_()
    moving = mesh.replace(verts=verts)
    with torch.no_grad():
        target = render.render(render.rig(rigged, mesh), cameras, background=torch.ones(3)).rgb[0].clamp(0, 1)
    image = (0.9 * target).requires_grad_()
    weights = torch.rand(size, size, generator=torch.Generator().manual_seed(2))
    adam = torch.optim.Adam(list(params.values()), lr=1e-5, fused=True)

    def loss(module: object) -> None:
        torch.autograd.grad(module.l1_ssim_loss(image, target, weights, 0.2), image)  # type: ignore[attr-defined]

    def rig(module: object) -> None:
        s = module.rig(leaves, moving)  # type: ignore[attr-defined]
        out = (s.means, s.quats, s.scales, s.opacities)
        torch.autograd.grad(out, (verts, *(params[n] for n in names[:4])), [o.detach() for o in out])

    def step() -> None:
        adam.zero_grad(set_to_none=True)
        drawn = render.render(render.rig(leaves, moving), cameras, background=torch.ones(3))
        render.l1_ssim_loss(drawn.rgb[0], target, weights).backward()
        adam.step()

    works: Works = {"native training step": step}
    for label, module in (("native", native), ("torch_ref", torch_ref)):
        works[f"{label} l1+ssim fwd+bwd"] = lambda module=module: loss(module)
        works[f"{label} rig fwd+bwd"] = lambda module=module: rig(module)
    return works


def avatar_works(avatar: Avatar) -> Works:
    """A trained avatar: rasterizer alone, and a frame from motion to picture over its plate."""
    frame, plate = avatar.motion[len(avatar.motion) // 2], avatar.background()
    with torch.no_grad():
        splats = avatar.pose(frame)

    def draw() -> None:
        with torch.no_grad():
            render.render(splats, avatar.cameras, background=plate)

    def whole() -> None:
        with torch.no_grad():
            drawn = render.render(avatar.pose(frame), avatar.cameras, background=plate)
            (drawn.rgb[0].clamp(0, 1) * 255).round().byte()

    def pose() -> None:
        with torch.no_grad():
            avatar.pose(frame)

    return {"native fwd": draw, "head and rig": pose, "frame: motion to 8-bit picture": whole}


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


def measure(args: argparse.Namespace, report: dict[str, dict[str, object]]) -> list[Timing]:
    """All timings that the arguments ask for; list statistics go into the report."""
    timings: list[Timing] = []
    for scene in args.scenes:
        count, size, degree = (int(part.replace("k", "000")) for part in scene.split("/"))
        splats, cameras = head_scene(count, size, degree)
        report["scenes"][scene] = list_statistics(splats, cameras)
        works = raster_works(splats, cameras)
        own = scaling_works(works, torch.get_num_threads()) | isa_works(works, args.isas)
        timings += interleaved(scene, own, args.repeats)
        timings += stages(scene, splats, cameras, args.repeats)
        if args.peer_repeats and scene in PEER_SCENES:
            for timing in interleaved(scene, works, args.peer_repeats):
                label = f"{timing.what} (beside peers)" if timing.what.startswith("native") else timing.what
                timings.append(Timing(scene, label, timing.median_ms, timing.min_ms, timing.repeats))
    for count, size in ((20000, 512), (60000, 512)):
        timings += interleaved(f"{count // 1000}k/{size}", part_works(count, size), args.repeats)
    for path in args.avatar:
        avatar = Avatar.load(path)
        scene = f"avatar {path.stem}"
        report["scenes"][scene] = list_statistics(avatar.pose(avatar.motion[0]), avatar.cameras)
        timings += interleaved(scene, avatar_works(avatar), args.repeats)
    return timings


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", nargs="*", default=list(SCENES), help="as splats/size/degree")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--peer-repeats", type=int, default=2, help="of the slow peers; 0 leaves them out")
    parser.add_argument("--isas", nargs="*", default=[], help="also time these instruction sets of the kernels")
    parser.add_argument("--avatar", nargs="*", type=Path, default=[], help="trained avatars to time too")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    report: dict[str, dict[str, object]] = {"machine": machine(), "scenes": {}}
    timings = measure(args, report)
    written = report | {"timings": [asdict(t) for t in timings]}
    print(json.dumps(report, indent=1))
    for t in timings:
        print(f"{t.scene:14} {t.what:36} {t.median_ms:9.2f} ms  ({t.min_ms:.2f})")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = args.out.with_suffix(".tmp")
    temporary.write_text(json.dumps(written, indent=1) + "\n")
    temporary.replace(args.out)


if __name__ == "__main__":
    main()
