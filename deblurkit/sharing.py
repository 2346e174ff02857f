"""What overlapping windows of a sequence have in common: computed once, kept while a window can need it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

T = TypeVar("T")

#: The name of what was computed, and the source positions of the frames that it was computed from.
Key = tuple[str, tuple[int, ...]]


class SharedStore:
    """Results by the positions, in the sequence, of the frames that they come from; one store for every tile.

    Args:
        host: results wait there between windows, so that the device holds those of one tile only; None: they stay where
            they are.
    """

    def __init__(self, host: torch.device | None = None) -> None:
        self._host = host
        self._kept: dict[Key, Any] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def window(self, positions: Sequence[int], device: torch.device | None = None) -> Shared:
        """The store as one window sees it, whose slots show the frames at `positions`, with results on `device`."""
        return Shared(positions, self, device)

    def forget_before(self, position: int) -> None:
        """Drop what comes from a frame before `position`."""
        for key in [key for key in self._kept if min(key[1]) < position]:
            del self._kept[key]

    def clear(self) -> None:
        """Drop everything."""
        self._kept.clear()

    def get(self, key: Key) -> Any:
        """A result, where it waits; None where there is none."""
        return self._kept.get(key)

    def put(self, key: Key, value: Any) -> None:
        """Keep a result."""
        host = self._host
        self._kept[key] = value if host is None else _moved(value, host)


class Shared:
    """The shared results, for the frames of one window. `Network.fuse` gets it and asks it for what windows share:

        flow = shared("flow", (1, 2), lambda: self.flow_net(features[1]["frame"], features[2]["frame"]))

    A window at the end of a sequence shows some frames twice (`window_indices`), so results are kept by the positions
    of the frames, not by slots: slots that show the same frames share a result, and slots 1 and 2 of this window are
    slots 0 and 1 of the next one.

    Args:
        positions: in the sequence, of the frames in the window's slots. store: where results are kept; None: a new one,
            which lives as long as this window. device: where results are wanted; None: as they are kept.
    """

    def __init__(
        self, positions: Sequence[int], store: SharedStore | None = None, device: torch.device | None = None
    ) -> None:
        self.positions = tuple(positions)
        self._store = SharedStore() if store is None else store
        self._device = device
        self._fetched: dict[Key, Any] = {}

    def __call__(self, name: str, slots: Sequence[int], compute: Callable[[], T]) -> T:
        """What `compute()` gives: from the store where an earlier window (or slot) has asked for it.

        Args:
            name: what is computed. slots: **all** frames of the window that the result depends on, each as often and in
                the order in which they take part; nothing else of the window may influence the result.
            compute: returns a tensor, or a dict, list or tuple of tensors.
        """
        key = (name, tuple(self.positions[slot] for slot in slots))
        if key in self._fetched:
            return self._fetched[key]
        value = self._store.get(key)
        if value is None:
            value = compute()
            self._store.put(key, value)
        elif self._device is not None:
            value = _moved(value, self._device)
        self._fetched[key] = value
        return value


def _moved(value: Any, device: torch.device) -> Any:
    return tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, value)
