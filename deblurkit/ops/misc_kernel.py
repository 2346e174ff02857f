"""The filter of MISC (Liu et al., Motion-adaptive Separable Collaborative Filters, CVPR 2024).

Every pixel has a separable kernel, a weight for each tap and an offset for each tap.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deblurkit.ops import backend
from deblurkit.ops.sampling import (
    BORDER,
    GridOf,
    chunks,
    gradient_grid_of,
    grid_of,
    sample,
    sample_backward,
    working_dtype,
)


def misc_kernel(
    padded: Tensor,
    vertical: Tensor,
    horizontal: Tensor,
    alpha: Tensor,
    beta: Tensor,
    weight: Tensor,
    *,
    budget: int | None = None,
) -> Tensor:
    """`out[c,y,x] = sum_{i,j<k} V(c, py, px) * vertical[i,y,x] * horizontal[j,y,x] * weight[i*k+j,y,x]` with
    `py = y + i - (k-3)/2 + alpha[i*k+j,y,x]` and `px = x + j - (k-3)/2 + beta[i*k+j,y,x]` in padded coordinates.

    As upstream: the taps start (k-3)/2 pixels up-left of the centred ones. V is bilinear inside; per axis, it is twice
    the border pixel outside and on the last row or column.

    Args:
        padded: `(N, C, H+k-1, W+k-1)`.
        vertical: `(N, k, H, W)`.
        horizontal: `(N, k, H, W)`.
        alpha: `(N, k*k, H, W)`, vertical offsets.
        beta: `(N, k*k, H, W)`, horizontal offsets.
        weight: `(N, k*k, H, W)`.
        budget: bytes that the samples of a piece of the output may take; `backend.BUDGETS` if None.

    Returns:
        `(N, C, H, W)` in the dtype of `padded`; half precision is computed in float32.

    Raises:
        ValueError: shapes that do not fit.
    """
    batch, size, height, width = vertical.shape
    taps = (batch, size**2, height, width)
    wanted = {"padded": (batch, padded.shape[1], height + size - 1, width + size - 1), "horizontal": vertical.shape}
    wanted |= {"alpha": taps, "beta": taps, "weight": taps}
    given = {"padded": padded, "horizontal": horizontal, "alpha": alpha, "beta": beta, "weight": weight}
    for name, tensor in given.items():
        if tensor.shape != wanted[name]:
            raise ValueError(f"{name} must be {tuple(wanted[name])}, as vertical, got {tuple(tensor.shape)}")
    tensors = (padded, vertical, horizontal, alpha, beta, weight)
    dtype = working_dtype(*tensors)
    out: Tensor = _MiscKernel.apply(*(one.to(dtype) for one in tensors), backend.budget_of(padded.device.type, budget))
    return out.to(padded.dtype)


class _MiscKernel(torch.autograd.Function):
    """In pieces of the output's pixels; a piece's samples `(n, C, k*k, p)` are made again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, *rest: Any) -> Tensor:
        *fields, ctx.budget = rest
        ctx.save_for_backward(padded, *fields)
        size = fields[0].shape[2:]
        pieces = _Pieces(padded, *fields)
        out = padded.new_empty(*padded.shape[:2], size.numel())
        for n, p in pieces.cut(ctx.budget):
            vertical, horizontal, weight, doubling, grid = pieces.read(n, p, grid_of)
            coefficients = (vertical * horizontal).mul_(weight).mul_(doubling).flatten(1, 2)
            out[n, :, p] = sample(padded[n], grid, BORDER).mul_(coefficients[:, None]).sum(2)
        return out.unflatten(2, size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        padded, *fields = ctx.saved_tensors
        pieces = _Pieces(padded, *fields)
        of_image = ctx.needs_input_grad[0]
        grad = grad.flatten(2)
        grad_padded = padded.new_zeros(padded.shape) if of_image else None
        grads = [field.new_empty(field.flatten(2).shape) for field in fields]
        grad_vertical, grad_horizontal, grad_alpha, grad_beta, grad_weight = grads
        for n, p in pieces.cut(ctx.budget):
            vertical, horizontal, weight, doubling, grid = pieces.read(n, p, gradient_grid_of)
            grad_out = grad[n, :, None, p]
            common = (
                sample(padded[n], grid, BORDER).mul_(grad_out).sum(1).unflatten(1, weight.shape[1:3]).mul_(doubling)
            )
            weighted = common * weight
            grad_vertical[n, :, p] = (weighted * horizontal).sum(2)
            grad_horizontal[n, :, p] = (weighted * vertical).sum(1)
            kernel = vertical * horizontal
            grad_weight[n, :, p] = common.mul_(kernel).flatten(1, 2)
            grad_samples = grad_out * kernel.mul_(weight).mul_(doubling).flatten(1, 2)[:, None]
            grad_image, along_x, along_y = sample_backward(grad_samples, padded[n], grid, BORDER, of_image=of_image)
            if grad_padded is not None and grad_image is not None:
                grad_padded[n] += grad_image
            grad_alpha[n, :, p], grad_beta[n, :, p] = along_y, along_x
        return grad_padded, *(one.view(field.shape) for one, field in zip(grads, fields, strict=True)), None


class _Pieces:
    """The inputs of one call, by position."""

    def __init__(
        self, padded: Tensor, vertical: Tensor, horizontal: Tensor, alpha: Tensor, beta: Tensor, weight: Tensor
    ) -> None:
        self.padded = padded
        self.size = vertical.shape[1]
        self.vertical, self.horizontal = vertical.flatten(2).unsqueeze(2), horizontal.flatten(2).unsqueeze(1)
        self.alpha, self.beta = alpha.flatten(2), beta.flatten(2)
        self.weight = weight.flatten(2).unflatten(1, (self.size, self.size))
        height, width = vertical.shape[2:]
        columns, rows, taps = (
            torch.arange(n, device=padded.device, dtype=padded.dtype) for n in (width, height, self.size)
        )
        self.rows, self.columns = rows.repeat_interleave(width), columns.repeat(height)
        taps = taps - (self.size - 3) // 2
        self.tap_rows, self.tap_columns = taps.repeat_interleave(self.size)[:, None], taps.repeat(self.size)[:, None]

    def cut(self, budget: int) -> list[tuple[slice, slice]]:
        """Samples and positions of every piece."""
        item = self.padded.shape[1] * self.size**2 * self.padded.element_size()
        blocks = chunks(len(self.padded), 1, len(self.rows), item, budget, split_groups=False)
        return [(n, p) for n, _, p in blocks]

    def read(self, n: slice, p: slice, grid_of: GridOf) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Vertical `(n, k, 1, p)`, horizontal `(n, 1, k, p)`, weight and doubling `(n, k, k, p)`,
        grid `(n, k*k, p, 2)`.
        """
        height, width = self.padded.shape[-2:]
        y = self.alpha[n, :, p] + (self.rows[p] + self.tap_rows)
        x = self.beta[n, :, p] + (self.columns[p] + self.tap_columns)
        outside = ((y < 0) | (y >= height - 1)).to(y.dtype) + ((x < 0) | (x >= width - 1))
        doubling = outside.exp2_().unflatten(1, (self.size, self.size))
        grid = grid_of(x, y, width, height)
        return self.vertical[n, :, :, p], self.horizontal[n, :, :, p], self.weight[n, :, :, p], doubling, grid
