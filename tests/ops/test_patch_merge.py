"""Blocks to channels: VRT's order, and that torch's own functions are the fixtures' pixel shuffles."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from deblurkit.ops.patch_merge import patch_merge, patch_split
from tests.support import operators


@pytest.mark.parametrize(
    ("name", "operator"),
    [("patch_merge", patch_merge), ("pixel_shuffle", F.pixel_shuffle), ("pixel_unshuffle", F.pixel_unshuffle)],
)
def test_fixture(name, operator):
    (x,), params, (wanted,), _ = operators.load(name)
    assert torch.equal(operator(x, params["scale"]), wanted)


@pytest.mark.parametrize("shape", [(3, 6, 12), (2, 4, 3, 6, 6)])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_split_is_the_inverse(shape, scale):
    x = torch.rand(shape)
    merged = patch_merge(x, scale)
    assert merged.shape == (*shape[:-3], shape[-3] * scale**2, shape[-2] // scale, shape[-1] // scale)
    assert torch.equal(patch_split(merged, scale), x)


def test_wrong_shapes():
    with pytest.raises(ValueError, match="multiples of 2"):
        patch_merge(torch.rand(1, 3, 5, 4))
    with pytest.raises(ValueError, match="multiple of 4"):
        patch_split(torch.rand(1, 6, 5, 4))
