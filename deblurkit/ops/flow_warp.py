"""Warping by optical flow, in the conventions of the networks that do it.

A flow is `(N, 2, H, W)` on the grid of the output: channel 0 is horizontal, 1 vertical, in pixels of the image that is
read. Images are read at `(y + v, x + u)`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from deblurkit.ops.sampling import grid_of, working_dtype

_OUTSIDE = -4.0  # a grid coordinate far enough outside to read zero


def flow_warp(
    x: Tensor,
    flow: Tensor,
    *,
    mode: Literal["bilinear", "nearest"] = "bilinear",
    padding: Literal["zeros", "border"] = "zeros",
    misaligned: bool = False,
) -> Tensor:
    """Backward warp `out[n,c,y,x] = x[n, c, y + v, x + u]`.

    Args:
        x: `(N, C, H, W)`.
        flow: `(N, 2, Ho, Wo)`.
        mode: bilinear, or the nearest pixel (halves to the even one).
        padding: outside is zero (each corner of a bilinear read on its own), or the nearest pixel of the border.
        misaligned: read at `(x + u) * W / (W - 1) - 0.5` instead, as code of PyTorch <= 1.2 does when it runs unchanged
            on a newer one (align_corners). No network here wants that; it is for comparing with such code.

    Returns:
        `(N, C, Ho, Wo)` in the dtype of x; half precision is computed in float32.

    Raises:
        ValueError: shapes that do not fit.
    """
    px, py = _points(x, flow)
    if misaligned:
        height, width = x.shape[-2:]
        px, py = px * (width / max(width - 1, 1)) - 0.5, py * (height / max(height - 1, 1)) - 0.5
    return _read(x, px, py, mode, padding)


def flow_warp_corners(x: Tensor, flow: Tensor) -> Tensor:
    """The four pixels around the point that a flow leads to, unweighted ("nearest4" of Liang et al., VRT, 2022).

    Args:
        x: `(N, C, H, W)`.
        flow: `(N, 2, Ho, Wo)`. No gradient reaches it.

    Returns:
        `(N, 4*C, Ho, Wo)`, all channels at (floor x, floor y), then (floor x, ceil y), (ceil x, floor y),
        (ceil x, ceil y); zero outside.

    Raises:
        ValueError: shapes that do not fit.
    """
    px, py = _points(x, flow.detach())
    left, right, top, bottom = px.floor(), px.ceil(), py.floor(), py.ceil()
    corners = ((left, top), (left, bottom), (right, top), (right, bottom))
    return torch.cat([_read(x, *corner, "nearest", "zeros") for corner in corners], dim=1)


def masked_warp_pwc(x: Tensor, flow: Tensor) -> Tensor:
    """Warp inside of PWC-Net: zero wherever a warped plane of ones is at most 0.999.

    Args:
        x: `(N, C, H, W)`.
        flow: `(N, 2, Ho, Wo)`.

    Returns:
        `(N, C, Ho, Wo)`.

    Raises:
        ValueError: shapes that do not fit.
    """
    px, py = _points(x, flow)
    return _read_where(_ones_plane(x, px, py) > 0.999, x, px, py)


def masked_warp_cdvd(x: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Warp of frames in CDVD-TSP (Pan et al., CVPR 2020): border-padded, times a mask.

    Args:
        x: `(N, C, H, W)`.
        flow: `(N, 2, Ho, Wo)`.

    Returns:
        the warped image `(N, C, Ho, Wo)`, and its mask in the same shape (an expanded view of one plane): 0 where a
        warped, zero-padded plane of ones is below 0.999, else 1.

    Raises:
        ValueError: shapes that do not fit.
    """
    px, py = _points(x, flow)
    inside = _ones_plane(x, px, py) >= 0.999
    height, width = x.shape[-2:]
    warped = _read_where(inside, x, px.clamp(0, width - 1), py.clamp(0, height - 1))
    return warped, inside.to(x.dtype).unsqueeze(1).expand_as(warped)


def resize_flow(flow: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Resize a flow `(N, 2, H, W)` bilinearly to `(N, 2, *size)`, and its vectors with it."""
    height, width = flow.shape[-2:]
    factors = flow.new_tensor([size[1] / width, size[0] / height]).view(2, 1, 1)
    return F.interpolate(flow, size, mode="bilinear", align_corners=align_corners) * factors


def compose_flows(first: Tensor, second: Tensor) -> Tensor:
    """The flow from frame i to i+2 from those of i to i+1 and of i+1 to i+2, each `(N, 2, H, W)`: zero-padded warp."""
    return first + flow_warp(second, first)


def _points(x: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Columns and rows `(N, Ho, Wo)` at which the image is read, in float32 at least."""
    if flow.dim() != 4 or x.dim() != 4 or flow.shape[1] != 2 or len(flow) != len(x):
        raise ValueError(f"expected x (N, C, H, W) and flow (N, 2, H, W), got {tuple(x.shape)} and {tuple(flow.shape)}")
    flow = flow.to(working_dtype(x, flow))
    columns = torch.arange(flow.shape[3], device=flow.device, dtype=flow.dtype)
    rows = torch.arange(flow.shape[2], device=flow.device, dtype=flow.dtype)
    return flow[:, 0] + columns, flow[:, 1] + rows[:, None]


def _read(x: Tensor, px: Tensor, py: Tensor, mode: str, padding: str) -> Tensor:
    return _sample(x, grid_of(px, py, x.shape[-1], x.shape[-2]), mode, padding)


def _read_where(inside: Tensor, x: Tensor, px: Tensor, py: Tensor) -> Tensor:
    """Read where `inside`, zero elsewhere: points are moved out of the image, which spares a pass over the channels."""
    grid = grid_of(px, py, x.shape[-1], x.shape[-2])
    grid = torch.where(inside.unsqueeze(-1), grid, grid.new_full((), _OUTSIDE))
    return _sample(x, grid, "bilinear", "zeros")


def _sample(x: Tensor, grid: Tensor, mode: str, padding: str) -> Tensor:
    return F.grid_sample(x.to(grid.dtype), grid, mode=mode, padding_mode=padding, align_corners=False).to(x.dtype)


def _ones_plane(x: Tensor, px: Tensor, py: Tensor) -> Tensor:
    """What a zero-padded bilinear read of a plane of ones gives at the points."""
    height, width = x.shape[-2:]
    across = torch.minimum(px.detach() + 1, width - px.detach()).clamp(0, 1)
    down = torch.minimum(py.detach() + 1, height - py.detach()).clamp(0, 1)
    return across * down
