"""Restoring frames in overlapping crops whose results are averaged, as NAFNet's validation does (`val.grids`).

It changes the figures (networks that pool over the image see the size that they were trained on), so it is part of a
protocol; tiles, which are meant to change nothing, are `engine/tiling.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from deblurkit.errors import OptionsError
from deblurkit.network import Network


class CroppedNetwork(Network):
    """A network that sees crops of a frame, evenly spread, and whose result is their mean where they overlap.

    A side of N pixels is covered by ceil(N / size) crops. (`megvii-research/NAFNet@2b4af71`, `grids`.)

    Args:
        net: of kind "image", "window" or "clip". crops: `height`, `width` in pixels of the degraded frame, or
            `height_ratio`, `width_ratio` of its sides; rounded up to the sizes that the network takes.

    Raises:
        OptionsError: a network with a state.
    """

    def __init__(self, net: Network, crops: Mapping[str, Any]) -> None:
        if net.contract.kind == "stream":
            raise OptionsError(f"val.protocol.crops: {type(net).__name__} keeps a state of the whole frame")
        super().__init__(replace(net.contract, halo="global"))
        self.net, self.io, self.crops = net, net.io, dict(crops)

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """See `Network.run`; "restored" alone."""
        height, width = (
            self._size(side, axis, multiple, least)
            for side, axis, multiple, least in zip(
                x.shape[-2:], ("height", "width"), self.contract.sizes, self.contract.padded_size(1, 1), strict=True
            )
        )
        scale = self.contract.scale
        total = count = None
        for top in crop_starts(x.shape[-2], height):
            for left in crop_starts(x.shape[-1], width):
                crop = x[..., top : top + height, left : left + width].contiguous()
                restored = self.net.run(crop)["restored"]
                if total is None or count is None:
                    size = [side * scale for side in x.shape[-2:]]
                    total = restored.new_zeros((*restored.shape[:-2], *size))
                    count = restored.new_zeros(size)
                rows = slice(top * scale, (top + height) * scale)
                columns = slice(left * scale, (left + width) * scale)
                total[..., rows, columns] += restored
                count[rows, columns] += 1
        assert total is not None
        assert count is not None
        return {"restored": total / count}

    def _size(self, side: int, axis: str, multiple: int, least: int) -> int:
        wanted = int(self.crops.get(axis) or side * self.crops[f"{axis}_ratio"])
        return min(max(-(-wanted // multiple) * multiple, least), side)


def crop_starts(side: int, crop: int) -> list[int]:
    """Where crops begin that cover a side; the last one is flush with its end."""
    count = (side - 1) // crop + 1
    step = crop if count == 1 else math.ceil((side - crop) / (count - 1) - 1e-8)
    return [min(i * step, side - crop) for i in range(count)]
