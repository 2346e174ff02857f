"""Triton kernels for GPUs: the operators that read far more than they compute, in one pass over memory.

Each computes what the pure form in its operator's file computes, in float32, and is tested against it (on a machine
without a GPU by Triton's interpreter). They run where `deblurkit.ops.backend` says so; the operators check the
arguments, and all tensors here are contiguous and of one dtype, float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from deblurkit.ops.deform_conv import Geometry

# what one program works on; a power of two each
_PIXELS, _OUTPUTS, _INPUTS = 64, 64, 32


@triton.jit
def _corner(image, y, x, weight, height, width, wanted):  # type: ignore[no-untyped-def]
    inside = wanted & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return tl.load(image + y * width + x, mask=inside, other=0.0) * weight


@triton.jit
def _deform_conv(  # type: ignore[no-untyped-def]
    x, offset, mask, weight, bias, out, height, width, out_height, out_width, channels, channels_each, outputs_each,
    channels_moved, kernel_width, taps, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x,
    MASKED: tl.constexpr, BIASED: tl.constexpr, PRECISION: tl.constexpr,
    PIXELS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    """A tile of outputs x pixels of one sample and one convolution group; the unfolded input exists in registers."""
    blocks = tl.cdiv(outputs_each, OUTPUTS)
    group = tl.program_id(1) // blocks
    sample = tl.program_id(2).to(tl.int64)
    positions = out_height * out_width
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    output = tl.program_id(1) % blocks * OUTPUTS + tl.arange(0, OUTPUTS)
    some_pixel, some_output = pixel < positions, output < outputs_each
    output += group * outputs_each
    top = (pixel // out_width * stride_y - pad_y)[None, :]
    left = (pixel % out_width * stride_x - pad_x)[None, :]

    depth = channels_each * taps
    moved_groups = channels // channels_moved
    x += sample * channels * height * width
    offset += sample * moved_groups * taps * 2 * positions
    mask += sample * moved_groups * taps * positions
    total = tl.zeros((OUTPUTS, PIXELS), dtype=tl.float32)
    for start in range(0, depth, INPUTS):
        row = start + tl.arange(0, INPUTS)
        some_row = row < depth
        wanted = some_row[:, None] & some_pixel[None, :]
        channel, tap = group * channels_each + row // taps, row % taps
        place = (channel // channels_moved * taps + tap)[:, None]
        moved_y = tl.load(offset + 2 * place * positions + pixel[None, :], mask=wanted, other=0.0)
        moved_x = tl.load(offset + (2 * place + 1) * positions + pixel[None, :], mask=wanted, other=0.0)
        # all that lies outside reads zero, wherever it is; clamped, it fits an integer
        at_y = tl.clamp(top + (tap // kernel_width * dilation_y)[:, None] + moved_y, -1.0, height * 1.0)
        at_x = tl.clamp(left + (tap % kernel_width * dilation_x)[:, None] + moved_x, -1.0, width * 1.0)
        floor_y, floor_x = tl.floor(at_y), tl.floor(at_x)
        down, right = at_y - floor_y, at_x - floor_x
        y0, x0 = floor_y.to(tl.int32), floor_x.to(tl.int32)
        image = x + channel[:, None].to(tl.int64) * height * width
        value = _corner(image, y0, x0, (1 - down) * (1 - right), height, width, wanted)
        value += _corner(image, y0, x0 + 1, (1 - down) * right, height, width, wanted)
        value += _corner(image, y0 + 1, x0, down * (1 - right), height, width, wanted)
        value += _corner(image, y0 + 1, x0 + 1, down * right, height, width, wanted)
        if MASKED:
            value *= tl.load(mask + place * positions + pixel[None, :], mask=wanted, other=0.0)
        kernel = tl.load(
            weight + output[:, None] * depth + row[None, :], mask=some_output[:, None] & some_row[None, :], other=0.0
        )
        total += tl.dot(kernel, value, input_precision=PRECISION)
    if BIASED:
        total += tl.load(bias + output, mask=some_output, other=0.0)[:, None]
    place = (sample * (outputs_each * (channels // channels_each)) + output[:, None]) * positions + pixel[None, :]
    tl.store(out + place, total, mask=some_output[:, None] & some_pixel[None, :])


def deform_conv(
    x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None, geometry: Geometry
) -> Tensor:
    """`deblurkit.ops.deform_conv.deform_conv2d` without gradients: `(N, Cout, Ho, Wo)`."""
    outputs_each = weight.shape[0] // geometry.groups
    out = x.new_empty(len(x), weight.shape[0], *geometry.size)
    grid = (
        triton.cdiv(geometry.positions, _PIXELS), geometry.groups * triton.cdiv(outputs_each, _OUTPUTS), len(x)
    )  # fmt: skip
    _deform_conv[grid](
        x, offset, offset if mask is None else mask, weight, weight if bias is None else bias, out,
        *x.shape[2:], *geometry.size, geometry.channels, geometry.channels // geometry.groups, outputs_each,
        geometry.channels // geometry.deformable_groups, geometry.kernel[1], geometry.taps,
        *geometry.stride, *geometry.padding, *geometry.dilation,
        MASKED=mask is not None, BIASED=bias is not None,
        # as the matrix products of the pure form
        PRECISION="tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee",
        PIXELS=_PIXELS, OUTPUTS=_OUTPUTS, INPUTS=_INPUTS,
    )  # fmt: skip
    return out


@triton.jit
def _filter(padded, kernels, out, count, height, width, SIZE: tl.constexpr, PIXELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Each pixel of each channel with its own kernel."""
    place = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    some = place < count
    plane, pixel = place // (height * width), place % (height * width)
    wide = width + SIZE - 1
    image = padded + plane * (height + SIZE - 1) * wide + pixel // width * wide + pixel % width
    kernel = kernels + plane * SIZE * SIZE * height * width + pixel
    total = tl.zeros((PIXELS,), dtype=tl.float32)
    for tap in tl.static_range(SIZE * SIZE):
        weight = tl.load(kernel + tap * height * width, mask=some, other=0.0)
        total += weight * tl.load(image + tap // SIZE * wide + tap % SIZE, mask=some, other=0.0)
    tl.store(out + place, total, mask=some)


@triton.jit
def _filter_to_kernels(grad, padded, out, count, height, width, SIZE: tl.constexpr, PIXELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The gradient of every kernel."""
    place = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    some = place < count
    plane, pixel = place // (height * width), place % (height * width)
    wide = width + SIZE - 1
    image = padded + plane * (height + SIZE - 1) * wide + pixel // width * wide + pixel % width
    kernel = out + plane * SIZE * SIZE * height * width + pixel
    slope = tl.load(grad + place, mask=some, other=0.0)
    for tap in tl.static_range(SIZE * SIZE):
        value = tl.load(image + tap // SIZE * wide + tap % SIZE, mask=some, other=0.0)
        tl.store(kernel + tap * height * width, slope * value, mask=some)


@triton.jit
def _filter_to_image(grad, kernels, out, count, height, width, SIZE: tl.constexpr, PIXELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The gradient of the padded image: every pixel asks the kernels that read it."""
    place = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    some = place < count
    high, wide = height + SIZE - 1, width + SIZE - 1
    plane, pixel = place // (high * wide), place % (high * wide)
    y, x = pixel // wide, pixel % wide
    total = tl.zeros((PIXELS,), dtype=tl.float32)
    for tap in tl.static_range(SIZE * SIZE):
        row, column = y - tap // SIZE, x - tap % SIZE
        inside = some & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        at = row * width + column
        slope = tl.load(grad + plane * height * width + at, mask=inside, other=0.0)
        total += slope * tl.load(kernels + (plane * SIZE * SIZE + tap) * height * width + at, mask=inside, other=0.0)
    tl.store(out + place, total, mask=some)


def _over(count: int) -> tuple[int]:
    return (triton.cdiv(count, 256),)


def _filter_arguments(kernels: Tensor, count: int) -> tuple[tuple[int, ...], dict[str, int]]:
    return (count, *kernels.shape[3:]), {"SIZE": round(kernels.shape[2] ** 0.5), "PIXELS": 256}


def filter_pixels(padded: Tensor, kernels: Tensor) -> Tensor:
    """`(B, C, H+k-1, W+k-1)` and `(B, C, k*k, H, W)` to `(B, C, H, W)`."""
    out = padded.new_empty(*padded.shape[:2], *kernels.shape[3:])
    numbers, constants = _filter_arguments(kernels, out.numel())
    _filter[_over(out.numel())](padded, kernels, out, *numbers, **constants)
    return out


def filter_pixels_backward(grad: Tensor, padded: Tensor, kernels: Tensor, wanted: Any) -> tuple[Tensor | None, ...]:
    """The gradients of `filter_pixels`' two arguments, those that are `wanted`."""
    of_padded = of_kernels = None
    if wanted[0]:
        of_padded = torch.empty_like(padded)
        numbers, constants = _filter_arguments(kernels, padded.numel())
        _filter_to_image[_over(padded.numel())](grad, kernels, of_padded, *numbers, **constants)
    if wanted[1]:
        of_kernels = torch.empty_like(kernels)
        numbers, constants = _filter_arguments(kernels, grad.numel())
        _filter_to_kernels[_over(grad.numel())](grad, padded, of_kernels, *numbers, **constants)
    return of_padded, of_kernels


@triton.jit
def _correlation(  # type: ignore[no-untyped-def]
    first, second, out, channels, height, width, radius, side, SIDE: tl.constexpr, PIXELS: tl.constexpr
):
    """All horizontal displacements of one vertical one, for a run of pixels in a row."""
    x = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    y, dy = tl.program_id(1) // side, tl.program_id(1) % side
    sample = tl.program_id(2).to(tl.int64)
    dx = tl.arange(0, SIDE)
    column = x[None, :] + dx[:, None] - radius
    row = y + dy - radius + tl.zeros_like(column)
    some = x < width
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    first += sample * channels * height * width + y * width
    second += sample * channels * height * width
    total = tl.zeros((SIDE, PIXELS), dtype=tl.float32)
    for channel in range(channels):
        here = tl.load(first + channel * height * width + x, mask=some, other=0.0)
        total += here[None, :] * tl.load(second + (channel * height + row) * width + column, mask=inside, other=0.0)
    place = ((sample * side * side + dy * side + dx[:, None]) * height + y) * width + x[None, :]
    tl.store(out + place, total / channels, mask=some[None, :] & (dx < side)[:, None])


@triton.jit
def _correlation_backward(  # type: ignore[no-untyped-def]
    grad, other, out, channels, height, width, radius, side,
    OF_SECOND: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The gradient of one map for some pixels and channels, from the volume's and from the other map."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    sample = tl.program_id(2).to(tl.int64)
    size = height * width
    some = (channel < channels)[:, None] & (pixel < size)[None, :]
    y, x = pixel // width, pixel % width
    grad += sample * side * side * size
    plane = (sample * channels + channel[:, None]) * size
    total = tl.zeros((CHANNELS, PIXELS), dtype=tl.float32)
    for move in range(side * side):
        dy, dx = move // side - radius, move % side - radius
        if OF_SECOND:
            row, column = y - dy, x - dx
        else:
            row, column = y + dy, x + dx
        inside = (pixel < size) & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        at = row * width + column
        slope = tl.load(grad + move * size + (at if OF_SECOND else pixel), mask=inside, other=0.0)
        total += slope[None, :] * tl.load(other + plane + at[None, :], mask=some & inside[None, :], other=0.0)
    tl.store(out + plane + pixel[None, :], total / channels, mask=some)


def correlation(first: Tensor, second: Tensor, radius: int) -> Tensor:
    """`deblurkit.ops.correlation.correlation` with stride 1, without gradients."""
    (batch, channels, height, width), side = first.shape, 2 * radius + 1
    out = first.new_empty(batch, side**2, height, width)
    _correlation[(triton.cdiv(width, 32), height * side, batch)](
        first, second, out, channels, height, width, radius, side, SIDE=triton.next_power_of_2(side), PIXELS=32
    )
    return out


def correlation_backward(grad: Tensor, other: Tensor, radius: int, of_second: bool) -> Tensor:
    """The gradient of `first` (or `of_second`), from the volume's gradient and the other map."""
    batch, channels, height, width = other.shape
    out = torch.empty_like(other)
    grid = (triton.cdiv(height * width, 64), triton.cdiv(channels, 8), batch)
    _correlation_backward[grid](
        grad, other, out, channels, height, width, radius, 2 * radius + 1, OF_SECOND=of_second, PIXELS=64, CHANNELS=8
    )
    return out
