"""Random blur: kernels whose form drifts from frame to frame."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from deblurkit.data.degradation_base import Choice, Clip, Degradation, Drift, Range, Size, checked_range, checked_step
from deblurkit.data.degradation_kernels import KERNELS, Kernel, bell_kernel, sinc_kernel
from deblurkit.data.degradation_ops import filter_frame
from deblurkit.errors import OptionsError


class RandomBlur(Degradation):
    """Blur with a kernel whose type and size are drawn for the clip, and whose form drifts.

    Args:
        kernel_list: types out of iso, aniso, generalized_iso, generalized_aniso, plateau_iso, plateau_aniso, sinc.
        kernel_prob: how probable each is. kernel_size: odd sizes, equally probable.
        sigma_x, sigma_y: ranges of the standard deviations in pixels; sinc needs none, iso types no sigma_y.
        rotate_angle: range in radians. beta_gaussian, beta_plateau: ranges of the exponent, see `bell_kernel`; half of
            the clips get one below 1, the others one above.
        omega: range of sinc's cut-off; None: [pi / 3, pi] for sizes below 13, else [pi / 5, pi].
        sigma_x_step ... omega_step: of the drift.
        prob: how probable it is that a clip is blurred.
    """

    def __init__(
        self,
        kernel_list: list[str],
        kernel_prob: list[float],
        kernel_size: list[int],
        sigma_x: Range | None = None,
        sigma_y: Range | None = None,
        rotate_angle: Range = (-math.pi, math.pi),
        beta_gaussian: Range = (0.5, 4.0),
        beta_plateau: Range = (1.0, 2.0),
        omega: Range | None = None,
        sigma_x_step: float = 0.0,
        sigma_y_step: float = 0.0,
        rotate_angle_step: float = 0.0,
        beta_gaussian_step: float = 0.0,
        beta_plateau_step: float = 0.0,
        omega_step: float = 0.0,
        prob: float = 1.0,
    ) -> None:
        super().__init__(prob)
        self._kernels = Choice("kernel_list", kernel_list, "kernel_prob", kernel_prob, KERNELS)
        if not kernel_size or any(size < 3 or size % 2 == 0 for size in kernel_size):
            raise OptionsError(f"kernel_size: should be odd numbers from 3 on, got {kernel_size}")
        self._sizes = kernel_size
        for key, value, kinds in (
            ("sigma_x", sigma_x, [kind for kind in kernel_list if kind != "sinc"]),
            ("sigma_y", sigma_y, [kind for kind in kernel_list if kind.endswith("aniso")]),
        ):
            if kinds and value is None:
                raise OptionsError(f"{key}: missing: {kinds[0]} kernels need it")
        small = 1e-3  # below, a kernel has no width and its formula no value
        self._sigma_x = Drift(
            checked_range("sigma_x", sigma_x or (1, 1), small), checked_step("sigma_x_step", sigma_x_step)
        )
        self._sigma_y = Drift(
            checked_range("sigma_y", sigma_y or (1, 1), small), checked_step("sigma_y_step", sigma_y_step)
        )
        self._angle = Drift(
            checked_range("rotate_angle", rotate_angle, -2 * math.pi, 2 * math.pi),
            checked_step("rotate_angle_step", rotate_angle_step),
        )
        self._betas = {
            "generalized": Drift(
                checked_range("beta_gaussian", beta_gaussian, small),
                checked_step("beta_gaussian_step", beta_gaussian_step),
            ),
            "plateau": Drift(
                checked_range("beta_plateau", beta_plateau, small), checked_step("beta_plateau_step", beta_plateau_step)
            ),
        }
        top = 3.1416  # pi, as published options spell it
        self._omega = None if omega is None else checked_range("omega", omega, small, top)
        self._omega_step = checked_step("omega_step", omega_step)

    def degrade(self, clip: Clip, rng: np.random.Generator, lq_size: Size | None) -> Clip:
        """See `Degradation`."""
        kind = self._kernels.draw(rng)
        size = self._sizes[int(rng.integers(len(self._sizes)))]
        kernels = self._sinc(size, len(clip), rng) if kind == "sinc" else self._bells(kind, size, len(clip), rng)
        return [filter_frame(frame, kernel) for frame, kernel in zip(clip, kernels, strict=True)]

    def _sinc(self, size: int, count: int, rng: np.random.Generator) -> Iterator[Kernel]:
        drift = Drift(self._omega or (math.pi / (3 if size < 13 else 5), math.pi), self._omega_step)
        for omega in drift.walk(drift.draw(rng), count, rng):
            yield sinc_kernel(size, min(omega, math.pi))

    def _bells(self, kind: str, size: int, count: int, rng: np.random.Generator) -> Iterator[Kernel]:
        wide, tall, angle = self._sigma_x.draw(rng), self._sigma_y.draw(rng), self._angle.draw(rng)
        beta = self._betas.get(kind.partition("_")[0], Drift((1.0, 1.0)))
        # upstream draws a beta for the clip, lets it drift, and then draws each frame's anew between it and 1; here
        # the clip's beta is drawn as BasicSR draws one, and only drifts
        first = _around_one(beta.bounds, rng)
        parameters = zip(
            self._sigma_x.walk(wide, count, rng),
            self._sigma_y.walk(tall, count, rng),
            self._angle.walk(angle, count, rng),
            beta.walk(first, count, rng),
            strict=True,
        )
        for sigma_x, sigma_y, rotation, exponent in parameters:
            yield bell_kernel(kind, size, sigma_x, sigma_y, rotation, exponent)


def _around_one(bounds: Range, rng: np.random.Generator) -> float:
    """Below 1 and above it equally often, uniform on either side; uniform in a range that lies on one side."""
    low, high = bounds
    if low <= 1 <= high:
        low, high = (low, 1.0) if rng.random() < 0.5 else (1.0, high)
    return float(rng.uniform(low, high))
