"""SOG version 2 (PlayCanvas): splats as lossless WebP pictures in a zip, for fast loading in browsers.

Layout: developer.playcanvas.com, "The SOG Format". Every picture holds splat i in pixel i, row by row.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsth.export._scene import Axes, Still

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from gsth.avatar import Avatar
    from gsth.types import Event, Splats

_PALETTE = 4096
"""SH vectors at most; a face has few."""
_ROUNDS = 8


@dataclass(frozen=True)
class Config(Still):
    """A bundled .sog file of one pose."""

    axes: Axes = "y_up"
    """y_up as in every other format, or colmap (y down, face to -z) for tools that expect axes as in training."""

    def build(self) -> SogExporter:
        """The exporter of these settings."""
        return SogExporter(self)


class SogExporter:
    """Writes .sog files."""

    def __init__(self, config: Config) -> None:
        """Take the settings."""
        self._config = config

    def write(self, avatar: Avatar, out: Path) -> Iterator[Event]:
        """One file."""
        from gsth.export import _scene

        splats = _scene.to_axes(_scene.still(avatar, self._config), self._config.axes)
        yield _scene.written(out, to_bytes(splats), len(splats.means))


def to_bytes(splats: Splats) -> bytes:
    """The zip of a scene."""
    from gsth import artifacts

    count = len(splats.means)
    means, pictures = _means(splats.means)
    scale_book, scale_ids = _uniform(splats.scales.clamp_min(1e-9).log())
    colour_book, colour_ids = _uniform(splats.sh[:, 0])
    alpha = (splats.opacities.clamp(0, 1) * 255).round()
    pictures |= {
        "scales.webp": _opaque(scale_ids),
        "quats.webp": _quats(splats.quats),
        "sh0.webp": _pixels(colour_ids, alpha[:, None]),
    }
    meta: dict[str, Any] = {
        "version": 2,
        "asset": {"generator": f"gsth {artifacts.gsth_version()}"},
        "count": count,
        "means": means,
        "scales": {"codebook": scale_book, "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": colour_book, "files": ["sh0.webp"]},
    }
    if splats.sh.shape[1] > 1:
        meta["shN"], more = _higher(splats.sh[:, 1:])
        pictures |= more
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as bundle:  # stored: WebP does not shrink any further
        for name, data in (("meta.json", json.dumps(meta).encode()), *((n, _webp(p)) for n, p in pictures.items())):
            bundle.writestr(zipfile.ZipInfo(name), data)
    return packed.getvalue()


def _means(means: Tensor) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """16 bits per axis of sign(x) log(1 + |x|), low and high bytes in two pictures."""
    import torch

    squeezed = means.double().sign() * means.double().abs().log1p()
    low, high = squeezed.amin(0), squeezed.amax(0)
    steps = ((squeezed - low) / (high - low).clamp_min(1e-9) * 65535).round().to(torch.int64)
    files = {"means_l.webp": _opaque(steps & 0xFF), "means_u.webp": _opaque(steps >> 8)}
    return {"mins": low.tolist(), "maxs": high.tolist(), "files": list(files)}, files


def _uniform(values: Tensor) -> tuple[list[float], Tensor]:
    """A codebook of 256 even steps over the range of the values, and the nearest entry of each.

    Even steps bound the error of every splat; k-means would spend the error where few splats are.
    """
    import torch

    low, high = values.min(), values.max()
    ids = ((values - low) / (high - low).clamp_min(1e-9) * 255).round()
    return torch.linspace(float(low), float(high), 256).tolist(), ids


def _quats(quats: Tensor) -> np.ndarray:
    """Three smallest components (wxyz order) in 8 bits each, and which one is left out in alpha."""
    import torch

    q = quats / quats.norm(dim=1, keepdim=True)
    largest = q.abs().argmax(1)
    q = q * torch.where(q.gather(1, largest[:, None]) < 0, -1.0, 1.0)
    kept = torch.tensor(((1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2)))[largest]
    steps = ((q.gather(1, kept) * 2**0.5 * 0.5 + 0.5) * 255).round().clamp(0, 255)
    return _pixels(steps, 252.0 + largest[:, None])


def _higher(sh: Tensor) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Palette of SH vectors by k-means, a picture of it (64 entries a row) and one of labels."""
    import numpy as np
    import torch

    n, k = sh.shape[:2]
    flat = sh.flatten(1)
    size = min(_PALETTE, max(1024, n // 1024 * 1024))
    picks = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    centres = flat[picks[torch.arange(size) % n]]
    labels = torch.zeros(n, dtype=torch.int64)
    for _ in range(_ROUNDS):
        labels = torch.cat([torch.cdist(part, centres).argmin(1) for part in flat.split(4096)])
        count = torch.bincount(labels, minlength=size)[:, None]
        centres = torch.where(
            count > 0, torch.zeros_like(centres).index_add(0, labels, flat) / count.clamp_min(1), centres
        )
    book, ids = _uniform(centres.unflatten(1, (k, 3)))
    rows = size // 64
    palette = np.full((rows, 64 * k, 4), 255, np.uint8)
    palette[..., :3] = ids.byte().numpy().reshape(rows, 64 * k, 3)
    files = {
        "shN_centroids.webp": palette,
        "shN_labels.webp": _opaque(torch.stack((labels & 0xFF, labels >> 8, torch.zeros_like(labels)), 1)),
    }
    return {"count": size, "bands": {3: 1, 8: 2, 15: 3}[k], "codebook": book, "files": list(files)}, files


def _opaque(rgb: Tensor) -> np.ndarray:
    import torch

    return _pixels(rgb, torch.full((len(rgb), 1), 255))


def _pixels(rgb: Tensor, alpha: Tensor) -> np.ndarray:
    """A picture [h w 4] of values [n 3] and [n 1]; sides are multiples of 4, as readers of compressed textures like."""
    import math

    import numpy as np
    import torch

    n = len(rgb)
    width = max(4, math.ceil(math.sqrt(n) / 4) * 4)
    height = max(4, math.ceil(n / width / 4) * 4)
    picture = np.zeros((height * width, 4), np.uint8)
    picture[:n] = torch.cat((rgb.byte(), alpha.byte()), 1).numpy()
    return picture.reshape(height, width, 4)


def _webp(picture: np.ndarray) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    # exact: without it, WebP forgets the colour of transparent pixels
    Image.fromarray(picture).save(out, "WEBP", lossless=True, exact=True, quality=75, method=4)
    return out.getvalue()
