from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from deblurkit.contract import FrameContract
from deblurkit.engine.crops import CroppedNetwork, crop_starts
from deblurkit.errors import OptionsError
from deblurkit.network import Network, State
from tests.support.networks import CopyImage


class Mean(Network):
    """Returns the mean of what it sees: so a crop shows."""

    def __init__(self, kind: Any = "image", **contract: Any) -> None:
        super().__init__(FrameContract(kind=kind, **contract))
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(tuple(x.shape))
        frame = x if x.ndim == 4 else x[:, self.contract.target]
        mean = frame.mean((-2, -1), keepdim=True).expand_as(frame)
        return mean.repeat_interleave(self.contract.scale, -1).repeat_interleave(self.contract.scale, -2)


class Stream(Network):
    def __init__(self) -> None:
        super().__init__(FrameContract(kind="stream"))

    def step(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        raise AssertionError


@pytest.mark.parametrize(
    ("side", "crop", "starts"),
    [(720, 256, [0, 232, 464]), (1280, 256, [0, 256, 512, 768, 1024]), (256, 256, [0]), (257, 256, [0, 1])],
)
def test_starts(side: int, crop: int, starts: list[int]) -> None:
    """NAFNet's: ceil of the even step, the last one flush with the border."""
    assert crop_starts(side, crop) == starts


def test_overlaps_are_averaged() -> None:
    x = torch.arange(6.0).expand(1, 3, 4, 6)
    found = CroppedNetwork(Mean(), {"height": 4, "width": 4}).run(x)["restored"]
    left, right = 1.5, 3.5  # columns 0-3 and 2-5
    expected = torch.tensor([left, left, (left + right) / 2, (left + right) / 2, right, right])
    torch.testing.assert_close(found, expected.expand(1, 3, 4, 6))


def test_what_is_the_same_everywhere_stays_the_same() -> None:
    x = torch.rand(2, 3, 21, 34)
    found = CroppedNetwork(CopyImage(), {"height_ratio": 0.5, "width": 10}).run(x)["restored"]
    torch.testing.assert_close(found, x)


def test_sizes_fit_the_network_and_its_scale() -> None:
    net = Mean("window", frames=3, target=1, multiple=8, scale=2)
    found = CroppedNetwork(net, {"height": 9, "width_ratio": 0.3}).run(torch.rand(1, 3, 3, 32, 40))["restored"]
    assert found.shape == (1, 3, 64, 80)
    assert set(net.sizes) == {(1, 3, 3, 16, 16)}


def test_a_state_cannot_be_cropped() -> None:
    with pytest.raises(OptionsError, match="Stream keeps a state"):
        CroppedNetwork(Stream(), {"height": 4, "width": 4})
