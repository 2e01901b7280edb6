"""Learned perceptual distances: shift-tolerant LPIPS (its weights come in a wheel) and LPIPS with weights by path.

Sources: Zhang et al. 2018, eq. 1 (LPIPS); Ghildyal and Liu 2022 (ST-LPIPS: stride 1 in the first layer, blur after
it, reflection padding of two). Both stand on AlexNet; inputs are scaled to -1 to 1, then by ImageNet's statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from gsth.errors import InputError
from gsth.metrics import _weights
from gsth.metrics._image import Picture, unit

if TYPE_CHECKING:
    from torch import Tensor

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
MIN_SIDE = 64
"""Smaller pictures leave the last layers nothing to look at."""


class Perceptual:
    """A distance of pictures; the features of a reference are computed once."""

    def __init__(self, convs: list[tuple[Tensor, Tensor]], heads: list[Tensor], *, shift_tolerant: bool) -> None:
        """Take weight and bias of the five convolutions, and the five 1 x 1 heads [1 c 1 1]."""
        self._convs, self._heads, self._tolerant = convs, heads, shift_tolerant

    def features(self, picture: Picture) -> list[Tensor]:
        """Unit-length features of the five layers of a picture [h w 3].

        Raises:
            InputError: A side is below 64 px.
        """
        import torch

        if min(picture.shape[:2]) < MIN_SIDE:
            raise InputError(f"LPIPS wants pictures of at least {MIN_SIDE} px, got {[*picture.shape]}")
        x = torch.from_numpy(unit(picture)).float().permute(2, 0, 1)[None] * 2 - 1
        x = (x - torch.tensor(_SHIFT)[:, None, None]) / torch.tensor(_SCALE)[:, None, None]
        with torch.inference_mode():
            layers = self._tolerant_layers(x) if self._tolerant else self._plain_layers(x)
            return [f / (f.square().sum(1, keepdim=True).sqrt() + 1e-10) for f in layers]

    def distance(self, a: list[Tensor], b: list[Tensor]) -> float:
        """LPIPS of two pictures' features; ValueError where their sizes differ."""
        if a[0].shape != b[0].shape:
            raise ValueError(f"LPIPS wants pictures of one size, got features {[*a[0].shape]} and {[*b[0].shape]}")
        return float(sum((h * (x - y).square()).sum(1).mean() for x, y, h in zip(a, b, self._heads, strict=True)))

    def _plain_layers(self, x: Tensor) -> list[Tensor]:
        import torch.nn.functional as F

        layers = []
        for i, (weight, bias) in enumerate(self._convs):
            if i in (1, 2):
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(F.conv2d(x, weight, bias, stride=4 if i == 0 else 1, padding=2 if i < 2 else 1))
            layers.append(x)
        return layers

    def _tolerant_layers(self, x: Tensor) -> list[Tensor]:
        import torch.nn.functional as F

        layers = []
        for i, (weight, bias) in enumerate(self._convs):
            if i in (1, 2):
                x = _half_blurred(F.max_pool2d(x, 3, 1))
            x = F.conv2d(x, weight, bias, padding=2 if i < 2 else 1)
            x = F.relu(_half_blurred(x) if i == 0 else x)
            layers.append(x)
        return layers


def _half_blurred(x: Tensor) -> Tensor:
    """Every second pixel of a picture blurred by 1 2 1, with two pixels of reflection around it."""
    import torch
    import torch.nn.functional as F

    row = torch.tensor((0.25, 0.5, 0.25))
    kernel = (row[:, None] * row).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=x.shape[1])


@cache
def st_lpips() -> Perceptual:
    """Shift-tolerant LPIPS, AlexNet, with the weights of the package stlpips-pytorch.

    Raises:
        MissingExtraError: The package is absent.
    """
    path = _weights.packaged(
        "stlpips_pytorch",
        "stlpips-pytorch",
        *("weights", "vST0.0", "alex_shift_tolerant.pth"),
        purpose="the measure ST-LPIPS",
    )
    tensors = _weights.checkpoint(path)
    names = ("net.slice1.0", "net.slice2.5", "net.slice3.9", "net.slice4.11", "net.slice5.13")
    return Perceptual(_pairs(tensors, names, path), _heads(tensors, path), shift_tolerant=True)


def lpips(folder: Path | None) -> Perceptual:
    """LPIPS 0.1, AlexNet: torchvision's alexnet-owt-7be5be79.pth, and the heads of the package lpips as lpips_alex.pth.

    Raises:
        WeightsAbsentError: One of both files is not in the folder.
        InputError: A file holds something else.
    """
    backbone = _weights.given(folder, "alexnet-owt-7be5be79.pth", purpose="LPIPS")
    heads = _weights.given(folder, "lpips_alex.pth", purpose="LPIPS")
    names = tuple(f"features.{i}" for i in (0, 3, 6, 8, 10))
    convs = _pairs(_weights.checkpoint(backbone), names, backbone)
    return Perceptual(convs, _heads(_weights.checkpoint(heads), heads), shift_tolerant=False)


def _pairs(tensors: Mapping[str, Tensor], names: tuple[str, ...], path: Path) -> list[tuple[Tensor, Tensor]]:
    return [(_one(tensors, f"{n}.weight", path), _one(tensors, f"{n}.bias", path)) for n in names]


def _heads(tensors: Mapping[str, Tensor], path: Path) -> list[Tensor]:
    return [_one(tensors, f"lin{i}.model.1.weight", path) for i in range(5)]


def _one(tensors: Mapping[str, Tensor], name: str, path: Path) -> Tensor:
    if name not in tensors:
        raise InputError(f"{path}: lacks {name!r}; it holds {', '.join(list(tensors)[:4])}, ...")
    return tensors[name].float()
