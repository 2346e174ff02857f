"""Decoding, restoring and encoding at the same time, with a few frames between them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

from deblurkit.engine.feed import Seen
from deblurkit.engine.pixels import to_pixels
from deblurkit.engine.stages import Stages
from deblurkit.engine.transfer import Leaving
from deblurkit.image_io import Pixels
from deblurkit.threads import start_beside

T = TypeVar("T")

#: Frames that may wait between two stages, beside those that the network takes and gives at one time.
_BETWEEN = 3


class StampedSource(Protocol):
    """Frames, each with what its sink needs to place it (a time, a file name)."""

    def stamped(self) -> Iterator[tuple[Pixels, Any]]:
        """The frames in order."""
        ...


class Sink(Protocol):
    """Where restored frames go."""

    def write(self, pixels: Pixels, stamp: Any) -> None:
        """Append a frame."""
        ...


class FrameRestorer(Protocol):
    """What `Restorer` does here."""

    @property
    def burst(self) -> int:
        """As `Restorer.burst`."""
        ...

    def look(self, frames: Iterator[Pixels]) -> Iterator[Seen]:
        """As `Restorer.look`."""
        ...

    def restore_seen(self, seen: Iterator[Seen]) -> Iterator[tuple[int, Leaving]]:
        """As `Restorer.restore_seen`."""
        ...


def restore_into(
    restorer: FrameRestorer,
    source: StampedSource,
    sink: Sink,
    advance: Callable[[int], None] = lambda count: None,
    stages: Stages | None = None,
) -> int:
    """Restore every frame of `source` into `sink`; each stage runs in a thread of its own.

    An error in any stage stops all of them and is raised here, and so is an interrupt; no thread is left behind.

    Args:
        advance: called with 1 for every frame that is written, from the writing thread.
        stages: adds up how long each stage takes.

    Returns:
        number of frames.
    """
    room = _BETWEEN + restorer.burst
    decoded: Channel[Seen] = Channel(room)
    restored: Channel[tuple[Leaving, Any, Any]] = Channel(room)
    waiting: deque[tuple[Any, Any]] = deque()
    stages = stages or Stages()
    written = 0

    def frames() -> Iterator[Pixels]:
        for pixels, stamp in source.stamped():
            waiting.append((pixels.dtype, stamp))
            yield pixels

    def decode() -> None:
        for seen in stages.each("decode", restorer.look(frames())):
            decoded.put(seen)

    def encode() -> None:
        nonlocal written
        for leaving, dtype, stamp in restored:
            with stages.time("encode"):
                sink.write(to_pixels(leaving.on_host(), dtype), stamp)
            written += 1
            stages.frames += 1
            advance(1)

    with _stage(decode, decoded, "decode"), _stage(encode, restored, "encode"):
        for _, leaving in stages.each("restore", restorer.restore_seen(stages.each("wait", decoded))):
            with stages.time("wait"):
                restored.put((leaving, *waiting.popleft()))
        restored.finish()
    return written


@contextmanager
def _stage(work: Callable[[], None], channel: Channel[Any], name: str) -> Iterator[None]:
    """Run `work` in a thread for the time of the block; its error ends the channel and is raised in the block."""

    def run() -> None:
        try:
            work()
            channel.finish()
        except BaseException as error:  # raised again where the other end of the channel is used
            channel.close(error)

    thread = start_beside(run, name)
    try:
        yield
        thread.join()
    except BaseException:
        channel.close()
        thread.join()
        raise
    channel.check()


class _ClosedError(Exception):
    """The channel was closed by its other end, which tells the reason itself."""


class Channel(Generic[T]):
    """A bounded queue between two threads that either side can end."""

    def __init__(self, capacity: int) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._finished = self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def put(self, item: T) -> None:
        """Append an item, waiting for room; raises what closed the channel."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._capacity)
            self.check()
            self._items.append(item)
            self._changed.notify_all()

    def finish(self) -> None:
        """No more items come; those in the channel are still delivered."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """Stop both ends at once, for the reason `error`."""
        with self._changed:
            self._closed, self._error = True, self._error or error
            self._items.clear()
            self._changed.notify_all()

    def check(self) -> None:
        """Raise what closed the channel, if anything did."""
        if self._closed:
            raise self._error or _ClosedError

    def __iter__(self) -> Iterator[T]:
        """The items until the channel is finished and empty; raises what closed it."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._finished or self._items)
                self.check()
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
