"""Temporal sharpness prior: the fixture and its limits."""

from __future__ import annotations

import pytest
import torch

from deblurkit.ops.sharpness_prior import temporal_sharpness_prior
from tests.support import operators


def test_fixture():
    (frames, masks), params, (wanted,), tolerance = operators.load("temporal_sharpness_prior")
    torch.testing.assert_close(temporal_sharpness_prior(frames, masks, params["kernel_size"]), wanted, **tolerance)


def test_alike_frames_are_sharp_and_nothing_is_learned():
    frame = torch.rand(1, 3, 5, 6, requires_grad=True)
    mask = torch.ones(1, 3, 5, 6)
    mask[..., 0] = 0
    prior = temporal_sharpness_prior([frame] * 3, [mask, torch.ones_like(mask), mask])
    assert not prior.requires_grad
    assert torch.equal(prior, mask[:, :1])


def test_unfiltered():
    frames = [torch.rand(1, 3, 4, 4) for _ in range(3)]
    distance = ((frames[0] - frames[1]) ** 2 + (frames[2] - frames[1]) ** 2).sum(1, keepdim=True) / 2
    found = temporal_sharpness_prior(frames, [torch.ones(1, 3, 4, 4)] * 3, 1)
    torch.testing.assert_close(found, torch.exp(-distance.sqrt()))


def test_wrong_arguments():
    frame = torch.rand(1, 3, 4, 4)
    for frames, masks, size in (([frame] * 2, [frame] * 2, 5), ([frame] * 3, [frame] * 2, 5), ([frame], [frame], 4)):
        with pytest.raises(ValueError, match="expected an odd number"):
            temporal_sharpness_prior(frames, masks, size)
