"""Deformable convolution: every tap of every output pixel reads its own place in the input.

Version 1 (Dai et al., Deformable Convolutional Networks, ICCV 2017) moves the taps, version 2 (Zhu et al., Deformable
ConvNets v2, CVPR 2019) weighs them too. Layouts are those of torchvision and mmcv, so that their weights fit.

An unfolded input (every sample that is read) takes kernel_size^2 times the memory of the input. Here it exists in
pieces of a set budget, in the forward and in the backward pass; autograd keeps the inputs alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deblurkit.ops import backend
from deblurkit.ops.sampling import GridOf, chunks, gradient_grid_of, grid_of, sample, sample_backward, working_dtype

Pair = int | tuple[int, int]


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    budget: int | None = None,
) -> Tensor:
    """Convolution whose tap `(i, j)` at output pixel `(y, x)` reads the input at
    `(y*stride - padding + i*dilation + dy, x*stride - padding + j*dilation + dx)`, times the mask.

    Reads are bilinear, and zero outside of the image. The numbers of convolution groups and of deformable groups
    (D; contiguous blocks of input channels that move together) follow from the shapes; neither needs to divide the
    other.

    Args:
        x: `(N, Cin, H, W)`.
        offset: `(N, D * 2 * kh*kw, Ho, Wo)` in input pixels; per deformable group and tap (rows first) dy, then dx.
        weight: `(Cout, Cin/groups, kh, kw)`.
        bias: `(Cout,)`.
        mask: `(N, D * kh*kw, Ho, Wo)`, used as it comes; None is version 1.
        stride: of rows and columns.
        padding: shifts the coordinates; what is read there is zero.
        dilation: distance between taps.
        budget: bytes that one piece of the unfolded input may take; `backend.BUDGETS` if None.

    Returns:
        `(N, Cout, Ho, Wo)` in the dtype of x; half precision is computed in float32.

    Raises:
        ValueError: shapes that do not fit.
    """
    geometry = Geometry.of(x, offset, weight, bias, mask, stride, padding, dilation)
    budget = backend.budget_of(x.device.type, budget)
    dtype = working_dtype(x, offset, weight, bias, mask)
    arguments = [None if one is None else one.to(dtype) for one in (x, offset, mask, weight, bias)]
    with backend.without_autocast(x.device.type):
        run = _DeformConv.apply
        if backend.choose("deform_conv2d", x.device.type) == "torchvision" and geometry.column_bytes(dtype) <= budget:
            run = _torchvision
        out: Tensor = run(*arguments, geometry, budget)
    return out.to(x.dtype)


class Geometry(NamedTuple):
    """The sizes of one call of `deform_conv2d`."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    deformable_groups: int
    channels: int  # of the input
    size: tuple[int, int]  # of the output

    @classmethod
    def of(
        cls,
        x: Tensor,
        offset: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        mask: Tensor | None,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
    ) -> Geometry:
        """Read the sizes off the tensors; raises ValueError where they do not fit each other."""
        strides, paddings, dilations = _pair(stride), _pair(padding), _pair(dilation)
        batch, channels, *image = x.shape
        outputs, channels_each, *kernel = weight.shape
        taps = kernel[0] * kernel[1]
        if channels % channels_each or outputs % (channels // channels_each):
            raise ValueError(f"a weight {tuple(weight.shape)} does not fit an input {tuple(x.shape)}")
        size = [
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(image, kernel, strides, paddings, dilations, strict=True)
        ]
        deformable_groups = offset.shape[1] // (2 * taps)
        if offset.shape != (batch, deformable_groups * 2 * taps, *size) or not deformable_groups:
            wanted = (batch, f"D*{2 * taps}", *size)
            raise ValueError(f"the offset must be {wanted}, got {tuple(offset.shape)}".replace("'", ""))
        if channels % deformable_groups:
            raise ValueError(f"{deformable_groups} deformable groups do not divide {channels} input channels")
        if mask is not None and mask.shape != (batch, deformable_groups * taps, *size):
            raise ValueError(
                f"the mask must be {(batch, deformable_groups * taps, *size)}, as the offset, got {tuple(mask.shape)}"
            )
        if bias is not None and bias.shape != (outputs,):
            raise ValueError(f"the bias must be {(outputs,)}, got {tuple(bias.shape)}")
        return cls(
            (kernel[0], kernel[1]),
            strides,
            paddings,
            dilations,
            channels // channels_each,
            deformable_groups,
            channels,
            (size[0], size[1]),
        )

    @property
    def taps(self) -> int:
        """How many places an output pixel reads, per channel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def positions(self) -> int:
        """How many pixels the output has."""
        return self.size[0] * self.size[1]

    def column_bytes(self, dtype: torch.dtype) -> int:
        """Bytes of one sample's unfolded input."""
        return self.channels * self.taps * self.positions * dtype.itemsize


def _pair(value: Pair) -> tuple[int, int]:
    """One number for both axes, or one for each."""
    return (value, value) if isinstance(value, int) else value


def _torchvision(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    budget: int,
) -> Tensor:
    """torchvision's operator, on as many samples at a time as the budget allows."""
    each = max(1, budget // max(1, geometry.column_bytes(x.dtype)))
    outputs = [
        torch.ops.torchvision.deform_conv2d(
            x[i : i + each],
            weight,
            offset[i : i + each],
            x.new_zeros(len(x[i : i + each]), 1) if mask is None else mask[i : i + each],
            weight.new_zeros(weight.shape[0]) if bias is None else bias,
            *geometry.stride,
            *geometry.padding,
            *geometry.dilation,
            geometry.groups,
            geometry.deformable_groups,
            mask is not None,
        )
        for i in range(0, max(1, len(x)), each)
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


class _DeformConv(torch.autograd.Function):
    """`deform_conv2d` in pieces. A piece holds the samples that its output pixels read, and is made again in backward.

    A piece's columns are `(n, g * Cin/D, K, p)`: n samples, g deformable groups, p output pixels.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        offset: Tensor,
        mask: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        geometry: Geometry,
        budget: int,
    ) -> Tensor:
        ctx.save_for_backward(x, offset, mask, weight)
        ctx.geometry, ctx.budget = geometry, budget
        kernels = backend.triton_kernels("deform_conv2d", x, offset, mask, weight, bias)
        if kernels is not None:
            given = [None if one is None else one.contiguous() for one in (x, offset, mask, weight, bias)]
            return cast(Tensor, kernels.deform_conv(*given, geometry))
        pieces = _Pieces(x, offset, mask, weight, geometry)
        out = x.new_empty(len(x), weight.shape[0], geometry.positions)
        for n, g, p in pieces.cut(budget, split_groups=False):
            image, grid = pieces.read(n, g, p, grid_of)
            columns = sample(image, grid)
            if pieces.mask is not None:
                columns *= pieces.mask[n, g, None, :, p].flatten(0, 1)
            taps = pieces.kernels(n, g)
            product = torch.bmm(taps, columns.view(len(taps), taps.shape[2], -1))
            product = product.unflatten(0, (n.stop - n.start, -1)).flatten(1, 2)
            out[n, :, p] = product if bias is None else product.add_(bias[:, None])
        return out.unflatten(2, geometry.size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, offset, mask, weight = ctx.saved_tensors
        of_x, of_offset, of_mask, of_weight, of_bias = ctx.needs_input_grad[:5]
        with backend.without_autocast(x.device.type):
            geometry = ctx.geometry
            pieces = _Pieces(x, offset, mask, weight, geometry)
            grad = grad.flatten(2)
            grad_bias = grad.sum((0, 2)) if of_bias else None
            grad_x = x.new_zeros(pieces.images.shape) if of_x else None
            grad_offset = x.new_empty(pieces.offset.shape) if of_offset else None
            grad_mask = x.new_empty(pieces.mask.shape) if of_mask and pieces.mask is not None else None
            grad_weight = x.new_zeros(pieces.weight.shape) if of_weight else None
            for n, g, p in pieces.cut(ctx.budget, split_groups=True):
                image, grid = pieces.read(n, g, p, gradient_grid_of)
                modulation = None if pieces.mask is None else pieces.mask[n, g, None, :, p].flatten(0, 1)
                part, inner = pieces.conv_groups(g)
                grad_out = grad[n, :, p].unflatten(1, (geometry.groups, -1))[:, part].flatten(0, 1)
                grad_columns = torch.bmm(pieces.kernels(n, g).mT, grad_out).view(*image.shape[:2], geometry.taps, -1)
                if grad_mask is not None or grad_weight is not None:
                    columns = sample(image, grid)
                    if grad_mask is not None:
                        grad_mask[n, g, :, p] = (columns * grad_columns).sum(1).unflatten(0, (n.stop - n.start, -1))
                    if grad_weight is not None:
                        if modulation is not None:
                            columns *= modulation
                        columns = columns.view(len(grad_out), -1, grad_out.shape[-1])
                        products = torch.bmm(grad_out, columns.mT).unflatten(0, (n.stop - n.start, -1)).sum(0)
                        grad_weight[part, :, inner] += products.unflatten(2, (-1, geometry.taps))
                    del columns
                if grad_x is None and grad_offset is None:
                    continue
                if modulation is not None:
                    grad_columns *= modulation
                grad_image, along_x, along_y = sample_backward(grad_columns, image, grid, of_image=of_x)
                if grad_x is not None and grad_image is not None:
                    grad_x[n, g] += grad_image.unflatten(0, (n.stop - n.start, -1))
                if grad_offset is not None:
                    along = torch.stack([along_y, along_x], dim=2)
                    grad_offset[n, g, :, :, p] = along.unflatten(0, (n.stop - n.start, -1))
        return (
            None if grad_x is None else grad_x.view_as(x),
            None if grad_offset is None else grad_offset.view_as(offset),
            None if grad_mask is None else grad_mask.view_as(mask),
            None if grad_weight is None else grad_weight.view_as(weight),
            grad_bias,
            None,
            None,
        )


class _Pieces:
    """The inputs of one call, seen by deformable group and position."""

    def __init__(self, x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, geometry: Geometry) -> None:
        self.geometry = geometry
        groups, taps = geometry.deformable_groups, geometry.taps
        self.images = x.contiguous().unflatten(1, (groups, -1))  # (N, D, Cin/D, H, W)
        self.offset = offset.flatten(2).unflatten(1, (groups, taps, 2))  # (N, D, K, 2, P)
        self.mask = None if mask is None else mask.flatten(2).unflatten(1, (groups, taps))  # (N, D, K, P)
        self.weight = weight.flatten(2).unflatten(0, (geometry.groups, -1))  # (G, Cout/G, Cin/G, K)
        # where undeformed taps read: a pixel's place (P,) plus a tap's (K, 1), rows and columns
        axes = zip(geometry.size, geometry.kernel, geometry.stride, geometry.padding, geometry.dilation, strict=True)
        (rows, tap_rows), (columns, tap_columns) = (
            (
                torch.arange(n, device=x.device, dtype=x.dtype) * s - p,
                torch.arange(k, device=x.device, dtype=x.dtype) * d,
            )
            for n, k, s, p, d in axes
        )
        self.rows, self.columns = rows.repeat_interleave(len(columns)), columns.repeat(len(rows))
        self.tap_rows = tap_rows.repeat_interleave(len(tap_columns))[:, None]
        self.tap_columns = tap_columns.repeat(len(tap_rows))[:, None]

    def cut(self, budget: int, *, split_groups: bool) -> list[tuple[slice, slice, slice]]:
        """Samples, deformable groups and positions of every piece."""
        geometry, (samples, groups, channels) = self.geometry, self.images.shape[:3]
        # a deformable group must hold whole convolution groups, or lie in one, to be a piece of its own
        aligned = geometry.groups % groups == 0 or groups % geometry.groups == 0
        item = channels * geometry.taps * self.images.element_size()
        return list(chunks(samples, groups, geometry.positions, item, budget, split_groups=split_groups and aligned))

    def read(self, n: slice, g: slice, p: slice, grid_of: GridOf) -> tuple[Tensor, Tensor]:
        """The images `(n*g, Cin/D, H, W)` of a piece and the grid `(n*g, K, p, 2)` at which it reads them."""
        image = self.images[n, g].flatten(0, 1)
        offset = self.offset[n, g, :, :, p].flatten(0, 1)
        y = offset[:, :, 0] + (self.rows[p] + self.tap_rows)
        x = offset[:, :, 1] + (self.columns[p] + self.tap_columns)
        return image, grid_of(x, y, image.shape[-1], image.shape[-2])

    def conv_groups(self, g: slice) -> tuple[slice, slice]:
        """Which convolution groups the channels of some deformable groups belong to, and which channels of those."""
        channels, each = self.images.shape[2], self.weight.shape[2]
        start, stop = g.start * channels, g.stop * channels
        first = start // each
        if stop <= (first + 1) * each:
            return slice(first, first + 1), slice(start - first * each, stop - first * each)
        return slice(first, stop // each), slice(0, each)

    def kernels(self, n: slice, g: slice) -> Tensor:
        """`(n*r, Cout/G, c*K)`: of each sample, r convolution groups with c input channels each."""
        part, inner = self.conv_groups(g)
        return self.weight[part, :, inner].flatten(2).expand(n.stop - n.start, -1, -1, -1).flatten(0, 1)
