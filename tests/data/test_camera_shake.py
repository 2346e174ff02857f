"""Trajectories and kernels against DeblurGAN's own; what every kernel fulfils."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deblurkit.data.camera_shake import ShakeOptions, blur, point_spread, random_kernel, trajectory
from deblurkit.errors import DataError

PARITY = Path(__file__).parent.parent / "parity" / "kernel_motion.npz"


class Legacy:
    """The generator that the reference was drawn by."""

    def __init__(self, seed: int) -> None:
        self._state = np.random.RandomState(seed)

    def uniform(self) -> float:
        return float(self._state.uniform())

    def normal(self) -> float:
        return float(self._state.normal())


@pytest.mark.parametrize("number", range(4))
def test_reference(number: int) -> None:
    with np.load(PARITY) as reference:
        case = json.loads(str(reference["meta"]))["cases"][number]
        places, spread = reference[f"traj{number}"], reference[f"psf{number}"]
    found = trajectory(Legacy(case["seed"]), case["iters"], case["max_len"], case["expl"], case["canvas"])
    np.testing.assert_allclose(found, places, rtol=1e-6, atol=1e-9)
    total, begin = np.zeros_like(spread[0]), 0.0
    for fraction, expected in zip(case["fraction"], spread, strict=True):
        total += point_spread(found, case["canvas"], begin, fraction)
        begin = fraction
        np.testing.assert_allclose(total, expected, rtol=1e-6, atol=1e-9)


def test_a_straight_line() -> None:
    places = trajectory(np.random.default_rng(0), 100, 30.0, 0.0)
    steps = np.diff(places, axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-9)
    assert np.hypot(*(places[-1] - places[0])) == pytest.approx(30.0)


def test_kernels_keep_brightness_and_place() -> None:
    rng, options = np.random.default_rng(0), ShakeOptions((3.0, 50.0))
    kernels = [random_kernel(rng, options) for _ in range(30)]
    for kernel in kernels:
        side = kernel.shape[0]
        assert kernel.shape == (side, side)
        assert side % 2 == 1
        assert kernel.min() >= 0
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        places = np.arange(side) - side // 2
        assert abs((kernel.sum(0) * places).sum()) < 0.05
        assert abs((kernel.sum(1) * places).sum()) < 0.05
    assert len({kernel.shape for kernel in kernels}) > 5
    np.testing.assert_array_equal(kernels[0], random_kernel(np.random.default_rng(0), options))


def test_blur_puts_light_where_the_kernel_says() -> None:
    kernel = np.zeros((5, 5), np.float32)
    kernel[1, 4] = 1.0  # one up, two to the right
    light = np.zeros((9, 11, 3), np.float32)
    light[4, 4] = 1.0
    moved = blur(light, kernel)
    assert np.argwhere(moved[..., 0] > 0.5).tolist() == [[3, 6]]
    flat = np.full((20, 20, 3), 0.3, np.float32)
    np.testing.assert_allclose(blur(flat, random_kernel(np.random.default_rng(1), ShakeOptions())), flat, atol=1e-5)


def test_mistakes() -> None:
    for length in ((0.5, 10.0), (20.0, 10.0), (1.0, 1000.0)):
        with pytest.raises(DataError, match="a range of pixels"):
            ShakeOptions(length)
