from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import deblurkit
from deblurkit.archs.mimounet_arch import _FeatureFusion
from deblurkit.network import count_macs


@pytest.mark.parametrize(
    ("name", "parameters", "giga_macs"), [("MIMOUNet", 6_807_171, 63.7), ("MIMOUNetPlus", 16_107_651, 150.7)]
)
def test_published_size_and_cost(name: str, parameters: int, giga_macs: float) -> None:
    with torch.device("meta"):
        net = deblurkit.build_network({"type": name})
    assert net.num_parameters == parameters
    found = count_macs(net, 256, 256) / 1e9
    # the fused features are convolved before they are enlarged, which spares 0.45 G of the published figure
    assert found == pytest.approx(giga_macs - 0.45, abs=0.06)


def test_run_names_the_scales() -> None:
    net = deblurkit.build_network({"type": "MIMOUNet", "num_res": 1}).eval()
    x = torch.rand(1, 3, 16, 24)
    coarse_to_fine, outputs = net(x), net.run(x)
    for name, expected in zip(("scale4", "scale2", "restored"), coarse_to_fine, strict=True):
        assert torch.equal(outputs[name], expected)
    clip = net.run(x.expand(2, 3, -1, -1, -1))
    assert clip["scale2"].shape == (2, 3, 3, 8, 12)


def test_only_plus_drops_features_and_only_in_training() -> None:
    x = torch.rand(1, 3, 16, 16)
    for name, drops in (("MIMOUNet", False), ("MIMOUNetPlus", True)):
        net = deblurkit.build_network({"type": name, "num_res": 1})
        assert torch.equal(net.eval().run(x)["restored"], net.run(x)["restored"])
        runs = [net.train().run(x)["restored"] for _ in range(3)]
        assert all(torch.equal(runs[0], run) for run in runs) is not drops


def test_features_fuse_as_if_enlarged_and_concatenated() -> None:
    fusion = _FeatureFusion(32)
    fine, half, quarter = torch.rand(2, 32, 16, 8), torch.rand(2, 64, 8, 4), torch.rand(2, 128, 4, 2)
    enlarged = [F.interpolate(feature, size=(16, 8)) for feature in (fine, half, quarter)]
    torch.testing.assert_close(fusion(fine, half, quarter), fusion.conv(torch.cat(enlarged, dim=1)))


def test_no_blocks_are_refused() -> None:
    with pytest.raises(deblurkit.DeblurkitError, match="num_res must be at least 1, not 0"):
        deblurkit.build_network({"type": "MIMOUNetPlus", "num_res": 0})
