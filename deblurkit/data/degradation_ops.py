"""What degradations do to one frame, with every parameter given; the formulas of BasicSR and RealBasicVSR.

A frame is float32 `(h, w, 3)` RGB in steps of 8 bits: 0 to 255, and beyond where noise or ringing took it. Sources:
`XPixelGroup/BasicSR@8d56e3a`, `open-mmlab/mmagic@0a560bb`; what they return is in `tests/parity/degrade_ops.npz`.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from deblurkit.data.degradation_kernels import Kernel
from deblurkit.image_io import Pixels, cv2

Frame = NDArray[np.float32]

#: Kernels above this size are filtered in the frequency domain by OpenCV, which costs as much as 12 separable ones.
_DIRECT = 11
_SEPARABLE = 8
#: How far a sum of separable kernels may be from the kernel: 1e-4 of the brightest pixel is 1/40 of a step.
_TOLERANCE = 1e-4
#: From so many expected events on, a normal distribution stands for Poisson's, which takes five times as long.
_MANY = 1000.0


def as_frame(pixels: Pixels) -> Frame:
    """Pixels, uint8 or uint16, as a frame."""
    frame = pixels.astype(np.float32)
    return frame if pixels.dtype == np.uint8 else frame / np.float32(257)


def as_pixels(frame: Frame) -> NDArray[np.uint8]:
    """A frame rounded and saturated to 8 bits."""
    return np.clip(np.rint(frame), 0, 255).astype(np.uint8)


def filter_frame(frame: Frame, kernel: Kernel) -> Frame:
    """Correlation with a kernel (it is not flipped), with borders mirrored without repeating the outermost pixels."""
    module = cv2()
    if len(kernel) > _DIRECT:
        rows, weights, columns = np.linalg.svd(kernel)
        # |u_i v_i| sums to at most the size of the kernel, and so does what is left out
        left_out = np.cumsum(weights[::-1])[::-1] * len(kernel)
        count = int(np.count_nonzero(left_out > _TOLERANCE))
        if count <= _SEPARABLE:
            parts = (module.sepFilter2D(frame, -1, columns[i], rows[:, i] * weights[i]) for i in range(count))
            return cast(Frame, sum(parts))
    return cast(Frame, module.filter2D(frame, -1, kernel))


def unsharp_mask(
    frame: Frame, kernel_size: int = 51, sigma: float = 0.0, weight: float = 0.5, threshold: float = 10.0
) -> Frame:
    """Sharpen where the frame differs from its blurred self: the target that Real-ESRGAN and RealBasicVSR train on.

    With the blurred frame B and the residual I - B, `soft` is the blurred mask |I - B| > threshold, and the result is
    soft * clip(I + weight (I - B)) + (1 - soft) * I.

    Args:
        kernel_size: of the Gaussian, odd. sigma: of it; 0: OpenCV's rule, 8 for the size 51.
        weight: of the residual. threshold: in steps of 8 bits.
    """
    module = cv2()
    size = (kernel_size, kernel_size)
    residual = frame - module.GaussianBlur(frame, size, sigma)
    mask = (np.abs(residual) > threshold).astype(np.float32)
    soft = module.GaussianBlur(mask, size, sigma)
    sharp = np.clip(frame + np.float32(weight) * residual, 0, 255)
    return cast(Frame, frame + soft * (sharp - frame))


def gaussian_noise(shape: tuple[int, ...], sigma: float, gray: bool, rng: np.random.Generator) -> Frame:
    """Normal noise of standard deviation `sigma`, to be added to a frame of `shape`; gray: `(h, w, 1)`."""
    noise = rng.standard_normal((*shape[:2], 1) if gray else shape, np.float32)
    return cast(Frame, noise * np.float32(sigma))


def poisson_noise(frame: Frame, scale: float, gray: bool, rng: np.random.Generator, white: float = 255.0) -> Frame:
    """Signal-dependent noise: scale * (Poisson(n u) / u - n), to be added to the frame.

    n is the frame (gray: its luma) rounded to 8 bits, and u the number of values that occur in it, rounded up to a
    power of two: with many values the noise is weak. Above 1000 expected events a normal distribution of the same mean
    and variance is drawn from.

    Args:
        scale: factor of the noise. gray: one noise for all channels, `(h, w, 1)`. rng: also anything with its
            `poisson` and `standard_normal`.
        white: what n is where a pixel is 255. RealBasicVSR counts 255; BasicSR 1, which makes the noise 16 times as
            strong.
    """
    levels = as_pixels(cv2().cvtColor(frame, cv2().COLOR_RGB2GRAY)[..., None] if gray else frame)
    used = int(np.count_nonzero(np.bincount(levels.ravel(), minlength=256)))
    values = 2 ** math.ceil(math.log2(used))
    unit = white / 255 * values  # events that a step of 8 bits stands for
    expected = levels * unit
    events = np.empty(levels.shape)
    few = expected < _MANY
    events[few] = rng.poisson(expected[few])
    mean = expected[~few]
    events[~few] = mean + np.sqrt(mean) * cast(Any, rng).standard_normal(mean.shape, np.float32)
    return ((events - expected) * (scale / unit)).astype(np.float32)


def compress_jpeg(frame: Frame, quality: int, color_type: str = "color", bgr2rgb: bool = True) -> Frame:
    """The frame after JPEG with 4:2:0 chroma; it is rounded and saturated to 8 bits first.

    Args:
        quality: 1 to 100. color_type: "color"; "grayscale": only the luma is stored, and comes back in every channel.
        bgr2rgb: False: red and blue change roles in the encoder.
    """
    module = cv2()
    pixels = as_pixels(frame)
    pixels = np.ascontiguousarray(pixels[..., ::-1]) if bgr2rgb else pixels
    if color_type == "grayscale":
        pixels = module.cvtColor(pixels, module.COLOR_BGR2GRAY)
    _, data = module.imencode(".jpg", pixels, [module.IMWRITE_JPEG_QUALITY, quality])
    decoded = module.imdecode(data, module.IMREAD_COLOR)
    return (decoded[..., ::-1] if bgr2rgb else decoded).astype(np.float32)
