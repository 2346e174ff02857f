"""Blocks of pixels to channels and back, in VRT's order; `F.pixel_shuffle` and `F.pixel_unshuffle` have another one.

In VRT (Liang et al., 2022) channels are ordered by the column in the block, then the row, then the channel.
"""

from __future__ import annotations

from torch import Tensor


def patch_merge(x: Tensor, scale: int = 2) -> Tensor:
    """`(..., C, H, W)` to `(..., s^2 * C, H/s, W/s)`: `out[(b*s + a)*C + c, i, j] = x[c, s*i + a, s*j + b]`.

    Raises:
        ValueError: H or W is not a multiple of the scale.
    """
    *lead, channels, height, width = x.shape
    if height % scale or width % scale:
        raise ValueError(f"height and width must be multiples of {scale}, got {height}x{width}")
    blocks = x.reshape(*lead, channels, height // scale, scale, width // scale, scale)
    return blocks.movedim((-1, -3), (-5, -4)).reshape(*lead, -1, height // scale, width // scale)


def patch_split(x: Tensor, scale: int = 2) -> Tensor:
    """The inverse of `patch_merge`: `(..., scale^2 * C, H, W)` to `(..., C, H*scale, W*scale)`.

    Raises:
        ValueError: the channels are not a multiple of scale^2.
    """
    *lead, channels, height, width = x.shape
    if channels % scale**2:
        raise ValueError(f"channels must be a multiple of {scale**2}, got {channels}")
    blocks = x.reshape(*lead, scale, scale, channels // scale**2, height, width)
    return blocks.movedim((-5, -4), (-1, -3)).reshape(*lead, channels // scale**2, height * scale, width * scale)
