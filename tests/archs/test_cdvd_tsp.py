from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import deblurkit
from deblurkit.archs.cdvd_tsp_arch import CDVD_TSP
from deblurkit.archs.pwcnet_arch import PWCNet
from deblurkit.data.frame_sampling import window_indices
from deblurkit.engine.launch import Place
from deblurkit.models.restoration_model import RestorationModel
from deblurkit.network import count_macs, count_shared_macs
from deblurkit.options import Options
from deblurkit.sharing import SharedStore
from deblurkit.testing import stir

SMALL = {"type": "CDVD_TSP", **CDVD_TSP.check_args}


@pytest.fixture(scope="module")
def net() -> CDVD_TSP:
    torch.manual_seed(0)
    net = deblurkit.build_network({**SMALL, "is_mask_filter": True}).eval()
    stir(net)
    assert isinstance(net, CDVD_TSP)
    return net


def test_published_size_and_cost() -> None:
    with torch.device("meta"):
        net = deblurkit.build_network({"type": "CDVD_TSP", "is_mask_filter": True})
    assert net.num_parameters == 16_187_045
    assert sum(p.numel() for p in net.get_submodule("flow_net").parameters()) == 9_374_274
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.get_submodule("recons_net")(torch.empty(1, 10, 256, 256, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(63.4, abs=0.06)
    # four reconstructions and eight flows, whose pyramids are made once for each frame
    whole, shared = count_macs(net, 256, 256), count_shared_macs(net, 256, 256)
    assert whole / 1e9 < 349.6
    assert whole / shared == pytest.approx(2.0, abs=0.05)


@torch.no_grad()
def test_forward_returns_what_upstreams_does(net: CDVD_TSP) -> None:
    x = torch.rand(2, 5, 3, 16, 20)
    *frames, nothing = net(x)
    outputs = net.run(x)
    assert nothing is None
    assert len(frames) == 4
    assert torch.equal(torch.stack(frames[:3], 1), outputs["stage1"])
    assert torch.equal(frames[3], outputs["restored"])


def _count_calls(net: CDVD_TSP) -> dict[str, int]:
    calls = {"pyramid": 0, "flow": 0, "restore": 0}

    def counting(name: str):
        def count(*_: object) -> None:
            calls[name] += 1

        return count

    pwc = net.flow_net.moduleNetwork
    pwc.moduleExtractor.register_forward_hook(counting("pyramid"))
    pwc.moduleRefiner.register_forward_hook(counting("flow"))
    net.recons_net.register_forward_hook(counting("restore"))
    return calls


@pytest.mark.parametrize("padding", ["reflection", "replicate", "circle"])
@torch.no_grad()
def test_a_video_shares_stages_and_flows(padding: str) -> None:
    """Each triple of frames is restored once by each stage, each frame has one pyramid; the results are the same."""
    torch.manual_seed(0)
    net = deblurkit.build_network({**SMALL, "is_mask_filter": True}).eval()
    assert isinstance(net, CDVD_TSP)
    stir(net)
    count = 8
    clip = torch.rand(1, count, 3, 16, 16)
    windows = [window_indices(center, 2, 2, count, padding) for center in range(count)]
    plain = [net.run(clip[:, positions]) for positions in windows]

    calls = _count_calls(net)
    store, triples = SharedStore(), set()
    for positions, expected in zip(windows, plain, strict=True):
        found = net.run_shared(clip[:, positions], store.window(positions))
        triples |= {tuple(positions[i : i + 3]) for i in range(3)}
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)
    assert calls["restore"] == len(triples) + count
    assert calls["flow"] == 2 * (len(triples) + count)
    assert calls["pyramid"] == count + len(triples)
    if padding == "replicate":
        assert len(triples) == count + 4 - 2  # at both ends two more than frames with neighbours


@torch.no_grad()
def test_equal_frames_agree_and_unequal_ones_do_not(net: CDVD_TSP, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without motion the prior of equal frames is one everywhere, and falls where a neighbour differs."""
    seen: list[Tensor] = []
    net.recons_net.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    monkeypatch.setattr(PWCNet, "match", lambda self, first, second: torch.zeros(1, 2, 16, 16))
    frame = torch.rand(1, 3, 16, 16)
    other = frame.clone()
    other[..., 8:, :] = 1 - other[..., 8:, :]
    net.run(torch.stack([frame, frame, frame, other, frame], dim=1))
    first, second = seen[0][:, 9], seen[1][:, 9]
    torch.testing.assert_close(first, torch.ones_like(first))
    torch.testing.assert_close(second[:, :6], torch.ones_like(second[:, :6]))
    assert second[:, 10:].max() < 1


def test_the_first_stage_learns_from_its_own_frames() -> None:
    torch.manual_seed(0)
    options = Options.model_validate(
        {
            "name": "small",
            "datasets": {"train": {"type": "VideoDataset"}},
            "train": {
                "total_iter": 1,
                "optim_g": {"type": "Adam", "lr": 1e-3},
                "losses": {"last": {"type": "L1Loss"}, "first": {"type": "L1Loss", "output": "stage1"}},
            },
        }
    )
    net = deblurkit.build_network(SMALL)
    lq, gt = torch.rand(2, 1, 5, 3, 16, 16)
    with torch.no_grad():
        outputs = net.run(lq)
    model = RestorationModel(options, {"g": net}, Place(torch.device("cpu")))
    model.start_iteration(1, 0)
    terms = model.train_step({"lq": lq, "gt": gt, "key": ["a"]})
    torch.testing.assert_close(terms["first"], (outputs["stage1"] - gt[:, 1:4]).abs().mean())
    torch.testing.assert_close(terms["last"], (outputs["restored"] - gt[:, 2]).abs().mean())


def test_it_starts_from_weights_of_its_parts(tmp_path: Path) -> None:
    torch.manual_seed(1)
    flow = PWCNet(n_feat=2)
    torch.save(flow.state_dict(), tmp_path / "flow.pytorch")
    mapping = {**SMALL, "load_flow_net": True, "flow_pretrain_fn": str(tmp_path / "flow.pytorch")}
    net = deblurkit.build_network(mapping)
    assert isinstance(net, CDVD_TSP)
    found = net.flow_net.moduleNetwork.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in flow.state_dict().items())
    (tmp_path / "flow.pytorch").unlink()
    deblurkit.build_network(net.config)  # as from a checkpoint, which has the weights
    torch.save(net.recons_net.state_dict(), tmp_path / "recons.pth")
    again = deblurkit.build_network(
        {**SMALL, "load_recons_net": True, "recons_pretrain_fn": str(tmp_path / "recons.pth")}
    )
    assert torch.equal(again.recons_net.outBlock[-1].weight, net.recons_net.outBlock[-1].weight)  # type: ignore[union-attr]
    with pytest.raises(deblurkit.DeblurkitError, match="do not fit"):
        deblurkit.build_network({**mapping, "flow_pretrain_fn": str(tmp_path / "recons.pth")})
    with pytest.raises(deblurkit.DeblurkitError, match="no file is named"):
        deblurkit.build_network({**SMALL, "load_flow_net": True})


@pytest.mark.parametrize("arguments", [{"n_sequence": 3}, {"in_channels": 1}, {"out_channels": 1}])
def test_other_windows_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(deblurkit.DeblurkitError, match="takes 5 frames of 3 channels"):
        deblurkit.build_network({**SMALL, **arguments})
