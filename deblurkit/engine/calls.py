"""How a network is called on the tiles of a frame: once on a clip, with shared work, or with a carried state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from deblurkit.engine.states import StateLayout, retile
from deblurkit.engine.tiling import Grid
from deblurkit.network import State
from deblurkit.sharing import SharedStore

if TYPE_CHECKING:
    from deblurkit.engine.runner import Runner


class Call(Protocol):
    """What the runner calls on every tile of a frame (or clip)."""

    def begin(self, grid: Grid, positions: Sequence[int]) -> None:
        """Before the first tile; again, with other tiles, when the memory was not enough."""
        ...

    def __call__(self, x: Tensor, tile: int | None) -> Tensor:
        """Restore `(1, T, C, h, w)` (kind "image": `(1, C, h, w)`) to `(C, h, w)` or `(T, C, h, w)`.

        Args:
            tile: its number; None: the whole frame.
        """
        ...

    def done(self) -> None:
        """After the last tile."""
        ...


class PlainCall:
    """The network on one sample.

    Args:
        rows: which frames of a restored clip are wanted; None: the result as it is.
    """

    def __init__(self, runner: Runner, rows: Sequence[int] | None = None) -> None:
        self._runner, self._rows = runner, rows

    def begin(self, grid: Grid, positions: Sequence[int]) -> None:
        """Nothing to prepare."""

    def __call__(self, x: Tensor, tile: int | None) -> Tensor:
        """As `Call`."""
        restored = self._runner.run(x)
        return restored if self._rows is None else restored[list(self._rows)]

    def done(self) -> None:
        """Nothing to keep."""


class SharedCall:
    """Window after window of a sequence, whose common work is done once (`Network.run_shared`)."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._grid: Grid | None = None
        self._stores: dict[int | None, SharedStore] = {}
        self._positions: tuple[int, ...] = ()

    def forget_before(self, position: int) -> None:
        """Drop what comes from frames before `position`."""
        for store in self._stores.values():
            store.forget_before(position)

    def begin(self, grid: Grid, positions: Sequence[int]) -> None:
        """As `Call`; results for other tiles are of no use."""
        self._positions = tuple(positions)
        if grid is not self._grid:
            self._grid, self._stores = grid, {}

    def __call__(self, x: Tensor, tile: int | None) -> Tensor:
        """As `Call`."""
        if tile not in self._stores:
            self._stores[tile] = SharedStore(host=None if tile is None else torch.device("cpu"))
        return self._runner.run_shared(x, self._stores[tile], self._positions)

    def done(self) -> None:
        """Nothing to keep."""


@dataclass(frozen=True)
class Snapshot:
    """The states of a stream after a frame: of frames of which size, in which tiles, and for each tile."""

    height: int
    width: int
    tile: int
    states: list[State]


class StreamCall:
    """Frame after frame of a stream; every tile has its state, which waits on the host between frames.

    The states move on only when a whole frame is done, so that a frame can be begun again with smaller tiles.

    Args:
        earlier: to go on where another one was.
    """

    def __init__(self, runner: Runner, earlier: Snapshot | None = None) -> None:
        self._runner = runner
        self._grid: Grid | None = None
        self._layout: StateLayout | None = None
        self._states: dict[int | None, State] = {}
        self._after: dict[int | None, State] = {}
        if earlier is not None:
            self._grid = Grid(runner.net.contract, earlier.height, earlier.width, earlier.tile)
            self._states = {None if self._grid.whole else i: state for i, state in enumerate(earlier.states)}

    def snapshot(self) -> Snapshot:
        """What another one needs to go on after the last frame that was done."""
        assert self._grid is not None
        states = [self._states[number] for number in sorted(self._states, key=lambda number: number or 0)]
        on_host = [{name: value.cpu() for name, value in state.items()} for state in states]
        return Snapshot(self._grid.height, self._grid.width, self._grid.tile, on_host)

    def begin(self, grid: Grid, positions: Sequence[int]) -> None:
        """As `Call`; states are cut anew for other tiles."""
        self._after = {}
        if self._grid is not None and grid.tiles == self._grid.tiles:
            return
        if self._grid is not None and self._states:
            self._layout = self._layout or StateLayout.of(self._runner.net)
            self._states = retile(self._states, self._layout, self._grid, grid)
        self._grid = grid

    def __call__(self, x: Tensor, tile: int | None) -> Tensor:
        """As `Call`."""
        restored, self._after[tile] = self._runner.step(x, self._states.get(tile), on_host=tile is not None)
        return restored

    def done(self) -> None:
        """The frame is restored in all tiles."""
        self._states, self._after = self._after, {}
