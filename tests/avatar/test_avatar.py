from __future__ import annotations

import pytest
import torch

from gsth.avatar import Correctives
from gsth.types import RiggedSplats


def _splats(n: int, k: int, dtype: torch.dtype) -> RiggedSplats:
    return RiggedSplats(
        face_ids=torch.zeros(n, dtype=torch.int64),
        means_tri=torch.randn(n, 3, dtype=dtype),
        quats_tri=torch.randn(n, 4, dtype=dtype),
        log_scales=torch.randn(n, 3, dtype=dtype),
        logit_opacities=torch.randn(n, dtype=dtype),
        sh=torch.randn(n, k, 3, dtype=dtype),
    )


@pytest.mark.parametrize(("n", "k", "b"), [(7, 1, 3), (5, 4, 1), (0, 1, 2)])
def test_correctives_add_the_weighted_deltas_and_pass_gradients(n: int, k: int, b: int) -> None:
    """By the definition, written out: the sum over b of weight times delta, to places and to colours of degree 0."""
    splats = _splats(n, k, torch.float64)
    deltas = [torch.randn(n, b, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    weights = torch.randn(b, dtype=torch.float64, requires_grad=True)
    moved = Correctives(torch.zeros(4), torch.zeros(b, 4), *deltas).apply(splats, weights)
    means = splats.means_tri + (weights[None, :, None] * deltas[0]).sum(1)
    sh0 = splats.sh[:, 0] + (weights[None, :, None] * deltas[1]).sum(1)
    assert torch.allclose(moved.means_tri, means) and torch.allclose(moved.sh[:, 0], sh0)
    assert torch.equal(moved.sh[:, 1:], splats.sh[:, 1:])

    def pulled(place: torch.Tensor, colour: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad((place.sin() + colour.cos()).sum(), (weights, *deltas))

    for got, want in zip(pulled(moved.means_tri, moved.sh[:, 0]), pulled(means, sh0), strict=True):
        assert torch.allclose(got, want)
