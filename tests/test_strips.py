from __future__ import annotations

import numpy as np
import pytest
import torch

from deblurkit.engine.pixels import to_pixels
from deblurkit.strips import strips
from deblurkit.video.color import BT709, _apply, _apply_planar, _inverse, yuv_to_rgb


@pytest.mark.parametrize("size", [(0, 5), (1, 1), (5, 0), (720, 1280), (3, 200_000), (1000, 77)])
def test_strips_are_all_rows_once(size: tuple[int, int]) -> None:
    rows = [row for strip in strips(*size) for row in range(strip.start, strip.stop)]
    assert rows == list(range(size[0]))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_quantising_more_than_a_strip(dtype: type) -> None:
    white = np.iinfo(dtype).max
    halves = torch.arange(2 * 255 + 1) / 2 / 255  # ties, which go to the even neighbour
    values = torch.cat([torch.rand(3 * 301 * 517 - len(halves)) * 1.4 - 0.2, halves]).reshape(3, 301, 517)
    values[0, :2, :2] = torch.tensor([[1e30, -1e30], [1.0, 0.0]])
    expected = (values.clamp(0, 1) * white).round().to(torch.int32).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(to_pixels(values, dtype), expected)


@pytest.mark.parametrize("depth", [8, 10, 16])
@pytest.mark.parametrize("full", [False, True])
def test_colours_of_more_than_a_strip_are_rounded_exactly(depth: int, full: bool) -> None:
    rng = np.random.default_rng(0)
    planes = [rng.integers(0, 2**depth, (301, 517)).astype(np.uint8 if depth == 8 else np.uint16) for _ in range(3)]
    white = 255 if depth == 8 else 65535
    matrix = yuv_to_rgb(BT709, full, depth)
    exact = np.stack([*planes, np.ones_like(planes[0])], -1) @ matrix.T
    pixels = _apply(planes, matrix, white)
    assert pixels.dtype == (np.uint8 if depth == 8 else np.uint16)
    assert np.abs(pixels - exact.clip(0, white)).max() < 0.5 + 5e-7 * white
    back = np.concatenate([pixels, np.ones_like(pixels[..., :1])], -1) @ _inverse(matrix).T
    for channel, plane in enumerate(_apply_planar(pixels, _inverse(matrix), 2**depth - 1)):
        assert np.abs(plane - back[..., channel].clip(0, 2**depth - 1)).max() < 0.5 + 5e-7 * white
