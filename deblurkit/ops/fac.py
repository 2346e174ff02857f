"""Convolution with predicted kernels: every pixel has a kernel of its own.

Two forms, both cross-correlations (no flip) with a tap order of rows first:

- FAC, one kernel per pixel and channel (Zhou et al., Spatio-Temporal Filter Adaptive Network, ICCV 2019);
- KPN, one kernel per pixel for all channels (Mildenhall et al., Burst Denoising with Kernel Prediction Networks,
  CVPR 2018).

Unfolding the features would take kernel_size^2 times their memory; here the taps are added up one by one on views.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from deblurkit.ops import backend

#: Bytes of float32 kernels that `predicted_filter_conv` holds at a time.
KERNEL_BUDGET = 64 * 2**20


def filter_adaptive_conv(features: Tensor, kernels: Tensor, kernel_size: int = 5) -> Tensor:
    """FAC: `out[b,c,y,x] = sum_{i,j} kernels[b, c*k*k + i*k + j, y, x] * features[b, c, y+i-k//2, x+j-k//2]`.

    Indices outside are clamped to the border (replicate padding).

    Args:
        features: `(B, C, H, W)`.
        kernels: `(B, C * kernel_size**2, H, W)`.
        kernel_size: odd.

    Returns:
        `(B, C, H, W)` in the wider of the two dtypes; half precision is summed in float32.

    Raises:
        ValueError: the shapes do not fit, or kernel_size is even.
    """
    _check(features, kernels, kernel_size, features.shape[1])
    return _filter(_replicate(features, kernel_size), kernels.unflatten(1, (-1, kernel_size**2)))


def kernel_prediction_conv(image: Tensor, kernels: Tensor, kernel_size: int = 5) -> Tensor:
    """KPN: `out[b,c,y,x] = sum_{i,j} kernels[b, i*k + j, y, x] * image[b, c, y+i-k//2, x+j-k//2]`, zero outside.

    The kernels are used as they come; a softmax over them, where wanted, is the caller's.

    Args:
        image: `(B, C, H, W)`.
        kernels: `(B, kernel_size**2, H, W)`.
        kernel_size: odd.

    Returns:
        `(B, C, H, W)` in the wider of the two dtypes; half precision is summed in float32.

    Raises:
        ValueError: the shapes do not fit, or kernel_size is even.
    """
    _check(image, kernels, kernel_size, 1)
    return _filter(F.pad(image, [kernel_size // 2] * 4), kernels.unsqueeze(1))


def predicted_filter_conv(
    features: Tensor,
    guide: Tensor,
    predict: Callable[[Tensor], Tensor],
    digest: Callable[[Tensor], Tensor] | None = None,
    *,
    kernel_size: int = 5,
    budget: int = KERNEL_BUDGET,
) -> tuple[Tensor, Tensor | None]:
    """`filter_adaptive_conv(features, predict(guide))` without ever holding all kernels.

    The kernels of a 1280x720 frame in STFAN take 737 MB. Here they exist for a band of rows at a time, and where
    gradients are wanted and one band does not hold them all, they are made again in the backward pass.

    Args:
        features: `(B, C, H, W)`.
        guide: `(B, G, H, W)`.
        predict: pixel-wise, `(B, G, h, W)` to kernels `(B, C * kernel_size**2, h, W)`.
        digest: pixel-wise, what else is to be made of the kernels.
        kernel_size: odd.
        budget: bytes of float32 kernels that may exist at a time; at least a row is done at once.

    Returns:
        the filtered features `(B, C, H, W)`, and what `digest` makes of all kernels (None without it).

    Raises:
        ValueError: the shapes do not fit, or kernel_size is even.
    """

    def band(padded: Tensor, guide: Tensor) -> tuple[Tensor, Tensor | None]:
        kernels = predict(guide)
        _check(padded[..., : guide.shape[-2], : guide.shape[-1]], kernels, kernel_size, features.shape[1])
        filtered = _filter(padded, kernels.unflatten(1, (-1, kernel_size**2)))
        return filtered, None if digest is None else digest(kernels)

    padded = _replicate(features, kernel_size)
    batch, channels, height, width = features.shape
    row_bytes = max(1, batch * channels * kernel_size**2 * width * 4)
    bands = -(-height // max(1, budget // row_bytes))
    if bands <= 1:
        return band(padded, guide)
    rows = -(-height // bands)
    parts = []
    for top in range(0, height, rows):
        inputs = padded[:, :, top : top + rows + kernel_size - 1], guide[:, :, top : top + rows]
        if torch.is_grad_enabled():
            parts.append(checkpoint(band, *inputs, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(band(*inputs))
    filtered = torch.cat([part[0] for part in parts], dim=2)
    return filtered, None if digest is None else torch.cat([part[1] for part in parts], dim=2)


def _check(features: Tensor, kernels: Tensor, kernel_size: int, kernels_per_pixel: int) -> None:
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd, not {kernel_size}")
    batch, _, height, width = features.shape
    wanted = (batch, kernels_per_pixel * kernel_size**2, height, width)
    if kernels.shape != wanted:
        raise ValueError(
            f"features {tuple(features.shape)} with kernel_size {kernel_size} need kernels {wanted}, "
            f"got {tuple(kernels.shape)}"
        )


def _replicate(features: Tensor, kernel_size: int) -> Tensor:
    return F.pad(features, [kernel_size // 2] * 4, mode="replicate")


def _filter(padded: Tensor, kernels: Tensor) -> Tensor:
    """`(B, C, H+k-1, W+k-1)` and `(B, C or 1, k*k, H, W)` to `(B, C, H, W)`."""
    if torch.is_grad_enabled() and (padded.requires_grad or kernels.requires_grad):
        filtered: Tensor = _Filter.apply(padded, kernels)
        return filtered
    return _filter_forward(padded, kernels)


def _filter_forward(padded: Tensor, kernels: Tensor) -> Tensor:
    fused = _fused(padded, kernels)
    if fused is not None:
        return cast(Tensor, fused.filter_pixels(padded.contiguous(), kernels.contiguous()))
    return _sum_of_taps(padded, kernels)


def _fused(padded: Tensor, kernels: Tensor, *others: Tensor) -> ModuleType | None:
    """The Triton kernels, where they are to be used; they know one kernel per pixel and channel only."""
    if kernels.shape[1] != padded.shape[1]:
        return None
    return backend.triton_kernels("filter_adaptive_conv", padded, kernels, *others)


def _taps(padded: Tensor, kernels: Tensor) -> list[Tensor]:
    """The padded features as each tap sees them: views `(B, C, H, W)` in the order of the kernels' third axis."""
    height, width = kernels.shape[-2:]
    rows, columns = (padded.shape[-2] - height + 1), (padded.shape[-1] - width + 1)
    return [padded[..., i : i + height, j : j + width] for i in range(rows) for j in range(columns)]


def _sum_of_taps(padded: Tensor, kernels: Tensor) -> Tensor:
    dtype = torch.promote_types(padded.dtype, kernels.dtype)
    total = padded.new_zeros((*padded.shape[:2], *kernels.shape[-2:]), dtype=torch.promote_types(dtype, torch.float32))
    for view, weight in zip(_taps(padded, kernels), kernels.unbind(2), strict=True):
        total.addcmul_(view, weight)
    return total.to(dtype)


class _Filter(torch.autograd.Function):
    """`_filter_forward` with a backward pass that writes each tap's gradient in place.

    Autograd's own would make a full-size map of zeros for each of the k*k views.
    """

    @staticmethod
    def forward(ctx: Any, padded: Tensor, kernels: Tensor) -> Tensor:
        ctx.save_for_backward(padded, kernels)
        return _filter_forward(padded, kernels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        padded, kernels = ctx.saved_tensors
        fused = _fused(padded, kernels, grad)
        if fused is not None:
            given = [one.contiguous() for one in (grad, padded, kernels)]
            of_padded, of_kernels = fused.filter_pixels_backward(*given, ctx.needs_input_grad)
            return of_padded, of_kernels
        grad_padded = grad_kernels = None
        if ctx.needs_input_grad[0]:
            grad_padded = torch.zeros_like(padded, dtype=torch.promote_types(padded.dtype, torch.float32))
            for view, weight in zip(_taps(grad_padded, kernels), kernels.unbind(2), strict=True):
                view.addcmul_(grad, weight)
            grad_padded = grad_padded.to(padded.dtype)
        if ctx.needs_input_grad[1]:
            grad_kernels = torch.empty_like(kernels)
            shared = kernels.shape[1] == 1
            for view, weight in zip(_taps(padded, kernels), grad_kernels.unbind(2), strict=True):
                weight.copy_((grad * view).sum(1, keepdim=True) if shared else grad * view)
        return grad_padded, grad_kernels
