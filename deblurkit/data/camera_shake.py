"""Blur kernels of random camera shake, as DeblurGAN makes them (Kupyn et al., CVPR 2018; after Boracchi and Foi 2012).

A point wanders over the sensor with speed of constant size and random direction: inertia, small random pushes, a pull
towards the start, and now and then a jerk that turns it about. What it draws during the exposure is the kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deblurkit.data.light import Light
from deblurkit.errors import DataError
from deblurkit.image_io import cv2

Floats = NDArray[np.float64]

#: DeblurGAN's choices for `wildness` (its `expl`), from which one is drawn for each kernel.
WILDNESS = (0.003, 0.005, 0.007, 0.008, 0.009, 0.01)


class Draws(Protocol):
    """A random generator of numpy, of the new kind or the old."""

    def uniform(self) -> float:
        """A number from [0, 1)."""
        ...

    def normal(self) -> float:
        """A standard normal number."""
        ...


def trajectory(
    draws: Draws, steps: int = 2000, length: float = 60.0, wildness: float | None = None, canvas: int = 64
) -> Floats:
    """Places (x, y) of the point in pixels, `(steps, 2)`, about the middle of a square canvas.

    Args:
        draws: random numbers, in DeblurGAN's order. steps: number of places. length: of the whole way, in pixels.
        wildness: how much directions change (`expl`); 0: a straight line; None: a tenth of a uniform number.
        canvas: side of the square.
    """
    if wildness is None:
        wildness = 0.1 * draws.uniform()
    pull = 0.7 * draws.uniform()
    jerks = 0.2 * draws.uniform()
    pushes = 10 * draws.uniform()
    direction = np.exp(1j * np.radians(360 * draws.uniform()))
    step = length / (steps - 1)
    velocity = complex(direction * (wildness if wildness > 0 else step))
    places = np.zeros(steps, complex)
    at = 0j
    for t in range(steps - 1):
        change = 0j
        if draws.uniform() < jerks * wildness:
            turn = math.pi + (draws.uniform() - 0.5)
            change = 2 * velocity * complex(math.cos(turn), math.sin(turn))
        push = complex(draws.normal(), draws.normal())
        velocity += change + wildness * (pushes * push - pull * at) * step
        velocity *= step / abs(velocity)
        at += velocity
        places[t + 1] = at
    found = np.stack([places.real, places.imag], -1)
    found -= found.min(0)
    found += 1 - np.mod(found[0], 1)  # the first place on a whole pixel
    return found + np.ceil((canvas - found.max(0)) / 2)


def point_spread(places: Floats, canvas: int = 64, begin: float = 0.0, end: float = 1.0) -> Floats:
    """What a point draws between two moments of the way: `(canvas, canvas)` with row y and column x.

    Args:
        places: see `trajectory`. begin, end: shares of the way.

    Returns:
        weights, each place shared out among its four neighbours; their sum is about `end - begin`.
    """
    steps = len(places)
    first, last = begin * steps, end * steps
    t = np.arange(steps, dtype=np.float64)
    # how much of the time from t - 1 to t lies between the two moments (DeblurGAN's cases, in its order)
    weights = np.select(
        [
            (last >= t) & (first < t - 1),
            (last >= t - 1) & (first < t - 1),
            (last >= t) & (first < t),
            (last >= t - 1) & (first < t),
        ],
        [np.ones(steps), last - (t - 1), t - first, np.full(steps, last - first)],
        0.0,
    )
    corner = np.clip(np.floor(places), 1, canvas - 1).astype(int)
    kernel = np.zeros((canvas, canvas))
    for down in (0, 1):
        for right in (0, 1):
            column, row = corner[:, 0] + right, corner[:, 1] + down
            share = np.maximum(0, 1 - np.abs(places[:, 0] - column)) * np.maximum(0, 1 - np.abs(places[:, 1] - row))
            # places beyond the last pixel would not lie on the canvas
            inside = (column < canvas) & (row < canvas)
            np.add.at(kernel, (row[inside], column[inside]), (share * weights)[inside])
    return kernel / steps


@dataclass(frozen=True)
class ShakeOptions:
    """What kernels look like.

    Attributes:
        length: of the way in pixels, a range that is drawn from on a log scale. steps: fewest places on it.
    """

    length: tuple[float, float] = (6.0, 80.0)
    steps: int = 400

    def __post_init__(self) -> None:
        low, high = self.length
        if not 1 <= low <= high <= 400:
            raise DataError(f"a length of {list(self.length)}: it is a range of pixels within 1 to 400")


def random_kernel(rng: np.random.Generator, options: ShakeOptions) -> Light:
    """A kernel of camera shake: an odd square whose weights add up to 1, with its centre of mass in the middle.

    So neither brightness nor place of a picture changes.
    """
    low, high = np.log(options.length)
    length = math.exp(rng.uniform(low, high))
    wildness = float(rng.choice(WILDNESS))
    places = trajectory(rng, max(options.steps, int(4 * length)), length, wildness)
    places -= places.mean(0)
    radius = math.ceil(float(np.abs(places).max())) + 1
    kernel = point_spread(places + radius, 2 * radius + 1)
    return (kernel / kernel.sum()).astype(np.float32)


def blur(light: Light, kernel: Light) -> Light:
    """Light `(H, W, 3)` as it is blurred by a kernel; beyond its borders it is mirrored."""
    module = cv2()
    # filter2D correlates; a kernel says where light of a point goes, which is a convolution
    return module.filter2D(light, -1, np.ascontiguousarray(kernel[::-1, ::-1]), borderType=module.BORDER_REFLECT_101)
