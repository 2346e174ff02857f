"""The training step: accumulation, averages, groups, warm-up, guard, precision - on a network of two convolutions."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deblurkit.contract import FrameContract, Output
from deblurkit.engine.launch import Place
from deblurkit.errors import OptionsError
from deblurkit.models.base import Model
from deblurkit.models.restoration_model import RestorationModel
from deblurkit.network import Network, count_macs
from deblurkit.options import Options

CPU = Place(torch.device("cpu"))


class Small(Network):
    """Two convolutions and a batch norm (for its buffers) on single images."""

    def __init__(self) -> None:
        super().__init__(FrameContract(kind="image"))
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.last = nn.Conv2d(6, 3, 3, padding=1)
        self.norm.eval()

    def train(self, mode: bool = True) -> Small:
        """Keep the batch norm out of the game: results shall not depend on how a batch is divided."""
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(torch.relu(self.norm(self.first(x))))


def make(seed: int = 0, network: type[Small] = Small, **train: Any) -> RestorationModel:
    torch.manual_seed(seed)
    options = Options.model_validate(
        {
            "schema": "deblurkit/1",
            "name": "small",
            "datasets": {"train": {"type": "VideoDataset"}},
            "network_g": {"type": "Small"},
            "train": {
                "total_iter": 10,
                "optim_g": {"type": "Adam", "lr": 1e-2},
                "losses": {"pixel": {"type": "L1Loss"}},
                **train,
            },
        }
    )
    return RestorationModel(options, {"g": network()}, CPU)


def batch(size: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    gt = torch.rand(size, 1, 3, 12, 12, generator=generator)
    return {"lq": (gt + 0.2 * torch.rand(gt.shape, generator=generator)).clamp(0, 1), "gt": gt}


def steps(model: Model, count: int, data: dict[str, Tensor] | None = None) -> list[float]:
    losses = []
    for i in range(count):
        model.start_iteration(i + 1, i)
        losses.append(sum(float(term) for term in model.train_step(data or batch()).values()))
        model.finish_iteration()
    return losses


def test_accumulation_equals_the_whole_batch() -> None:
    whole, parts = make(), make(accumulate=2)
    torch.testing.assert_close(torch.tensor(steps(whole, 5)), torch.tensor(steps(parts, 5)), rtol=1e-5, atol=1e-6)
    for a, b in zip(whole.net.parameters(), parts.net.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_average_follows_the_formula_and_copies_buffers() -> None:
    model = make(ema_decay=0.9)
    expected = copy.deepcopy(model.net.first.weight.detach())
    for i in range(3):
        model.net.norm.running_mean += 1.0  # type: ignore[operator]
        model.start_iteration(i + 1, i)
        model.train_step(batch())
        model.finish_iteration()
        expected = 0.9 * expected + 0.1 * model.net.first.weight.detach()
    average = model.best_net
    assert average is not model.net
    torch.testing.assert_close(average.first.weight, expected)
    assert torch.equal(average.norm.running_mean, model.net.norm.running_mean)
    assert not average.training


def test_groups_have_their_own_rate_and_are_frozen_at_first() -> None:
    model = make(
        param_groups=[{"match": ["first.*"], "lr_mul": 0.1, "frozen_until": 2}],
        optim_g={"type": "AdamW", "lr": 1e-2, "weight_decay": 0.1},
    )
    before = copy.deepcopy(model.net.state_dict())
    steps(model, 2)
    assert torch.equal(model.net.first.weight, before["first.weight"])  # no step, no weight decay
    assert not torch.equal(model.net.last.weight, before["last.weight"])
    model.start_iteration(3, 2)
    assert sorted(model.rates()) == pytest.approx([1e-3, 1e-2])
    model.train_step(batch())
    assert not torch.equal(model.net.first.weight, before["first.weight"])


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(OptionsError, match=r"no parameter of Small matches \['spynet\.\*'\]"):
        make(param_groups=[{"match": ["spynet.*"]}])


def test_warm_up_rises_linearly_then_the_schedule_is_met_at_once() -> None:
    model = make(warmup_iter=5, scheduler={"type": "CosineAnnealingRestartLR", "periods": [20], "eta_min": 1e-7})
    rates = []
    for i in range(8):
        model.start_iteration(i + 1, i)
        rates += model.rates()
    assert rates[:4] == pytest.approx([2e-3, 4e-3, 6e-3, 8e-3])
    assert rates[4] == pytest.approx(1e-7 + 0.5 * (1e-2 - 1e-7) * (1 + math.cos(math.pi * 4 / 20)))


def test_clipping_limits_the_norm_of_the_gradient() -> None:
    model = make(grad_clip=1e-3, optim_g={"type": "SGD", "lr": 1.0})
    before = [p.detach().clone() for p in model.net.parameters()]
    steps(model, 1)
    moved = torch.stack([(a - b).norm() for a, b in zip(before, model.net.parameters(), strict=True)]).norm()
    assert float(moved.detach()) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("optimizer", [{"type": "Adam", "lr": 1e-2}, {"type": "Rprop", "lr": 1e-2}])
def test_a_gradient_that_is_not_finite_leaves_the_step_out(optimizer: dict[str, Any]) -> None:
    model = make(optim_g=optimizer)
    steps(model, 1)
    before = copy.deepcopy(model.net.state_dict())
    broken = batch()
    broken["gt"][0, 0, 0, 0, 0] = float("nan")
    steps(model, 1, broken)
    assert bool(model.steppers["optim_g"].skipped)
    assert all(torch.equal(value, before[key]) for key, value in model.net.state_dict().items())
    steps(model, 1)
    assert not bool(model.steppers["optim_g"].skipped)
    assert not torch.equal(model.net.last.weight, before["last.weight"])


def test_bf16_trains_and_keeps_fp32_weights() -> None:
    model = make(precision="bf16")
    losses = steps(model, 30)
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.dtype == torch.float32 for p in model.net.parameters())


@pytest.mark.parametrize("change", [{"channels_last": True}, {"checkpoint_modules": ["first", "last"]}])
def test_ways_of_computing_do_not_change_the_result(change: dict[str, Any]) -> None:
    plain, other = make(), make(**change)
    torch.testing.assert_close(torch.tensor(steps(plain, 3)), torch.tensor(steps(other, 3)), rtol=1e-5, atol=1e-6)
    assert list(plain.net.state_dict()) == list(other.net.state_dict())


class Twice(Small):
    """Its result at two stages, and one at half the size."""

    def __init__(self) -> None:
        super().__init__()
        outputs = (Output("restored"), Output("early"), Output("half", scale=0.5))
        self.contract = dataclasses.replace(self.contract, outputs=outputs)

    def run(self, x: Tensor) -> dict[str, Tensor]:
        restored = super().run(x)["restored"]
        return {"restored": restored, "early": restored * 0.5, "half": restored[..., ::2, ::2]}


def test_a_loss_may_look_at_several_outputs_together() -> None:
    def model(output: Any) -> RestorationModel:
        return make(network=Twice, losses={"pixel": {"type": "CharbonnierLoss", "reduction": "sum", "output": output}})

    single = [float(model(name).train_step(batch())["pixel"]) for name in ("restored", "early")]
    assert float(model(["restored", "early"]).train_step(batch())["pixel"]) == pytest.approx(sum(single))
    with pytest.raises(OptionsError, match=r"outputs of different sizes \(12x12, 6x6\) together"):
        model(["restored", "half"]).train_step(batch())
    with pytest.raises(OptionsError, match=r"losses\.pixel\.output: Twice has no output 'erly'; did you mean 'early'"):
        model(["restored", "erly"])


def test_copies_of_recomputed_modules_have_weights_of_their_own() -> None:
    model = make(ema_decay=0.9, checkpoint_modules=["first", "last"])
    steps(model, 3)
    average, plain = model.averages["g"], Small().eval()
    plain.load_state_dict(average.state_dict())
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(average.run(x)["restored"], plain.run(x)["restored"])
        assert not torch.equal(average.run(x)["restored"], model.net.run(x)["restored"])
    assert count_macs(model.net, 16, 16) == count_macs(plain, 16, 16)


def test_state_goes_on_and_rates_are_those_of_the_options() -> None:
    unbroken = make()
    expected = steps(unbroken, 6)[3:]
    first = make()
    steps(first, 3)
    second = make(seed=9)
    second.net.load_state_dict(first.net.state_dict())
    second.load_state(copy.deepcopy(first.state()))
    losses = []
    for i in range(3, 6):
        second.start_iteration(i + 1, i)
        losses.append(float(second.train_step(batch())["pixel"]))
    assert losses == expected
    slower = make(optim_g={"type": "Adam", "lr": 5e-4})
    slower.load_state(first.state())
    slower.start_iteration(4, 3)
    assert slower.rates() == [5e-4]


def test_frames_that_do_not_fit_are_explained() -> None:
    model = make()
    data = batch()
    data["gt"] = data["gt"].repeat(1, 2, 1, 1, 1)
    model.start_iteration(1, 0)
    with pytest.raises(OptionsError, match="sampling"):
        model.train_step(data)


def test_several_losses_with_weights(tmp_path: Path) -> None:
    model = make(losses={"a": {"type": "L1Loss", "weight": 2.0}, "b": {"type": "MSELoss", "weight": 0.5}})
    model.start_iteration(1, 0)
    data = batch()
    with torch.no_grad():
        restored = model.net.run(data["lq"])["restored"]
    terms = model.train_step(data)
    assert float(terms["a"]) == pytest.approx(2 * float((restored - data["gt"]).abs().mean()), rel=1e-5)
    assert float(terms["b"]) == pytest.approx(0.5 * float(((restored - data["gt"]) ** 2).mean()), rel=1e-5)
