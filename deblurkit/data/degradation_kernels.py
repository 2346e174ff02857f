"""Blur kernels of the Real-ESRGAN family: Gaussian, generalised Gaussian, plateau-shaped, and sinc (a low pass).

Wang et al., "Real-ESRGAN", ICCVW 2021, section 3; names as in BasicSR and RealBasicVSR. A kernel is float64
`(size, size)` with an odd size and the sum 1. Its element [row, column] is the value at x = column - size // 2,
y = row - size // 2, with y downwards.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Kernel = NDArray[np.float64]

KERNELS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso", "sinc")


def bell_kernel(
    kind: str,
    size: int,
    sigma_x: float,
    sigma_y: float | None = None,
    rotate_angle: float = 0.0,
    beta: float = 1.0,
) -> Kernel:
    """A kernel that falls off with the squared Mahalanobis distance q(x, y) = (x, y) S^-1 (x, y)^T.

    | kind | value before normalisation |
    |---|---|
    | iso, aniso | exp(-q / 2) |
    | generalized_iso, generalized_aniso | exp(-q^beta / 2) |
    | plateau_iso, plateau_aniso | 1 / (1 + q^beta) |

    with S = R diag(sigma_x^2, sigma_y^2) R^T and R a rotation by `rotate_angle`. The iso kinds have S = sigma_x^2 I.

    Args:
        kind: one of `KERNELS` but sinc. size: odd. sigma_x, sigma_y: pixels, above 0; None: as sigma_x.
        rotate_angle: radians. beta: above 0; 1 makes a Gaussian of the generalised kinds.

    Raises:
        ValueError: an even size, a sigma or beta that is not above 0, or another kind.
    """
    if kind not in KERNELS or kind == "sinc":
        raise ValueError(f"{kind!r} is no bell-shaped kernel")
    isotropic = kind.endswith("_iso") or kind == "iso"
    if isotropic or sigma_y is None:
        sigma_y = sigma_x
    if min(sigma_x, sigma_y, beta) <= 0:
        raise ValueError(f"sigma and beta are above 0, got {sigma_x}, {sigma_y} and {beta}")
    x, y = _grid(size)
    cos, sin = (1.0, 0.0) if isotropic else (math.cos(rotate_angle), math.sin(rotate_angle))
    q = ((cos * x + sin * y) / sigma_x) ** 2 + ((cos * y - sin * x) / sigma_y) ** 2
    if kind.startswith("plateau"):
        kernel = 1 / (1 + q**beta)
    else:
        kernel = np.exp(-(q**beta if kind.startswith("generalized") else q) / 2)
    return kernel / kernel.sum()


def sinc_kernel(size: int, omega: float, pad_to: int = 0) -> Kernel:
    """The circular low pass omega J1(omega d) / (2 pi d), d = |(x, y)|; it has negative lobes (ringing, overshoot).

    Args:
        size: odd. omega: cut-off frequency in radians per pixel, above 0 and at most pi.
        pad_to: size of the result, odd; zeros are put around the kernel. 0: no padding.

    Raises:
        ValueError: an even size, or an omega out of range.
    """
    if not 0 < omega <= math.pi:
        raise ValueError(f"omega is above 0 and at most pi, got {omega}")
    x, y = _grid(size)
    distance = np.hypot(x, y)
    distance[size // 2, size // 2] = 1.0  # the centre has its limit instead
    kernel = omega * _bessel_j1(omega * distance) / (2 * math.pi * distance)
    kernel[size // 2, size // 2] = omega**2 / (4 * math.pi)
    kernel /= kernel.sum()
    if pad_to <= size:
        return kernel
    _grid(pad_to)
    return np.pad(kernel, (pad_to - size) // 2)


def _bessel_j1(z: Kernel) -> Kernel:
    """The Bessel function of the first kind and order 1: the mean of cos(t - z sin t) over a half turn.

    The integrand is smooth and periodic, so equidistant points give it to the last digit once there are some more than
    the largest z.
    """
    count = int(z.max()) + 32
    t = (np.arange(count) + 0.5) * (math.pi / count)
    return np.cos(t - z[..., None] * np.sin(t)).mean(axis=-1)


def _grid(size: int) -> tuple[Kernel, Kernel]:
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a kernel's size is odd, got {size}")
    along = np.arange(size, dtype=np.float64) - size // 2
    return np.broadcast_to(along, (size, size)), np.broadcast_to(along[:, None], (size, size))
