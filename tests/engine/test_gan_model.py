"""Adversarial training: who is stepped when, on what, and what is saved."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deblurkit.errors import OptionsError
from deblurkit.models.gan_model import GANModel
from deblurkit.options import Options
from tests.engine.test_model import CPU, Small, batch


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


def test_a_step_is_what_one_writes_by_hand() -> None:
    model = make()
    g, d = copy.deepcopy(model.net), copy.deepcopy(model.networks["d"])
    optim_g, optim_d = (torch.optim.Adam(net.parameters(), lr=1e-3, fused=True) for net in (g, d))
    data = batch()
    lq, gt = data["lq"][:, 0], data["gt"][:, 0]
    bce = nn.BCEWithLogitsLoss()
    fake = g(lq)
    judged = d(fake)
    ((fake - gt).abs().mean() + 0.1 * bce(judged, torch.ones_like(judged))).backward()
    optim_g.step()
    d.zero_grad()
    real_logits, fake_logits = d(gt), d(fake.detach())
    (bce(real_logits, torch.ones_like(judged)) + bce(fake_logits, torch.zeros_like(judged))).backward()
    optim_d.step()
    step(model, 1, data)
    for ours, by_hand in ((model.net, g), (model.networks["d"], d)):
        for a, b in zip(ours.parameters(), by_hand.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


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


def test_accumulation_equals_the_whole_batch() -> None:
    whole, parts = make(), make(accumulate=2)
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
