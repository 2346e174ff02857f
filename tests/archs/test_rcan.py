from __future__ import annotations

import pytest
import torch

import deblurkit
from deblurkit.network import count_macs
from deblurkit.testing import check_network

SMALL = {"num_feat": 16, "num_group": 1, "num_block": 1, "squeeze_factor": 4}


@pytest.mark.parametrize(
    ("upscale", "parameters"), [(1, 15_296_931), (2, 15_444_643), (3, 15_629_283), (4, 15_592_355)]
)
def test_published_size(upscale: int, parameters: int) -> None:
    with torch.device("meta"):
        net = deblurkit.build_network({"type": "RCAN", "upscale": upscale, "num_block": 20})
    assert net.num_parameters == parameters
    if upscale == 1:
        assert count_macs(net, 256, 256) / 1e9 == pytest.approx(993.2, abs=0.05)


@pytest.mark.parametrize("upscale", [1, 3, 8])
def test_keeps_its_promises_at_every_scale(upscale: int) -> None:
    net = deblurkit.build_network({"type": "RCAN", **SMALL, "upscale": upscale, "res_scale": 0.5})
    assert net.contract.scale == upscale
    check_network(net)


@torch.no_grad()
def test_range_and_mean_frame_the_network() -> None:
    """With silent features the result is the mean, whatever the range; the constants are no part of a checkpoint."""
    net = deblurkit.build_network({"type": "RCAN", **SMALL, "upscale": 1, "rgb_mean": [0.1, 0.2, 0.3]})
    for parameter in net.parameters():
        parameter.zero_()
    x = torch.rand(1, 3, 5, 7)
    torch.testing.assert_close(net.run(x)["restored"], torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1).expand_as(x))
    assert "mean" not in net.state_dict()


@pytest.mark.parametrize(
    ("args", "message"),
    [({"upscale": u}, "power of two") for u in (0, -2, 5, 6)]
    + [({"num_in_ch": 1}, "must be 3"), ({"squeeze_factor": 17}, "between 1 and num_feat")],
)
def test_impossible_arguments_are_refused(args: dict[str, int], message: str) -> None:
    with pytest.raises(deblurkit.DeblurkitError, match=message):
        deblurkit.build_network({"type": "RCAN", **SMALL, **args})
