"""Where a video changes from one shot to the next, found while it is read, with two frames of look-ahead.

Two frames differ by the product of

- how far their small luma pictures are from correlating at the best shift (so that a pan, which shifts the picture, and
  a change of exposure, which scales it, count little), and
- how far their colour histograms are from overlapping (so that motion within a scene counts little).

A shot begins at frame t where all of the three frames before it differ from all of the three from t on (so that a
flash, after which the scene is back, is no cut), by more than a floor and several times as much as neighbouring frames
nearby do (so that in fast motion more is asked for).

Measured on 16 clips of up to 150 frames, also with only every 2nd, 4th and 8th frame: nothing found in them, and all of
480 cuts between two of them found.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurkit.image_io import Pixels

#: What unequal frames of one scene reach: the floor under a cut, and the factor to what neighbours nearby reach.
_FLOOR = 0.02
_FACTOR = 3.0

#: How many frames on each side of a cut are compared with those on the other side.
AROUND = 3

#: Size of the small pictures, and of the transforms that correlate them at all shifts.
_ROWS, _COLUMNS = 24, 40
_PADDED = (64, 96)
#: Shifts that leave less than this share of the picture in both are not considered.
_LEAST_OVERLAP = 0.45
#: Variance (of luma 0 to 255) that is added to both pictures, so that flat ones correlate with nothing but are equal.
_QUIET = 0.5


class Sketch:
    """What is kept of a frame for comparisons; its cost is that of a few thousand pixels whatever the frame's size."""

    def __init__(self, pixels: NDArray[Any]) -> None:
        step = max(min(pixels.shape[0] // (4 * _ROWS), pixels.shape[1] // (4 * _COLUMNS)), 1)
        few = pixels[::step, ::step]
        white = 1.0 if few.dtype == np.float32 else float(np.iinfo(few.dtype).max)
        few = np.ascontiguousarray(few) if white == 255 else (few * (255 / white)).astype(np.uint8)
        luma = cv2.resize(cv2.cvtColor(few, cv2.COLOR_RGB2GRAY), (_COLUMNS, _ROWS), interpolation=cv2.INTER_AREA)
        centred = luma.astype(np.float64) - luma.mean()
        self.transform = np.fft.rfft2(centred, _PADDED)
        self.transform_of_squares = np.fft.rfft2(centred**2, _PADDED)
        coarse = (few >> 5).reshape(-1, 3).astype(np.int64)
        counts = np.bincount(coarse @ np.array([64, 8, 1]), minlength=512)
        self.histogram = counts / counts.sum()


def difference(a: Sketch, b: Sketch) -> float:
    """From 0 (equal) to about 1 (nothing in common)."""
    return (1 - _correlation(a, b)) * float(np.abs(a.histogram - b.histogram).sum()) / 2


def _at_all_shifts(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Sums of products over the part that two pictures, given as transforms, share at each shift."""
    shifted: NDArray[np.float64] = np.fft.irfft2(np.conj(a) * b, _PADDED)
    return shifted


_ONES = np.fft.rfft2(np.ones((_ROWS, _COLUMNS)), _PADDED)
_SHARED = _at_all_shifts(_ONES, _ONES)
_ALLOWED = _SHARED >= _LEAST_OVERLAP * _ROWS * _COLUMNS
_COUNT = np.where(_ALLOWED, _SHARED, 1.0)


def _correlation(a: Sketch, b: Sketch) -> float:
    """Normalised cross-correlation at the shift where it is largest; mean and variance are of the shared part."""
    sum_a, sum_b = _at_all_shifts(a.transform, _ONES), _at_all_shifts(_ONES, b.transform)
    squares_a, squares_b = _at_all_shifts(a.transform_of_squares, _ONES), _at_all_shifts(_ONES, b.transform_of_squares)
    variance_a, variance_b = squares_a - sum_a**2 / _COUNT, squares_b - sum_b**2 / _COUNT
    covariance = _at_all_shifts(a.transform, b.transform) - sum_a * sum_b / _COUNT
    floor = _QUIET * _COUNT
    size = np.sqrt(np.maximum(variance_a, floor) * np.maximum(variance_b, floor))
    return float(np.where(_ALLOWED, covariance / size, -1.0).max())


@dataclass
class _Seen:
    """A frame that is waiting for the verdict: its sketch and how far it is from the frame before it."""

    sketch: Sketch
    step: float


def mark_cuts(frames: Iterable[Pixels]) -> Iterator[tuple[Pixels, bool]]:
    """The frames, two behind their source, each with whether a new shot begins with it (never the first)."""
    before: deque[_Seen] = deque(maxlen=AROUND)
    ahead: deque[tuple[Pixels, _Seen]] = deque()
    last: Sketch | None = None
    for pixels in itertools.chain(frames, itertools.repeat(None)):
        if pixels is not None:
            sketch = Sketch(pixels)
            ahead.append((pixels, _Seen(sketch, difference(last, sketch) if last else 0.0)))
            last = sketch
            if len(ahead) < AROUND:
                continue
        if not ahead:
            return
        cut = _begins_shot(before, [seen for _, seen in ahead])
        now, seen = ahead.popleft()
        before.append(seen)
        yield now, cut


def _begins_shot(before: Iterable[_Seen], ahead: list[_Seen]) -> bool:
    nearby = max([seen.step for seen in (*before, *ahead[1:])], default=0.0)
    least = _FLOOR + _FACTOR * nearby
    if ahead[0].step < least:
        return False
    return all(difference(a.sketch, b.sketch) >= least for a in before for b in ahead)


def split_shots(
    frames: Iterable[Pixels], cuts: Collection[int] | None = None
) -> Iterator[tuple[int, Iterator[Pixels]]]:
    """A video as a sequence of shots, each the position of its first frame and its frames.

    What is left of a shot's frames is passed over when the next shot is asked for.

    Args:
        cuts: positions of the frames with which shots begin, where they are known; None: they are found.
    """
    number = 0

    def marked() -> Iterator[tuple[int, int, Pixels]]:
        """Shot, position, frame."""
        nonlocal number
        known = None if cuts is None else frozenset(cuts)
        pairs = mark_cuts(frames) if known is None else ((f, i in known) for i, f in enumerate(frames))
        for position, (pixels, cut) in enumerate(pairs):
            number += cut and position > 0
            yield number, position, pixels

    for _, shot in itertools.groupby(marked(), key=lambda item: item[0]):
        first = next(shot)
        yield first[1], itertools.chain([first[2]], (pixels for _, _, pixels in shot))  # noqa: B031 (each shot is taken once)


def find_cuts(frames: Iterable[Pixels]) -> list[int]:
    """Positions of the frames with which a new shot begins."""
    return [position for position, (_, cut) in enumerate(mark_cuts(frames)) if cut]
