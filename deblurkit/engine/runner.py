"""One call of a network: frames to the device (whole or in tiles), precision, memory, results back on the host."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from deblurkit.console import say, warn
from deblurkit.data.prefetcher import to_float
from deblurkit.engine.calls import Call
from deblurkit.engine.feed import Feed, Seen
from deblurkit.engine.memory import MARGIN, free_bytes, largest_tile, peak_bytes
from deblurkit.engine.tiling import Grid, Tile
from deblurkit.engine.transfer import Leaving, Transfers
from deblurkit.engine.tuning import Tuned
from deblurkit.errors import DeblurkitError, DeviceError
from deblurkit.image_io import Pixels
from deblurkit.network import Maps, Network, State
from deblurkit.sharing import SharedStore

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Tiling = int | Literal["auto"]

#: Automatic tiles are chosen from multiples of this side, and are no smaller.
_TILE_STEP = 64


class Runner:
    """Runs a network on frames of a feed.

    Args:
        net: in evaluation mode, on its device. dtype: for autocast, None for fp32. tile: 0, a side in pixels or "auto".
        clip_length: frames that a network of kind "clip" will be given, context included; for "auto".
        tune: see `Tuned`.
    """

    def __init__(
        self,
        net: Network,
        device: torch.device,
        dtype: torch.dtype | None,
        tile: Tiling,
        clip_length: int,
        tune: bool = False,
    ) -> None:
        self.net, self.device, self.dtype, self.tile, self._clip_length = net, device, dtype, tile, clip_length
        self._run = Tuned(net, "run") if tune else net.run
        self._step = Tuned(net, "step") if tune else net.step
        self._transfers = Transfers(device)
        self._grids: dict[tuple[int, int], Grid] = {}
        self._largest: int | None = None  # side of tiles that is known to fit, since larger ones did not
        self._first_side: int | None = None
        self._warned = False

    def send(self, frame: Seen) -> None:
        """Let a frame go to the device, where it is known that it will be restored whole; in another thread."""
        grid = self._grids.get((frame.pixels.shape[0], frame.pixels.shape[1]))
        if grid is None or not grid.whole:
            return
        try:
            frame.sent = grid, self._transfers.arrive(lambda: self._whole(frame.pixels, grid))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            # `restore` meets it again, and can do something about it

    def restore(self, feed: Feed, positions: list[int], call: Call) -> Leaving:
        """Bring the frames at `positions` to the network, tile by tile, and put the results together.

        Where tiles are automatic and the memory turns out too small, they are halved and the frame is begun again.

        Returns:
            float32 `(C, h, w)` or `(T, C, h, w)`.

        Raises:
            DeviceError: the device has not enough memory.
        """
        while True:
            grid = self._grid(*feed[positions[0]].shape[:2])
            try:
                call.begin(grid, positions)
                restored = self._over_tiles(grid, feed, positions, call)
                call.done()
                return restored
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if self.tile != "auto":
                    advice = "a smaller --tile N" if self.tile else "--tile auto or --tile N"
                    raise DeviceError(f"{self.device}: out of memory; use {advice}") from error
            # here, where the error and the tensors that it holds on to are gone
            feed.forget_tensors()
            self._halve(grid)

    def _over_tiles(self, grid: Grid, feed: Feed, positions: list[int], call: Call) -> Leaving:
        if grid.whole:
            for position in positions:
                if position not in feed.tensors:
                    arrived = feed.arrived(position, grid)
                    feed.tensors[position] = self._whole(feed[position], grid) if arrived is None else arrived
            return self._leave(grid.crop(call(self._batch([feed.tensors[p] for p in positions]), None)))
        results = self._of_tiles(grid, feed, positions, call)
        tile, restored = next(results)
        canvas = grid.canvas(*restored.shape[:-2])
        grid.paste(canvas, tile, restored)
        for tile, restored in results:
            grid.paste(canvas, tile, restored)
        return Leaving(grid.crop(canvas))

    def _of_tiles(self, grid: Grid, feed: Feed, positions: list[int], call: Call) -> Iterator[tuple[Tile, Tensor]]:
        """Each tile's result on the host; it leaves the device while the next one is computed."""
        before: tuple[Tile, Leaving] | None = None
        for number, tile in enumerate(grid.tiles):
            x = self.upload(np.stack([grid.cut(feed[position], tile) for position in positions]))
            leaving = self._leave(call(self._batch(list(x)), number))
            if before is not None:
                yield before[0], before[1].on_host()
            before = tile, leaving
        if before is not None:
            yield before[0], before[1].on_host()

    def _whole(self, pixels: Pixels, grid: Grid) -> Tensor:
        return self.upload(grid.cut(pixels, grid.tiles[0])[None])[0]

    def run(self, x: Tensor) -> Tensor:
        """The network on one sample; a result in reduced precision that is not finite is computed again in fp32."""
        with torch.inference_mode():
            if self.dtype is not None:
                with torch.autocast(self.device.type, self.dtype):
                    restored = self._run(x)["restored"][0]
                if bool(restored.isfinite().all()):
                    return restored
                self._warn_not_finite()
            return self._run(x)["restored"][0]

    def run_shared(self, x: Tensor, store: SharedStore, positions: Sequence[int]) -> Tensor:
        """A window whose work is shared with those before it, as `run`.

        Args:
            store: of the sequence (and tile). positions: of the window's frames.
        """
        with torch.inference_mode():
            if self.dtype is None:
                return self.net.run_shared(x, store.window(positions, self.device))["restored"][0]
            with torch.autocast(self.device.type, self.dtype):
                restored = self.net.run_shared(x, store.window(positions, self.device))["restored"][0]
            if bool(restored.isfinite().all()):
                return restored
            self._warn_not_finite()
            store.clear()  # what overflowed may be in it
            return self.net.run_shared(x)["restored"][0]

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
                outputs, after = self._step(x, state)
            if all(bool(value.isfinite().all()) for value in (outputs["restored"], *after.values())):
                return outputs, after
            self._warn_not_finite()
            state = {name: v.float() if v.is_floating_point() else v for name, v in state.items()}
        return self.net.step(x, state)

    def sweep_step(self, sweep: str, maps: Maps, state: State) -> tuple[State, State]:
        """One step of a walk through a clip (`Network.sweep_step`), as `run`."""
        with torch.inference_mode():
            if self.dtype is not None:
                with torch.autocast(self.device.type, self.dtype):
                    written, after = self.net.sweep_step(sweep, maps, state)
                if all(bool(value.isfinite().all()) for value in (*written.values(), *after.values())):
                    return written, after
                self._warn_not_finite()
                maps = {key: v.float() if v.is_floating_point() else v for key, v in maps.items()}
                state = {name: v.float() if v.is_floating_point() else v for name, v in state.items()}
            return self.net.sweep_step(sweep, maps, state)

    def upload(self, pixels: Pixels) -> Tensor:
        """`(T, h, w, 3)` pixels on the host to `(T, 3, h, w)` on the device, as the network's weights want them."""
        own = pixels if pixels.flags.writeable else pixels.copy()  # torch has no read-only tensors
        x = torch.from_numpy(own)
        if self.device.type == "cuda":
            x = x.pin_memory()
        x = x.to(self.device, non_blocking=True)
        return self.net.io.encode(x.movedim(-1, -3).contiguous() if x.is_floating_point() else to_float(x))

    def _batch(self, frames: list[Tensor]) -> Tensor:
        return frames[0][None] if self.net.contract.kind == "image" else torch.stack(frames)[None]

    def _leave(self, restored: Tensor) -> Leaving:
        """A result on its way to the host, as RGB in [0, 1]."""
        return self._transfers.leave(self.net.io.decode(restored.float()))

    def finish(self, restored: Tensor) -> Tensor:
        """A result on the host, as RGB in [0, 1]."""
        return self._leave(restored).on_host()

    def _warn_not_finite(self) -> None:
        if not self._warned:
            self._warned = True
            warn(f"{type(self.net).__name__} overflows in {self.dtype}; such frames are computed again in fp32")

    # Memory.

    def _grid(self, height: int, width: int) -> Grid:
        size = (height, width)
        if size not in self._grids:
            tile = self._fitting_tile(height, width) if self.tile == "auto" else self.tile
            self._grids = {size: Grid(self.net.contract, height, width, tile)}
        return self._grids[size]

    @property
    def side(self) -> int | None:
        """Side of the tiles in use, 0 for whole frames; None before the first frame."""
        return next((grid.tile for grid in self._grids.values()), None)

    def begin_with(self, side: int) -> None:
        """Where tiles are automatic, take this side instead of looking at the memory: that of an earlier run."""
        self._first_side = side

    def _fitting_tile(self, height: int, width: int) -> int:
        if self._first_side is not None:
            return self._first_side

        def needs(tile: int) -> int:
            return peak_bytes(self.net, *Grid(self.net.contract, height, width, tile).tile_size, self._clip_length)

        longest = max(height, width)
        most = longest if self._largest is None else min(longest, self._largest)
        room, whole = free_bytes(self.device), needs(0)
        if whole <= room * MARGIN:
            return 0 if most == longest else most
        side = largest_tile(needs, list(range(_TILE_STEP, longest, _TILE_STEP)), room)
        if side is None:
            raise DeviceError(f"{self.device}: {_gib(room)} of free memory are too little for this network")
        side = min(side, most)
        say(f"tiles of {side} pixels: whole frames of {width}x{height} need {_gib(whole)}, {_gib(room)} are free")
        return side

    def _halve(self, grid: Grid) -> None:
        """Smaller tiles for frames of this size and all that come.

        Raises:
            DeviceError: they are as small as they get.
        """
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        height, width = grid.height, grid.width
        side, smaller = min(grid.tile or max(height, width), max(height, width)), grid
        while smaller.tile_size == grid.tile_size:
            if side <= _TILE_STEP:
                size = " x ".join(str(s) for s in grid.tile_size)
                raise DeviceError(f"{self.device}: out of memory even for tiles of {size} pixels (context included)")
            side = max(side // (2 * _TILE_STEP) * _TILE_STEP, _TILE_STEP)
            smaller = Grid(self.net.contract, height, width, side)
        self._largest, self._grids = side, {(height, width): smaller}
        say(f"{self.device}: out of memory; going on with tiles of {side} pixels")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, or the host, had too little memory."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def autocast_dtype(net: Network, precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype for autocast, None for plain fp32."""
    able = net.contract.capabilities
    if precision == "auto":
        return _fastest(able.bf16, able.fp16, device)
    if precision == "fp32":
        return None
    if precision not in ("bf16", "fp16"):
        raise DeblurkitError(f"--precision {precision}: use auto, fp32, bf16 or fp16")
    if not (able.bf16 if precision == "bf16" else able.fp16):
        raise DeblurkitError(f"--precision {precision}: {type(net).__name__} is not safe in it; use auto or fp32")
    return torch.bfloat16 if precision == "bf16" else torch.float16


def _fastest(bf16: bool, fp16: bool, device: torch.device) -> torch.dtype | None:
    """Of the precisions that are safe, one that the device computes in; it may only imitate bf16, which is slow."""
    if device.type != "cuda":
        return None
    if bf16 and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16 if fp16 else None


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
