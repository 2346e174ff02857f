"""Guided deformable attention (Liang et al., RVRT, NeurIPS 2022): attention over places that offsets point to.

A query pixel attends to a window of samples in every frame of another clip. The sampled keys and values take
2 * frames * kernel_size^2 times the memory of the queries; here they exist in pieces of a set budget.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deblurkit.ops import backend
from deblurkit.ops.sampling import GridOf, chunks, gradient_grid_of, grid_of, sample, sample_backward, working_dtype


def deform_attention(
    query: Tensor,
    keys_values: Tensor,
    offset: Tensor,
    heads: int,
    deformable_groups: int,
    *,
    kernel_size: int = 3,
    budget: int | None = None,
) -> Tensor:
    """Softmax attention of each query pixel over `T * kernel_size^2` sampled places, without bias or mask.

    Row b of the queries is frame f = b % T of sample b // T. Its slot n, of T, reads frame (n + f) % T of the keys and
    values: slot 0 the same place in the clip. Reads are bilinear and zero outside; tap `(i, j)` reads at
    `(y - k//2 + i + dy, x - k//2 + j + dx)`. The deformable groups divide keys and values together, so that the first
    half of them moves the keys and the second half the values.

    Args:
        query: `(B*T, 1, C, H, W)`.
        keys_values: `(B, T, 2*C, H, W)`, keys first.
        offset: `(B*T, T * deformable_groups * k*k * 2, H, W)`: slot, group, tap (rows first), dy and dx.
        heads: divides C.
        deformable_groups: D, even; D/2 divides C.
        kernel_size: k, odd.
        budget: bytes that one piece of the sampled keys and values may take; `backend.BUDGETS` if None.

    Returns:
        `(B*T, 1, C, H, W)` in the dtype of the query; half precision is computed in float32.

    Raises:
        ValueError: shapes or numbers that do not fit.
    """
    shape = _Shape.of(query, keys_values, offset, heads, deformable_groups, kernel_size)
    tensors = (query, keys_values, offset)
    dtype = working_dtype(*tensors)
    with backend.without_autocast(query.device.type):
        out: Tensor = _DeformAttention.apply(
            *(one.to(dtype) for one in tensors), shape, backend.budget_of(query.device.type, budget)
        )
    return out.to(query.dtype)


class _Shape(NamedTuple):
    """The sizes of one call. Units are the finest division of the channels that cuts neither heads nor groups."""

    clip: int
    units: int
    heads: int  # per unit
    groups: int  # per unit, of the keys; as many of the values
    channels: int  # per unit
    kernel: int
    size: tuple[int, int]

    @classmethod
    def of(
        cls, query: Tensor, keys_values: Tensor, offset: Tensor, heads: int, deformable_groups: int, kernel: int
    ) -> _Shape:
        rows, _, channels, height, width = query.shape
        batch, clip = keys_values.shape[:2]
        wanted = {
            "query": (batch * clip, 1, channels, height, width),
            "keys_values": (batch, clip, 2 * channels, height, width),
            "offset": (rows, clip * deformable_groups * kernel**2 * 2, height, width),
        }
        for name, tensor in (("query", query), ("keys_values", keys_values), ("offset", offset)):
            if tensor.shape != wanted[name]:
                raise ValueError(f"{name} must be {wanted[name]}, got {tuple(tensor.shape)}")
        if kernel % 2 == 0 or deformable_groups % 2 or channels % (deformable_groups // 2) or channels % heads:
            raise ValueError(
                f"kernel_size={kernel} must be odd, deformable_groups={deformable_groups} even, and half of them and "
                f"heads={heads} must divide the {channels} channels"
            )
        units = math.gcd(heads, deformable_groups // 2)
        return cls(
            clip, units, heads // units, deformable_groups // 2 // units, channels // units, kernel, (height, width)
        )


class _DeformAttention(torch.autograd.Function):
    """In pieces of a row: some units and pixels; their samples are made again in the backward pass.

    In the shapes below, u units, T slots, h heads of d channels, K taps, p pixels.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys_values: Tensor, offset: Tensor, shape: _Shape, budget: int) -> Tensor:
        ctx.save_for_backward(query, keys_values, offset)
        ctx.shape, ctx.budget = shape, budget
        views = _Views(query, keys_values, offset, shape)
        out = query.new_empty(views.query.shape)
        for row, u, positions in views.cut(budget):
            image = views.image(row, u)
            for p in positions:
                keys, values = views.split(sample(image, views.grid(row, u, p, grid_of)))
                weights = _softmax(keys.mul_(views.query[row, u, :, :, None, p]).sum(3).mul_(views.scale))
                out[row, u, :, :, p] = values.mul_(weights.unsqueeze(3)).sum((0, 4))
        return out.view(query.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, keys_values, offset = ctx.saved_tensors
        of_image = ctx.needs_input_grad[1]
        with backend.without_autocast(query.device.type):
            views = _Views(query, keys_values, offset, ctx.shape)
            grad = grad.reshape(views.query.shape)
            grad_query = query.new_empty(views.query.shape)
            grad_offset = query.new_empty(views.offset.shape)
            grad_keys_values = query.new_zeros(views.keys_values.shape)
            for row, u, positions in views.cut(ctx.budget):
                image = views.image(row, u)
                grad_images = torch.zeros_like(image)
                for p in positions:
                    grid = views.grid(row, u, p, gradient_grid_of)
                    sampled = sample(image, grid)
                    keys, values = views.split(sampled)  # views of it, (T, u, h, d, K, p) each
                    queries, grad_out = views.query[row, u, :, :, None, p], grad[row, u, :, :, None, p]
                    weights = _softmax((keys * queries).sum(3).mul_(views.scale))
                    grad_logits = (values * grad_out).sum(3)
                    grad_logits -= (grad_logits * weights).sum((0, 3), keepdim=True)
                    grad_logits = grad_logits.mul_(weights).mul_(views.scale).unsqueeze(3)
                    grad_query[row, u, :, :, p] = (keys * grad_logits).sum((0, 4))
                    # the samples have served: their memory takes their gradients
                    keys.copy_(queries * grad_logits)
                    values.copy_(grad_out * weights.unsqueeze(3))
                    grad_image, along_x, along_y = sample_backward(sampled, image, grid, of_image=of_image)
                    along = torch.stack([along_y, along_x], dim=2)
                    grad_offset[row, :, :, u, :, :, :, p] = along.view(views.offset[row, :, :, u, :, :, :, p].shape)
                    if grad_image is not None:
                        grad_images += grad_image
                clip, frame = divmod(row, ctx.shape.clip)
                part = grad_keys_values[clip, :, :, u]
                part += grad_images.view(part.shape).roll(frame, 0)
        return (
            grad_query.view(query.shape),
            grad_keys_values.view(keys_values.shape) if of_image else None,
            grad_offset.view(offset.shape),
            None,
            None,
        )


class _Views:
    """The inputs of one call, seen by unit and position."""

    def __init__(self, query: Tensor, keys_values: Tensor, offset: Tensor, shape: _Shape) -> None:
        self.shape = shape
        clip, units, heads, groups, channels, kernel, size = shape
        self.scale = (channels // heads) ** -0.5
        self.query = query.reshape(len(query), units, heads, channels // heads, -1)
        self.keys_values = keys_values.reshape(-1, clip, 2, units, groups, channels // groups, *size)
        self.offset = offset.reshape(len(query), clip, 2, units, groups, kernel**2, 2, -1)
        columns, rows, taps = (
            torch.arange(n, device=query.device, dtype=query.dtype) for n in (size[1], size[0], kernel)
        )
        self.rows, self.columns = rows.repeat_interleave(len(columns)), columns.repeat(len(rows))
        taps = taps - kernel // 2
        self.tap_rows, self.tap_columns = taps.repeat_interleave(kernel)[:, None], taps.repeat(kernel)[:, None]

    def cut(self, budget: int) -> Iterator[tuple[int, slice, list[slice]]]:
        """Row, units and list of positions of the pieces."""
        clip, units, _, _, channels, kernel, _ = self.shape
        item = clip * 2 * channels * kernel**2 * self.query.element_size()
        blocks: dict[tuple[int, int], list[slice]] = {}
        for _, u, p in chunks(1, units, len(self.rows), item, budget, split_groups=True):
            blocks.setdefault((u.start, u.stop), []).append(p)
        for row in range(len(self.query)):
            for (start, stop), positions in blocks.items():
                yield row, slice(start, stop), positions

    def image(self, row: int, u: slice) -> Tensor:
        """What a row reads, `(T * 2*u*groups, channels, H, W)`, its own frame first."""
        clip, frame = divmod(row, self.shape.clip)
        return self.keys_values[clip, :, :, u].roll(-frame, 0).flatten(0, 3)

    def grid(self, row: int, u: slice, p: slice, grid_of: GridOf) -> Tensor:
        """Where it is read, `(T * 2*u*groups, K, p, 2)`."""
        offset = self.offset[row, :, :, u, :, :, :, p].flatten(0, 3)
        y = offset[:, :, 0] + (self.rows[p] + self.tap_rows)
        x = offset[:, :, 1] + (self.columns[p] + self.tap_columns)
        return grid_of(x, y, self.shape.size[1], self.shape.size[0])

    def split(self, sampled: Tensor) -> tuple[Tensor, Tensor]:
        """Samples `(T * 2*u*groups, channels, K, p)` to keys and values `(T, u, h, d, K, p)`, views."""
        clip, _, heads, _, channels, kernel, _ = self.shape
        shape = (clip, 2, -1, heads, channels // heads, kernel**2, sampled.shape[-1])
        keys, values = sampled.view(shape).unbind(1)
        return keys, values


def _softmax(logits: Tensor) -> Tensor:
    """Over the slots and taps of `(T, u, h, K, p)`."""
    exponentials = logits.sub_(logits.amax((0, 3), keepdim=True)).exp_()
    return exponentials.div_(exponentials.sum((0, 3), keepdim=True))
