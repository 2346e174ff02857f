"""Asking a run to stop: the step is finished, the state saved, and the exit code says why."""

from __future__ import annotations

import signal
import sys
from types import FrameType, TracebackType

from deblurkit.engine.launch import STOP_CODES, Place, largest

_AGREE_EVERY = 10


def queue_again_until_training() -> None:
    """Let SIGUSR1 end the process with its exit code at once, as long as there is nothing to save."""
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, lambda number, frame: sys.exit(STOP_CODES["SIGUSR1"]))


class StopRequest:
    """Turns SIGINT, SIGTERM and SIGUSR1 into a request while it is entered; a second SIGINT ends at once."""

    def __init__(self) -> None:
        self.code = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        for name in STOP_CODES:
            if hasattr(signal, name):  # Windows has no SIGUSR1
                number = getattr(signal, name)
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.code and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.code = STOP_CODES[signal.Signals(number).name]

    def agreed(self, place: Place, iteration: int, at_once: bool = False) -> int:
        """The exit code if any process was asked to stop, else 0; all processes answer alike.

        Several processes talk about it only now and then, since that makes them wait for their devices; or `at_once`,
        which must be the same for all.
        """
        if place.world_size > 1:
            if iteration % _AGREE_EVERY and not at_once:
                return 0
            self.code = largest(place, self.code)
        return self.code
