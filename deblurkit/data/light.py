"""Pixel values and the light behind them: response curves of cameras, and the noise of their sensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deblurkit.errors import DataError, did_you_mean
from deblurkit.image_io import Pixels

_Floats = NDArray[np.float64]
#: Linear light `(..., 3)`, float32; 0 is black, 1 is white, more is what a sensor clips.
Light = NDArray[np.float32]


@dataclass(frozen=True)
class ResponseCurve:
    """How a camera turns light into pixel values; both sides run from 0 to 1.

    Attributes:
        to_light: pixel values to linear light (g^-1). to_pixels: linear light to pixel values (g).
    """

    to_light: Callable[[_Floats], _Floats]
    to_pixels: Callable[[_Floats], _Floats]

    def table(self, dtype: np.dtype) -> _Floats:
        """The light of every pixel value of uint8 or uint16."""
        peak = int(np.iinfo(dtype).max)
        return self.to_light(np.arange(peak + 1) / peak)


def _srgb_to_light(x: _Floats) -> _Floats:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def _srgb_to_pixels(x: _Floats) -> _Floats:
    return np.where(x <= 0.0031308, x * 12.92, 1.055 * x ** (1 / 2.4) - 0.055)


# The inverse response of REDS's camera (GoPro Hero6): exposure by pixel value, the mean of its three channels, as its
# page gives it, with the straight end that the page puts behind 250. Between 30 and 250 it is nearly a power of 2.3, so
# that roots of it are joined by straight lines.
_REDS_PIXELS = np.array([0, 16, 32, 64, 96, 128, 160, 192, 224, 240, 250, 255], np.float64)
_REDS_EXPOSURE = np.array([0.0046, 0.0375, 0.0853, 0.2675, 0.5227, 1.0, 1.856, 3.399, 5.722, 7.544, 9.22, 10.15])
_REDS_POWER = 2.3
_REDS_ROOTS = _REDS_EXPOSURE ** (1 / _REDS_POWER)
_REDS_BLACK, _REDS_SPAN = _REDS_EXPOSURE[0], _REDS_EXPOSURE[-1] - _REDS_EXPOSURE[0]


def _reds_to_light(x: _Floats) -> _Floats:
    return (np.interp(x * 255, _REDS_PIXELS, _REDS_ROOTS) ** _REDS_POWER - _REDS_BLACK) / _REDS_SPAN


def _reds_to_pixels(x: _Floats) -> _Floats:
    exposure = np.maximum(x * _REDS_SPAN + _REDS_BLACK, 0)
    return np.interp(exposure ** (1 / _REDS_POWER), _REDS_ROOTS, _REDS_PIXELS) / 255


#: `gamma2.2`: GoPro's. `reds`: measured for REDS. `srgb`: IEC 61966-2-1. `linear`: pixel values as they are.
CURVES = {
    "gamma2.2": ResponseCurve(lambda x: x**2.2, lambda x: x ** (1 / 2.2)),
    "reds": ResponseCurve(_reds_to_light, _reds_to_pixels),
    "srgb": ResponseCurve(_srgb_to_light, _srgb_to_pixels),
    "linear": ResponseCurve(lambda x: x, lambda x: x),
}


def response_curve(name: str) -> ResponseCurve:
    """The curve called `name`. Raises DataError for an unknown one."""
    if name not in CURVES:
        hint = did_you_mean(name, CURVES) or f"; there are {', '.join(CURVES)}"
        raise DataError(f"unknown response curve {name!r}{hint}")
    return CURVES[name]


class Development:
    """Linear light to 8-bit pixels and back, by tables: fast enough for samples that are made during training.

    Args:
        curve: a name in `CURVES`.
    """

    _STEPS = 1 << 14

    def __init__(self, curve: str) -> None:
        response = response_curve(curve)
        self._to_light = response.table(np.dtype(np.uint8)).astype(np.float32)
        # Even steps of light are coarse where curves are steep, near black; even steps of its square root are not: the
        # steepest curve rises by 0.06 pixel values a step.
        roots = (np.arange(self._STEPS + 1) / self._STEPS) ** 2
        self._to_pixels = np.floor(response.to_pixels(roots) * 255 + 0.5).astype(np.uint8)

    def tables(self) -> tuple[Light, Pixels]:
        """Light by pixel value; and pixel values by place, which the square root of light from 0 to 1 runs over."""
        return self._to_light, self._to_pixels

    def to_light(self, pixels: Pixels) -> Light:
        """Light of uint8 pixels `(..., 3)`; of uint16 pixels that of their upper 8 bits."""
        return self._to_light[pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)]

    def to_pixels(self, light: Light) -> Pixels:
        """uint8 pixels, rounded; light outside [0, 1] is clipped."""
        # sqrt, scale and round in place: this is most of what a sample costs after its warps
        places = np.clip(light, 0.0, 1.0)
        np.sqrt(places, out=places)
        places *= self._STEPS
        places += 0.5
        return self._to_pixels[places.astype(np.uint16)]


@dataclass(frozen=True)
class SensorNoise:
    """Noise of a sensor: the variance of a value of linear light x is `strength * shot * x + (strength * read)**2`.

    Shot noise is a Poisson number of electrons, read noise a normal one. Both are drawn as one normal number here,
    which differs from that in the darkest tones only (white is 1 / shot electrons). The figures are those that RSBlur
    (Rim et al., ECCV 2022) measured for its camera's raw values. No mosaic is made: pixels are independent.

    Attributes:
        strength: 0: no noise, 1: RSBlur's camera, 4: a dim scene (a quarter of the light).
    """

    strength: float
    shot: float = 1e-4
    read: float = 9.15e-4

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1000:
            raise DataError(f"a noise strength of {self.strength:g}: it is 0 (none), 1 (a good camera) or more")

    def add(self, light: Light, rng: np.random.Generator) -> Light:
        """Light with noise, `light` itself where there is none; values may fall below 0."""
        if self.strength == 0:
            return light
        deviation = np.maximum(light, 0) * np.float32(self.strength * self.shot)
        deviation += np.float32((self.strength * self.read) ** 2)
        np.sqrt(deviation, out=deviation)
        deviation *= rng.standard_normal(light.shape, np.float32)
        deviation += light
        return deviation
