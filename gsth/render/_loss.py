"""What an L1 + SSIM operator that makes its gradient in the forward pass needs of torch, on any device."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.library import CustomOpDef


def register(op: CustomOpDef) -> None:
    """Give its shapes and its gradient to an operator of (image, target, weight_map, ssim_weight, want_gradient).

    Its result is the loss and, where wanted, the loss's gradient with respect to the image.
    """
    op.register_fake(_shapes)
    op.register_autograd(_autograd, setup_context=_context)


def _shapes(
    image: Tensor, target: Tensor, weight_map: Tensor | None, ssim_weight: float, want_gradient: bool
) -> tuple[Tensor, Tensor]:
    return image.new_empty(()), image.new_empty(image.shape if want_gradient else 0)


def _context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1])


def _autograd(ctx: Any, v_loss: Tensor | None, _: Any) -> tuple[Any, ...]:
    (v_image,) = ctx.saved_tensors
    return (None if v_loss is None else v_loss * v_image, None, None, None, None)
