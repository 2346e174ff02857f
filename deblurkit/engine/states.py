"""The states of stream networks in space: cutting them anew when the tiles change in the middle of a sequence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from deblurkit.engine.tiling import Grid, Tile
from deblurkit.errors import DeviceError
from deblurkit.network import Network, State, build_twin_on_meta


@dataclass(frozen=True)
class Axes:
    """Which two dimensions of a state tensor are height and width, and their size relative to the frame's."""

    rows: int
    columns: int
    scale: tuple[Fraction, Fraction]


@dataclass(frozen=True)
class StateLayout:
    """For every tensor of a state its axes; None for one that does not depend on the size (a counter, a pooled mean).

    Attributes:
        axes: by name. network: for messages.
    """

    axes: Mapping[str, Axes | None]
    network: str

    @classmethod
    def of(cls, net: Network) -> StateLayout:
        """Find out by the shapes of the state for three sizes, without computing anything where torch's meta will do.

        Raises:
            DeviceError: a tensor depends on the size in another way, so that it cannot be cut.
        """
        try:
            return cls._measure(build_twin_on_meta(net))
        except (NotImplementedError, RuntimeError):
            return cls._measure(net)

    @classmethod
    def _measure(cls, net: Network) -> StateLayout:
        contract, name = net.contract, type(net).__name__
        if contract.square:
            raise _cannot(name, "its input is square")
        height, width = contract.padded_size(16, 16)
        base, taller, wider = (
            _shapes(net, *size) for size in ((height, width), (2 * height, width), (height, 2 * width))
        )
        axes: dict[str, Axes | None] = {}
        for key, shape in base.items():
            rows = [i for i, side in enumerate(shape) if taller[key][i] != side]
            columns = [i for i, side in enumerate(shape) if wider[key][i] != side]
            if not rows and not columns:
                axes[key] = None
                continue
            if len(rows) != 1 or len(columns) != 1 or rows == columns:
                raise _cannot(name, f"{key!r} in its state has no separate height and width")
            y, x = rows[0], columns[0]
            if taller[key][y] != 2 * shape[y] or wider[key][x] != 2 * shape[x]:
                raise _cannot(name, f"the size of {key!r} in its state is not proportional to the frame's")
            axes[key] = Axes(y, x, (Fraction(shape[y], height), Fraction(shape[x], width)))
        return cls(axes, name)


def _shapes(net: Network, height: int, width: int) -> dict[str, tuple[int, ...]]:
    x = net.example_input(height, width)[:, : sum(net.contract.context) + 1]
    with torch.no_grad():
        _, state = net.step(x, net.init_state(x))
    return {name: tuple(value.shape) for name, value in state.items()}


def _cannot(network: str, reason: str) -> DeviceError:
    return DeviceError(
        f"out of memory in the middle of a sequence, and {network} cannot go on with smaller tiles: {reason}; start "
        "again with a smaller --tile N"
    )


def retile(states: Mapping[int | None, State], layout: StateLayout, old: Grid, new: Grid) -> dict[int | None, State]:
    """Put the states of the old tiles together and cut them for the new ones.

    Of every old tile the core is taken. Tensors without height and width are averaged over the old tiles (counters: the
    first tile's).

    Args:
        states: by the number of the tile; None: the whole frame. old, new: grids of the same frame.

    Raises:
        DeviceError: the states have other shapes than the layout says.
    """
    parts = [states[None]] if old.whole else [states[number] for number in range(len(old.tiles))]
    cut: dict[int | None, State] = {None if new.whole else i: {} for i in range(len(new.tiles))}
    for name in parts[0]:
        tensors = [part[name].cpu() for part in parts]
        axes = layout.axes.get(name)
        if axes is None:
            common = torch.stack(tensors).mean(0) if tensors[0].is_floating_point() else tensors[0]
            for state in cut.values():
                state[name] = common.clone()
            continue
        whole = _assemble(tensors, axes, old, layout.network, name)
        for number, tile in enumerate(new.tiles):
            rows, columns = _scaled(tile, axes, core=False)
            view = whole.narrow(axes.rows, *rows).narrow(axes.columns, *columns)
            cut[None if new.whole else number][name] = view.clone(memory_format=torch.contiguous_format)
    return cut


def _assemble(tensors: list[Tensor], axes: Axes, grid: Grid, network: str, name: str) -> Tensor:
    shape = list(tensors[0].shape)
    last = grid.tiles[-1]
    shape[axes.rows] = int(last.rows.core_stop * axes.scale[0])
    shape[axes.columns] = int(last.columns.core_stop * axes.scale[1])
    whole = tensors[0].new_zeros(shape)
    for tensor, tile in zip(tensors, grid.tiles, strict=True):
        outer, inner = _scaled(tile, axes, core=False), _scaled(tile, axes, core=True)
        if (tensor.shape[axes.rows], tensor.shape[axes.columns]) != (outer[0][1], outer[1][1]):
            raise _cannot(network, f"{name!r} in its state is {tuple(tensor.shape)}")
        part = tensor
        for dim, of_tile, of_core in zip((axes.rows, axes.columns), outer, inner, strict=True):
            part = part.narrow(dim, of_core[0] - of_tile[0], of_core[1])
        target = whole.narrow(axes.rows, *inner[0]).narrow(axes.columns, *inner[1])
        target.copy_(part)
    return whole


def _scaled(tile: Tile, axes: Axes, core: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """First row and number of rows of a tile (or its core) in a state tensor, and the same for columns."""
    spans = []
    for span, scale in zip((tile.rows, tile.columns), axes.scale, strict=True):
        start, stop = (span.core_start, span.core_stop) if core else (span.start, span.stop)
        spans.append((int(start * scale), int(stop * scale) - int(start * scale)))
    return spans[0], spans[1]
