"""Work on many files in several threads, in order, with only so much waiting that memory stays small."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Generator[Result, None, None]:
    """`map` over threads, in order, with only so many results waiting that memory stays small."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


class Behind:
    """Calls that are done in threads while the caller goes on; an error is raised at a later call, or at the end.

    Args:
        workers: threads. At most twice as many calls wait besides; one more waits for them.
    """

    def __init__(self, workers: int) -> None:
        self._pool = ThreadPoolExecutor(workers)
        self._most = 2 * workers
        self._pending: deque[Future[None]] = deque()

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have a function called; raises what an earlier one raised."""
        self._pending.append(self._pool.submit(function, *arguments))
        while len(self._pending) > self._most:
            self._pending.popleft().result()

    def finish(self) -> None:
        """Wait for all calls; raises what one of them raised."""
        while self._pending:
            self._pending.popleft().result()

    def close(self) -> None:
        """Wait for the calls that are being done, and drop those that wait; no thread is left."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
