"""Random colours of a training sample: the same change for all of its frames and for both sides.

What brightness, contrast, saturation and hue do is what torchvision's `adjust_...` functions do with PIL's formulas on
unrounded values (MPRNet, STFAN); `hsv_saturation` is DeepDeblur's. Pixels are rounded and clipped once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from deblurkit.data.request import SampleRequest
from deblurkit.errors import DataError
from deblurkit.image_io import Pixels, cv2

Frame = NDArray[np.float32]
Range = tuple[float, float]

#: Weights of R, G and B in a grey value (ITU-R BT.601).
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


class ColorRanges(TypedDict, total=False):
    """What is drawn, each uniformly from its range; what is not named stays as it is. They are applied in this order.

    Attributes:
        prob: of changing a sample at all; 1 if it is left out.
        brightness: factor of all values. contrast: factor of the distance from the frame's mean grey value.
        saturation: factor of the distance of each pixel from its own grey value.
        hsv_saturation: factor of S in HSV. hue: added to H, in turns of the colour wheel (-0.5 to 0.5).
        gamma: power of the values in [0, 1].
    """

    prob: float
    brightness: Range
    contrast: Range
    saturation: Range
    hsv_saturation: Range
    hue: Range
    gamma: Range


_STEPS: dict[str, Callable[[Frame, float], Frame]] = {
    "brightness": lambda x, factor: x * factor,
    "contrast": lambda x, factor: _blend(x, np.broadcast_to(np.float32(np.mean(x @ _GREY)), x.shape), factor),
    "saturation": lambda x, factor: _blend(x, np.repeat((x @ _GREY)[..., None], 3, axis=-1), factor),
    "hsv_saturation": lambda x, factor: _in_hsv(x, 0.0, factor),
    "hue": lambda x, turns: _in_hsv(x, turns, 1.0),
    "gamma": lambda x, power: x**power,
}
_LEAST = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hsv_saturation": 0.0, "hue": -0.5, "gamma": 0.01}


class ColorAugment:
    """Changes the colours of samples.

    Args:
        ranges: see `ColorRanges`.

    Raises:
        DataError: a range that is none, or outside of what makes sense.
    """

    def __init__(self, ranges: ColorRanges) -> None:
        given: dict[str, Any] = dict(ranges)
        self._prob = float(given.pop("prob", 1.0))
        if not 0 <= self._prob <= 1:
            raise DataError(f"color: prob is a probability from 0 to 1, got {self._prob}")
        for name, (low, high) in given.items():
            if not _LEAST[name] <= low <= high or (name == "hue" and high > 0.5):
                raise DataError(
                    f"color: {name} is a range from {_LEAST[name]} on, such as [0.8, 1.2], got {[low, high]}"
                )
        self._ranges: dict[str, Range] = {name: given[name] for name in _STEPS if name in given}

    def draw(self, request: SampleRequest, seed: int) -> dict[str, float]:
        """The changes for a sample, by name in order; a function of (seed, epoch, position)."""
        # the spawn key keeps it apart from the sample's own generator: switching colours on changes nothing else
        sequence = np.random.SeedSequence((seed, request.epoch, request.position), spawn_key=(3,))
        rng = np.random.Generator(np.random.PCG64(sequence))
        chance, *shares = rng.random(1 + len(_STEPS)).tolist()
        if chance >= self._prob:
            return {}
        drawn = dict(zip(_STEPS, shares, strict=True))
        return {name: low + drawn[name] * (high - low) for name, (low, high) in self._ranges.items()}


def change_colors(frames: Pixels, changes: dict[str, float]) -> Pixels:
    """Frames `(n, h, w, 3)`, uint8 or uint16, with `ColorAugment.draw`'s changes; of the same type."""
    if not changes:
        return frames
    top = np.iinfo(frames.dtype).max
    changed = np.empty_like(frames)
    for i, frame in enumerate(frames):
        x = frame.astype(np.float32) / np.float32(top)
        for name, value in changes.items():
            x = np.clip(_STEPS[name](x, value), 0, 1).astype(np.float32, copy=False)
        changed[i] = np.rint(x * top)
    return changed


def _blend(x: Frame, other: NDArray[Any], factor: float) -> Frame:
    """`x` for 1, the other picture for 0, beyond it for more than 1."""
    return np.asarray(x * factor + other * (1 - factor), np.float32)


def _in_hsv(x: Frame, turns: float, saturation: float) -> Frame:
    module = cv2()
    hsv = module.cvtColor(np.ascontiguousarray(x), module.COLOR_RGB2HSV)  # H in degrees, S and V in [0, 1]
    hsv[..., 0] = (hsv[..., 0] + np.float32(360 * turns)) % 360
    hsv[..., 1] = np.clip(hsv[..., 1] * np.float32(saturation), 0, 1)
    return np.asarray(module.cvtColor(hsv, module.COLOR_HSV2RGB), np.float32)
