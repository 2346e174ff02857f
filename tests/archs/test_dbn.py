from __future__ import annotations

import pytest
import torch

import deblurkit
from deblurkit.network import count_macs


def test_published_size_and_cost() -> None:
    net = deblurkit.build_network({"type": "DBN"})
    assert net.num_parameters == 15_305_291
    assert count_macs(net, 256, 256) / 1e9 == pytest.approx(39.55, abs=0.005)


def test_zero_init_residual_returns_the_middle_frame() -> None:
    net = deblurkit.build_network({"type": "DBN", "inner_channels": 8, "zero_init_residual": True})
    x = torch.rand(2, 5, 3, 16, 24)
    for training in (True, False):
        assert torch.equal(net.train(training).run(x)["restored"], x[:, 2])
    plain = deblurkit.build_network({"type": "DBN", "inner_channels": 8})
    assert not torch.allclose(plain.run(x)["restored"], x[:, 2], atol=0.1)
    assert net.state_dict().keys() == plain.state_dict().keys()


def test_other_window_lengths() -> None:
    net = deblurkit.build_network({"type": "DBN", "num_frames": 3, "inner_channels": 8}).eval()
    assert (net.contract.frames, net.contract.target) == (3, 1)
    assert net.run(torch.rand(1, 3, 3, 16, 16))["restored"].shape == (1, 3, 16, 16)


def test_even_windows_are_refused() -> None:
    with pytest.raises(deblurkit.DeblurkitError, match="must be odd, not 4"):
        deblurkit.build_network({"type": "DBN", "num_frames": 4})


@pytest.mark.parametrize("shape", [(1, 4, 3, 16, 16), (1, 5, 1, 16, 16), (5, 3, 16, 16)])
def test_other_inputs_are_refused(shape: tuple[int, ...]) -> None:
    net = deblurkit.build_network({"type": "DBN", "inner_channels": 8})
    with pytest.raises(ValueError, match=r"takes \(B, 5, 3, H, W\), got"):
        net.run(torch.rand(shape))
