"""Adversarial training: who is stepped when, on what, and what is saved."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deblurkit.build import build_discriminator
from deblurkit.engine.checkpoint import config_of
from deblurkit.errors import OptionsError
from deblurkit.models.discriminators import Discriminators
from deblurkit.models.gan_model import GANModel
from deblurkit.options import Options, load_options
from tests.engine.test_model import CPU, Small, batch
from tests.support.runs import write_options


class Judge(nn.Module):
    """Two convolutions to a map of logits."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.last = nn.Conv2d(4, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


def make(networks: dict[str, nn.Module] | None = None, **train: Any) -> GANModel:
    torch.manual_seed(0)
    options = Options.model_validate(
        {
            "schema": "deblurkit/1",
            "name": "small",
            "model_type": "GANModel",
            "datasets": {"train": {"type": "VideoDataset"}},
            "network_g": {"type": "Small"},
            "network_d": {"type": "Judge"},
            "train": {
                "total_iter": 10,
                "optim_g": {"type": "Adam", "lr": 1e-3},
                "optim_d": {"type": "Adam", "lr": 1e-3},
                "losses": {"pixel": {"type": "L1Loss"}},
                "gan": {"type": "GANLoss", "gan_type": "vanilla", "weight": 0.1},
                **train,
            },
        }
    )
    return GANModel(options, networks if networks is not None else {"g": Small(), "d": Judge()}, CPU)


def step(model: GANModel, iteration: int, data: dict[str, Tensor] | None = None) -> dict[str, float]:
    model.start_iteration(iteration, iteration - 1)
    terms = {name: float(term) for name, term in model.train_step(data or batch()).items()}
    model.finish_iteration()
    return terms


def weights(net: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def moved(net: nn.Module, before: list[Tensor]) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(net.parameters(), before, strict=True))


@pytest.mark.parametrize("first", ["generator", "discriminator"])
def test_a_step_is_what_one_writes_by_hand(first: str) -> None:
    model = make(gan={"type": "GANLoss", "gan_type": "vanilla", "weight": 0.1, "step_first": first})
    g, d = copy.deepcopy(model.net), copy.deepcopy(model.networks["d"])
    optim_g, optim_d = (torch.optim.Adam(net.parameters(), lr=1e-3, fused=True) for net in (g, d))
    data = batch()
    lq, gt = data["lq"][:, 0], data["gt"][:, 0]
    bce = nn.BCEWithLogitsLoss()
    fake = g(lq)

    def step_generator() -> None:
        judged = d(fake)
        ((fake - gt).abs().mean() + 0.1 * bce(judged, torch.ones_like(judged))).backward()
        optim_g.step()

    def step_discriminator() -> None:
        d.zero_grad()
        real_logits, fake_logits = d(gt), d(fake.detach())
        (bce(real_logits, torch.ones_like(real_logits)) + bce(fake_logits, torch.zeros_like(real_logits))).backward()
        optim_d.step()

    steps = (step_generator, step_discriminator)
    for one in steps if first == "generator" else reversed(steps):
        one()
    step(model, 1, data)
    for ours, by_hand in ((model.net, g), (model.networks["d"], d)):
        for a, b in zip(ours.parameters(), by_hand.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_the_discriminator_first_waits_for_no_generator() -> None:
    """In iterations without a step of the generator its forward pass leaves no graph, and its weights stay."""
    gan = {"type": "GANLoss", "gan_type": "vanilla", "net_d_iters": 3, "step_first": "discriminator"}
    model = make(gan=gan)
    for iteration in range(1, 7):
        g, d = weights(model.net), weights(model.networks["d"])
        assert ("gan" in step(model, iteration)) == moved(model.net, g) == (iteration % 3 == 0)
        assert moved(model.networks["d"], d)


def test_generator_waits_and_is_stepped_at_every_so_many_th_iteration() -> None:
    model = make(gan={"type": "GANLoss", "gan_type": "wgan", "net_d_iters": 2, "net_d_init_iters": 2})
    stepped = []
    for iteration in range(1, 7):
        g, d = weights(model.net), weights(model.networks["d"])
        terms = step(model, iteration)
        stepped.append(moved(model.net, g))
        assert moved(model.networks["d"], d)
        assert ("gan" in terms) == stepped[-1]
    assert stepped == [False, False, False, True, False, True]


@pytest.mark.parametrize("first", ["generator", "discriminator"])
def test_accumulation_equals_the_whole_batch(first: str) -> None:
    gan = {"type": "GANLoss", "gan_type": "vanilla", "weight": 0.1, "step_first": first}
    whole, parts = make(gan=gan), make(gan=gan, accumulate=2)
    for iteration in range(1, 4):
        a, b = step(whole, iteration), step(parts, iteration)
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)


def test_penalty_is_added_and_reaches_the_discriminator_only() -> None:
    gan = {"type": "GANLoss", "gan_type": "wgan", "weight": 1e-3}
    plain = make(gan=gan)
    penalised = make(gan={**gan, "penalties": {"gp": {"type": "GradientPenalty", "weight": 10.0}}})
    terms = step(penalised, 1)
    assert terms["d_gp"] > 0
    assert "d_gp" not in step(plain, 1)
    assert moved(penalised.networks["d"], weights(plain.networks["d"]))
    assert not moved(penalised.net, weights(plain.net))


def test_relativistic_loss_keeps_its_pools_over_a_restart() -> None:
    gan = {"type": "RelativisticGANLoss", "weight": 0.01}
    first = make(gan=gan)
    for iteration in range(1, 4):
        step(first, iteration)
    second = make(gan=gan)
    for role in ("g", "d"):
        second.networks[role].load_state_dict(first.networks[role].state_dict())
    second.load_state(copy.deepcopy(first.state()))
    assert step(first, 4) == step(second, 4)


def test_clips_are_judged_frame_by_frame() -> None:
    model = make()
    data = {key: value.repeat(1, 3, 1, 1, 1) for key, value in batch().items()}
    terms = step(model, 1, data)
    assert set(terms) == {"pixel", "gan", "d"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gan": None}, "needs network_d, train.gan and train.optim_d"),
        ({"optim_d": None}, "needs network_d, train.gan and train.optim_d"),
        ({"gan": {"type": "L1Loss"}}, "train.gan.type: L1Loss is no AdversarialLoss"),
        ({"losses": {"pixel": {"type": "GANLoss", "gan_type": "wgan"}}}, "GANLoss does not compare frames"),
        ({"losses": {"ldl": {"type": "LDLLoss"}}}, "needs averaged frames"),
    ],
)
def test_what_does_not_fit_is_explained(change: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionsError, match=words):
        make(**change)


def test_a_missing_discriminator_is_explained() -> None:
    with pytest.raises(OptionsError, match="network_d"):
        make({"g": Small()})


def test_averaged_frames_reach_the_loss_that_needs_them() -> None:
    model = make(losses={"pixel": {"type": "L1Loss"}, "ldl": {"type": "LDLLoss"}}, ema_decay=0.5)
    terms = [step(model, iteration) for iteration in range(1, 4)]
    assert all(0 < term["ldl"] < 1 for term in terms)


class Seen(nn.Module):
    """Remembers what it was shown; says its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.frames: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.frames.append(x.detach().clone())
        return self.weight * x.mean((1, 2, 3))


def test_several_discriminators_count_with_their_mean() -> None:
    one, two = Judge(), Judge()
    model = make({"g": Small(), "d": Discriminators({"full": one, "patch": two}, {})})
    g, data = copy.deepcopy(model.net), batch()
    lq, gt = data["lq"][:, 0], data["gt"][:, 0]
    bce = nn.BCEWithLogitsLoss()

    def judged(frames: Tensor, real: bool) -> Tensor:
        logits = [critic(frames) for critic in (one, two)]
        return sum(bce(x, torch.full_like(x, float(real))) for x in logits) / 2

    expected = {"gan": 0.1 * judged(g(lq), True), "d": judged(gt, True) + judged(g(lq), False)}
    found = step(model, 1, data)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value.item(), rel=1e-5)


def test_discriminators_see_their_range_and_their_square() -> None:
    full, patch = Seen(), Seen()
    gan = {"type": "GANLoss", "gan_type": "wgan", "input_range": [-1.0, 1.0], "crops": {"patch": 5}}
    model = make({"g": Small(), "d": Discriminators({"full": full, "patch": patch}, {"patch": 5})}, gan=gan)
    data = batch()
    step(model, 1, data)
    generated, real, fake = full.frames
    torch.testing.assert_close(real, data["gt"][:, 0] * 2 - 1)
    torch.testing.assert_close(generated, fake)
    squares = patch.frames
    assert {tuple(x.shape[-2:]) for x in squares} == {(5, 5)}
    places = [
        [(y, x) for y in range(real.shape[-2] - 4) for x in range(real.shape[-1] - 4)
         if torch.equal(whole[..., y : y + 5, x : x + 5], square)]
        for whole, square in zip(full.frames, squares, strict=True)
    ]  # fmt: skip
    assert places[0] == places[1] == places[2]
    assert len(places[0]) == 1
    again = []
    for iteration in range(2, 12):
        patch.frames.clear()
        full.frames.clear()
        step(model, iteration, data)
        again.append(float(patch.frames[1].sum()))
    assert len({round(total, 4) for total in again}) > 3  # the square moves


def test_options_of_several_discriminators(tmp_path: Path) -> None:
    judges = {"full": {"type": "NLayerDiscriminator", "ndf": 4}, "patch": {"type": "NLayerDiscriminator", "ndf": 4}}
    net = build_discriminator(judges, {"patch": 32})
    assert isinstance(net, Discriminators)
    assert [out.shape[1] for out in net(torch.rand(1, 3, 64, 64))] == [1, 1]
    assert config_of(net) == judges
    with pytest.raises(OptionsError, match=r"crops.pach: no discriminator .* did you mean 'patch'"):
        build_discriminator(judges, {"pach": 32})
    with pytest.raises(OptionsError, match="is for several discriminators"):
        build_discriminator(judges["full"], {"patch": 32})
    path = write_options(tmp_path / "o.yml", tmp_path, network_d={"full": {"type": "NLayerDiscriminator", "nfd": 4}})
    with pytest.raises(OptionsError, match=r"network_d.full.nfd: unknown argument of NLayerDiscriminator"):
        load_options(path)
    path = write_options(tmp_path / "o.yml", tmp_path, network_d={"full": {"ndf": 4}})
    with pytest.raises(OptionsError, match="network_d: has a `type`, or several discriminators by name"):
        load_options(path)
