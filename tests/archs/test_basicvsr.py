"""BasicVSR, BasicVSR++ and RealBasicVSR."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import deblurkit
from deblurkit.archs.spynet_arch import SpyNet
from deblurkit.engine.checkpoint import load_network, save_network
from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY
from deblurkit.testing import check_network, stir
from tests.support import parity

DEBLUR = {"is_low_res_input": False}


def _small(name: str, **arguments: Any) -> Network:
    cls = ARCH_REGISTRY.get(name)
    net: Network = cls(**{**cls.check_args, **arguments})  # type: ignore[attr-defined]
    stir(net.eval())
    return net


@pytest.mark.parametrize(
    ("mapping", "parameters", "side", "macs"),
    [
        ({"type": "BasicVSR", "num_block": 30}, 6_291_311, 64, 130.6),
        ({"type": "BasicVSR"}, 4_075_631, 64, 85.3),
        ({"type": "RealBasicVSRNet"}, 6_294_834, 64, 130.6),
        ({"type": "BasicVSRPlusPlus"}, 7_322_927, 64, 143.4),
        ({"type": "BasicVSRPlusPlus", **DEBLUR}, 7_396_783, 256, 145.0),
        ({"type": "BasicVSRPlusPlus", "num_blocks": 15, **DEBLUR}, 9_760_175, 256, 193.3),
        ({"type": "BasicVSRPlusPlus", "mid_channels": 128, "num_blocks": 25}, 43_780_463, 64, None),
        ({"type": "BasicVSRPlusPlus", "mid_channels": 128, "num_blocks": 25, **DEBLUR}, 44_075_631, 256, None),
    ],
)
def test_published_size_and_cost(mapping: dict[str, Any], parameters: int, side: int, macs: float | None) -> None:
    with torch.device("meta"):
        net = deblurkit.build_network(mapping)
    assert net.num_parameters == parameters
    if macs is not None:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net.run(torch.zeros(1, 5, 3, side, side, device="meta"))
        assert counter.get_total_flops() / 2e9 == pytest.approx(macs, abs=0.05)


@pytest.mark.parametrize(
    ("keys", "mapping"),
    [
        ("BasicVSR__c64b30", {"type": "BasicVSR", "num_block": 30}),
        ("BasicVSRPlusPlus__c64n15_deblur", {"type": "BasicVSRPlusPlus", "num_blocks": 15, **DEBLUR}),
        ("RealBasicVSRNet__c64b20", {"type": "RealBasicVSRNet"}),
    ],
)
def test_public_checkpoints_fit(keys: str, mapping: dict[str, Any]) -> None:
    with torch.device("meta"):
        net = deblurkit.build_network(mapping)
    assert parity.entries(net) == sorted(parity.keys_of(keys))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("BasicVSRPlusPlus", {"is_low_res_input": True}),
        ("RealBasicVSRNet", {"dynamic_refine_thres": 1.5, "is_sequential_cleaning": True, "is_fix_cleaning": True}),
    ],
)
def test_other_forms_keep_their_promises(name: str, arguments: dict[str, Any]) -> None:
    check_network(name, {**ARCH_REGISTRY.get(name).check_args, **arguments})  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "scale"), [("BasicVSR", 4), ("BasicVSRPlusPlus", 1), ("RealBasicVSRNet", 4)])
@torch.no_grad()
def test_single_frames_and_the_influence_of_all(name: str, scale: int) -> None:
    net = _small(name)
    assert net.run(torch.rand(1, 1, 3, 12, 8))["restored"].shape == (1, 1, 3, 12 * scale, 8 * scale)
    x = torch.rand(1, 5, 3, 12, 8)
    before = net.run(x)["restored"]
    for changed in (0, 4):
        other = x.clone()
        other[:, changed] = torch.rand(1, 3, 12, 8)
        after = net.run(other)["restored"]
        assert ((after - before).flatten(2).abs().amax(2) > 0).all()


@torch.no_grad()
def test_long_clips_wait_in_the_hosts_memory() -> None:
    net, x = _small("BasicVSRPlusPlus"), torch.rand(1, 4, 3, 16, 16)
    short = _small("BasicVSRPlusPlus", cpu_cache_length=2)
    short.load_state_dict(net.state_dict())
    assert torch.equal(short.run(x)["restored"], net.run(x)["restored"])


@torch.no_grad()
def test_a_mirrored_clip_leaves_no_trace() -> None:
    """Upstream remembers having seen one and treats all later clips as mirrored."""
    net, x = _small("BasicVSRPlusPlus"), torch.rand(1, 4, 3, 16, 16)
    before = net.run(x)["restored"]
    net.run(torch.cat([x, x.flip(1)], dim=1))
    assert torch.equal(net.run(x)["restored"], before)


@pytest.mark.parametrize(
    ("name", "argument"),
    [("BasicVSR", "spynet_path"), ("BasicVSRPlusPlus", "spynet_path"), ("RealBasicVSRNet", "spynet_pretrained")],
)
def test_flow_weights_are_read_once(name: str, argument: str, tmp_path: Path) -> None:
    donor = SpyNet()
    torch.save({"params": donor.state_dict()}, tmp_path / "spynet.pth")
    net = _small(name)
    with_weights = deblurkit.build_network({**net.config, argument: str(tmp_path / "spynet.pth")})
    inner = with_weights.get_submodule("basicvsr.spynet" if name == "RealBasicVSRNet" else "spynet")
    x = torch.rand(2, 1, 3, 32, 32)
    torch.testing.assert_close(inner(*x), donor(*x))
    save_network(tmp_path / "net.pth", with_weights)
    (tmp_path / "spynet.pth").unlink()
    assert load_network(tmp_path / "net.pth").config == net.config
    with pytest.raises(deblurkit.DeblurkitError, match="no such file"):
        deblurkit.build_network({**net.config, argument: str(tmp_path / "spynet.pth")})


def _as_openmmlab_saves(net: Network) -> dict[str, Tensor]:
    """The weights under MMagic's names, in a whole training model: the generator, its average and a counter."""
    renamed = {}
    for key, value in net.state_dict().items():
        key = re.sub(r"^(backward|forward)_trunk", r"\1_resblocks", key)
        key = re.sub(r"^upconv([12])", r"upsample\1.upsample_conv", key)
        key = re.sub(r"^(spynet\..*\.)(\d+)\.(\w+)$", lambda m: f"{m[1]}{int(m[2]) // 2}.conv.{m[3]}", key)
        renamed[key] = value
    others = {f"generator.{key}": value + 1 for key, value in renamed.items()}
    return {**others, **{f"generator_ema.{key}": v for key, v in renamed.items()}, "step_counter": torch.zeros(1)}


@pytest.mark.parametrize("name", ["BasicVSR", "BasicVSRPlusPlus", "RealBasicVSRNet"])
def test_openmmlabs_checkpoints_load(name: str, tmp_path: Path) -> None:
    net = _small(name)
    torch.save({"state_dict": _as_openmmlab_saves(net), "meta": {"epoch": 1}}, tmp_path / "mmagic.pth")
    loaded = load_network(tmp_path / "mmagic.pth", net.config).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in net.state_dict().items())


class _CountingNet:
    """Counts what a network's cleaning part is given."""

    def __init__(self, net: Any) -> None:
        self.seen: list[int] = []
        net.image_cleaning.register_forward_hook(lambda module, inputs, output: self.seen.append(len(inputs[0])))


@pytest.mark.parametrize("sequential", [False, True])
@torch.no_grad()
def test_cleaning_is_repeated_until_it_changes_little(sequential: bool) -> None:
    net: Any = _small("RealBasicVSRNet", is_sequential_cleaning=sequential)
    torch.nn.init.zeros_(net.image_cleaning[1].weight)
    net.image_cleaning[1].bias.fill_(0.02)
    x, frames = torch.rand(1, 3, 3, 8, 8), 3
    counting = _CountingNet(net)
    for threshold, passes in ((255, 1), (0.02 * 255 + 0.1, 1), (0.02 * 255 - 0.1, 3)):
        net.dynamic_refine_thres = threshold / 255
        counting.seen.clear()
        given = x.clone()
        torch.testing.assert_close(net(given, return_lqs=True)[1], x + 0.02 * passes)
        assert sum(counting.seen) == passes * frames
        assert torch.equal(given, x)


def test_cleaned_clip_is_an_output_and_learns_by_itself() -> None:
    net = _small("RealBasicVSRNet").train()
    outputs = net.run(torch.rand(1, 3, 3, 8, 8))
    assert outputs["cleaned"].shape == (1, 3, 3, 8, 8)
    outputs["cleaned"].square().mean().backward()
    reached = {name.split(".")[0] for name, p in net.named_parameters() if p.grad is not None}
    assert reached == {"image_cleaning"}
    assert not any(p.requires_grad for name, p in net.named_parameters() if ".spynet." in name)


def _reference(net: Any, x: Tensor) -> Tensor:
    """BasicVSR as its paper writes it, frame by frame."""
    from deblurkit.ops.flow_warp import flow_warp

    frames = x.unbind(1)
    hidden: dict[str, dict[int, Tensor]] = {"backward": {}, "forward": {}}
    for direction, trunk, step in (("backward", net.backward_trunk, 1), ("forward", net.forward_trunk, -1)):
        order = range(len(frames)) if step < 0 else reversed(range(len(frames)))
        for i in order:
            before = hidden[direction].get(i + step)
            if before is None:
                moved = torch.zeros(len(x), net.num_feat, *x.shape[-2:])
            else:
                moved = flow_warp(before, net.spynet(frames[i], frames[i + step]))
            hidden[direction][i] = trunk(torch.cat([frames[i], moved], dim=1))
    lrelu, shuffle = torch.nn.LeakyReLU(0.1), torch.nn.PixelShuffle(2)
    restored = []
    for i, frame in enumerate(frames):
        y = lrelu(net.fusion(torch.cat([hidden["backward"][i], hidden["forward"][i]], dim=1)))
        y = lrelu(shuffle(net.upconv1(y)))
        y = net.conv_last(lrelu(net.conv_hr(lrelu(shuffle(net.upconv2(y))))))
        restored.append(y + torch.nn.functional.interpolate(frame, scale_factor=4, mode="bilinear"))
    return torch.stack(restored, dim=1)


@pytest.mark.parametrize("gradients", [True, False])
def test_batches_of_frames_change_nothing(gradients: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(deblurkit.ops.backend.BUDGETS, "cpu", 1)
    net, x = _small("BasicVSR"), torch.rand(2, 4, 3, 34, 40)
    with torch.set_grad_enabled(gradients):
        torch.testing.assert_close(net(x), _reference(net, x), rtol=1e-4, atol=1e-5)
