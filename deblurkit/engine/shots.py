"""Where a video changes from one shot to the next, found while it is read, with two frames of look-ahead.

Two frames differ by the product of

- how far their small luma pictures are from correlating at the best shift (so that a pan, which shifts the picture, and
  a change of exposure, which scales it, count little), and
- how far their colour histograms are from overlapping (so that motion within a scene counts little).

Cuts within a scene (jump cuts) hardly show in that. They are looked for by a second measure: what is left of the
difference of two frames when one of them is moved onto the other by optical flow (DIS; Kroeger, Timofte, Dai, Van Gool,
ECCV 2016), in small luma pictures without their local mean and at one contrast, so that light counts little.

A shot begins at frame t where, by one of the two measures, all of the three frames before it differ from all of the
three from t on (so that a flash, after which the scene is back, is no cut), by more than a floor and several times as
much as neighbouring frames nearby do (so that in fast motion more is asked for).

Measured on 16 clips of up to 150 frames, also with only every 2nd, 4th and 8th frame: nothing found in them, and all of
480 cuts between two of them found; nothing either with every 17th frame left out, in synthetic flashes and fast pans.
Of 183 cuts that leave out 10 to 60 frames of one of them (many of which hardly show) 49 % are found, by the first
measure alone 20 %. What is taken for a cut by mistake: a drop of the light to 40 % from one frame to the next (3 of 16
clips), and shaking by up to a tenth of the picture at random from frame to frame (1 of 16).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurkit.image_io import Pixels

T = TypeVar("T")

#: What unequal frames of one scene reach: the floor under a cut, and the factor to what neighbours nearby reach.
_FLOOR = 0.02
_FACTOR = 3.0
#: The same for what is left after motion.
_LEFT_FLOOR = 0.02
_LEFT_FACTOR = 3.0

#: How many frames on each side of a cut are compared with those on the other side.
AROUND = 3

#: Size of the small pictures, and of the transforms that correlate them at all shifts.
_ROWS, _COLUMNS = 24, 40
_PADDED = (64, 96)
#: Below this share of a frame that stays in the picture, it has nothing in common with the other.
_LEAST_MOVED_INSIDE = 0.3
#: Shifts that leave less than this share of the picture in both are not considered.
_LEAST_OVERLAP = 0.45
#: Longer side of the pictures that are moved onto each other, side of the neighbourhood that makes their local mean,
#: and the mean deviation from it that they are given.
_DETAIL, _LOCAL, _CONTRAST = 160, 15, 24
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
        self.detail = _detail(pixels)
        coarse = (few >> 5).reshape(-1, 3).astype(np.int64)
        counts = np.bincount(coarse @ np.array([64, 8, 1]), minlength=512)
        self.histogram = counts / counts.sum()


def _detail(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """A small luma picture without its local mean, and at one contrast."""
    scale = _DETAIL / max(pixels.shape[:2])
    size = max(round(pixels.shape[1] * scale), 16), max(round(pixels.shape[0] * scale), 16)
    small = cv2.cvtColor(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    white = {"uint8": 255.0, "uint16": 65535.0}.get(small.dtype.name, 1.0)
    luma = small.astype(np.float32) * np.float32(255 / white)
    luma -= cv2.blur(luma, (_LOCAL, _LOCAL))
    contrast = _CONTRAST / (float(np.abs(luma).mean()) + 1)
    return np.clip(128 + luma * contrast, 0, 255).astype(np.uint8)


def left_after_motion(a: Sketch, b: Sketch) -> float:
    """From 0 (moved onto each other, the pictures are equal) to about 1."""
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    flow = np.asarray(finder.calc(a.detail, b.detail, np.zeros((*a.detail.shape, 2), np.float32)))
    height, width = a.detail.shape
    x = flow[..., 0] + np.arange(width, dtype=np.float32)
    y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    if inside.mean() < _LEAST_MOVED_INSIDE:
        return 1.0
    moved = cv2.remap(b.detail, x, y, cv2.INTER_LINEAR)
    return float(cv2.absdiff(a.detail, moved)[inside].mean()) / (2 * _CONTRAST)


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
    left: float


def mark_cuts(frames: Iterable[Pixels], cuts: Collection[int] | None = None) -> Iterator[tuple[Pixels, bool]]:
    """The frames, each with whether a new shot begins with it (never the first).

    Args:
        cuts: positions of the frames with which shots begin, where they are known; None: they are found, and frames
            come two behind their source.
    """
    if cuts is not None:
        known = frozenset(cuts) - {0}
        yield from ((pixels, position in known) for position, pixels in enumerate(frames))
        return
    before: deque[_Seen] = deque(maxlen=AROUND)
    ahead: deque[tuple[Pixels, _Seen]] = deque()
    last: Sketch | None = None
    for pixels in itertools.chain(frames, itertools.repeat(None)):
        if pixels is not None:
            sketch = Sketch(pixels)
            steps = (difference(last, sketch), left_after_motion(last, sketch)) if last else (0.0, 0.0)
            ahead.append((pixels, _Seen(sketch, *steps)))
            last = sketch
            if len(ahead) < AROUND:
                continue
        if not ahead:
            return
        cut = _begins_shot(list(before), [seen for _, seen in ahead])
        now, seen = ahead.popleft()
        before.append(seen)
        yield now, cut


def _begins_shot(before: Sequence[_Seen], ahead: Sequence[_Seen]) -> bool:
    nearby = [*before, *ahead[1:]]
    least = _FLOOR + _FACTOR * max((seen.step for seen in nearby), default=0.0)
    if ahead[0].step >= least and _apart(before, ahead, difference, least):
        return True
    least = _LEFT_FLOOR + _LEFT_FACTOR * max((seen.left for seen in nearby), default=0.0)
    return ahead[0].left >= least and _apart(before, ahead, left_after_motion, least)


def _apart(
    before: Sequence[_Seen], ahead: Sequence[_Seen], measure: Callable[[Sketch, Sketch], float], least: float
) -> bool:
    return all(measure(a.sketch, b.sketch) >= least for a in before for b in ahead)


def split_shots(marked: Iterable[tuple[T, bool]]) -> Iterator[tuple[int, Iterator[T]]]:
    """A video as a sequence of shots, each the position of its first frame and its frames.

    What is left of a shot's frames is passed over when the next shot is asked for.

    Args:
        marked: its frames, each with whether a new shot begins with it.
    """

    def numbered() -> Iterator[tuple[int, int, T]]:
        """Shot, position, frame."""
        number = 0
        for position, (frame, cut) in enumerate(marked):
            number += cut
            yield number, position, frame

    for _, shot in itertools.groupby(numbered(), key=lambda item: item[0]):
        first = next(shot)
        yield first[1], itertools.chain([first[2]], (frame for _, _, frame in shot))  # noqa: B031 (each shot is taken once)


def find_cuts(frames: Iterable[Pixels]) -> list[int]:
    """Positions of the frames with which a new shot begins."""
    return [position for position, (_, cut) in enumerate(mark_cuts(frames)) if cut]
