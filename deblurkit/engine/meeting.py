"""Where the processes of a job wait for each other, however long that takes, and tell each other how it went."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from deblurkit.console import say
from deblurkit.engine.launch import Place
from deblurkit.errors import DeblurkitError

T = TypeVar("T")

#: One process may have a film to restore when the others are done.
_PATIENCE = timedelta(days=365)


class Meeting:
    """The processes of a job; made and called by all of them in the same order.

    Args:
        place: this process among them.

    Attributes:
        place: as given.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._group: Any = None
        if place.world_size > 1:
            self._group = dist.new_group(backend="gloo", timeout=_PATIENCE)

    def wait(self) -> None:
        """Until all are here; an interrupt is heard meanwhile. A process that died is an error of its connection."""
        if self._group is None:
            return
        barrier = dist.barrier(self._group, async_op=True)
        assert barrier is not None
        while not barrier.is_completed():
            time.sleep(0.05)
        barrier.wait()

    def gather(self, value: T) -> list[T]:
        """`value` of every process, in rank order."""
        if self._group is None:
            return [value]
        self.wait()
        gathered: list[Any] = [None] * self.place.world_size
        dist.all_gather_object(gathered, value, self._group)
        return gathered

    def together(self, work: Callable[[], T]) -> T:
        """Do a step that every process does; where it fails in one of them, it has failed in all, once all are through.

        Raises:
            DeblurkitError: that of this process, or one that says which process failed.
        """
        result: T | None = None
        own: DeblurkitError | None = None
        try:
            result = work()
        except DeblurkitError as error:
            if self.place.world_size == 1:
                raise
            own = error
            say(f"process {self.place.rank + 1} of {self.place.world_size} has failed; the others end their parts")
        failed = [rank + 1 for rank, bad in enumerate(self.gather(own is not None)) if bad]
        if own is not None:
            raise own
        if failed:
            raise DeblurkitError(f"process {failed[0]} of {self.place.world_size} failed")
        return result  # type: ignore[return-value]  # (T where nothing failed)
