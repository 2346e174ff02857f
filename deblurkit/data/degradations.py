"""Random degradations of clips, with the option names of RealBasicVSR (`open-mmlab/mmagic@0a560bb`).

Chan et al., "Investigating Tradeoffs in Real-World Video Super-Resolution", CVPR 2022: a clip shares what is drawn, and
parameters with a `..._step` drift from frame to frame; see `Drift`. Real-ESRGAN's ranges have the same meaning, but for
Poisson noise; see `poisson_noise`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Any, Literal

import numpy as np

from deblurkit.data.degradation_base import (
    Choice,
    Clip,
    Degradation,
    Drift,
    Range,
    Size,
    build_degradations,
    check_probabilities,
    checked_range,
    checked_step,
    degrade,
    size_after,
)
from deblurkit.data.degradation_blur import RandomBlur
from deblurkit.data.degradation_ops import compress_jpeg, gaussian_noise, poisson_noise, unsharp_mask
from deblurkit.data.degradation_video import RandomVideoCompression
from deblurkit.errors import OptionsError
from deblurkit.image_io import cv2

__all__ = [
    "DegradationsWithShuffle",
    "RandomBlur",
    "RandomJPEGCompression",
    "RandomNoise",
    "RandomResize",
    "RandomVideoCompression",
    "UnsharpMasking",
]


_MODES = ("up", "down", "keep")
_INTERPOLATIONS = {
    "bilinear": "INTER_LINEAR",
    "bicubic": "INTER_CUBIC",
    "area": "INTER_AREA",
    "lanczos": "INTER_LANCZOS4",
}


class RandomResize(Degradation):
    """Resize by a factor that drifts, or to a size.

    Args:
        resize_opt: interpolations out of bilinear, bicubic, area, lanczos. resize_prob: how probable each is.
        target_size: [height, width], or "lq": the size that the degraded frames are to have. None: by a factor.
        resize_mode_prob: how probable it is to go up (a factor from 1 to the highest of `resize_scale`), down (from the
            lowest to 1), and to keep the size. resize_scale: range of the factor.
        resize_step: of the factor's drift; each frame then has a size of its own.
        is_size_even: make sizes by a factor even.
        prob: how probable it is that a clip is resized.
    """

    def __init__(
        self,
        resize_opt: list[str],
        resize_prob: list[float],
        target_size: Size | Literal["lq"] | None = None,
        resize_mode_prob: list[float] | None = None,
        resize_scale: Range | None = None,
        resize_step: float = 0.0,
        is_size_even: bool = False,
        prob: float = 1.0,
    ) -> None:
        super().__init__(prob)
        self._interpolations = Choice("resize_opt", resize_opt, "resize_prob", resize_prob, tuple(_INTERPOLATIONS))
        self._target: Size | Literal["lq"] | None = None
        if target_size is None:
            if resize_mode_prob is None or resize_scale is None:
                raise OptionsError("target_size: missing: give it, or resize_mode_prob and resize_scale")
        elif resize_mode_prob is not None or resize_scale is not None:
            raise OptionsError("target_size: replaces resize_mode_prob and resize_scale; leave these out")
        elif target_size != "lq" and min(target_size) < 1:
            raise OptionsError(f"target_size: should be [height, width], got {list(target_size)}")
        else:
            self._target = "lq" if target_size == "lq" else (int(target_size[0]), int(target_size[1]))
        modes = resize_mode_prob if resize_mode_prob is not None else [0.0, 0.0, 1.0]
        check_probabilities("resize_mode_prob", modes, 3, "up, down, keep")
        low, high = checked_range("resize_scale", resize_scale or (1.0, 1.0), 1e-3)
        if (modes[0] > 0 and high < 1) or (modes[1] > 0 and low > 1):
            raise OptionsError(f"resize_scale: going up and down it reaches over 1, got {[low, high]}")
        self._modes = Choice("resize_mode_prob", ["up", "down", "keep"], "resize_mode_prob", modes, _MODES)
        self._scale = Drift((low, high), checked_step("resize_step", resize_step))
        self._even = is_size_even

    def degrade(self, clip: Clip, rng: np.random.Generator, lq_size: Size | None) -> Clip:
        """See `Degradation`."""
        module = cv2()
        flag = getattr(module, _INTERPOLATIONS[self._interpolations.draw(rng)])
        target = lq_size if self._target == "lq" else self._target
        if self._target == "lq" and lq_size is None:
            raise OptionsError("target_size: lq: nobody has said which size that is")
        sizes = self._sizes(clip, rng) if target is None else repeat(target, len(clip))
        resized = []
        for frame, (height, width) in zip(clip, sizes, strict=True):
            same = frame.shape[:2] == (height, width)
            resized.append(frame if same else module.resize(frame, (width, height), interpolation=flag))
        return resized

    def size_after(self, before: Size | str | None) -> Size | str | None:
        """See `Degradation.size_after`."""
        if self._target is None or (self.prob < 1 and self._target != before):
            return None
        return self._target

    def _sizes(self, clip: Clip, rng: np.random.Generator) -> Iterator[Size]:
        """By a factor, always of the first frame's size."""
        low, high = self._scale.bounds
        mode = self._modes.draw(rng)
        first = {"up": lambda: rng.uniform(1, high), "down": lambda: rng.uniform(low, 1), "keep": lambda: 1.0}[mode]()
        height, width = clip[0].shape[:2]
        for factor in self._scale.walk(float(first), len(clip), rng):
            yield self._scaled(height, factor), self._scaled(width, factor)

    def _scaled(self, side: int, factor: float) -> int:
        return max(2, 2 * int(side * factor / 2)) if self._even else max(1, int(side * factor))


class RandomNoise(Degradation):
    """Gaussian or Poisson noise. Its type is drawn for the clip, and whether all channels share it; nothing is clipped.

    Args:
        noise_type: out of gaussian, poisson. noise_prob: how probable each is.
        gaussian_sigma: range of the standard deviation in steps of 8 bits. gaussian_gray_noise_prob: how probable it is
            that the channels share the noise. gaussian_sigma_step: of the drift.
        poisson_scale: range of the factor of Poisson noise, as RealBasicVSR counts it; see `poisson_noise`.
        poisson_gray_noise_prob, poisson_scale_step: likewise.
        prob: how probable it is that a clip gets noise.
    """

    def __init__(
        self,
        noise_type: list[str],
        noise_prob: list[float],
        gaussian_sigma: Range | None = None,
        gaussian_gray_noise_prob: float = 0.0,
        gaussian_sigma_step: float = 0.0,
        poisson_scale: Range | None = None,
        poisson_gray_noise_prob: float = 0.0,
        poisson_scale_step: float = 0.0,
        prob: float = 1.0,
    ) -> None:
        super().__init__(prob)
        self._types = Choice("noise_type", noise_type, "noise_prob", noise_prob, ("gaussian", "poisson"))
        for kind, key, value in (
            ("gaussian", "gaussian_sigma", gaussian_sigma),
            ("poisson", "poisson_scale", poisson_scale),
        ):
            if kind in noise_type and value is None:
                raise OptionsError(f"{key}: missing: {kind} noise needs it")
        self._drifts = {
            "gaussian": Drift(
                checked_range("gaussian_sigma", gaussian_sigma or (0, 0), 0),
                checked_step("gaussian_sigma_step", gaussian_sigma_step),
            ),
            "poisson": Drift(
                checked_range("poisson_scale", poisson_scale or (0, 0), 0),
                checked_step("poisson_scale_step", poisson_scale_step),
            ),
        }
        self._gray = {"gaussian": gaussian_gray_noise_prob, "poisson": poisson_gray_noise_prob}
        for kind, share in self._gray.items():
            if not 0 <= share <= 1:
                raise OptionsError(f"{kind}_gray_noise_prob: a probability is from 0 to 1, got {share}")

    def degrade(self, clip: Clip, rng: np.random.Generator, lq_size: Size | None) -> Clip:
        """See `Degradation`."""
        kind = self._types.draw(rng)
        drift, gray = self._drifts[kind], rng.random() < self._gray[kind]
        noisy = []
        for frame, strength in zip(clip, drift.walk(drift.draw(rng), len(clip), rng), strict=True):
            if kind == "gaussian":
                noise = gaussian_noise(frame.shape, strength, gray, rng)
            else:
                noise = poisson_noise(frame, strength, gray, rng)
            noisy.append(frame + noise)
        return noisy


class RandomJPEGCompression(Degradation):
    """Every frame through JPEG, at a quality that drifts; see `compress_jpeg`.

    Args:
        quality: range, 1 to 100. quality_step: of the drift.
        color_type: "color" or "grayscale". bgr2rgb: False: red and blue change roles in the encoder, as they do in
            RealBasicVSR's training.
        prob: how probable it is that a clip is compressed.
    """

    def __init__(
        self,
        quality: Range,
        quality_step: float = 0.0,
        color_type: Literal["color", "grayscale"] = "color",
        bgr2rgb: bool = True,
        prob: float = 1.0,
    ) -> None:
        super().__init__(prob)
        self._quality = Drift(checked_range("quality", quality, 1, 100), checked_step("quality_step", quality_step))
        self._color_type, self._bgr2rgb = color_type, bgr2rgb

    def degrade(self, clip: Clip, rng: np.random.Generator, lq_size: Size | None) -> Clip:
        """See `Degradation`."""
        qualities = self._quality.walk(self._quality.draw(rng), len(clip), rng)
        return [
            compress_jpeg(frame, round(quality), self._color_type, self._bgr2rgb)
            for frame, quality in zip(clip, qualities, strict=True)
        ]


class UnsharpMasking(Degradation):
    """Sharpening, see `unsharp_mask`: of the target of a training rather than of what it starts from.

    Args:
        kernel_size: odd. sigma: 0: OpenCV's rule. weight: of what is added. threshold: in steps of 8 bits.
    """

    def __init__(self, kernel_size: int = 51, sigma: float = 0.0, weight: float = 0.5, threshold: float = 10.0) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise OptionsError(f"kernel_size: should be odd, got {kernel_size}")
        for key, value in (("sigma", sigma), ("weight", weight), ("threshold", threshold)):
            if value < 0:
                raise OptionsError(f"{key}: should be 0 or more, got {value}")
        self._arguments = (kernel_size, sigma, weight, threshold)

    def degrade(self, clip: Clip, rng: np.random.Generator, lq_size: Size | None) -> Clip:
        """See `Degradation`."""
        return [unsharp_mask(frame, *self._arguments) for frame in clip]


class DegradationsWithShuffle(Degradation):
    """Degradations in a random order, another one for every clip.

    Args:
        degradations: what is applied; an inner list is a group that keeps its order.
        shuffle_idx: places in the list, from 0, that change places with each other; None: all.
        prob: how probable it is that a clip is degraded.
    """

    def __init__(self, degradations: list[Any], shuffle_idx: list[int] | None = None, prob: float = 1.0) -> None:
        super().__init__(prob)
        self._groups = [build_degradations(entry if isinstance(entry, list) else [entry]) for entry in degradations]
        count = len(self._groups)
        self._shuffled = list(range(count)) if shuffle_idx is None else list(shuffle_idx)
        if len(set(self._shuffled)) < len(self._shuffled) or not set(self._shuffled) <= set(range(count)):
            raise OptionsError(f"shuffle_idx: should be places from 0 to {count - 1}, each once, got {shuffle_idx}")

    def degrade(self, clip: Clip, rng: np.random.Generator, lq_size: Size | None) -> Clip:
        """See `Degradation`."""
        order = list(range(len(self._groups)))
        for place, source in zip(self._shuffled, rng.permutation(self._shuffled).tolist(), strict=True):
            order[place] = source
        for number in order:
            clip = degrade(clip, self._groups[number], rng, lq_size)
        return clip

    def size_after(self, before: Size | str | None) -> Size | str | None:
        """See `Degradation.size_after`: known where all groups that change the size agree on it."""
        found = {after for group in self._groups if (after := size_after(group, "before")) != "before"}
        return before if not found else found.pop() if len(found) == 1 else None
