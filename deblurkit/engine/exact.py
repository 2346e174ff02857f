"""Clip networks on videos of any length with the result of the whole clip, in bounded memory.

A network of kind "clip" whose every result depends on all frames (BasicVSR and its heirs) walks through the clip to and
fro. Where it declares these walks (`Network.sweeps`), only the maps of a few frames are at hand at a time; those that
later walks need wait in the host's memory up to a budget, and in a temporary file beyond it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from deblurkit.console import say
from deblurkit.engine.map_store import MapStore
from deblurkit.engine.memory import MARGIN, free_bytes
from deblurkit.engine.runner import Runner, is_out_of_memory
from deblurkit.engine.tiling import Grid
from deblurkit.errors import DeblurkitError, DeviceError
from deblurkit.image_io import Pixels
from deblurkit.network import Maps, State, Sweep

_REPORT_EVERY_SECONDS = 10.0
_FRAMES = "frame"  # as networks call them; what is stored are their pixels


def restore_exactly(
    runner: Runner,
    frames: Iterable[Pixels],
    *,
    budget: int | None = None,
    folder: str | Path | None = None,
    advance: Callable[[str, int, int], None] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Restore a clip as if the network saw all of it at once.

    The source is read once, from its start; it need not be seekable. Its frames are kept as pixels. Nothing is yielded
    before the last walk. Frames are restored whole, whatever tiles the runner is set to.

    A `Restorer` calls this for networks that have `has_sweeps`, in place of overlapping segments:

        yield from restore_exactly(self._runner, frames, budget=..., folder=...)

    Room that the maps of T frames of H x W pixels need: with C channels, 4 C H W T bytes for BasicVSR and
    4 (4 C + 4) H W T for BasicVSR++, a sixteenth of this with features at a quarter of the size; half in bf16. And
    3 H W T for the pixels.

    Args:
        runner: with the network, its device and its precision.
        frames: `(H, W, 3)` RGB, uint8, uint16 or float32 in [0, 1]; of one size.
        budget: bytes of maps that may be in the host's memory; None: half of what is free.
        folder: for the temporary file of what is more; None: the system's temporary folder. The file is gone when the
            iterator is, after an error too.
        advance: called after every step before the last walk, with the name of the walk, and how many of how many
            frames it has done; None: now and then a line on stderr.

    Yields:
        position and restored frame in order, as `Restorer.restore_tensors`.

    Raises:
        DeblurkitError: the network declares no walks, or the folder has no room.
        DataError: as the source.
    """
    if not runner.net.has_sweeps:
        raise DeblurkitError(
            f"{type(runner.net).__name__} has no exact form for long videos; leave exact out: it is run on overlapping "
            "segments then"
        )
    budget = int(free_bytes(torch.device("cpu")) * MARGIN) if budget is None else budget
    with MapStore(budget, folder) as store:
        yield from _Walker(runner, store, advance or _Report()).restore(frames)


class _Report:
    """Says how far the walks are before frames come out of the last one."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, sweep: str, done: int, count: int) -> None:
        if time.monotonic() - self._last >= _REPORT_EVERY_SECONDS:
            self._last = time.monotonic()
            say(f"before the first result: {sweep}, {done} of {count} frames")


class _Walker:
    """Takes a network through a clip."""

    def __init__(self, runner: Runner, store: MapStore, advance: Callable[[str, int, int], None]) -> None:
        self._runner, self._store, self._advance = runner, store, advance
        self._grid: Grid | None = None
        self._count = 0

    def restore(self, frames: Iterable[Pixels]) -> Iterator[tuple[int, Tensor]]:
        for frame in frames:
            if self._grid is None:
                self._grid = Grid(self._runner.net.contract, *frame.shape[:2])
            self._store.put(_FRAMES, self._count, torch.from_numpy(frame.copy()))
            self._count += 1
        if not self._count:
            return
        walks = self._runner.net.sweeps()
        sweep: Sweep | None = next(walks)
        while sweep is not None:
            state = yield from self._walk(sweep)
            for name in sweep.drops:
                self._store.drop(name)
            try:
                sweep = walks.send(state)
            except StopIteration:
                sweep = None

    def _walk(self, sweep: Sweep) -> Generator[tuple[int, Tensor], None, State]:
        """One walk; returns the state at its end."""
        assert self._grid is not None
        state: State = {}
        at_hand: dict[tuple[str, int], Tensor] = {}  # by position: the last step's maps, on the device
        positions = range(self._count) if sweep.direction == "forward" else reversed(range(self._count))
        for done, position in enumerate(positions, 1):
            keys = [(name, place) for name, places in sweep.reads.items() for place in places]
            wanted = {(name, place): (name, position + place) for name, place in keys}
            wanted = {key: at for key, at in wanted.items() if at in self._store}
            at_hand = {at: at_hand[at] if at in at_hand else self._fetch(*at) for at in wanted.values()}
            written, state = self._step(sweep, {key: at_hand[at] for key, at in wanted.items()}, state)
            for name, value in written.items():
                if name != "restored":
                    self._store.put(name, position, value)
            if "restored" in written:
                yield position, self._grid.crop(self._runner.finish(written["restored"][0]))
            else:
                self._advance(sweep.name, done, self._count)
        return state

    def _fetch(self, name: str, position: int) -> Tensor:
        """A map `(1, ...)` on the device."""
        value = self._store.get(name, position)
        if name != _FRAMES:
            return value.to(self._runner.device)
        assert self._grid is not None
        return self._runner.upload(self._grid.cut(value.numpy(), self._grid.tiles[0])[None])

    def _step(self, sweep: Sweep, maps: Maps, state: State) -> tuple[State, State]:
        try:
            return self._runner.sweep_step(sweep.name, maps, state)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise DeviceError(
                f"{self._runner.device}: out of memory; exact takes whole frames: leave it out, so that they can be "
                "tiled, or use another device"
            ) from error
