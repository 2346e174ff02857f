"""SSIM with a window that extends over the colours, as MATLAB's `ssim` does with an RGB picture, and NAFNet.

Facts: `megvii-research/NAFNet@2b4af71: basicsr/metrics/psnr_ssim.py`; Restormer and MPRNet measure so too. The figure
is much higher than that of `SSIM` for the same pictures (.963 for .851), so it has a name and a protocol of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deblurkit.image_io import Pixels, cv2
from deblurkit.metrics.psnr_ssim_metric import CroppedMetric
from deblurkit.registry import METRIC_REGISTRY

_WINDOW, _SIGMA = 11, 1.5
# rows of the map that are worked on at a time: the temporaries stay in the cache
_STRIP = 64


@METRIC_REGISTRY.register()
class VolumeSSIM(CroppedMetric):
    """Structural similarity of the pictures as volumes: Gaussian window 11x11x11 over rows, columns and colours.

    Sigma is 1.5; beyond its border a picture goes on with its outermost pixels, and its colours with the outermost
    colour; population moments, C1 = (0.01 peak)^2, C2 = (0.03 peak)^2, in float64. With `test_y_channel` the window has
    two dimensions.

    Args:
        crop_border: pixels cut at all four sides.
        test_y_channel: compare the luma (ITU-R BT.601, 16..235 of 255, not rounded) instead of R, G and B.

    Raises:
        ValueError: `crop_border` is negative.
    """

    def __call__(self, restored: Pixels, gt: Pixels) -> float:
        """See `Metric.__call__`."""
        a, b, peak = self.planes(restored, gt)
        height, half = a.shape[1], _WINDOW // 2
        mix = _colour_window(a.shape[0])
        c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
        total = 0.0
        for top in range(0, height, _STRIP):
            # rows around the strip, so that only the picture's own border is continued
            first, last = max(top - half, 0), min(top + _STRIP + half, height)
            own = slice(top - first, min(top + _STRIP, height) - first)
            x, y = (plane[:, first:last].astype(np.float64) for plane in (a, b))
            mean_x, mean_y = _blur(x, mix), _blur(y, mix)
            product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
            covariance = _blur(x * y, mix) - product
            variances = _blur(x**2 + y**2, mix) - squares
            similarity = ((2 * product + c1) * (2 * covariance + c2)) / ((squares + c1) * (variances + c2))
            total += float(similarity[:, own].sum())
        return total / a.size


def _colour_window(channels: int) -> NDArray[np.float64]:
    """What each of the colours counts in the window around each; the outermost ones stand for those beyond them."""
    kernel = cv2().getGaussianKernel(_WINDOW, _SIGMA)[:, 0]
    weights = np.zeros((channels, channels))
    for centre in range(channels):
        for offset, weight in zip(range(-(_WINDOW // 2), _WINDOW // 2 + 1), kernel, strict=True):
            weights[centre, min(max(centre + offset, 0), channels - 1)] += weight
    return weights


def _blur(planes: NDArray[np.float64], mix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The window over `(C, H, W)`, one axis after the other."""
    module = cv2()
    kernel = module.getGaussianKernel(_WINDOW, _SIGMA)
    border = module.BORDER_REPLICATE
    blurred = np.stack([module.sepFilter2D(plane, -1, kernel, kernel, borderType=border) for plane in planes])
    return blurred if len(mix) == 1 else np.tensordot(mix, blurred, axes=1)
