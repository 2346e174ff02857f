"""What is random about a training sample: its crop, its frames, how it is turned and coloured.

Turning is a matter of strides that costs more than reading (0.3 ms for a crop of 256x256 in a worker), so square crops
travel as they were read, with their orientation as an entry, and the prefetcher turns them on the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np

from deblurkit.errors import DataError, did_you_mean
from deblurkit.image_io import Pixels

AugmentName = Literal["hflip", "vflip", "transpose", "rot90", "reverse", "rgb_shuffle", "noise"]
NoiseLaw = Literal["uniform", "half_normal"]

#: The entry of a sample that tells the prefetcher how to turn its pixels: 1 mirrored left-right, plus 2 mirrored
#: top-bottom, plus 4 transposed after that.
ORIENTATION = "orientation"

_NAMES = ("hflip", "vflip", "transpose", "reverse", "rot90", "rgb_shuffle", "noise")
_CHANNELS = tuple(permutations(range(3)))


class Draws(NamedTuple):
    """The random choices for one sample, in the order in which they are drawn.

    Attributes:
        top, left: place of the crop, [0, 1). hflip ... noise: whether it is done.
        interval, place: [0, 1): which of the intervals, and where a window goes that does not fit with it.
        channels: order of the colours. sigma: [0, 1): where in its range the noise's standard deviation lies.
    """

    top: float
    left: float
    hflip: bool
    vflip: bool
    transpose: bool
    reverse: bool
    rot90: bool
    rgb_shuffle: bool
    noise: bool
    interval: float
    place: float
    channels: tuple[int, ...]
    sigma: float

    @property
    def orientation(self) -> int:
        """The four ways of turning in one number from 0 to 7, see `ORIENTATION`."""
        hflip, vflip, transpose = self.hflip, self.vflip, self.transpose
        if self.rot90:  # which is transposed, then mirrored top-bottom: as mirrored left-right, then transposed
            hflip, vflip, transpose = (hflip, not vflip, False) if transpose else (not hflip, vflip, True)
        return hflip + 2 * vflip + 4 * transpose


def turn(frames: Pixels, orientation: int) -> Pixels:
    """A view of frames `(..., h, w, 3)`, mirrored and transposed as `ORIENTATION` says."""
    view = frames[..., ::-1, :] if orientation & 1 else frames
    view = view[..., ::-1, :, :] if orientation & 2 else view
    return view.swapaxes(-3, -2) if orientation & 4 else view


class Augment:
    """Augmentation of a sample, the same for all of its frames and for both sides (but for noise).

    All choices are drawn always, so that switching one on does not change the others.

    Args:
        probabilities: of each of
            hflip, vflip, transpose, rot90: mirrored left-right, top-bottom, at the main diagonal, turned by 90 degrees
                counter-clockwise; in this order. (BasicSR's `use_hflip` is hflip 0.5, its `use_rot` is vflip 0.5 and
                transpose 0.5; all three at 0.5 give each of the eight orientations equally often, as Restormer's
                `geometric_augs` does. SimDeblur's RandomRotation90 is transpose.)
            reverse: backwards in time (BasicSR's `random_reverse` is 0.5).
            rgb_shuffle: the colours in a random order, one of six.
            noise: Gaussian noise on the degraded frames, other for every pixel and frame.
        noise_sigma: range of its standard deviation, in steps of 8 bits (25 means 25/255).
        noise_law: how that is drawn: "uniform", or "half_normal": low + abs(N(0, 1)) * (high - low) (DeepDeblur).

    Raises:
        DataError: unknown names, or values that are no probabilities or no range.
    """

    def __init__(
        self,
        probabilities: Mapping[AugmentName, float],
        noise_sigma: tuple[float, float],
        noise_law: NoiseLaw = "uniform",
    ) -> None:
        for name, value in probabilities.items():
            if name not in _NAMES:
                hint = did_you_mean(name, _NAMES)
                raise DataError(f"augment: {name!r} is unknown{hint}; there are {', '.join(_NAMES)}")
            if not 0 <= value <= 1:
                raise DataError(f"augment: {name} is a probability from 0 to 1, got {value}")
        if len(noise_sigma) != 2 or not 0 <= noise_sigma[0] <= noise_sigma[1]:
            raise DataError(f"noise_sigma is a range such as [0, 10], got {list(noise_sigma)}")
        self._probabilities = [probabilities.get(name, 0.0) for name in _NAMES]  # type: ignore[call-overload]
        self._sigma, self._law = noise_sigma, noise_law

    def draw(self, rng: np.random.Generator) -> Draws:
        """Make all choices; what `rng` gives afterwards is free for noise."""
        numbers = rng.random(2 + len(_NAMES) + 4).tolist()
        chances, (interval, place, channels, sigma) = numbers[2:-4], numbers[-4:]
        done = [chance < probability for chance, probability in zip(chances, self._probabilities, strict=True)]
        order = _CHANNELS[int(channels * len(_CHANNELS))]
        return Draws._make([*numbers[:2], *done, interval, place, order, sigma])

    def add_noise(self, frames: Pixels, draws: Draws, rng: np.random.Generator) -> None:
        """Add noise to frames `(n, h, w, 3)`, turned already, in place, rounded and clipped to their type."""
        if not draws.noise:
            return
        low, high = self._sigma
        top = np.iinfo(frames.dtype).max
        noise = rng.standard_normal(frames.shape, np.float32)
        share = draws.sigma if self._law == "uniform" else NormalDist().inv_cdf((1 + draws.sigma) / 2)
        noise *= (low + share * (high - low)) * (top / 255)
        noise += frames
        frames[:] = np.clip(np.rint(noise, out=noise), 0, top, out=noise)
