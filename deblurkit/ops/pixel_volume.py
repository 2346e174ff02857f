"""Pixel volume: candidate pixels of an earlier frame (Son et al., Recurrent Video Deblurring, PVDNet, ACM TOG 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_GRAY = (0.2989, 0.5870, 0.1140)


def pixel_volume(previous: Tensor, flow: Tensor, current: Tensor, kernel_size: int = 5) -> Tensor:
    """For each pixel, the gray values of `previous` that its neighbours' motion suggests for it.

    With r = kernel_size // 2, channel `(dx+r)*kernel_size + (dy+r)` at pixel p looks at p's neighbour
    `q = p - (dx, dy)`, and reads `previous` at `trunc(q + flow(q)) + (dx, dy)`. It is zero where q is outside of the
    image, and the gray value of `current` at p where the place that is read is outside or in the outermost ring.

    Args:
        previous: RGB `(N, 3, H, W)`.
        flow: `(N, 2, H, W)` from current to previous, channel 0 horizontal. No gradient reaches it.
        current: RGB `(N, 3, H, W)`.
        kernel_size: odd.

    Returns:
        `(N, kernel_size^2, H, W)` in the dtype of `previous`.

    Raises:
        ValueError: shapes that do not fit, or kernel_size is even.
    """
    batch, _, height, width = previous.shape
    if current.shape != previous.shape or previous.shape[1] != 3 or flow.shape != (batch, 2, height, width):
        raise ValueError(
            f"expected two images (N, 3, H, W) and a flow (N, 2, H, W), got {tuple(previous.shape)}, "
            f"{tuple(current.shape)} and {tuple(flow.shape)}"
        )
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd, not {kernel_size}")
    radius = kernel_size // 2
    with torch.no_grad():
        flow = flow.to(torch.promote_types(flow.dtype, torch.float32))
        x = flow[:, 0] + torch.arange(width, device=flow.device, dtype=flow.dtype)
        y = flow[:, 1] + torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None]
        # beyond r pixels outside, no displacement leads back inside
        x = x.trunc().clamp(-radius, width - 1 + radius).long() + 2 * radius
        y = y.trunc().clamp(-radius, height - 1 + radius).long() + 2 * radius
        matches = y * (width + 4 * radius) + x
    volume: Tensor = _PixelVolume.apply(_gray(previous), _gray(current), matches, radius)
    return volume


def _gray(image: Tensor) -> Tensor:
    red, green, blue = image.unbind(1)
    return red * _GRAY[0] + green * _GRAY[1] + blue * _GRAY[2]


class _PixelVolume(torch.autograd.Function):
    """Gathers channel by channel; the indices of only one exist at a time, and backward makes them again.

    `matches (N, H, W)` are places in `previous (N, H, W)` padded by 2r on all sides.
    """

    @staticmethod
    def forward(ctx: Any, previous: Tensor, current: Tensor, matches: Tensor, radius: int) -> Tensor:
        usable = _usable(previous, radius)
        padded = F.pad(previous, [2 * radius] * 4).flatten(1)
        volume = previous.new_zeros(len(previous), (2 * radius + 1) ** 2, *previous.shape[1:])
        for channel, rows, columns, places in _channels(matches, radius):
            found = padded.gather(1, places.flatten(1)).view_as(places)
            volume[:, channel, rows, columns] = torch.where(usable[places], found, current[:, rows, columns])
        ctx.save_for_backward(matches, usable)
        ctx.radius = radius
        return volume

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        matches, usable = ctx.saved_tensors
        margin = 2 * ctx.radius
        batch, height, width = matches.shape
        grad_current = grad.new_zeros(batch, height, width)
        padded = grad.new_zeros(batch, usable.numel())
        for channel, rows, columns, places in _channels(matches, ctx.radius):
            part, read = grad[:, channel, rows, columns], usable[places]
            padded.scatter_add_(1, places.flatten(1), (part * read).flatten(1))
            grad_current[:, rows, columns] += part * ~read
        grad_previous = padded.view(batch, height + 2 * margin, width + 2 * margin)
        grad_previous = grad_previous[:, margin : margin + height, margin : margin + width]
        return grad_previous, grad_current, None, None


def _usable(image: Tensor, radius: int) -> Tensor:
    """Which places of the padded, flattened image may be read: `(H+4r)*(W+4r)`, all but its border."""
    margin = 2 * radius
    height, width = image.shape[1:]
    inner = torch.ones(max(0, height - 2), max(0, width - 2), dtype=torch.bool, device=image.device)
    vertical, horizontal = height + 2 * margin - len(inner), width + 2 * margin - inner.shape[1]
    left, top = margin + 1, margin + 1
    return F.pad(inner, [left, horizontal - left, top, vertical - top]).flatten()


def _channels(matches: Tensor, radius: int) -> Iterator[tuple[int, slice, slice, Tensor]]:
    """Of each displacement: its channel, the rows and columns of pixels that have such a neighbour, what they read."""
    _, height, width = matches.shape
    stride = width + 4 * radius
    for dx in range(-radius, radius + 1):
        for dy in range(-radius, radius + 1):
            rows = slice(max(0, dy), min(height, height + dy))
            columns = slice(max(0, dx), min(width, width + dx))
            neighbours = matches[:, rows.start - dy : rows.stop - dy, columns.start - dx : columns.stop - dx]
            yield (dx + radius) * (2 * radius + 1) + dy + radius, rows, columns, neighbours + (dy * stride + dx)
