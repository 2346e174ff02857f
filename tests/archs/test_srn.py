from __future__ import annotations

import pytest
import torch

import deblurkit
from deblurkit.network import count_macs


def test_published_size_and_cost() -> None:
    with torch.device("meta"):
        net = deblurkit.build_network({"type": "SRN"})
    assert net.num_parameters == 10_158_563
    # the coarsest level has no hidden state to convolve, which spares 0.42 G of the published figure
    assert count_macs(net, 256, 256) / 1e9 == pytest.approx(101.1 - 0.42, abs=0.06)
    assert net.contract.multiple == (16, 16)


@torch.no_grad()
def test_an_image_a_list_and_levels_are_the_same() -> None:
    net = deblurkit.build_network({"type": "SRN", "inner_channels": 4}).eval()
    x = torch.rand(1, 3, 32, 48)
    levels = [x, x[..., ::2, ::2], x[..., ::4, ::4]]
    expected = net(x)
    outputs = net.run(x)
    for name, one, two, three in zip(
        ("restored", "scale2", "scale4"), expected, net(levels), net(*levels), strict=True
    ):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
        assert torch.equal(one, outputs[name])
    with pytest.raises(ValueError, match="SRN has 3 levels, got a pyramid of 2"):
        net(levels[:2])


@torch.no_grad()
def test_the_lstm_starts_from_zeros() -> None:
    net = deblurkit.build_network({"type": "SRN", "inner_channels": 4})
    lstm, x = net.get_submodule("conv_lstm"), torch.rand(2, 16, 5, 6)
    zeros = torch.zeros_like(x)
    for found, expected in zip(lstm(x, None), lstm(x, (zeros, zeros)), strict=True):
        torch.testing.assert_close(found, expected)


def test_the_option_for_the_lstm_has_no_effect() -> None:
    nets = [deblurkit.build_network({"type": "SRN", "inner_channels": 4, "with_lstm": w}) for w in (True, False)]
    assert nets[0].state_dict().keys() == nets[1].state_dict().keys()


@pytest.mark.parametrize(("argument", "value"), [("in_channels", 3), ("num_levels", 0)])
def test_other_arguments_are_refused(argument: str, value: int) -> None:
    with pytest.raises(deblurkit.DeblurkitError, match=argument):
        deblurkit.build_network({"type": "SRN", argument: value})


@torch.no_grad()
def test_the_halo_of_several_levels() -> None:
    """`check_network` looks at one level; the halo of two is 576 pixels."""
    net = deblurkit.build_network({"type": "SRN", "inner_channels": 2, "num_levels": 2}).double().eval()
    halo = net.contract.halo
    assert halo == 576
    x = torch.rand(1, 3, 2 * halo + 24, 8, dtype=torch.float64)
    tile = x[..., 8:-8, :]  # the eight rows in the middle have 576 pixels of context on both sides
    middle = net.run(x)["restored"][..., halo + 8 : halo + 16, :]
    torch.testing.assert_close(net.run(tile)["restored"][..., halo : halo + 8, :], middle, rtol=0, atol=1e-12)
