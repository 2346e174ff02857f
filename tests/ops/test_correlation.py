"""Cost volume: fixtures, a plain form, gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from deblurkit.ops.correlation import correlation
from tests.support import operators


def naive(first, second, radius, stride=1):
    first, second = (one[..., ::stride, ::stride] for one in (first, second))
    height, width = first.shape[-2:]
    padded = F.pad(second, [radius] * 4)
    side = range(2 * radius + 1)
    return torch.stack(
        [(first * padded[..., i : i + height, j : j + width]).mean(1) for i in side for j in side], dim=1
    )


@pytest.mark.parametrize("name", ["correlation_r4", "correlation_r3", "correlation_r3_s2"])
def test_fixture(name):
    inputs, params, (wanted,), tolerance = operators.load(name)
    torch.testing.assert_close(correlation(*inputs, params["radius"], params["stride"]), wanted, **tolerance)


@pytest.mark.parametrize("size", [(1, 1), (3, 8), (5, 17), (4, 7)])
@pytest.mark.parametrize(("radius", "stride"), [(0, 1), (1, 1), (3, 2), (4, 1), (9, 1)])
def test_equals_the_plain_form(radius, stride, size):
    maps = [torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    found, wanted = correlation(*maps, radius, stride), naive(*maps, radius, stride)
    torch.testing.assert_close(found, wanted)
    assert found.is_contiguous()
    operators.assert_same_gradients(found, wanted, maps)


def test_gradients():
    maps = [torch.randn(2, 2, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda a, b: correlation(a, b, 1), maps)
    assert torch.autograd.gradcheck(lambda a: correlation(a, maps[1].detach(), 1), maps[:1])
    assert torch.autograd.gradcheck(lambda b: correlation(maps[0].detach(), b, 1), maps[1:])


def test_half_precision_and_memory_format():
    maps = [torch.randn(1, 3, 5, 6) for _ in range(2)]
    last = [one.to(memory_format=torch.channels_last) for one in maps]
    torch.testing.assert_close(correlation(*last), correlation(*maps))
    half = [one.bfloat16() for one in maps]
    torch.testing.assert_close(correlation(*half), correlation(*(one.float() for one in half)).bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(correlation(*maps), correlation(*maps).float())


def test_wrong_arguments():
    first = torch.rand(1, 2, 4, 4)
    with pytest.raises(ValueError, match=r"both must be \(N, C, H, W\)"):
        correlation(first, first[..., :3])
    with pytest.raises(ValueError, match="radius must be at least 0"):
        correlation(first, first, -1)


@pytest.mark.slow
def test_compiles_whole():
    maps = [torch.randn(1, 3, 5, 10, requires_grad=True) for _ in range(2)]
    found = torch.compile(correlation, fullgraph=True, backend="aot_eager")(*maps)
    torch.testing.assert_close(found, correlation(*maps))
    operators.assert_same_gradients(found, correlation(*maps), maps)
