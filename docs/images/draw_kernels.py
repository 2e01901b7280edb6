"""Draws kernels.svg for docs/kernels.md: the stages, and one tile with the blocks that the kernels themselves touch.

python docs/images/draw_kernels.py
"""

from __future__ import annotations

import math
from pathlib import Path

import torch

from gsth.render import native

OUT = Path(__file__).with_name("kernels.svg")
TILE_PX, BLOCK_PX, SCALE = 32, 4, 11
STAGES = (
    ("project", "16 splats a vector", "pack, box, depth"),
    ("sort", "radix on depth bits", "stable: ties by index"),
    ("bin", "count, then fill", "one list per tile"),
    ("blend", "block by block", "notes what it touched"),
    ("backward", "splat by splat", "front to back, no atomics"),
)
INK, PALE, HIT, SPLAT = "#22303c", "#e9eef2", "#f2b134", "#2f7dc1"


def touched() -> tuple[int, tuple[float, float], tuple[float, float], float]:
    """Mask of blocks that one splat colours, its centre, its half axes at alpha 1/255 (px) and its turn (rad)."""
    turn, sigma, opacity, centre = 0.6, (4.2, 1.1), 0.8, (14.6, 17.3)
    depth, focal = 1.0, 100.0
    mean = torch.tensor([[(centre[0] - 16) / focal, (centre[1] - 16) / focal, depth]])
    quat = torch.tensor([[math.cos(turn / 2), 0.0, 0.0, math.sin(turn / 2)]])
    scales = torch.tensor([[sigma[0] / focal, sigma[1] / focal, 1e-3]])
    K = torch.tensor(((focal, 0, 16), (0, focal, 16), (0, 0, 1.0)))
    out = native._raster(
        mean, quat, scales, torch.tensor([opacity]), torch.zeros(1, 1, 3), torch.eye(4), K, torch.ones(3),
        torch.empty(1), TILE_PX, TILE_PX, False, True,
    )  # fmt: skip
    reach = math.sqrt(2 * math.log(255 * opacity))
    axes = tuple(reach * math.sqrt(s * s + 0.3) for s in sigma)
    return int(out[-1][0]) & (2**64 - 1), centre, (axes[0], axes[1]), turn


def text(x: float, y: float, what: str, size: int = 13, weight: str = "normal") -> str:
    """One line of text, centred."""
    return f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="middle">{what}</text>'


def stage_boxes() -> list[str]:
    """The pipeline as boxes with arrows."""
    parts = []
    for i, (name, first, second) in enumerate(STAGES):
        x = 20 + 176 * i
        parts.append(f'<rect x="{x}" y="20" width="150" height="78" rx="8" fill="{PALE}" stroke="{INK}"/>')
        parts += [text(x + 75, 44, name, 15, "bold"), text(x + 75, 66, first), text(x + 75, 86, second)]
        if i:
            parts.append(
                f'<path d="M{x - 24} 59 h16 m-6 -5 l6 5 l-6 5" fill="none" stroke="{INK}" stroke-width="1.6"/>'
            )
    return parts


def tile(left: int, top: int) -> list[str]:
    """A tile of 8 x 8 blocks of 4 x 4 pixels with one splat over it."""
    mask, (x, y), (major, minor), turn = touched()
    side, parts = BLOCK_PX * SCALE, []
    for block in range(64):
        column, row = block % 8, block // 8
        fill = HIT if mask >> block & 1 else "white"
        parts.append(
            f'<rect x="{left + column * side}" y="{top + row * side}" width="{side}" height="{side}" fill="{fill}"'
            f' fill-opacity="0.55" stroke="{INK}" stroke-width="0.8"/>'
        )
    for i in range(1, TILE_PX):
        at = i * SCALE
        parts.append(
            f'<path d="M{left + at} {top} v{TILE_PX * SCALE} M{left} {top + at} h{TILE_PX * SCALE}" stroke="{INK}"'
            ' stroke-opacity="0.15" stroke-width="0.5"/>'
        )
    parts.append(
        f'<ellipse cx="{left + x * SCALE}" cy="{top + y * SCALE}" rx="{major * SCALE:.1f}" ry="{minor * SCALE:.1f}"'
        f' transform="rotate({math.degrees(turn):.1f} {left + x * SCALE} {top + y * SCALE})" fill="{SPLAT}"'
        f' fill-opacity="0.35" stroke="{SPLAT}" stroke-width="2"/>'
    )
    return [*parts, text(left + 176, top + TILE_PX * SCALE + 22, f"hits = 0x{mask:016x}")]


def notes(left: int, top: int) -> list[str]:
    """What the tile shows, in words."""
    lines = (
        "One tile: 32 x 32 px, 8 x 8 blocks of 4 x 4 px.",
        "A block is one AVX-512 vector; a tile's blocks",
        "are the bits of one 64-bit word.",
        "",
        "Blue: where the splat's alpha reaches 1/255.",
        "Yellow: blocks that the kernel blended; the",
        "others are never computed.",
        "",
        "Forward keeps a block's pixels in registers and",
        "walks its list of splats. Backward keeps a splat's",
        "sums in registers and walks its blocks, then writes",
        "them to the slot of this (tile, splat) pair.",
    )
    style = 'font-size="14" text-anchor="start"'
    return [f'<text x="{left}" y="{top + 22 * i}" {style}>{line}</text>' for i, line in enumerate(lines)]


def main() -> None:
    """Write the picture beside this file."""
    if native.instruction_set() != "avx512":
        raise SystemExit("the picture shows the tiles of AVX-512; this CPU has none")
    parts = [*stage_boxes(), *tile(60, 130), *notes(470, 170)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 520" font-family="sans-serif" fill="{INK}">'
    OUT.write_text("\n".join([head, '<rect width="900" height="520" fill="white"/>', *parts, "</svg>"]) + "\n")


if __name__ == "__main__":
    main()
