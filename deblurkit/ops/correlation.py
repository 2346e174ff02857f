"""Cost volume: how much each feature vector resembles its neighbours in another map.

Sun et al., PWC-Net, CVPR 2018 (radius 4); Hui et al., LiteFlowNet, CVPR 2018 (radius 3, strides 1 and 2).

A loop over the displacements reads both maps (2r+1)^2 times. Here a run of `_RUN` pixels in a row is multiplied with
the `_RUN + 2r` pixels that it may match in another row, as matrices, and the diagonal band of the product is kept: more
products than needed, yet several times faster. Nothing larger than a few times the inputs is made.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from deblurkit.ops import backend
from deblurkit.ops.sampling import working_dtype

_RUN = 8


def correlation(first: Tensor, second: Tensor, radius: int = 4, stride: int = 1) -> Tensor:
    """Mean over the channels of `first` at a pixel times `second` at a displaced one, zero where that is outside.

    `out[n, (dy+r)*(2r+1) + (dx+r), y, x] = mean_c first[n,c,y*s,x*s] * second[n,c,(y+dy)*s,(x+dx)*s]`.

    Args:
        first: `(N, C, H, W)`.
        second: the same shape.
        radius: r, displacements go from -r to r (in steps of the stride).
        stride: s.

    Returns:
        `(N, (2r+1)^2, ceil(H/s), ceil(W/s))` in the wider of the two dtypes; half precision is summed in float32.

    Raises:
        ValueError: shapes that differ, a negative radius or a stride below 1.
    """
    if first.shape != second.shape or first.dim() != 4:
        raise ValueError(f"both must be (N, C, H, W), got {tuple(first.shape)} and {tuple(second.shape)}")
    if radius < 0 or stride < 1:
        raise ValueError(f"radius must be at least 0 and stride at least 1, got {radius} and {stride}")
    dtype = working_dtype(first, second)
    maps = [one[..., ::stride, ::stride].to(dtype) for one in (first, second)]
    with backend.without_autocast(first.device.type):
        volume: Tensor = _Correlation.apply(*maps, radius)
    return volume.to(torch.promote_types(first.dtype, second.dtype))


class _Correlation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, radius: int) -> Tensor:
        ctx.save_for_backward(first, second)
        ctx.radius = radius
        kernels = backend.triton_kernels("correlation", first, second)
        if kernels is not None:
            return cast(Tensor, kernels.correlation(first.contiguous(), second.contiguous(), radius))
        batch, _, height, width = first.shape
        runs, windows = _runs(first), _windows(second, radius)
        side = 2 * radius + 1
        volume = first.new_empty(batch, side, side, height, runs.shape[2] * _RUN)
        for dy in range(side):
            product = torch.bmm(runs.flatten(0, 2), windows[dy : dy + height].flatten(0, 2))
            volume[:, dy] = _band(product, radius).unflatten(0, runs.shape[:3]).permute(1, 4, 0, 2, 3).flatten(3)
        return volume.flatten(1, 2)[..., :width].contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        first, second = ctx.saved_tensors
        radius, side = ctx.radius, 2 * ctx.radius + 1
        kernels = backend.triton_kernels("correlation", grad, first, second)
        if kernels is not None:
            maps, grad = (second.contiguous(), first.contiguous()), grad.contiguous()
            of_first, of_second = (
                kernels.correlation_backward(grad, other, radius, of_second=bool(i))
                if ctx.needs_input_grad[i]
                else None
                for i, other in enumerate(maps)
            )
            return of_first, of_second, None
        batch, channels, height, width = first.shape
        with backend.without_autocast(first.device.type):
            runs, windows = _runs(first), _windows(second, radius)
            grad = F.pad(grad, [0, -width % _RUN]).view(batch, side, side, height, -1, _RUN)
            grad_runs = torch.zeros_like(runs).flatten(0, 2) if ctx.needs_input_grad[0] else None
            grad_windows = torch.zeros_like(windows) if ctx.needs_input_grad[1] else None
            for dy in range(side):
                product = grad.new_zeros(runs.shape[:3].numel(), _RUN, windows.shape[-1])
                _band(product, radius).copy_(grad[:, dy].permute(2, 0, 3, 4, 1).flatten(0, 2))
                if grad_runs is not None:
                    grad_runs.baddbmm_(product, windows[dy : dy + height].flatten(0, 2).mT)
                if grad_windows is not None:
                    grad_windows[dy : dy + height].flatten(0, 2).baddbmm_(runs.flatten(0, 2).mT, product)
        grad_first = grad_second = None
        if grad_runs is not None:
            grad_first = grad_runs.view_as(runs).permute(1, 4, 0, 2, 3).flatten(3)[..., :width] / channels
        if grad_windows is not None:
            # windows overlap: add them up, a run's width at a time
            count, reach = grad_windows.shape[2], windows.shape[-1]
            extra = -(-reach // _RUN)
            spread = grad.new_zeros(*grad_windows.shape[:2], count + extra, channels, _RUN)
            for k in range(extra):
                part = grad_windows[..., k * _RUN : (k + 1) * _RUN]
                spread[:, :, k : k + count, :, : part.shape[-1]] += part
            rows = spread.permute(1, 3, 0, 2, 4).flatten(3)
            grad_second = rows[:, :, radius : radius + height, radius : radius + width]
        return grad_first, grad_second, None


def _runs(first: Tensor) -> Tensor:
    """`(N, C, H, W)` to `(H, N, W/run, run, C)`, divided by the number of channels."""
    first = F.pad(first / first.shape[1], [0, -first.shape[-1] % _RUN])
    return first.unflatten(3, (-1, _RUN)).permute(2, 0, 3, 4, 1).contiguous()


def _windows(second: Tensor, radius: int) -> Tensor:
    """`(N, C, H, W)` to what the runs may match, `(H+2r, N, W/run, C, run+2r)`."""
    padded = F.pad(second, [radius, radius + -second.shape[-1] % _RUN, radius, radius])
    return padded.unfold(3, _RUN + 2 * radius, _RUN).permute(2, 0, 3, 1, 4).contiguous()


def _band(product: Tensor, radius: int) -> Tensor:
    """Of `(B, run, run+2r)`, contiguous: a view `(B, run, 2r+1)` of row i's entries i to i + 2r."""
    reach = product.shape[-1]
    return product.as_strided((len(product), _RUN, 2 * radius + 1), (_RUN * reach, reach + 1, 1))
