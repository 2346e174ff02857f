"""How long decoding, restoring and encoding take, each by itself: what `--benchmark` shows."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.table import Table

T = TypeVar("T")

#: The stages, as the table calls them; the network waits where it has no frame, or nowhere to put one.
STAGES = {"decode": "decode", "wait": "wait (network idle)", "restore": "restore", "encode": "encode"}


class Stages:
    """Adds up seconds by stage. Each stage has one thread, so that their seconds overlap.

    Attributes:
        seconds: by stage. frames: how many were restored.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.frames = 0
        self._started = time.perf_counter()

    @contextlib.contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Count the time of the block."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def each(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """The items; the time until each comes is counted, less what is counted as "wait" meanwhile."""
        iterator = iter(items)
        while True:
            started, waited = time.perf_counter(), self.seconds["wait"]
            item = next(iterator, None)
            taken = time.perf_counter() - started
            self.seconds[stage] += taken if stage == "wait" else taken - (self.seconds["wait"] - waited)
            if item is None:
                return
            yield item

    def table(self) -> Table:
        """Frames per second by stage, for people."""
        from rich.table import Table

        total = time.perf_counter() - self._started
        table = Table(title=f"{self.frames} frames in {total:.1f} s", caption="the stages work at the same time")
        table.add_column("stage")
        for name in ("seconds", "share", "frames per second"):
            table.add_column(name, justify="right")
        for stage, title in STAGES.items():
            seconds = self.seconds[stage]
            rate = f"{self.frames / seconds:.1f}" if seconds and stage != "wait" else ""
            table.add_row(title, f"{seconds:.2f}", f"{seconds / total:.0%}", rate)
        table.add_row("all", f"{total:.2f}", "", f"{self.frames / total:.1f}")
        return table
