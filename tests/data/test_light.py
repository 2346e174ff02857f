"""Response curves against what is known of them, tables for training, noise."""

from __future__ import annotations

import numpy as np
import pytest

from deblurkit.data.light import CURVES, Development, SensorNoise, response_curve
from deblurkit.errors import DataError


@pytest.mark.parametrize("name", CURVES)
def test_curves_run_from_black_to_white_and_back(name: str) -> None:
    curve = response_curve(name)
    values = np.linspace(0, 1, 1001)
    light = curve.to_light(values)
    np.testing.assert_allclose([light[0], light[-1]], [0, 1], atol=1e-12)
    assert (np.diff(light) > 0).all()
    np.testing.assert_allclose(curve.to_pixels(light), values, atol=1e-9)
    assert curve.table(np.dtype(np.uint16)).shape == (65536,)


def test_the_curve_of_reds_passes_through_what_was_measured() -> None:
    """(The figures are those of DEGRADATIONS.md of the project's notes: exposure relative to that of pixel 128.)"""
    curve = response_curve("reds")
    pixels = np.array([16, 32, 64, 96, 160, 192, 224, 240, 250])
    measured = np.array([0.0375, 0.0853, 0.2675, 0.5227, 1.856, 3.399, 5.722, 7.544, 9.22])
    light = curve.to_light(np.array([0.0, 128 / 255, *(pixels / 255)]))
    # up to an offset and a factor, which do not matter for means
    np.testing.assert_allclose((light[2:] - light[0]) / (light[1] - light[0]), (measured - 0.0046) / (1 - 0.0046))
    # "between 30 and 250 close to a power law of exponent 2.3"
    low, high = curve.to_light(np.array([30 / 255, 250 / 255])) + 0.0046 / 10.15
    assert np.log(high / low) / np.log(250 / 30) == pytest.approx(2.3, abs=0.05)


@pytest.mark.parametrize("name", CURVES)
def test_tables_agree_with_the_curve(name: str) -> None:
    development, curve = Development(name), response_curve(name)
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(development.to_pixels(development.to_light(levels)), levels)
    np.testing.assert_array_equal(development.to_light(levels.astype(np.uint16) * 257), development.to_light(levels))
    light = (np.random.default_rng(0).random(20000) ** 2).astype(np.float32)
    exact = np.floor(curve.to_pixels(light.astype(np.float64)) * 255 + 0.5)
    difference = np.abs(development.to_pixels(light).astype(int) - exact)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01
    np.testing.assert_array_equal(development.to_pixels(np.array([-1.0, 7.0], np.float32)), [0, 255])


def test_noise_has_the_variance_that_it_says() -> None:
    noise = SensorNoise(4.0)
    for level in (0.0, 0.1, 0.8):
        light = np.full((200, 200, 3), level, np.float32)
        noisy = noise.add(light, np.random.default_rng(1))
        assert noisy.dtype == np.float32
        assert abs(noisy.mean() - level) < 4 * noisy.std() / np.sqrt(light.size)
        variance = 4 * 1e-4 * level + (4 * 9.15e-4) ** 2
        assert noisy.var() == pytest.approx(variance, rel=0.03)
    assert SensorNoise(0.0).add(light, np.random.default_rng(1)) is light


def test_mistakes() -> None:
    with pytest.raises(DataError, match="did you mean 'srgb'"):
        response_curve("sRGBs")
    with pytest.raises(DataError, match="0 \\(none\\)"):
        SensorNoise(-1.0)
