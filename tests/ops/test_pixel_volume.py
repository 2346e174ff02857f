"""Pixel volume: the fixture, the definition in plain loops, gradients."""

from __future__ import annotations

import math

import pytest
import torch

from deblurkit.ops.pixel_volume import pixel_volume
from tests.support import operators


def loops(previous, flow, current, kernel_size):
    r = kernel_size // 2
    weights = torch.tensor([0.2989, 0.5870, 0.1140], dtype=previous.dtype).view(1, 3, 1, 1)
    old, new = ((image * weights).sum(1) for image in (previous, current))
    batch, height, width = old.shape
    out = torch.zeros(batch, kernel_size**2, height, width, dtype=previous.dtype)
    for n, dx, dy, y, x in (
        (n, dx, dy, y, x)
        for n in range(batch)
        for dx in range(-r, r + 1)
        for dy in range(-r, r + 1)
        for y in range(height)
        for x in range(width)
        if 0 <= y - dy < height and 0 <= x - dx < width
    ):
        px = math.trunc(x - dx + flow[n, 0, y - dy, x - dx].item()) + dx
        py = math.trunc(y - dy + flow[n, 1, y - dy, x - dx].item()) + dy
        inside = 1 <= px <= width - 2 and 1 <= py <= height - 2
        out[n, (dx + r) * kernel_size + dy + r, y, x] = old[n, py, px] if inside else new[n, y, x]
    return out


def test_fixture():
    (previous, flow, current), params, (wanted,), tolerance = operators.load("pixel_volume")
    torch.testing.assert_close(pixel_volume(previous, flow, current, params["ksize"]), wanted, **tolerance)


@pytest.mark.parametrize("size", [(5, 6), (1, 4), (2, 2), (3, 8)])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_equals_plain_loops(kernel_size, size):
    previous, current = (torch.rand(2, 3, *size, dtype=torch.float64, requires_grad=True) for _ in range(2))
    flow = torch.randn(2, 2, *size, dtype=torch.float64) * 4
    flow[0, :, 0, 0] = torch.tensor([1e9, -1e9])
    found, wanted = (form(previous, flow, current, kernel_size) for form in (pixel_volume, loops))
    torch.testing.assert_close(found, wanted)
    operators.assert_same_gradients(found, wanted, [previous, current])


def test_gradients_of_images_but_not_of_the_flow():
    previous, current = (torch.rand(1, 3, 4, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    flow = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p, c: pixel_volume(p, flow.detach(), c, 3), (previous, current))
    pixel_volume(previous, flow, current, 3).sum().backward()
    assert flow.grad is None


def test_wrong_arguments():
    image, flow = torch.rand(1, 3, 4, 4), torch.zeros(1, 2, 4, 4)
    with pytest.raises(ValueError, match="odd"):
        pixel_volume(image, flow, image, 4)
    with pytest.raises(ValueError, match="expected two images"):
        pixel_volume(image, flow[:, :1], image)


@pytest.mark.slow
def test_compiles_whole():
    previous, current = (torch.rand(1, 3, 4, 5, requires_grad=True) for _ in range(2))
    flow = torch.randn(1, 2, 4, 5)
    compiled = torch.compile(pixel_volume, fullgraph=True, backend="aot_eager")
    found, wanted = (form(previous, flow, current, 3) for form in (compiled, pixel_volume))
    torch.testing.assert_close(found, wanted)
    operators.assert_same_gradients(found, wanted, [previous, current])
