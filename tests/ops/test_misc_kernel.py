"""The filter of MISC: the fixture, a plain form, gradients."""

from __future__ import annotations

import pytest
import torch

from deblurkit.ops.misc_kernel import misc_kernel
from tests.support import operators


def naive(padded, vertical, horizontal, alpha, beta, weight):
    size, (height, width) = vertical.shape[1], vertical.shape[2:]
    flat = padded.flatten(2)

    def corners(position, length):
        clamped = position.clamp(0, length - 1)
        low = position.floor().clamp(0, length - 1).detach()
        high = (position.floor() + 1).clamp(0, length - 1).detach()
        return (low, 1 + low - clamped), (high, 1 - (high - clamped))

    total = 0
    for i in range(size):
        for j in range(size):
            k = i * size + j
            shift = (size - 1) // 2 - 1
            y = alpha[:, k] + torch.arange(height, dtype=alpha.dtype)[:, None] + i - shift
            x = beta[:, k] + torch.arange(width, dtype=alpha.dtype) + j - shift
            value = 0
            for yy, wy in corners(y, padded.shape[2]):
                for xx, wx in corners(x, padded.shape[3]):
                    index = (yy * padded.shape[3] + xx).long().flatten(1).unsqueeze(1).expand(-1, padded.shape[1], -1)
                    value = value + flat.gather(2, index).unflatten(2, (height, width)) * (wy * wx).unsqueeze(1)
            total = total + value * (vertical[:, i] * horizontal[:, j] * weight[:, k]).unsqueeze(1)
    return total


def make(size=3, height=3, width=4, channels=2, batch=2, dtype=torch.float64):
    shapes = [(batch, channels, height + size - 1, width + size - 1)]
    shapes += [(batch, n, height, width) for n in (size, size, size**2, size**2, size**2)]
    return [(torch.randn(shape, dtype=dtype) * (1 + (i in (3, 4)))).requires_grad_() for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("budget", [None, 30_000, 1])
def test_fixture(budget):
    inputs, _, (wanted,), tolerance = operators.load("misc_kernel")
    torch.testing.assert_close(misc_kernel(*inputs, budget=budget), wanted, **tolerance)


@pytest.mark.parametrize("budget", [None, 400])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_equals_the_plain_form(size, budget):
    tensors = make(size)
    found, wanted = misc_kernel(*tensors, budget=budget), naive(*tensors)
    torch.testing.assert_close(found, wanted)
    operators.assert_same_gradients(found, wanted, tensors)


def test_slopes_at_pixels_are_those_of_the_definition():
    tensors = make(3, 7, 11, dtype=torch.float32)
    tensors[3], tensors[4] = (tensors[i].detach().round().requires_grad_() for i in (3, 4))
    operators.assert_same_gradients(misc_kernel(*tensors), naive(*tensors), tensors, rtol=1e-3, atol=1e-3)


def test_gradients():
    tensors = make(3, 2, 2, 1, 1)
    assert torch.autograd.gradcheck(misc_kernel, tensors)
    assert torch.autograd.gradcheck(lambda *a: misc_kernel(tensors[0].detach(), *a), tensors[1:])


def test_half_precision_and_wrong_shapes():
    tensors = [tensor.detach().bfloat16() for tensor in make()]
    found = misc_kernel(*tensors)
    torch.testing.assert_close(found, misc_kernel(*(t.float() for t in tensors)).bfloat16())
    with pytest.raises(ValueError, match=r"padded must be \(2, 2, 5, 6\)"):
        misc_kernel(tensors[0][..., 1:], *tensors[1:])
    with pytest.raises(ValueError, match=r"beta must be \(2, 9, 3, 4\)"):
        misc_kernel(*tensors[:4], tensors[4][:, :3], tensors[5])


@pytest.mark.slow
def test_compiles_whole():
    tensors = make(dtype=torch.float32)
    found = torch.compile(misc_kernel, fullgraph=True, backend="aot_eager")(*tensors)
    torch.testing.assert_close(found, misc_kernel(*tensors))
    operators.assert_same_gradients(found, misc_kernel(*tensors), tensors, rtol=1e-4, atol=1e-4)
