from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import deblurkit
from deblurkit.archs.mscnn_arch import gaussian_half
from deblurkit.network import count_macs


def _pyramid_step(x: Tensor) -> Tensor:
    """What the sheet says, plainly: Gaussian of seven taps over mirrored borders, then the mean of 2x2 pixels."""
    weights = np.exp(-(np.arange(-3.0, 4.0) ** 2) / (2 * (2 / 3) ** 2))
    weights /= weights.sum()
    image = x.double().numpy()
    for axis in (2, 3):
        padded = np.pad(image, [(3, 3) if i == axis else (0, 0) for i in range(4)], mode="symmetric")
        size = image.shape[axis]
        image = sum(w * padded.take(range(i, i + size), axis=axis) for i, w in enumerate(weights))
    b, c, h, w = image.shape
    return torch.from_numpy(image.reshape(b, c, h // 2, 2, w // 2, 2).mean(axis=(3, 5)))


@pytest.mark.parametrize("size", [(2, 4), (12, 8), (64, 48)])
def test_the_pyramid_is_gaussian(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size)
    torch.testing.assert_close(gaussian_half(x).double(), _pyramid_step(x), rtol=0, atol=1e-6)


def test_published_size_and_cost() -> None:
    with torch.device("meta"):
        net = deblurkit.build_network({"type": "MSCNN"})
    assert net.num_parameters == 11_721_321
    assert count_macs(net, 256, 256) / 1e9 == pytest.approx(335.9, abs=0.06)


@torch.no_grad()
def test_an_image_a_list_and_levels_are_the_same() -> None:
    net = deblurkit.build_network({"type": "MSCNN", "n_resblocks": 1, "n_feats": 4, "rgb_range": 1}).eval()
    x = torch.rand(1, 3, 16, 24)
    levels = [x, gaussian_half(x), gaussian_half(gaussian_half(x))]
    before = [level.clone() for level in levels]
    outputs = net.run(x)
    for name, one, two, three in zip(("restored", "scale2", "scale4"), net(x), net(levels), net(*levels), strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
        assert torch.equal(one, outputs[name])
    assert all(torch.equal(level, old) for level, old in zip(levels, before, strict=True))  # upstream changes them
    with pytest.raises(ValueError, match="MSCNN has 3 scales, got a pyramid of 2"):
        net(levels[:2])


@torch.no_grad()
def test_run_knows_the_range_of_the_weights() -> None:
    net = deblurkit.build_network({"type": "MSCNN", "n_resblocks": 1, "n_feats": 4}).eval()
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(net.run(x)["restored"] * 255, net(x * 255)[0])


@pytest.mark.parametrize(
    ("argument", "value"), [("kernel_size", 4), ("n_scales", 0), ("n_feats", 0), ("n_resblocks", -1), ("rgb_range", 0)]
)
def test_other_arguments_are_refused(argument: str, value: int) -> None:
    with pytest.raises(deblurkit.DeblurkitError, match=argument):
        deblurkit.build_network({"type": "MSCNN", argument: value})


@pytest.mark.parametrize("arguments", [{"kernel_size": 4}, {"n_feats": 5}])
def test_other_discriminators_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(deblurkit.DeblurkitError, match=next(iter(arguments))):
        deblurkit.build_network({"type": "MSCNNDiscriminator", **arguments})
