"""FAC and KPN: the definitions, their fixtures, gradients, and the banded form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from deblurkit.ops.fac import filter_adaptive_conv, kernel_prediction_conv, predicted_filter_conv

PARITY = Path(__file__).parents[1] / "parity"
OPERATORS = {"op_fac": filter_adaptive_conv, "op_kpn": kernel_prediction_conv}


@pytest.mark.parametrize("name", OPERATORS)
def test_fixture(name):
    fixture = np.load(PARITY / f"{name}.npz")
    meta = json.loads(str(fixture["meta"]))
    inputs = [torch.from_numpy(fixture[key]) for key in meta["inputs"]]
    found = OPERATORS[name](*inputs, meta["params"]["kernel_size"])
    torch.testing.assert_close(found, torch.from_numpy(fixture["output"]), rtol=meta["rtol"], atol=meta["atol"])


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("operator", OPERATORS.values())
def test_gradients(operator, size):
    torch.manual_seed(0)
    channels = 2 if operator is filter_adaptive_conv else 1
    features = torch.rand(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    kernels = torch.randn(2, channels * size**2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, k: operator(f, k, size), (features, kernels))
    assert torch.autograd.gradcheck(lambda k: operator(features.detach(), k, size), (kernels,))
    assert torch.autograd.gradcheck(lambda f: operator(f, kernels.detach(), size), (features,))


@pytest.mark.parametrize("operator", OPERATORS.values())
def test_channels_last_and_empty_batch(operator):
    torch.manual_seed(0)
    kernels = torch.randn(2, 27 if operator is filter_adaptive_conv else 9, 5, 4)
    features = torch.rand(2, 3, 5, 4)
    last = torch.channels_last
    found = operator(features.to(memory_format=last), kernels.to(memory_format=last), 3)
    torch.testing.assert_close(found, operator(features, kernels, 3))
    assert operator(features[:0], kernels[:0], 3).shape == (0, 3, 5, 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype):
    torch.manual_seed(0)
    features, kernels = torch.rand(1, 2, 6, 7).to(dtype), torch.randn(1, 50, 6, 7).to(dtype)
    found = filter_adaptive_conv(features, kernels)
    assert found.dtype == dtype
    torch.testing.assert_close(found, filter_adaptive_conv(features.float(), kernels.float()).to(dtype))
    assert filter_adaptive_conv(features.float(), kernels).dtype == torch.float32


@pytest.mark.parametrize("rows", [1, 3, 4, 100])
def test_bands_equal_the_whole(rows):
    torch.manual_seed(0)
    predict = torch.nn.Conv2d(4, 3 * 9, 1).double()
    digest = torch.nn.Conv2d(27, 2, 1).double()
    features, guide = (torch.rand(2, c, 7, 5, dtype=torch.float64, requires_grad=True) for c in (3, 4))
    leaves = (features, guide, *predict.parameters(), *digest.parameters())

    kernels = predict(guide)
    whole = filter_adaptive_conv(features, kernels, 3), digest(kernels)
    budget = rows * 2 * 27 * 5 * 4
    banded = predicted_filter_conv(features, guide, predict, digest, kernel_size=3, budget=budget)
    for a, b in zip(whole, banded, strict=True):
        torch.testing.assert_close(a, b)
    seeds = [torch.randn_like(output) for output in whole]
    for a, b in zip(torch.autograd.grad(whole, leaves, seeds), torch.autograd.grad(banded, leaves, seeds), strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        plain, nothing = predicted_filter_conv(features, guide, predict, kernel_size=3, budget=budget)
    assert nothing is None
    torch.testing.assert_close(plain, whole[0])


def test_bands_stay_within_the_budget():
    largest = 0

    def predict(guide):
        nonlocal largest
        kernels = guide.repeat_interleave(9, 1)
        largest = max(largest, kernels.numel() * 4)
        return kernels

    features = torch.rand(1, 4, 50, 30)
    predicted_filter_conv(features, features, predict, kernel_size=3, budget=40_000)
    assert 0 < largest <= 40_000


def test_wrong_arguments():
    features = torch.rand(1, 3, 4, 4)
    with pytest.raises(ValueError, match="odd"):
        filter_adaptive_conv(features, torch.rand(1, 48, 4, 4), 4)
    with pytest.raises(ValueError, match=r"need kernels \(1, 27, 4, 4\)"):
        filter_adaptive_conv(features, torch.rand(1, 9, 4, 4), 3)
    with pytest.raises(ValueError, match=r"need kernels \(1, 9, 4, 4\)"):
        kernel_prediction_conv(features, torch.rand(1, 27, 4, 4), 3)
    with pytest.raises(ValueError, match="need kernels"):
        predicted_filter_conv(features, features, lambda guide: guide, kernel_size=3)
