"""Recurrent networks in training: frame by frame, truncated, frozen at first, and with offsets that are watched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import deblurkit
from deblurkit.contract import FrameContract
from deblurkit.engine.launch import Place
from deblurkit.engine.train import Training, train
from deblurkit.errors import OptionsError
from deblurkit.models.recurrence import run_frame_by_frame
from deblurkit.models.restoration_model import RestorationModel
from deblurkit.network import Network, State
from deblurkit.ops.deform_conv_modules import DeformConvPack
from deblurkit.options import Options
from deblurkit.registry import ARCH_REGISTRY
from tests.support.runs import distributed, weights_hash, write_options
from tests.support.trees import make_tree

CPU = Place(torch.device("cpu"))


class Decay(Network):
    """A stream with one number: the state is w times the last one plus the frame, and is the result."""

    def __init__(self, past: int = 0, future: int = 0) -> None:
        super().__init__(FrameContract(kind="stream", past=past, future=future))
        self.weight = nn.Parameter(torch.tensor(0.5))

    def init_state(self, x: Tensor) -> State:
        return {"sum": torch.zeros_like(x[:, 0])}

    def step(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        total = self.weight * state["sum"] + x[:, self.contract.past]
        return {"restored": total}, {"sum": total}


def make(net: Network, **changes: Any) -> RestorationModel:
    values = {
        "name": "small",
        "datasets": {"train": {"type": "VideoDataset"}},
        "network_g": {"type": type(net).__name__},
        "train": {
            "total_iter": 10,
            "optim_g": {"type": "SGD", "lr": 1.0},
            "losses": {"pixel": {"type": "MSELoss"}},
            **changes,
        },
    }
    return RestorationModel(Options.model_validate(values), {"g": net}, CPU)


def clip(length: int) -> Tensor:
    return torch.rand(2, length, 3, 4, 4, generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", ["ESTRNN", "IFIRNN", "STFAN", "BasicVSR", "BasicVSRPlusPlus", "RealBasicVSRNet"])
def test_frame_by_frame_is_what_run_gives(name: str, recompute: bool) -> None:
    """Results and gradients, with activations kept or computed again."""
    torch.manual_seed(0)
    net = ARCH_REGISTRY.get(name)(**ARCH_REGISTRY.get(name).check_args).double()  # type: ignore[attr-defined]
    for parameter in net.parameters():  # some layers start at zero, which hides what is before them
        parameter.data += 0.01 * torch.randn_like(parameter)
    x = torch.rand_like(net.example_input(16, 16))
    outputs = {}
    gradients = {}
    for way in ("run", "frames"):
        net.zero_grad()
        found = net.run(x) if way == "run" else run_frame_by_frame(net, x, recompute=recompute)[0]
        torch.stack([value.square().mean() for value in found.values()]).sum().backward()
        outputs[way] = {key: value.detach() for key, value in found.items()}
        gradients[way] = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    assert outputs["run"].keys() == outputs["frames"].keys()
    for key, value in outputs["run"].items():
        torch.testing.assert_close(outputs["frames"][key], value, rtol=1e-6, atol=1e-7)
    assert len(gradients["run"]) == len(gradients["frames"]) > 0
    for a, b in zip(gradients["run"], gradients["frames"], strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-8)


def gradient_by_hand(x: Tensor, gt: Tensor, size: int) -> Tensor:
    """Of the mean squared error with respect to the weight 0.5, the state detached before every `size` frames."""
    weight = torch.tensor(0.5, requires_grad=True)
    state, losses = torch.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        state = weight * (state.detach() if t % size == 0 else state) + x[:, t]
        losses.append(((state - gt[:, t]) ** 2).mean())
    (gradient,) = torch.autograd.grad(torch.stack(losses).mean(), weight)
    return gradient


@pytest.mark.parametrize("size", [1, 2, 3, 7, 9])
def test_truncated_gradients_are_those_by_hand(size: int) -> None:
    x, gt = clip(7), clip(8)[:, :7]
    net = Decay()
    model = make(net, truncate=size)
    model.start_iteration(1, 0)
    terms = model.train_step({"lq": x, "gt": gt, "key": ["a", "b"]})
    torch.testing.assert_close(0.5 - net.weight.detach(), gradient_by_hand(x, gt, size))
    whole = make(Decay())
    whole.start_iteration(1, 0)
    torch.testing.assert_close(terms["pixel"], whole.train_step({"lq": x, "gt": gt, "key": ["a", "b"]})["pixel"])
    # one graph for the whole clip has the same gradient
    other = Decay()
    outputs, _ = run_frame_by_frame(other, x, truncate=size)
    ((outputs["restored"] - gt) ** 2).mean().backward()
    torch.testing.assert_close(other.weight.grad, gradient_by_hand(x, gt, size))


def test_groups_of_frames_have_their_context_and_their_share() -> None:
    model = make(Decay(past=1, future=2), truncate=2)
    x = clip(8)
    pieces = list(model.pieces({"lq": x, "gt": x, "sharper": x[:, 1:6], "key": ["a", "b"]}))
    assert [share for _, share in pieces] == [2 / 5, 2 / 5, 1 / 5]
    for i, (piece, _) in enumerate(pieces):
        stop = min(2 * i + 2, 5)
        assert torch.equal(piece["lq"], x[:, 2 * i : stop + 3])
        assert torch.equal(piece["gt"], x[:, 2 * i : stop + 3])
        assert torch.equal(piece["sharper"], x[:, 1 + 2 * i : 1 + stop])
    model.start_iteration(1, 0)
    whole = make(Decay(past=1, future=2))
    whole.start_iteration(1, 0)
    data = {"lq": x, "gt": x * 0.5, "key": ["a", "b"]}
    torch.testing.assert_close(model.train_step(data)["pixel"], whole.train_step(data)["pixel"])


def test_a_group_s_activations_are_gone_before_the_next_one() -> None:
    alive: list[int] = []
    kept = 0

    class Counted:
        def __init__(self, value: Tensor) -> None:
            nonlocal kept
            self.value = value
            kept += 1
            alive.append(kept)

        def __del__(self) -> None:
            nonlocal kept
            kept -= 1

    peaks = []
    for size in (None, 2):
        alive.clear()
        model = make(Decay(), truncate=size)
        model.start_iteration(1, 0)
        with torch.autograd.graph.saved_tensors_hooks(Counted, lambda counted: counted.value):
            model.train_step({"lq": clip(12), "gt": clip(12) * 0.5, "key": ["a", "b"]})
        peaks.append(max(alive))
    assert peaks[1] < peaks[0] / 3


@pytest.mark.parametrize(
    ("change", "key"), [({"truncate": 2}, "truncate"), ({"checkpoint_frames": True}, "checkpoint")]
)
def test_other_networks_are_told_that_they_have_no_steps(change: dict[str, Any], key: str) -> None:
    for name, text in (("NAFNet", "sees no sequence"), ("DBN", "sees no sequence")):
        net = ARCH_REGISTRY.get(name)(**ARCH_REGISTRY.get(name).check_args)  # type: ignore[attr-defined]
        with pytest.raises(OptionsError, match=rf"train\.{key}.* {name} {text}"):
            make(net, **change)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "tree"
    make_tree(root, splits=("train", "test"), sequences=1, frames=6, size=(32, 40), seed=1)
    return root


def recurrent(tmp_path: Path, tree: Path, **changes: Any) -> deblurkit.options.Options:
    """A small ESTRNN on clips; its first layer, say, rests for five iterations and then has a tenth of the rate."""
    settings = {
        "network_g": {"type": "ESTRNN", "n_features": 4, "n_blocks": 1, "past_frames": 1, "future_frames": 1},
        "datasets__train__sampling": "context", "datasets__train__num_frame": 5,
        "datasets__train__past": 1, "datasets__train__future": 1,
        "train__param_groups": [{"match": ["cell.F_B0.*"], "lr_mul": 0.1, "frozen_until": 5}],
        "train__truncate": 2, "train__checkpoint_frames": True, "val__val_freq": None,
        **changes,
    }  # fmt: skip
    return deblurkit.load_options(write_options(tmp_path / "o.yml", tree, **settings))


def test_what_is_frozen_stays_so_over_a_resume(tree: Path, tmp_path: Path) -> None:
    unbroken, broken = tmp_path / "a", tmp_path / "b"
    assert train(recurrent(unbroken, tree), CPU) == 0
    assert train(recurrent(broken, tree, train__total_iter=4), CPU) == 0
    run = Training(recurrent(broken, tree), CPU, "auto")
    assert run.iteration == 4
    frozen = {n: p for n, p in run.model.net.named_parameters() if n.startswith("cell.F_B0.")}
    before = {name: p.detach().clone() for name, p in frozen.items()}
    moved: dict[int, bool] = {}
    step = run.model.train_step

    def watched(batch: Any) -> Any:
        terms = step(batch)
        moved[run.iteration + 1] = any(not torch.equal(p, before[name]) for name, p in frozen.items())
        return terms

    run.model.train_step = watched  # type: ignore[method-assign]
    assert run.run() == 0
    assert moved == {5: False, 6: True, 7: True, 8: True}
    rates = run.model.rates()
    assert rates[1] == pytest.approx(0.1 * rates[0])
    latest = [folder / "experiments" / "tiny" / "models" / "net_g_latest.pth" for folder in (unbroken, broken)]
    assert weights_hash(latest[0]) == weights_hash(latest[1])


def test_two_processes_share_truncated_clips(tree: Path, tmp_path: Path) -> None:
    """Gradients of all groups of frames are averaged over the processes, once."""
    found = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        recurrent(
            folder, tree, train__total_iter=2, train__optim_g={"type": "SGD", "lr": 0.1}, train__accumulate=2,
            datasets__train__batch_size_per_gpu=2 // processes, datasets__train__num_frame=5,
            datasets__train__dataset_enlarge_ratio=4, val={},
        )  # fmt: skip
        done = distributed(processes, "train", "-opt", folder / "o.yml", "--device", "cpu")
        assert done.returncode == 0, done.stderr
        found.append(torch.load(folder / "experiments" / "tiny" / "models" / "net_g_latest.pth", weights_only=True))
    for name, value in found[0]["params"].items():
        torch.testing.assert_close(found[1]["params"][name], value, rtol=1e-4, atol=1e-6)


class Aligned(Network):
    """A window of three frames whose middle is a deformable convolution of another."""

    def __init__(self) -> None:
        super().__init__(FrameContract(kind="window", frames=3, target=1))
        self.align = DeformConvPack(3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 1] + 0.1 * self.align(x[:, 0], x[:, 2])


def aligned(tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    ARCH_REGISTRY.names()
    monkeypatch.setitem(ARCH_REGISTRY._classes, "Aligned", Aligned)
    path = write_options(tmp_path / "o.yml", tree, network_g={"type": "Aligned"}, val__val_freq=None)
    return Training(deblurkit.load_options(path), CPU)


@pytest.mark.parametrize(
    ("bias", "text"),
    [
        (float("nan"), "the step was left out; batch: .* The offsets of align are not finite"),
        (60.0, "iter 4: the offsets of align have a mean size of 60 pixels"),
        (5.0, None),
    ],
)
def test_offsets_that_go_astray_are_named(
    bias: float, text: str | None, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = aligned(tmp_path, tree, monkeypatch)
    step = run.model.train_step

    def poisoned(batch: Any) -> Any:
        offset = run.model.net.get_parameter("align.conv_offset.bias")
        kept = offset.detach().clone()
        if run.iteration == 2:
            offset.data[:18] = bias
        terms = step(batch)
        offset.data.copy_(kept)
        return terms

    run.model.train_step = poisoned  # type: ignore[method-assign]
    assert run.run() == 0
    log = (tmp_path / "experiments" / "tiny" / "train.log").read_text()
    if text is None:
        assert "the offsets of" not in log
    else:
        assert re.search(text, log)
        assert log.count("offsets of align") == 1
