"""One call of a network: frames to the device (whole or in tiles), precision, memory, results back on the host."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from deblurkit.console import say, warn
from deblurkit.engine.memory import MARGIN, free_bytes, largest_tile, peak_bytes
from deblurkit.engine.tiling import Grid
from deblurkit.errors import DataError, DeblurkitError, DeviceError
from deblurkit.image_io import Pixels
from deblurkit.network import Network, State

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Tiling = int | Literal["auto"]

#: From the network's input, `(1, T, C, h, w)` (kind "image": `(1, C, h, w)`), and the number of the tile (None: the
#: whole frame) to what is restored, `(C, h, w)` or `(T, C, h, w)`.
Call = Callable[[Tensor, int | None], Tensor]

#: Tiles are chosen from multiples of this side.
_TILE_STEP = 64


class Feed:
    """Frames of a sequence by position, read when asked for and dropped when told to.

    Attributes:
        count: frames read so far; the length once `ended`. tensors: frames on the device, dropped with the frames.
    """

    def __init__(self, frames: Iterable[Pixels], one_size: bool) -> None:
        self._frames, self._one_size = iter(frames), one_size
        self._kept: dict[int, Pixels] = {}
        self._first: tuple[int, ...] | None = None
        self._needed_from = 0
        self.tensors: dict[int, Tensor] = {}
        self.count, self.ended = 0, False

    def read_to(self, position: int) -> None:
        """Read until the frame at `position` is there, or all are."""
        while self.count <= position and not self.ended:
            frame = next(self._frames, None)
            if frame is None:
                self.ended = True
                return
            if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype not in (np.uint8, np.uint16):
                raise DataError(
                    f"frame {self.count} is {frame.dtype} of shape {frame.shape}, not uint8 or uint16 (H, W, 3)"
                )
            self._first = self._first or frame.shape
            if self._one_size and frame.shape != self._first:
                sizes = [f"{shape[1]}x{shape[0]}" for shape in (frame.shape, self._first)]
                raise DataError(f"frame {self.count} is {sizes[0]}, the first is {sizes[1]}: a sequence has one size")
            if self.count >= self._needed_from:
                self._kept[self.count] = frame
            self.count += 1

    def forget_before(self, position: int) -> None:
        """Drop the frames before `position`, also those that are still to be read."""
        self._needed_from = max(position, self._needed_from)
        for kept in (self._kept, self.tensors):
            for old in [p for p in kept if p < self._needed_from]:
                del kept[old]

    def __getitem__(self, position: int) -> Pixels:
        return self._kept[position]


class Runner:
    """Runs a network on frames of a feed.

    Args:
        net: in evaluation mode, on its device. dtype: for autocast, None for fp32. tile: 0, a side in pixels or "auto".
        clip_length: frames that a network of kind "clip" will be given, context included; for "auto".
    """

    def __init__(
        self, net: Network, device: torch.device, dtype: torch.dtype | None, tile: Tiling, clip_length: int
    ) -> None:
        self.net, self.device, self.dtype, self.tile, self._clip_length = net, device, dtype, tile, clip_length
        self._grids: dict[tuple[int, int], Grid] = {}
        self._warned = False

    def restore(self, feed: Feed, positions: list[int], call: Call) -> Tensor:
        """Bring the frames at `positions` to the network, tile by tile, and put the results together.

        Returns:
            float32 `(C, h, w)` or `(T, C, h, w)` on the CPU.

        Raises:
            DeviceError: the device has not enough memory.
        """
        grid = self._grid(*feed[positions[0]].shape[:2])
        with self._memory_errors():
            if grid.whole:
                for position in positions:
                    if position not in feed.tensors:
                        feed.tensors[position] = self._upload(grid.cut(feed[position], grid.tiles[0])[None])[0]
                return grid.crop(self._finish(call(self._batch([feed.tensors[p] for p in positions]), None)))
            canvas: Tensor | None = None
            for number, tile in enumerate(grid.tiles):
                x = self._upload(np.stack([grid.cut(feed[position], tile) for position in positions]))
                restored = self._finish(call(self._batch(list(x)), number))
                if canvas is None:
                    canvas = grid.canvas(*restored.shape[:-2])
                grid.paste(canvas, tile, restored)
            assert canvas is not None
            return grid.crop(canvas)

    def run(self, x: Tensor, tile: int | None = None) -> Tensor:
        """The network on one sample; a result in reduced precision that is not finite is computed again in fp32."""
        with torch.inference_mode():
            if self.dtype is not None:
                with torch.autocast(self.device.type, self.dtype):
                    restored = self.net.run(x)["restored"][0]
                if bool(restored.isfinite().all()):
                    return restored
                self._warn_not_finite()
            return self.net.run(x)["restored"][0]

    def step(self, x: Tensor, state: State | None, on_host: bool) -> tuple[Tensor, State]:
        """One step of a stream, as `run`.

        Args:
            state: of the last step, None for the first. on_host: the state waits there between steps, so that the
                device holds that of one tile only.
        """
        with torch.inference_mode():
            if state is None:
                state = self.net.init_state(x)
            state = {name: value.to(self.device) for name, value in state.items()}
            outputs, after = self._guarded_step(x, state)
            return outputs["restored"][0], {n: v.cpu() for n, v in after.items()} if on_host else after

    def _guarded_step(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        if self.dtype is not None:
            with torch.autocast(self.device.type, self.dtype):
                outputs, after = self.net.step(x, state)
            if all(bool(value.isfinite().all()) for value in (outputs["restored"], *after.values())):
                return outputs, after
            self._warn_not_finite()
            state = {name: v.float() if v.is_floating_point() else v for name, v in state.items()}
        return self.net.step(x, state)

    def _upload(self, pixels: Pixels) -> Tensor:
        """`(T, h, w, 3)` pixels on the host to `(T, 3, h, w)` on the device, as the network's weights want them."""
        own = pixels if pixels.flags.writeable else pixels.copy()  # torch has no read-only tensors
        x = torch.from_numpy(own).to(self.device).permute(0, 3, 1, 2).contiguous()
        return self.net.io.encode(x.float() / np.iinfo(pixels.dtype).max)

    def _batch(self, frames: list[Tensor]) -> Tensor:
        return frames[0][None] if self.net.contract.kind == "image" else torch.stack(frames)[None]

    def _finish(self, restored: Tensor) -> Tensor:
        return self.net.io.decode(restored.float()).cpu()

    def _warn_not_finite(self) -> None:
        if not self._warned:
            self._warned = True
            warn(f"{type(self.net).__name__} overflows in {self.dtype}; such frames are computed again in fp32")

    def _grid(self, height: int, width: int) -> Grid:
        size = (height, width)
        if size not in self._grids:
            tile = self._fitting_tile(height, width) if self.tile == "auto" else self.tile
            self._grids = {size: Grid(self.net.contract, height, width, tile)}
        return self._grids[size]

    def _fitting_tile(self, height: int, width: int) -> int:
        def needs(tile: int) -> int:
            return peak_bytes(self.net, *Grid(self.net.contract, height, width, tile).tile_size, self._clip_length)

        room, whole = free_bytes(self.device), needs(0)
        if whole <= room * MARGIN:
            return 0
        side = largest_tile(needs, list(range(_TILE_STEP, max(height, width), _TILE_STEP)), room)
        if side is None:
            raise DeviceError(f"{self.device}: {_gib(room)} of free memory are too little for this network")
        say(f"tiles of {side} pixels: whole frames of {width}x{height} need {_gib(whole)}, {_gib(room)} are free")
        return side

    @contextlib.contextmanager
    def _memory_errors(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                advice = "a smaller --tile N" if self.tile else "--tile auto or --tile N"
                raise DeviceError(f"{self.device}: out of memory; use {advice}") from error
            raise


def autocast_dtype(net: Network, precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype for autocast, None for plain fp32."""
    able = net.contract.capabilities
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and able.bf16 and torch.cuda.is_bf16_supported() else None
    if precision == "fp32":
        return None
    if precision not in ("bf16", "fp16"):
        raise DeblurkitError(f"--precision {precision}: use auto, fp32, bf16 or fp16")
    if not (able.bf16 if precision == "bf16" else able.fp16):
        raise DeblurkitError(f"--precision {precision}: {type(net).__name__} is not safe in it; use auto or fp32")
    return torch.bfloat16 if precision == "bf16" else torch.float16


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
