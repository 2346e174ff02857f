"""Which frames of a sequence make a sample: positions only, no pixels.

Facts: `archs/FRAME_SAMPLING.md` of the project's notes (SimDeblur's samplings, BasicSR's boundary padding).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from deblurkit.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from deblurkit.data.base import TimePadding

SamplingName = Literal["n_c", "n_l", "n_r", "n_n", "context"]
AnchorName = Literal["dvd_test", "middle"]

#: The 30 frames of each DVD test video that the paper's figures are of: linspace(2, 97, 30), cut off to integers.
DVD_TEST_ANCHORS = tuple(2 + 95 * i // 29 for i in range(30))


class FrameWindow(NamedTuple):
    """Positions in a sequence: the frames that go in, and the frames that are restored (SimDeblur's ground truth)."""

    inputs: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class FrameSampling:
    """How samples are taken from a sequence, in SimDeblur's samplings.

    With S = (num_frame - 1) * interval + 1, the span of a sample, and L frames in the sequence, there is a sample for
    each of the L - S + 1 places where S frames fit:

        n_c       the middle frame is restored (`num_frame` is odd)
        n_l       the first frame is            n_r   the last frame is            n_n   every frame is
        context   all but the first `past` and the last `future` frames are; with 2 and 2 it is SimDeblur's `strcnn`

    (`n_r` ends at its target for every interval; upstream's does for interval 1 only.)

    Attributes:
        sampling: one of the above. num_frame: frames that go in. interval: step between them.
        overlapping: samples slide by one frame. False: by S; with `context` so that what they restore tiles the
            sequence (upstream slides by `num_frame`, which leaves frames out).
        padding: n_c only. None: frames nearer to an end than S//2 are never restored (SimDeblur's protocol). A rule of
            `window_indices`: every frame is, windows are completed by it.
        past, future: for `context`.
        anchors: only these positions are restored (n_c, n_l, n_r): a list, "middle" (frame L//2: im4 of Vimeo's 7), or
            "dvd_test" (`DVD_TEST_ANCHORS`). None: all.

    Raises:
        DataError: the values contradict each other.
    """

    sampling: SamplingName
    num_frame: int
    interval: int = 1
    overlapping: bool = True
    padding: TimePadding | None = None
    past: int = 2
    future: int = 2
    anchors: AnchorName | Sequence[int] | None = None

    def __post_init__(self) -> None:
        names = ("n_c", "n_l", "n_r", "n_n", "context")
        if self.sampling not in names:
            hint = did_you_mean(str(self.sampling), names)
            raise DataError(f"sampling {self.sampling!r} is unknown{hint}; there are {', '.join(names)}")
        if self.num_frame < 1 or self.interval < 1:
            raise DataError(f"num_frame {self.num_frame} and interval {self.interval} must be 1 or more")
        if self.sampling == "n_c" and self.num_frame % 2 == 0:
            raise DataError(f"sampling n_c has a middle frame, so num_frame must be odd; it is {self.num_frame}")
        if self.sampling != "n_c" and self.padding is not None:
            raise DataError(
                f"padding completes windows around a middle frame (sampling n_c); sampling is {self.sampling}"
            )
        if self.sampling == "context" and (min(self.past, self.future) < 0 or not self.slots):
            raise DataError(
                f"sampling context: past {self.past} and future {self.future} must be 0 or more and leave a frame of "
                f"num_frame {self.num_frame}"
            )
        if self.anchors is not None and self.sampling not in ("n_c", "n_l", "n_r"):
            raise DataError(f"anchors name single restored frames (n_c, n_l, n_r); sampling is {self.sampling}")

    @property
    def slots(self) -> range:
        """Which of the frames that go in are restored."""
        n = self.num_frame
        return {
            "n_c": range(n // 2, n // 2 + 1),
            "n_l": range(1),
            "n_r": range(n - 1, n),
            "n_n": range(n),
            "context": range(self.past, n - self.future),
        }[self.sampling]

    def span(self, interval: int) -> int:
        """Frames from the first to the last one that goes in."""
        return (self.num_frame - 1) * interval + 1

    def positions(self, length: int) -> list[int]:
        """For each sample of a sequence of `length` frames the first position that it restores.

        Raises:
            DataError: an anchor has no window.
        """
        step = 1
        if not self.overlapping:
            step = (len(self.slots) - 1) * self.interval + 1 if self.sampling == "context" else self.span(self.interval)
        if self.padding is not None:
            found = range(0, length, step)
        else:
            first = self.slots[0] * self.interval
            found = range(first, first + length - self.span(self.interval) + 1, step)
        if self.anchors is None or not found:
            return list(found)
        anchors = {"dvd_test": DVD_TEST_ANCHORS, "middle": (length // 2,)}.get(str(self.anchors), self.anchors)
        outside = [anchor for anchor in anchors if anchor not in found]
        if outside:
            raise DataError(
                f"anchors {', '.join(map(str, outside))} have no window in a sequence of {length} frames, where "
                f"{found[0]} to {found[-1]} can be restored"
            )
        return [int(anchor) for anchor in anchors]

    def window(self, position: int, length: int, interval: int | None = None, redraw: float = 0.0) -> FrameWindow:
        """The sample that restores `position` first.

        Args:
            position: one of `positions(length)`. length: frames in the sequence.
            interval: another step between frames. The window may then not fit there; it is put to another place,
                as BasicSR does it. redraw: in [0, 1), which one.
        """
        interval = interval or self.interval
        if self.padding is not None:
            half = self.num_frame // 2
            return self._window(window_indices(position, half, half, length, self.padding, interval))
        start, places = position - self.slots[0] * interval, length - self.span(interval) + 1
        if not 0 <= start < places:
            start = int(redraw * places)
        return self._window(range(start, start + self.span(interval), interval))

    def windows(self, length: int) -> list[FrameWindow]:
        """All samples of a sequence of `length` frames; none where it is too short."""
        return [self.window(position, length) for position in self.positions(length)]

    def reversed(self, window: FrameWindow) -> FrameWindow:
        """The same frames backwards in time; what is restored keeps its place (n_l: the first that goes in)."""
        return self._window(window.inputs[::-1])

    def _window(self, inputs: Sequence[int]) -> FrameWindow:
        return FrameWindow(tuple(inputs), tuple(inputs[slot] for slot in self.slots))


def chunk_windows(
    length: int, size: int | None, overlap: int, past: int = 0, future: int = 0, padded: bool = False
) -> list[FrameWindow]:
    """A sequence cut into chunks, in each of which a recurrent network starts anew; every frame is restored once.

    A chunk begins `overlap` frames before the end of the one before it; the last is moved back to end with the
    sequence. A frame in two chunks belongs to the earlier one, unless it is among the last `future` frames there.

    Args:
        length: frames in the sequence. size: frames in a chunk; None: all, as one chunk.
        overlap: frames that a chunk shares with the next one, at least past + future.
        past, future: frames at the ends of a chunk that are context only. padded: those at the two ends of the
            sequence are restored all the same.

    Returns:
        the chunks; none where the sequence has nothing to restore.

    Raises:
        DataError: the overlap is too small to restore all frames between the chunks, or leaves no step.
    """
    size = length if size is None else min(size, length)
    if size < length and not past + future <= overlap < size:
        raise DataError(
            f"chunk: overlap {overlap} must be at least {past + future} (past + future) and less than length {size}"
        )
    windows: list[FrameWindow] = []
    done, start = 0 if padded else past, 0
    while True:
        start = min(start, length - size)
        last = start + size == length
        stop = length if last and padded else start + size - future
        if done < stop:
            windows.append(FrameWindow(tuple(range(start, start + size)), tuple(range(done, stop))))
            done = stop
        if last:
            return windows
        start += size - overlap


def window_indices(
    center: int, past: int, future: int, length: int, padding: TimePadding, interval: int = 1
) -> list[int]:
    """Positions of a window around `center`, completed at the ends of the sequence.

    With `past == future` and `interval == 1` this is BasicSR's table. For a window 0..6 around frame 0 of a long
    sequence, the three positions before it become:

        replicate          0 0 0    the first frame again
        reflection         3 2 1    mirrored at the first frame, which is not repeated
        reflection_circle  6 5 4    mirrored at the far side of the window
        circle             4 5 6    the frames that follow the window on its far side

    In a sequence shorter than the window a rule may point outside; that position is then mirrored at the ends as often
    as it takes (a sequence of one frame gives that frame throughout).

    Args:
        center: position of the frame to restore, 0 to `length` - 1.
        past, future: how many frames go before and after it.
        length: frames in the sequence. padding: the rule. interval: step between neighbours in the window.

    Returns:
        `past + 1 + future` positions, each 0 to `length` - 1.
    """
    if not 0 <= center < length:
        raise ValueError(f"frame {center} is not in a sequence of {length} frames")
    if past < 0 or future < 0 or interval < 1:
        raise ValueError(f"past {past} and future {future} must be >= 0, interval {interval} must be >= 1")
    first, last = center - past * interval, center + future * interval
    span = (past + 1 + future) * interval
    positions = []
    for position in range(first, last + 1, interval):
        before = position < 0
        if 0 <= position < length:
            padded = position
        elif padding == "replicate":
            padded = 0 if before else length - 1
        elif padding == "reflection":
            padded = position  # mirrored below
        elif padding == "reflection_circle":
            padded = last - position if before else first - (position - (length - 1))
        elif padding == "circle":
            padded = position + span if before else position - span
        else:
            raise ValueError(
                f"{padding!r} is not a boundary padding: replicate, reflection, reflection_circle or circle"
            )
        positions.append(_mirror(padded, length))
    return positions


def _mirror(position: int, length: int) -> int:
    """Fold a position into 0..length - 1 by mirroring at the first and the last frame."""
    period = max(2 * (length - 1), 1)
    position %= period
    return min(position, period - position)
