"""FID: how far a set of pictures is from another one, with Inception's weights by path (Heusel et al. 2017).

A few dozen frames do not fill 2048 dimensions: the field reports FID on clips all the same, so it is computed the same
way, and only figures of equal numbers of frames may be compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gsth.metrics import _weights
from gsth.metrics._image import Picture, unit

if TYPE_CHECKING:
    from torch import Tensor

INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth"
FEATURES = 2048


def frechet_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Distance of the Gaussians fitted to two sets of features [n d] (Dowson and Landau 1982); at least two of each."""
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a covariance wants at least two pictures of each set, got {len(a)} and {len(b)}")
    # The trace of the root of the product of both covariances is the sum of the singular values of a b', where a and
    # b are the centred features over the root of n - 1; their triangular factors have the same ones, and are smaller.
    mean_a, mean_b = a.mean(0), b.mean(0)
    a, b = (a - mean_a) / np.sqrt(len(a) - 1), (b - mean_b) / np.sqrt(len(b) - 1)
    small_a, small_b = np.linalg.qr(a, mode="r"), np.linalg.qr(b, mode="r")
    shared = float(np.linalg.svd(small_a @ small_b.T, compute_uv=False).sum())
    return float(((mean_a - mean_b) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * shared)


class Inception:
    """The Inception network of FID, with TensorFlow's weights of 2015 as ported for pytorch-fid."""

    def __init__(self, folder: Path | None) -> None:
        """Load ``INCEPTION_FILE`` from the folder.

        Raises:
            WeightsAbsentError: It is not there.
            InputError: It holds something else.
        """
        path = _weights.given(folder, INCEPTION_FILE, purpose="FID")
        tensors = {k: v for k, v in _weights.checkpoint(path).items() if not k.startswith("fc.")}
        self._net = _weights.fill(network(), tensors, path)

    def features(self, pictures: Iterable[Picture]) -> NDArray[np.float64]:
        """Features of pictures [h w 3], [n 2048]."""
        import torch
        import torch.nn.functional as F

        rows = []
        with torch.inference_mode():
            for picture in pictures:
                x = torch.from_numpy(unit(picture)).float().permute(2, 0, 1)[None]
                x = F.interpolate(x, (299, 299), mode="bilinear", align_corners=False) * 2 - 1
                rows.append(self._net(x)[0].double().numpy())
        return np.array(rows).reshape(-1, FEATURES)


def network() -> Any:
    """Inception v3 up to its last pooling, with the names of the published weights (Szegedy et al. 2016, table 1).

    Average pools leave padding out and the last block pools by maximum, as in the network that FID was defined with.
    """
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Conv(nn.Module):
        def __init__(self, inside: int, out: int, size: Any, stride: int = 1, padding: Any = 0) -> None:
            super().__init__()
            self.conv = nn.Conv2d(inside, out, size, stride, padding, bias=False)
            self.bn = nn.BatchNorm2d(out, eps=1e-3)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.bn(self.conv(x)))

    class Block(nn.Module):
        """Branches side by side, then a pooled one; a tuple inside a branch is a fork of its own."""

        def __init__(self, branches: dict[str, Any], pool: str, **parts: Conv) -> None:
            super().__init__()
            self.branches, self.pool = branches, pool
            for name, part in parts.items():
                self.add_module(name, part)

        def forward(self, x: Tensor) -> Tensor:
            out = [self._along(x, names) for names in self.branches.values()]
            return torch.cat([*out, self._pooled(x)], 1)

        def _along(self, x: Tensor, names: tuple[Any, ...]) -> Tensor:
            for name in names:
                if isinstance(name, tuple):
                    x = torch.cat([self.get_submodule(n)(x) for n in name], 1)
                else:
                    x = self.get_submodule(name)(x)
            return x

        def _pooled(self, x: Tensor) -> Tensor:
            if self.pool == "down":
                return F.max_pool2d(x, 3, 2)
            mean = self.pool == "mean"
            x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) if mean else F.max_pool2d(x, 3, 1, 1)
            return self.get_submodule("branch_pool")(x)

    return _assemble(Conv, Block)


_TALL: dict[str, Any] = {"size": (7, 1), "padding": (3, 0)}
_WIDE: dict[str, Any] = {"size": (1, 7), "padding": (0, 3)}


def _assemble(conv: Any, block: Any) -> Any:
    from torch import nn

    layers: dict[str, Any] = {
        "Conv2d_1a_3x3": conv(3, 32, 3, 2),
        "Conv2d_2a_3x3": conv(32, 32, 3),
        "Conv2d_2b_3x3": conv(32, 64, 3, padding=1),
        "pool1": nn.MaxPool2d(3, 2),
        "Conv2d_3b_1x1": conv(64, 80, 1),
        "Conv2d_4a_3x3": conv(80, 192, 3),
        "pool2": nn.MaxPool2d(3, 2),
        **{f"Mixed_5{k}": _block_5(conv, block, *sizes) for k, sizes in zip("bcd", _SIZES_5, strict=True)},
        "Mixed_6a": _block_6a(conv, block),
        **{f"Mixed_6{k}": _block_6(conv, block, mid) for k, mid in zip("bcde", (128, 160, 160, 192), strict=True)},
        "Mixed_7a": _block_7a(conv, block),
        "Mixed_7b": _block_7(conv, block, 1280, "mean"),
        "Mixed_7c": _block_7(conv, block, 2048, "max"),
        "pool3": nn.AdaptiveAvgPool2d(1),
        "flat": nn.Flatten(),
    }
    net = nn.Sequential()
    for name, layer in layers.items():
        net.add_module(name, layer)
    return net


_SIZES_5 = ((192, 32), (256, 64), (288, 64))
"""Channels in, and channels of the pooled branch."""


def _block_5(conv: Any, block: Any, inside: int, pool: int) -> Any:
    parts = {
        "branch1x1": conv(inside, 64, 1),
        "branch5x5_1": conv(inside, 48, 1),
        "branch5x5_2": conv(48, 64, 5, padding=2),
        "branch3x3dbl_1": conv(inside, 64, 1),
        "branch3x3dbl_2": conv(64, 96, 3, padding=1),
        "branch3x3dbl_3": conv(96, 96, 3, padding=1),
        "branch_pool": conv(inside, pool, 1),
    }
    return block(_chains("branch1x1", ("branch5x5", 2), ("branch3x3dbl", 3)), "mean", **parts)


def _block_6a(conv: Any, block: Any) -> Any:
    parts = {
        "branch3x3": conv(288, 384, 3, 2),
        "branch3x3dbl_1": conv(288, 64, 1),
        "branch3x3dbl_2": conv(64, 96, 3, padding=1),
        "branch3x3dbl_3": conv(96, 96, 3, 2),
    }
    return block(_chains("branch3x3", ("branch3x3dbl", 3)), "down", **parts)


def _block_6(conv: Any, block: Any, mid: int) -> Any:
    parts = {
        "branch1x1": conv(768, 192, 1),
        "branch7x7_1": conv(768, mid, 1),
        "branch7x7_2": conv(mid, mid, **_WIDE),
        "branch7x7_3": conv(mid, 192, **_TALL),
        "branch7x7dbl_1": conv(768, mid, 1),
        "branch7x7dbl_2": conv(mid, mid, **_TALL),
        "branch7x7dbl_3": conv(mid, mid, **_WIDE),
        "branch7x7dbl_4": conv(mid, mid, **_TALL),
        "branch7x7dbl_5": conv(mid, 192, **_WIDE),
        "branch_pool": conv(768, 192, 1),
    }
    return block(_chains("branch1x1", ("branch7x7", 3), ("branch7x7dbl", 5)), "mean", **parts)


def _block_7a(conv: Any, block: Any) -> Any:
    parts = {
        "branch3x3_1": conv(768, 192, 1),
        "branch3x3_2": conv(192, 320, 3, 2),
        "branch7x7x3_1": conv(768, 192, 1),
        "branch7x7x3_2": conv(192, 192, **_WIDE),
        "branch7x7x3_3": conv(192, 192, **_TALL),
        "branch7x7x3_4": conv(192, 192, 3, 2),
    }
    return block(_chains(("branch3x3", 2), ("branch7x7x3", 4)), "down", **parts)


def _block_7(conv: Any, block: Any, inside: int, pool: str) -> Any:
    flat: dict[str, Any] = {"size": (1, 3), "padding": (0, 1)}
    steep: dict[str, Any] = {"size": (3, 1), "padding": (1, 0)}
    parts = {
        "branch1x1": conv(inside, 320, 1),
        "branch3x3_1": conv(inside, 384, 1),
        "branch3x3_2a": conv(384, 384, **flat),
        "branch3x3_2b": conv(384, 384, **steep),
        "branch3x3dbl_1": conv(inside, 448, 1),
        "branch3x3dbl_2": conv(448, 384, 3, padding=1),
        "branch3x3dbl_3a": conv(384, 384, **flat),
        "branch3x3dbl_3b": conv(384, 384, **steep),
        "branch_pool": conv(inside, 192, 1),
    }
    chains = {
        "1": ("branch1x1",),
        "2": ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b")),
        "3": ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")),
    }
    return block(chains, pool, **parts)


def _chains(*branches: str | tuple[str, int]) -> dict[str, tuple[str, ...]]:
    """Layers of each branch, in order: a name, or a name and how many numbered layers carry it."""
    return {
        b if isinstance(b, str) else b[0]: (b,) if isinstance(b, str) else tuple(f"{b[0]}_{i + 1}" for i in range(b[1]))
        for b in branches
    }
