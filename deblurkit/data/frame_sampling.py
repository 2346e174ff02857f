"""Which frames of a sequence make a sample: positions only, no pixels.

Facts: `archs/FRAME_SAMPLING.md` of the project's notes (SimDeblur's samplings, BasicSR's boundary padding).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from deblurkit.errors import DataError

if TYPE_CHECKING:
    from deblurkit.data.base import TimePadding

Sampling = Literal["n_c", "n_l", "n_r", "n_n"]


class FrameWindow(NamedTuple):
    """Positions in a sequence: the frames that go in, and the frames that are restored (SimDeblur's ground truth)."""

    inputs: tuple[int, ...]
    targets: tuple[int, ...]


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


def sample_windows(
    sampling: Sampling,
    length: int,
    num_frame: int,
    interval: int = 1,
    overlapping: bool = True,
    padding: TimePadding | None = None,
) -> list[FrameWindow]:
    """All samples of a sequence, in SimDeblur's samplings; empty where the sequence is too short for one.

    With S = (num_frame - 1) * interval + 1, the span of a sample:

        n_c   the middle frame is the target; anchors S//2 .. length - 1 - S//2. `num_frame` is odd
        n_l   the first frame is the target       n_r   the last frame is the target       n_n   every frame is

    (`n_r` ends at its target for every interval; upstream's does for interval 1 only.)

    Args:
        length: frames in the sequence. num_frame: frames that go in. interval: step between them.
        overlapping: samples slide by one frame; False: by S.
        padding: n_c only. None: frames nearer to an end than S//2 are never targets (SimDeblur's protocol). A rule of
            `window_indices`: every frame is an anchor, windows are completed by it.

    Raises:
        DataError: `num_frame` is even with n_c, or padding is asked of another sampling.
    """
    if num_frame < 1 or interval < 1:
        raise DataError(f"num_frame {num_frame} and interval {interval} must be 1 or more")
    span = (num_frame - 1) * interval + 1
    step = 1 if overlapping else span
    if sampling == "n_c":
        if num_frame % 2 == 0:
            raise DataError(f"sampling n_c has a middle frame, so num_frame must be odd; it is {num_frame}")
        half = num_frame // 2
        if padding is not None:
            return [
                FrameWindow(tuple(window_indices(p, half, half, length, padding, interval)), (p,))
                for p in range(0, length, step)
            ]
        middles = range(span // 2, length - span // 2, step)
        return [
            FrameWindow(tuple(range(p - half * interval, p + half * interval + 1, interval)), (p,)) for p in middles
        ]
    if padding is not None:
        raise DataError(f"padding completes windows around a middle frame (sampling n_c); sampling is {sampling}")
    windows = [tuple(range(p, p + span, interval)) for p in range(0, length - span + 1, step)]
    if sampling == "n_l":
        return [FrameWindow(inputs, inputs[:1]) for inputs in windows]
    if sampling == "n_r":
        return [FrameWindow(inputs, inputs[-1:]) for inputs in windows]
    if sampling == "n_n":
        return [FrameWindow(inputs, inputs) for inputs in windows]
    raise DataError(f"sampling {sampling!r} is unknown; there are n_c, n_l, n_r and n_n")
