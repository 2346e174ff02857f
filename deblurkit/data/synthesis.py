"""Blurred/sharp pairs from sharp high-frame-rate video: N consecutive frames are averaged in linear light.

A camera adds up light during the exposure and then applies its response curve g, so a blurred frame is
`g(mean(g^-1(sharp frames)))` and its sharp partner is the frame in the middle of the exposure. GoPro (Nah et al., CVPR
2017) was made so: 7 to 13 frames of 240 fps video with g(x) = x^(1/2.2) (`blur_gamma`), or the plain mean (`blur`).
REDS (Nah et al., CVPRW 2019) has a measured curve, frames put between those of 120 fps video, and a shutter that is
closed for a part of the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from deblurkit.data.frame_interpolation import InterpolatedSource, check_times
from deblurkit.data.light import CURVES, SensorNoise, response_curve
from deblurkit.data.video_crf import compress
from deblurkit.errors import DataError
from deblurkit.image_io import Pixels, cv2
from deblurkit.video.source import FrameSource

__all__ = ["CURVES", "Averaging", "Pair", "ShrunkSource", "average_frames", "compress_pairs"]


@dataclass(frozen=True)
class Averaging:
    """Which frames make a blurred one, and how.

    Attributes:
        frames: sharp frames per blurred one, from 2. The sharp partner is number `frames // 2` of them, from 0: the
            middle one for an odd number; for an even number the first after the middle, half a frame late.
        stride: source frames from one blurred frame to the next. None: `frames`, so that exposures touch. More: the
            shutter is closed in between. Less: exposures overlap.
        curve: a name in `CURVES`.
        duty: share of the time that the shutter is open, up to 1; it replaces `frames` and needs `stride`.
        interpolate: frames are first made so many times as many, see `InterpolatedSource`. An exposure from the first
            to the last of N frames is then a mean of `(N - 1) * interpolate + 1`; N is odd, so that the sharp frame is
            a true one. (RSBlur: 9 and 8, a mean of 65. REDS: stride 5, duty 0.8, 16: 65 too.)
        first: source frames before the first exposure.

    Raises:
        DataError: a number out of range, or an unknown curve.
    """

    frames: int = 7
    stride: int | None = None
    curve: str = "gamma2.2"
    duty: float | None = None
    interpolate: int = 1
    first: int = 0

    def __post_init__(self) -> None:
        if self.stride is not None and self.stride < 1:
            raise DataError(f"a stride of {self.stride} frames: it must be 1 or more")
        if self.first < 0:
            raise DataError(f"{self.first} frames before the first exposure: it must be 0 or more")
        if self.duty is not None:
            if self.stride is None:
                raise DataError("a duty cycle is a share of the time between blurred frames: state the stride too")
            if not 0 < self.duty <= 1:
                raise DataError(f"a duty cycle of {self.duty:g}: the shutter is open for more than 0 and at most 1")
        elif self.frames < 2:
            raise DataError(f"{self.frames} frame(s) per average: a blur needs at least 2")
        elif self.interpolate > 1 and self.frames % 2 == 0:
            raise DataError(
                f"{self.frames} frames per average with interpolation: the middle would be no true frame; take an odd "
                "number"
            )
        response_curve(self.curve)
        check_times(self.interpolate)
        if self.samples < 2:
            raise DataError(f"a duty cycle of {self.duty:g} of {self.stride} frames leaves fewer than 2 to average")

    @property
    def step(self) -> int:
        """Source frames from one blurred frame to the next."""
        return self.stride or self.frames

    @property
    def samples(self) -> int:
        """Frames per average, those put between others included."""
        if self.duty is None:
            return (self.frames - 1) * self.interpolate + 1 if self.interpolate > 1 else self.frames
        most = self.step * self.interpolate
        if self.interpolate == 1:
            return round(self.duty * most)
        around = 2 * int(self.duty * most / 2 + 1e-9) + 1
        return around if around <= most else around - 2

    @property
    def start(self) -> int:
        """Frames before the first exposure, those put between others included; its middle is a true frame."""
        return self.first * self.interpolate + -(self.samples // 2) % self.interpolate

    @property
    def needed(self) -> int:
        """Source frames up to the end of the first exposure."""
        return -(-(self.start + self.samples - 1) // self.interpolate) + 1

    def pairs(self, length: int) -> int:
        """Number of whole exposures in `length` source frames; what is left over at the end is not used."""
        there = (length - 1) * self.interpolate + 1
        return max(0, (there - self.start - self.samples) // (self.step * self.interpolate) + 1)

    def middle(self, pair: int) -> int:
        """Position of a pair's sharp frame in the source."""
        return (self.start + self.samples // 2) // self.interpolate + pair * self.step


class Pair(NamedTuple):
    """A blurred frame and its sharp partner, both `(H, W, 3)` RGB in the source's dtype."""

    blur: Pixels
    sharp: Pixels


class _Exposure:
    """The light of the frames seen so far; float64 keeps a sum of 16-bit frames exact to far below half a level."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.light = np.zeros(shape)
        self.count = 0
        self.sharp: Pixels | None = None


def average_frames(
    source: FrameSource,
    averaging: Averaging,
    noise: SensorNoise | None = None,
    rng: np.random.Generator | None = None,
) -> Iterator[Pair]:
    """Average a run of frames, one exposure after the other.

    Every frame is read once. Memory holds the open exposures only: one, or `frames / stride` where they overlap.
    Results are rounded to the nearest level (halves go up), and a scene that stands still comes out unchanged.

    Args:
        source: frames `(H, W, 3)` RGB, uint8 or uint16, all of one size and dtype.
        noise: added to the blurred frames' light, drawn by `rng`; None: none.

    Raises:
        DataError: a frame has another size or bit depth than those before it.
    """
    curve = response_curve(averaging.curve)
    step = averaging.step * averaging.interpolate
    open_exposures: deque[_Exposure] = deque()
    first: Pixels | None = None
    for index, frame in enumerate(InterpolatedSource(source, averaging.interpolate)):
        if first is None:
            first = frame
            peak = int(np.iinfo(frame.dtype).max)
            table = curve.table(frame.dtype)
        elif frame.shape != first.shape or frame.dtype != first.dtype:
            raise DataError(f"{source.name}: frame {index} is {_kind(frame)}, the first is {_kind(first)}")
        if index >= averaging.start and (index - averaging.start) % step == 0:
            open_exposures.append(_Exposure(frame.shape))
        if not open_exposures:
            continue  # the shutter is closed
        light = table[frame]
        for exposure in open_exposures:
            if exposure.count == averaging.samples // 2:
                exposure.sharp = frame
            exposure.light += light
            exposure.count += 1
        if open_exposures[0].count == averaging.samples:
            done = open_exposures.popleft()
            assert done.sharp is not None
            light = done.light / averaging.samples
            if noise is not None and noise.strength > 0:
                assert rng is not None
                light = np.clip(noise.add(light.astype(np.float32), rng), 0, 1)
            levels = curve.to_pixels(light) * peak
            # 1e-6: whether the mean of 3 and 4 is 4 must not depend on the last bit of a power function
            yield Pair(np.floor(levels + (0.5 + 1e-6)).astype(frame.dtype), done.sharp)


def compress_pairs(pairs: Iterator[Pair], crf: int | None) -> Iterator[Pair]:
    """The pairs with their blurred frames as a video encoder leaves them (8 bits, as the sharp ones are then too).

    Args:
        crf: see `compress`; None: as they are.
    """
    if crf is None:
        yield from pairs
        return
    waiting: deque[Pixels] = deque()

    def blurred() -> Iterator[Pixels]:
        for pair in pairs:
            waiting.append(pair.sharp)
            yield pair.blur

    for blur in compress(blurred(), crf):
        sharp = waiting.popleft()
        yield Pair(blur, sharp if sharp.dtype == np.uint8 else (sharp >> 8).astype(np.uint8))


def _kind(frame: Pixels) -> str:
    return f"{frame.shape[1]}x{frame.shape[0]} with {frame.dtype.itemsize * 8} bits"


class ShrunkSource:
    """A source whose frames are made smaller by averaging areas of pixel values, which also lessens noise.

    Args:
        scale: factor for width and height, above 0 and below 1; sizes are rounded to whole pixels.
    """

    def __init__(self, source: FrameSource, scale: float) -> None:
        if not 0 < scale < 1:
            raise DataError(f"scale {scale:g}: frames can be made smaller, so it lies between 0 and 1")
        self.name = source.name
        self._source = source
        self._scale = scale

    @property
    def length(self) -> int | None:
        """Number of frames, where the source knows it."""
        return self._source.length

    def __iter__(self) -> Iterator[Pixels]:
        """Read and shrink the frames in order."""
        module = cv2()
        for frame in self._source:
            size = [max(1, round(side * self._scale)) for side in (frame.shape[1], frame.shape[0])]
            yield module.resize(frame, size, interpolation=module.INTER_AREA)
