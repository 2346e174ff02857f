"""Means of the losses over many steps, without waiting for a GPU at each."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_FOLD = 1000


class LossWindow:
    """Collects losses where they are; `take` fetches their means and begins anew.

    A term counts in the steps that have it (a generator may be trained in some only). Scalars are kept as they are and
    summed up when asked for, or by the thousand: a step costs an entry in a list.
    """

    def __init__(self) -> None:
        self._steps: dict[str, list[Tensor]] = {}
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Take note of a step's losses."""
        for name, value in losses.items():
            steps = self._steps.setdefault(name, [])
            steps.append(value)
            if len(steps) == _FOLD:
                self._fold(name)

    def take(self) -> dict[str, float]:
        """The means since the last call, by name; waits for the device once."""
        for name in self._steps:
            self._fold(name)
        names = [name for name, (_, count) in self._sums.items() if count]
        if not names:
            return {}
        means = torch.stack([self._sums[name][0] / self._sums[name][1] for name in names]).tolist()
        self._sums.clear()
        self._steps.clear()
        return dict(zip(names, means, strict=True))

    def _fold(self, name: str) -> None:
        steps = self._steps[name]
        if steps:
            total, count = self._sums.get(name, (0, 0))
            self._sums[name] = total + torch.stack(steps).double().sum(), count + len(steps)
            steps.clear()
