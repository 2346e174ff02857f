"""Copies between the host and the device that run beside what the device computes.

On a GPU every direction has a stream of its own: frames arrive while an earlier one is restored, results leave while
the next one is, and the host waits for nothing but a result that it needs now. On the CPU nothing is copied.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


class Arriving:
    """A tensor that a side stream of the device makes; used once, by what computes."""

    def __init__(self, tensor: Tensor, done: Any = None) -> None:
        self._tensor, self._done = tensor, done

    def here(self) -> Tensor:
        """The tensor; the current stream waits for it, the host does not."""
        if self._done is not None:
            current = torch.cuda.current_stream(self._tensor.device)
            current.wait_event(self._done)
            # its memory is the side stream's, which could use it again while the current one still reads it
            self._tensor.record_stream(current)
        return self._tensor


class Leaving:
    """A tensor on its way to the host."""

    def __init__(self, tensor: Tensor, done: Any = None) -> None:
        self._tensor, self._done = tensor, done

    def on_host(self) -> Tensor:
        """The tensor on the CPU, once it is there; from any thread."""
        if self._done is not None:
            self._done.synchronize()
        return self._tensor

    def rows(self) -> Iterator[Leaving]:
        """Each along the first dimension, as views."""
        for row in self._tensor:
            yield Leaving(row, self._done)


class Transfers:
    """The side streams of a device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    @functools.cached_property
    def _inwards(self) -> Any:
        return torch.cuda.Stream(self._device)

    @functools.cached_property
    def _outwards(self) -> Any:
        return torch.cuda.Stream(self._device)

    def arrive(self, make: Callable[[], Tensor]) -> Arriving:
        """Let `make` bring a tensor to the device; one thread at a time, another one than computes."""
        if self._device.type != "cuda":
            return Arriving(make())
        with torch.cuda.stream(self._inwards):
            return Arriving(make(), self._inwards.record_event())

    def leave(self, tensor: Tensor) -> Leaving:
        """Bring a tensor to the host, as soon as the current stream has made it."""
        if self._device.type != "cuda":
            return Leaving(tensor)
        tensor = tensor.contiguous()
        self._outwards.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._outwards):
            host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            host.copy_(tensor, non_blocking=True)
            tensor.record_stream(self._outwards)
            return Leaving(host, self._outwards.record_event())
