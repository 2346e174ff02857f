from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import deblurkit
from deblurkit.archs.bimnet_arch import BIMNet
from deblurkit.archs.pvdnet_arch import PVDNet
from deblurkit.network import build_twin_on_meta
from deblurkit.testing import stir

SMALL = {"type": "PVDNet", **PVDNet.check_args}


@pytest.fixture(scope="module")
def net() -> PVDNet:
    torch.manual_seed(0)
    net = deblurkit.build_network(SMALL).eval()
    stir(net)
    assert isinstance(net, PVDNet)
    return net


@pytest.mark.parametrize(("large", "parameters", "gmacs"), [(False, 10_514_548, 66.9), (True, 23_361_780, 119.5)])
def test_published_size_and_cost(large: bool, parameters: int, gmacs: float) -> None:
    net = deblurkit.build_network({"type": "PVDNet", "large_model": large})
    assert net.num_parameters == parameters
    twin = build_twin_on_meta(net)
    x = twin.example_input(256, 256, length=3)
    state = twin.init_state(x)
    counted = []
    for call in (lambda: twin.forward(*x.unbind(1), x[:, 0]), lambda: twin.step(x, state)):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call()
        counts = counter.get_flop_counts()["Global"]
        counted.append(sum(n for operator, n in counts.items() if "convolution" in str(operator)) / 2e9)
    assert counted[0] == pytest.approx(gmacs, abs=0.06)
    assert counted[1] == pytest.approx(counted[0] - 1.17, abs=0.01)  # the previous frame's features are kept


@torch.no_grad()
def test_a_stream_is_the_single_step_again_and_again(net: PVDNet) -> None:
    """Frames in [-1, 1]; the first one stands for itself restored; what is fed back is not clamped."""
    x = torch.rand(2, 6, 3, 36, 44)
    signed = x * 2 - 1
    restored, expected = signed[:, 0], []
    for t in range(1, 5):
        restored, _ = net(signed[:, t - 1], signed[:, t], signed[:, t + 1], restored)
        expected.append((restored + 1) / 2)
    torch.testing.assert_close(net.run(x)["restored"], torch.stack(expected, 1))


@torch.no_grad()
def test_flow_is_of_the_part_that_the_estimator_takes(net: PVDNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures whose sides are no multiples of 32 have a flow of zero at their right and bottom."""
    sizes = []
    monkeypatch.setattr(
        BIMNet, "match", lambda self, first, second: sizes.append(first[0][0].shape) or torch.full((1, 2, 16, 32), 2.0)
    )
    frame = torch.linspace(-1, 1, 64 + 8).expand(1, 3, 44, -1).contiguous()
    _, volume = net(frame, frame, frame, frame)
    assert sizes == [(1, 3, 16, 32)]  # half of 32x64
    middle = volume[0, 12]  # no displacement: the pixel two to the right and below, where the flow says so
    step = 2 / 71
    torch.testing.assert_close(middle[5, 5:60] - frame[0, 0, 5, 5:60], torch.full((55,), 2 * step), atol=2e-4, rtol=0)
    torch.testing.assert_close(middle[38, 5:60], frame[0, 0, 38, 5:60], atol=2e-4, rtol=0)


def test_training_carries_no_gradient_over_frames(net: PVDNet) -> None:
    x = torch.rand(1, 3, 3, 32, 32)
    for training in (True, False):
        _, state = net.train(training).step(x, net.init_state(x))
        assert state["restored"].requires_grad != training
    net.eval()


def test_the_motion_estimator_does_not_learn_by_itself() -> None:
    assert not any(p.requires_grad for p in deblurkit.build_network(SMALL).get_submodule("BIMNet").parameters())
    free = deblurkit.build_network({**SMALL, "fix_BIMNet": False}).train()
    free.run(torch.rand(1, 3, 3, 32, 32))["restored"].sum().backward()
    dead = {name for name, p in free.named_parameters() if p.grad is None}
    assert dead == set(free.dead_parameters) == {n for n, _ in free.named_parameters() if n.startswith("BIMNet.")}


def test_it_starts_from_weights_of_the_estimator(tmp_path: Path) -> None:
    torch.manual_seed(1)
    flow = BIMNet(n_feat=4)
    torch.save(flow.state_dict(), tmp_path / "BIMNet.pytorch")
    net = deblurkit.build_network({**SMALL, "bimnet_ckpt_path": str(tmp_path / "BIMNet.pytorch")})
    found = net.get_submodule("BIMNet").state_dict()
    assert all(torch.equal(value, found[name]) for name, value in flow.state_dict().items())
    assert net.config["bimnet_ckpt_path"] is None


@pytest.mark.parametrize(
    ("arguments", "message"), [({"PV_ksize": 4}, "PV_ksize must be odd, not 4"), ({"n_feat": 1}, "starts at 2, not 1")]
)
def test_other_arguments_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(deblurkit.DeblurkitError, match=message):
        deblurkit.build_network({**SMALL, **arguments})
