"""What export costs: sizes, what formats lose, and what a budget of splats loses with and without fine-tuning.

    python benchmarks/export.py me.avatar           # tables; writes benchmarks/results/export.json

Losses are PSNR between pictures of the whole avatar and of what was written and read again (formats) or slimmed
(budgets), on grey, at the avatar's training size: every 14th frame from the front, and 0.3 rad to the side.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch

from gsth import math3d, registry, render
from gsth.avatar import Avatar
from gsth.export import _import, _scene, _slim
from gsth.types import Cameras, Motion, Splats

RESULTS = Path(__file__).parent / "results" / "export.json"
FORMATS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("ply", "a.ply", {}),
    ("spz", "a.spz", {}),
    ("spz", "b.spz", {"version": 4}),
    ("splat", "a.splat", {}),
    ("sog", "a.sog", {}),
    ("usd", "a.usdc", {}),
    ("usd", "b.usdc", {"precision": "float"}),
    ("glb", "a.glb", {}),
    ("glb", "b.glb", {"precision": "full"}),
)
BUDGETS = (0.75, 0.5, 0.25)
STEPS = (0, 300)
GREY = torch.full((3,), 0.5)


def psnr_db(avatar: Avatar, other: Callable[[Motion], Splats]) -> float:
    """Of pictures of ``other`` against those of the avatar."""
    errors = []
    with torch.no_grad():
        for i in range(3, len(avatar.motion), 14):
            frame = avatar.motion[i]
            for yaw_rad in (0.0, 0.3):
                cameras: Cameras = avatar.around(frame, yaw_rad)
                a, b = (render.render(pose(frame), cameras, background=GREY).rgb for pose in (avatar.pose, other))
                errors.append((a - b).square().mean())
    return float(-10 * torch.log10(torch.stack(errors).mean()))


def psnr_still(avatar: Avatar, rest: Motion, splats: Splats) -> float:
    """Of pictures of one pose against the avatar at rest."""
    errors = []
    with torch.no_grad():
        for yaw_rad in (0.0, 0.3, -0.3):
            cameras = avatar.around(rest, yaw_rad)
            a, b = (render.render(s, cameras, background=GREY).rgb for s in (avatar.pose(rest), splats))
            errors.append((a - b).square().mean())
    return float(-10 * torch.log10(torch.stack(errors).mean().clamp_min(1e-12)))


def formats(avatar: Avatar, folder: Path) -> list[dict[str, Any]]:
    rows = []
    rest = _scene.rest_motion(avatar, avatar.motion)
    back = math3d.transform_inverse(_scene.export_from_world(avatar.motion))
    for name, file, options in FORMATS:
        began = time.perf_counter()
        list(registry.plugin("export", name)(**options).build().write(avatar, folder / file))
        row = {"format": name, **options, "megabytes": (folder / file).stat().st_size / 1e6}
        row["seconds"] = time.perf_counter() - began
        if name == "glb":
            again = _import.read_avatar(folder / file)
            row["psnr_db"] = psnr_db(avatar, again.pose)
        elif file.endswith((".ply", ".spz")):
            splats = _scene.moved(_import.read_splats(folder / file), back)
            row["psnr_db"] = psnr_still(avatar, rest, splats)
        rows.append(row)
    return rows


def budgets(avatar: Avatar) -> list[dict[str, Any]]:
    rows, weight, n = [], _slim.importance(avatar), len(avatar.splats.face_ids)
    for share in BUDGETS:
        kept = avatar.taken(weight.topk(int(share * n)).indices.sort().values)
        for steps in STEPS:
            began = time.perf_counter()
            made = result(_slim.finetuned(kept, avatar, steps)) if steps else kept
            seconds = time.perf_counter() - began
            psnr = psnr_db(avatar, made.pose)
            rows.append({"splats": int(share * n), "finetune": steps, "psnr_db": psnr, "seconds": seconds})
            print(*(f"{v:.1f}" if isinstance(v, float) else v for v in rows[-1].values()), sep="\t", flush=True)
    own = _slim.with_personal_basis(avatar)

    def driven(frame: Motion) -> Splats:
        matrix = torch.tensor(own.meta["expression_map"]["matrix"])
        return own.pose(frame.replace(head=own.head.id, expr=frame.expr @ matrix))

    shapes = len(own.head.expression_names)
    return [*rows, {"basis": "personal", "shapes": shapes, "psnr_db": psnr_db(avatar, driven)}]


def result(work: Generator[Any, None, Avatar]) -> Avatar:
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("avatar", type=Path)
    avatar = Avatar.load(parser.parse_args().avatar)
    with tempfile.TemporaryDirectory() as folder:
        written = formats(avatar, Path(folder))
    for row in written:
        print(*(f"{v:.2f}" if isinstance(v, float) else v for v in row.values()), sep="\t", flush=True)
    report = {
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "splats": len(avatar.splats.face_ids),
        "size": [avatar.cameras.width, avatar.cameras.height],
        "formats": written,
        "budgets": budgets(avatar),
    }
    print(report["budgets"][-1])
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
