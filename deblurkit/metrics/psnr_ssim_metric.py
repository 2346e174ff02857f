"""PSNR and SSIM as BasicSR computes them (`XPixelGroup/BasicSR@8d56e3a: basicsr/metrics/psnr_ssim.py`).

Both take pixels: `uint8`, `uint16` or floats in 0..255. White, the peak of both formulas, is 65535 for `uint16` and 255
for the others. Other tools give the same name to other figures: MATLAB's SSIM of a pair of RGB pictures is .963 where
this one is .851 (`tests/parity/metric_psnr_ssim.npz`), because its window extends over the channels.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from deblurkit.errors import DataError
from deblurkit.image_io import Pixels, cv2
from deblurkit.metrics.base import Metric, check_pair
from deblurkit.registry import METRIC_REGISTRY

# rows of the map that SSIM works on at a time: the temporaries stay in the cache, which is what the time depends on
_STRIP = 64
_WINDOW, _SIGMA = 11, 1.5


class CroppedMetric(Metric):
    """What PSNR and SSIM share: the border cut, then the luma.

    Args:
        crop_border: pixels cut at all four sides.
        test_y_channel: compare the luma (ITU-R BT.601, 16..235 of 255, not rounded) instead of R, G and B.
    """

    def __init__(self, crop_border: int = 0, test_y_channel: bool = False) -> None:
        if crop_border < 0:
            raise ValueError(f"crop_border must not be negative, got {crop_border}")
        self.crop_border, self.test_y_channel = crop_border, test_y_channel

    def planes(self, restored: Pixels, gt: Pixels) -> tuple[Pixels, Pixels, float]:
        """What is compared, `(C, H, W)` each, and its peak."""
        check_pair(restored, gt)
        peak = 65535.0 if gt.dtype == np.uint16 else 255.0
        cut = self.crop_border
        if min(gt.shape[:2]) <= 2 * cut:
            raise DataError(f"a border of {cut} pixels leaves nothing of a picture of shape {gt.shape}")
        pair = []
        for image in (restored, gt):
            inner = image[cut : image.shape[0] - cut, cut : image.shape[1] - cut]
            pair.append(luma(inner, peak)[None] if self.test_y_channel else inner.transpose(2, 0, 1))
        return pair[0], pair[1], peak


def luma(image: Pixels, peak: float) -> NDArray[np.float64]:
    """Y of `(H, W, 3)` RGB as MATLAB's `rgb2ycbcr` defines it but not rounded, `(H, W)`, 16..235 for a peak of 255."""
    if image.shape[-1] != 3:
        raise DataError(f"the luma needs three channels, the picture has shape {image.shape}")
    weights = np.array([65.481, 128.553, 24.966])
    return (image.astype(np.float64) / peak @ weights + 16.0) * (peak / 255.0)


@METRIC_REGISTRY.register()
class PSNR(CroppedMetric):
    """Peak signal-to-noise ratio over all pixels and channels, in dB; infinite for equal pictures.

    Args:
        crop_border: pixels cut at all four sides.
        test_y_channel: compare the luma (ITU-R BT.601, 16..235 of 255, not rounded) instead of R, G and B.

    Raises:
        ValueError: `crop_border` is negative.
    """

    unit = "dB"

    def __call__(self, restored: Pixels, gt: Pixels) -> float:
        """See `Metric.__call__`."""
        a, b, peak = self.planes(restored, gt)
        difference = np.subtract(a, b, dtype=np.float64).ravel()
        squared = float(difference @ difference) / difference.size
        return math.inf if squared == 0 else 10 * math.log10(peak**2 / squared)


@METRIC_REGISTRY.register()
class SSIM(CroppedMetric):
    """Structural similarity, at most 1: Gaussian window 11x11 with sigma 1.5, valid region, mean of the channels.

    The moments are population moments, C1 = (0.01 peak)^2 and C2 = (0.03 peak)^2, in float64. Wang, Bovik, Sheikh,
    Simoncelli: Image Quality Assessment: From Error Visibility to Structural Similarity, TIP 2004.

    Args:
        crop_border: pixels cut at all four sides.
        test_y_channel: compare the luma (ITU-R BT.601, 16..235 of 255, not rounded) instead of R, G and B.

    Raises:
        ValueError: `crop_border` is negative.
    """

    def __call__(self, restored: Pixels, gt: Pixels) -> float:
        """See `Metric.__call__`. DataError as well for pictures smaller than the window."""
        a, b, peak = self.planes(restored, gt)
        channels, height, width = a.shape
        if min(height, width) < _WINDOW:
            raise DataError(f"SSIM needs at least {_WINDOW}x{_WINDOW} pixels, there are {height}x{width}")
        rows, columns = height - _WINDOW + 1, width - _WINDOW + 1
        total = 0.0
        for channel in range(channels):
            for top in range(0, rows, _STRIP):
                strip = slice(top, min(top + _STRIP, rows) + _WINDOW - 1)
                total += float(_similarity(a[channel, strip], b[channel, strip], peak).sum())
        return total / (channels * rows * columns)


def _similarity(a: Pixels, b: Pixels, peak: float) -> NDArray[np.float64]:
    """The SSIM map of one channel over the region where the window fits."""
    x, y = (np.ascontiguousarray(plane, dtype=np.float64) for plane in (a, b))
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean_x, mean_y = _blur(x), _blur(y)
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    covariance = _blur(x * y) - product
    variances = _blur(x**2 + y**2) - squares  # the formula has only their sum: four blurs instead of five
    similarity: NDArray[np.float64] = ((2 * product + c1) * (2 * covariance + c2)) / ((squares + c1) * (variances + c2))
    return similarity


def _blur(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Gaussian window as two passes, only where it fits into the plane."""
    module = cv2()
    kernel = module.getGaussianKernel(_WINDOW, _SIGMA)
    half = _WINDOW // 2
    blurred: NDArray[np.float64] = module.sepFilter2D(plane, -1, kernel, kernel)[half:-half, half:-half]
    return blurred
