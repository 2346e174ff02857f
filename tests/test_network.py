from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import deblurkit
from deblurkit.contract import FrameContract
from deblurkit.network import Network, State, build_twin_on_meta, count_macs
from deblurkit.registry import ARCH_REGISTRY
from deblurkit.sharing import Shared


class Halve(Network):
    """An image network whose config holds a list."""

    def __init__(self, widths: list[int], *, bias: bool = True, **others: Any) -> None:
        super().__init__(FrameContract(kind="image", multiple=2))
        widths.append(99)  # a constructor that changes what it was given
        self.conv = nn.Conv2d(3, 3, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Sum(Network):
    """A stream: each frame plus all before it; sees a past and two future frames."""

    def __init__(self) -> None:
        super().__init__(FrameContract(kind="stream", past=1, future=2))

    def init_state(self, x: Tensor) -> State:
        assert x.shape[1] == 4
        return {"sum": torch.zeros_like(x[:, 0])}

    def step(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        total = state["sum"] + x[:, 1]
        return {"restored": total}, {"sum": total}


def test_config_remembers_the_arguments() -> None:
    net = Halve([1, 2], bias=False, extra="x")
    assert net.config == {"type": "Halve", "widths": [1, 2], "bias": False, "extra": "x"}
    dbn = deblurkit.build_network({"type": "DBN", "inner_channels": 8})
    assert dbn.config == {
        "type": "DBN",
        "num_frames": 5,
        "in_channels": 3,
        "inner_channels": 8,
        "zero_init_residual": False,
    }
    assert deblurkit.build_network(dbn.config).state_dict().keys() == dbn.state_dict().keys()


@pytest.mark.usefixtures("own_registries")
def test_config_has_the_registered_name() -> None:
    ARCH_REGISTRY.register("Half-and-half")(Halve)
    net = Halve([])
    assert net.config["type"] == "Half-and-half"
    assert isinstance(deblurkit.build_network(net.config), Halve)


def test_copies_keep_everything() -> None:
    net = deblurkit.build_network({"type": "DBN", "inner_channels": 4, "num_frames": 3}).eval()
    net.io = deblurkit.contract.PixelConvention("bgr")  # type: ignore[attr-defined]
    x = torch.rand(1, 3, 3, 8, 8)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert (twin.config, twin.contract, twin.io) == (net.config, net.contract, net.io)
        assert torch.equal(twin.run(x)["restored"], net.run(x)["restored"])
        assert twin.config is not net.config


def test_wrong_arguments_are_told_by_name() -> None:
    with pytest.raises(TypeError, match="inner_chanels"):
        ARCH_REGISTRY.get("DBN")(inner_chanels=3)
    with pytest.raises(deblurkit.DeblurkitError, match="inner_chanels: unknown argument of DBN"):
        deblurkit.build_network({"type": "DBN", "inner_chanels": 3})


def test_image_networks_take_clips_frame_by_frame() -> None:
    net = Halve([])
    clip = torch.rand(2, 4, 3, 6, 8)
    restored = net.run(clip)["restored"]
    assert restored.shape == clip.shape
    assert torch.allclose(restored[1, 2], net.run(clip[1, 2:3])["restored"][0], atol=1e-6)


def test_streams_step_through_a_clip_and_leave_out_the_context() -> None:
    clip = torch.rand(1, 7, 3, 2, 2)
    restored = Sum().run(clip)["restored"]
    assert restored.shape[1] == 4
    assert torch.allclose(restored, clip[:, 1:5].cumsum(1))
    with pytest.raises(ValueError, match="Sum needs at least 4 frames, got 3"):
        Sum().run(clip[:, :3])


def test_what_a_network_does_not_have_says_so() -> None:
    net = Halve([])
    assert not net.splits
    for call in (
        lambda: net.init_state(torch.rand(1, 1, 3, 2, 2)),
        lambda: net.step(torch.rand(1, 1, 3, 2, 2), {}),
        lambda: net.features(torch.rand(1, 3, 2, 2)),
        lambda: net.fuse([{}], Shared(range(1))),
    ):
        with pytest.raises(TypeError, match="Halve"):
            call()


def test_a_forward_with_several_results_must_override_run() -> None:
    class Pair(Halve):
        def forward(self, x: Tensor) -> Any:
            return x, x

    with pytest.raises(TypeError, match=r"Pair.forward returns tuple: it must override run\(\)"):
        Pair([]).run(torch.rand(1, 3, 2, 2))


@pytest.mark.parametrize(
    ("contract", "arguments", "shape"),
    [
        ({"kind": "image", "multiple": 8}, {"height": 9, "width": 8, "batch": 2}, (2, 3, 16, 8)),
        ({"kind": "window", "frames": 3, "channels": 6}, {"height": 9, "width": 8}, (1, 3, 6, 9, 8)),
        ({"kind": "window", "frames": 3}, {"height": 9, "width": 8, "length": 7}, (1, 3, 3, 9, 8)),
        ({"kind": "clip", "time_multiple": 4}, {"height": 9, "width": 8}, (1, 4, 3, 9, 8)),
        ({"kind": "clip", "time_multiple": 4}, {"height": 9, "width": 8, "length": 5}, (1, 8, 3, 9, 8)),
        ({"kind": "stream", "past": 1, "future": 2}, {"height": 9, "width": 8}, (1, 6, 3, 9, 8)),
    ],
)
def test_example_inputs(contract: dict[str, Any], arguments: dict[str, int], shape: tuple[int, ...]) -> None:
    net = Network(FrameContract(**contract))
    assert net.example_input(**arguments).shape == shape
    net.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    assert net.example_input(**arguments).dtype == torch.float64


def test_costs_are_counted_by_hand() -> None:
    assert count_macs(Halve([]), 6, 9) == 3 * 3 * 6 * 10  # 9 columns are completed to 10
    net = Halve([])
    object.__setattr__(net.contract, "extra_macs_per_pixel", 2.5)
    assert count_macs(net, 6, 8) == (9 + 2.5) * 48
    assert net.num_parameters == 12
    twin = build_twin_on_meta(net)
    assert all(p.is_meta for p in twin.parameters())
    assert not any(p.is_meta for p in net.parameters())
    assert not twin.training
    assert net.training
