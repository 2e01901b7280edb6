"""Late in training, patches are also compared as eyes compare them: by ST-LPIPS, which forgives shifts of a pixel.

L1 and SSIM answer doubt about where a hair lies with blur; a shift-tolerant distance asks for the hair. Patches,
because whole pictures cost more than the rest of a step; late, because its gradients say little before shapes stand.
Source: Ghildyal and Liu 2022, Shift-tolerant perceptual similarity metric.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gsth import metrics

PATCH_PX = 64
FROM = 0.8
"""When it begins, as a fraction of the steps."""


def price(drawn: Tensor, image: Tensor, matte: Tensor, seed: int) -> Tensor:
    """ST-LPIPS of a patch of the person, 0 for equal ones.

    Args:
        drawn: Rendered picture [h w 3].
        image: What it should be [h w 3].
        matte: Where the person is [h w]; the patch lies around one of these pixels.
        seed: Which.

    Raises:
        MissingExtraError: stlpips-pytorch is absent.
    """
    net = metrics.st_lpips()
    person = (matte > 0.5).nonzero()
    at = person[int(torch.randint(len(person), (), generator=torch.Generator().manual_seed(seed)))].tolist()
    top, left = (min(max(a - PATCH_PX // 2, 0), side - PATCH_PX) for a, side in zip(at, matte.shape, strict=True))
    patch = slice(top, top + PATCH_PX), slice(left, left + PATCH_PX)
    with torch.no_grad():
        wanted = net.layers(image[patch])
    return net.difference(net.layers(drawn[patch].clamp(0, 1)), wanted)
