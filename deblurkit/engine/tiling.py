"""Cutting frames into tiles on the host and putting the results together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deblurkit.contract import FrameContract
from deblurkit.image_io import Pixels

#: How far neighbouring tiles overlap where no context makes them exact (networks that pool over the image or warp by a
#: flow); the overlap is faded linearly.
BLENDED_CONTEXT = 64

_NUMPY_PADDING: dict[str, Any] = {"reflect": "reflect", "replicate": "edge"}


@dataclass(frozen=True)
class Span:
    """One axis of a tile, in pixels of the padded frame: what the network sees, and the part that the tile is for."""

    start: int
    stop: int
    core_start: int
    core_stop: int


@dataclass(frozen=True)
class Tile:
    """A tile of the padded frame."""

    rows: Span
    columns: Span


class Grid:
    """The tiles of frames of one size.

    With an integer halo, a tile sees at least that much around its core (rounded up to the size multiple), so that the
    result is what the network makes of the whole frame. With halo "global" or "data" no context is enough; tiles then
    overlap by `BLENDED_CONTEXT` (at most half a tile) on each side and are faded into each other.

    All tiles have the same size, start at multiples of the size multiple, and lie inside the padded frame.

    Args:
        contract: of the network. height, width: of the frames. tile: side of a core in pixels, 0: the whole frame.
    """

    def __init__(self, contract: FrameContract, height: int, width: int, tile: int = 0) -> None:
        self.height, self.width, self.tile, self.scale = height, width, tile, contract.scale
        self._pad = contract.pad
        self._padded = contract.padded_size(height, width)
        self.exact = isinstance(contract.halo, int)
        smallest = contract.padded_size(1, 1)
        axes: list[list[Span]] = []
        self._fades: list[list[Tensor]] = []
        for size, multiple, least in zip(self._padded, contract.sizes, smallest, strict=True):
            core = _up(tile, multiple) if tile else size
            fade = min(BLENDED_CONTEXT, core // 2)
            context = _up(contract.halo if isinstance(contract.halo, int) else fade, multiple)
            axes.append(_spans(size, core, context, least))
            self._fades.append(_fades(axes[-1], fade, self.scale))
        self._axes = axes
        self.tiles = [Tile(rows, columns) for rows in axes[0] for columns in axes[1]]
        self._maps = [
            _padding_map(length, padded, self._pad)
            for length, padded in zip((height, width), self._padded, strict=True)
        ]

    @property
    def whole(self) -> bool:
        """True when there is a single tile, the frame itself."""
        return len(self.tiles) == 1

    @property
    def tile_size(self) -> tuple[int, int]:
        """Height and width of what the network sees of a tile."""
        tile = self.tiles[0]
        return tile.rows.stop - tile.rows.start, tile.columns.stop - tile.columns.start

    def cut(self, pixels: Pixels, tile: Tile) -> Pixels:
        """What a tile sees of a frame `(H, W, 3)`; beyond the frame it is padded as the contract says."""
        rows, columns = tile.rows, tile.columns
        if rows.stop <= self.height and columns.stop <= self.width:
            return np.ascontiguousarray(pixels[rows.start : rows.stop, columns.start : columns.stop])
        y, x = self._maps[0][rows.start : rows.stop], self._maps[1][columns.start : columns.stop]
        cut: Pixels = pixels[np.maximum(y, 0)[:, None], np.maximum(x, 0)[None, :]]
        cut[y < 0], cut[:, x < 0] = 0, 0
        return cut

    def canvas(self, *leading: int) -> Tensor:
        """Zeros for the result of a frame, `(C, h, w)`, or of several, `(T, C, h, w)`, padding included."""
        return torch.zeros(*leading, *(side * self.scale for side in self._padded))

    def paste(self, canvas: Tensor, tile: Tile, restored: Tensor) -> None:
        """Put a tile's result `(..., C, h, w)`, float32 on the CPU, where it belongs."""
        scale = self.scale
        if self.exact:
            y, x = (slice(s.core_start * scale, s.core_stop * scale) for s in (tile.rows, tile.columns))
            inner = restored[..., y.start - tile.rows.start * scale :, x.start - tile.columns.start * scale :]
            canvas[..., y, x] = inner[..., : y.stop - y.start, : x.stop - x.start]
            return
        fade_y = self._fades[0][self._axes[0].index(tile.rows)]
        fade_x = self._fades[1][self._axes[1].index(tile.columns)]
        y, x = (slice(s.start * scale, s.stop * scale) for s in (tile.rows, tile.columns))
        canvas[..., y, x] += restored * fade_y[:, None] * fade_x

    def crop(self, canvas: Tensor) -> Tensor:
        """Take the padding off."""
        return canvas[..., : self.height * self.scale, : self.width * self.scale]


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _spans(size: int, core: int, context: int, least: int) -> list[Span]:
    """The tiles of one axis. All four sizes are multiples of the size multiple; `least` is the smallest that works."""
    outer = min(max(core + 2 * context, least), size)
    spans = []
    for core_start in range(0, size, core):
        start = min(max(core_start - context, 0), size - outer)
        spans.append(Span(start, start + outer, core_start, min(core_start + core, size)))
    return spans


def _fades(spans: list[Span], half: int, scale: int) -> list[Tensor]:
    """The weight of every tile along one axis of the result; they add up to 1 everywhere."""

    def rising(span: Span, positions: Tensor) -> Tensor:
        """From 0 to 1 across the border in front of a tile, `half` pixels on both sides of it."""
        if span.core_start == 0:
            return torch.ones_like(positions)
        return ((positions - span.core_start + half) / (2 * half)).clamp(0, 1)

    weights = []
    for index, span in enumerate(spans):
        positions = (torch.arange(span.start * scale, span.stop * scale) + 0.5) / scale
        after = rising(spans[index + 1], positions) if index + 1 < len(spans) else torch.zeros_like(positions)
        weights.append(rising(span, positions) - after)
    return weights


def _padding_map(length: int, padded: int, pad: str) -> NDArray[np.int64]:
    """For every row (or column) of the padded frame the one of the frame that it shows, -1 for black.

    NumPy's reflection goes to and fro as often as needed, so that frames smaller than their padding work.
    """
    positions, beyond = np.arange(length), (0, padded - length)
    if pad == "zeros":
        return np.pad(positions, beyond, constant_values=-1)
    return np.pad(positions, beyond, mode=_NUMPY_PADDING[pad])
