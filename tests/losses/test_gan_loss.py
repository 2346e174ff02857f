from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, distributed, nn

import deblurkit
from deblurkit.losses.base import AdversarialLoss, DiscriminatorPenalty, Logits
from deblurkit.losses.gan_loss import GANLoss, GANType, GradientPenalty, R1Penalty, RelativisticGANLoss
from tests.support.losses import gradients

MAPPINGS: dict[str, dict[str, Any]] = {kind: {"type": "GANLoss", "gan_type": kind} for kind in get_args(GANType)}
MAPPINGS |= {f"ra-{kind}": {"type": "RelativisticGANLoss", "gan_type": kind} for kind in ("lsgan", "vanilla")}
PENALTIES: dict[str, dict[str, Any]] = {
    "gp-sample": {"type": "GradientPenalty"},
    "gp-batch": {"type": "GradientPenalty", "interpolation": "batch"},
    "r1": {"type": "R1Penalty"},
}


def build(mapping: dict[str, Any]) -> Any:
    return deblurkit.build_loss(mapping)


@pytest.mark.parametrize("kind", MAPPINGS)
def test_each_side_pulls_its_way(kind: str) -> None:
    loss = build(MAPPINGS[kind])
    assert isinstance(loss, AdversarialLoss)
    real, fake = (0.1 * torch.randn(2, 4, 1, 3, 3)).requires_grad_().unbind()
    for_real, for_fake = gradients([real, fake], loss.discriminator(real, fake))
    assert for_real.mean() < 0 < for_fake.mean()  # descending raises real logits and lowers fake ones
    (for_generator,) = gradients([fake], loss.generator(fake, real))
    assert for_generator.mean() < 0


@pytest.mark.parametrize("kind", MAPPINGS)
def test_gradients_are_finite_for_a_sure_discriminator(kind: str) -> None:
    loss = build(MAPPINGS[kind])
    real = torch.full((2, 1), 1e4, requires_grad=True)
    fake = torch.full((2, 1), -1e4, requires_grad=True)
    gradients([real, fake], loss.discriminator(real, fake))
    gradients([fake], loss.generator(fake, real))


@pytest.mark.parametrize("kind", MAPPINGS)
def test_several_scales_are_averaged_and_features_ignored(kind: str) -> None:
    def fresh() -> Any:
        scales = {"scales": 2} if kind.startswith("ra-") else {}
        return build({**MAPPINGS[kind], **scales})

    reals, fakes = (list(pair) for pair in torch.randn(2, 2, 3, 1, 4, 4).unbind(1))
    singles = [fresh() for _ in reals]
    loss = fresh()
    nested: tuple[Logits, Logits] = ([[torch.zeros(1), reals[0]], reals[1]], [[torch.zeros(1), fakes[0]], fakes[1]])
    expected = [one.discriminator(r, f).item() for one, r, f in zip(singles, reals, fakes, strict=True)]
    assert loss.discriminator(*nested).item() == pytest.approx(sum(expected) / 2, rel=1e-5)
    expected = [one.generator(f, r).item() for one, r, f in zip(singles, reals, fakes, strict=True)]
    assert loss.generator(fakes, reals).item() == pytest.approx(sum(expected) / 2, rel=1e-5)
    with pytest.raises(ValueError, match="2 and 1 scales"):
        loss.discriminator(reals, fakes[0])


@pytest.mark.parametrize("kind", MAPPINGS)
def test_full_precision_under_autocast(kind: str) -> None:
    real, fake = torch.randn(2, 3, 1, 4, 4).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = build(MAPPINGS[kind])
        assert loss.discriminator(real, fake).dtype == loss.generator(fake, real).dtype == torch.float32


def test_labels() -> None:
    x = torch.randn(2, 1, 4, 4)
    loss = GANLoss("lsgan", real_label=0.9, fake_label=0.1)
    torch.testing.assert_close(loss.generator(x), ((x - 0.9) ** 2).mean())
    torch.testing.assert_close(loss.discriminator(x, x), ((x - 0.9) ** 2).mean() + ((x - 0.1) ** 2).mean())


@pytest.mark.parametrize("gan_type", ["lsgan", "vanilla"])
def test_relativistic_losses_follow_the_last_pictures(gan_type: Any) -> None:
    loss = RelativisticGANLoss(gan_type, pool_size=5)
    reals: deque[Tensor] = deque(maxlen=5)
    fakes: deque[Tensor] = deque(maxlen=5)

    def distance(x: Tensor, real: bool) -> Tensor:
        if gan_type == "lsgan":
            return ((x - (1 if real else -1)) ** 2).mean()
        return nn.functional.binary_cross_entropy_with_logits(x, torch.full_like(x, float(real)))

    for _ in range(4):
        real, fake = torch.randn(2, 2, 1, 3, 3)
        reals.extend(real)
        fakes.extend(fake)
        mean_real, mean_fake = torch.stack([*reals]).mean(), torch.stack([*fakes]).mean()
        expected = (distance(real - mean_fake, True) + distance(fake - mean_real, False)) / 2
        torch.testing.assert_close(loss.discriminator(real, fake), expected)
        real, fake = torch.randn(2, 2, 1, 3, 3)
        expected = (distance(real - mean_fake, False) + distance(fake - mean_real, True)) / 2
        torch.testing.assert_close(loss.generator(fake, real), expected)


def test_without_a_pool_it_is_esrgans() -> None:
    """Means of the batch at hand; the generator's gradient goes through that of the fakes, the other one's does not."""
    bce = nn.functional.binary_cross_entropy_with_logits
    loss = RelativisticGANLoss("vanilla", pool_size=0)
    for _ in range(2):
        real, fake = torch.randn(2, 1, 3, 3), torch.randn(2, 1, 3, 3, requires_grad=True)
        ones, zeros = torch.ones_like(real), torch.zeros_like(real)
        expected = (bce(real - fake.mean(), zeros) + bce(fake - real.mean(), ones)) / 2
        found = loss.generator(fake, real)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(*(torch.autograd.grad(one, fake)[0] for one in (found, expected)))
        real.requires_grad_()
        expected = (bce(real - fake.detach().mean(), ones) + bce(fake - real.detach().mean(), zeros)) / 2
        found = loss.discriminator(real, fake)
        torch.testing.assert_close(found, expected)
        for one in (real, fake):
            torch.testing.assert_close(
                *(torch.autograd.grad(value, one, retain_graph=True)[0] for value in (found, expected))
            )


def test_the_history_is_saved() -> None:
    first, second = RelativisticGANLoss(), RelativisticGANLoss()
    for _ in range(3):
        first.discriminator(*torch.randn(2, 4, 1, 3, 3))
    second.load_state_dict(first.state_dict())
    for _ in range(20):
        real, fake = torch.randn(2, 4, 1, 3, 3)
        assert first.discriminator(real, fake) == second.discriminator(real, fake)
        assert first.generator(fake, real) == second.generator(fake, real)


def test_the_generator_may_come_first() -> None:
    real, fake = torch.randn(2, 4, 1, 3, 3)
    expected = (((real - fake.mean() + 1) ** 2).mean() + ((fake - real.mean() - 1) ** 2).mean()) / 2
    loss = RelativisticGANLoss()
    torch.testing.assert_close(loss.generator(fake, real), expected)
    assert loss.real_pool.isnan().all()


def test_a_picture_without_a_value_does_not_stay_in_the_history() -> None:
    loss = RelativisticGANLoss()
    assert loss.discriminator(torch.full((1, 1), torch.nan), torch.zeros(1, 1)).isnan()
    assert loss.discriminator(torch.ones(1, 1), torch.zeros(1, 1)).isfinite()


def test_the_history_is_that_of_all_processes(tmp_path: Path) -> None:
    real, fake = torch.randn(2, 4, 1, 3, 3)
    expected = RelativisticGANLoss()
    expected.discriminator(real, fake)
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        found = RelativisticGANLoss()
        found.discriminator(real, fake)
    finally:
        distributed.destroy_process_group()
    torch.testing.assert_close(found.real_pool, expected.real_pool, equal_nan=True)
    torch.testing.assert_close(found.fake_pool, expected.fake_pool, equal_nan=True)


def test_what_relativistic_losses_need() -> None:
    loss = RelativisticGANLoss()
    assert loss.needs_real
    assert not GANLoss("lsgan").needs_real
    with pytest.raises(ValueError, match="needs the discriminator's logits of the real frames"):
        loss.generator(torch.zeros(1, 1))
    with pytest.raises(ValueError, match="more than 1 scales: set `scales`"):
        loss.discriminator([torch.zeros(1, 1)] * 2, [torch.zeros(1, 1)] * 2)


def linear(weight: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda frames: (frames * weight).flatten(1).sum(dim=1)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 2, 3, 4, 5)])
def test_penalties_of_a_linear_discriminator(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape[1:]).requires_grad_()
    real, fake = torch.rand(2, *shape)
    norms = torch.linalg.vector_norm(weight, dim=-3)
    for mapping in (PENALTIES["gp-sample"], PENALTIES["gp-batch"]):
        torch.testing.assert_close(build(mapping)(linear(weight), real, fake), ((norms - 1) ** 2).mean())
    found = R1Penalty()(linear(weight), real, fake)
    torch.testing.assert_close(found, (weight**2).sum())
    torch.testing.assert_close(gradients([weight], found)[0], 2 * weight.detach())


@pytest.mark.parametrize(("interpolation", "shares"), [("sample", 6), ("batch", 1)])
def test_where_the_gradient_is_taken(interpolation: Any, shares: int) -> None:
    seen: list[Tensor] = []

    def discriminator(frames: Tensor) -> Tensor:
        seen.append(frames.detach())
        return frames.sum()

    GradientPenalty(interpolation)(discriminator, torch.ones(6, 3, 4, 4), torch.zeros(6, 3, 4, 4))
    values = seen[0][:, 0, 0, 0]
    assert torch.equal(seen[0], values.view(6, 1, 1, 1).expand(6, 3, 4, 4))
    assert len(values.unique()) == shares
    assert ((values >= 0) & (values < 1)).all()


@pytest.mark.parametrize("kind", PENALTIES)
def test_penalties_teach_the_discriminator(kind: str) -> None:
    penalty = build(PENALTIES[kind])
    assert isinstance(penalty, DiscriminatorPenalty)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))
    real, fake = torch.rand(2, 2, 3, 8, 8).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = penalty(lambda frames: [net(frames), net(frames)], real, fake)
    assert value.dtype == torch.float32
    weights = [parameter for name, parameter in net.named_parameters() if name.endswith("weight")]
    assert all(gradient.any() for gradient in gradients(weights, value))
    # a discriminator that does not see the frames at all: no slope, and no NaN
    blind = [torch.zeros(1, 3, 1, 1, requires_grad=True)]
    gradients(blind, penalty(lambda frames: frames * blind[0], real, fake))
    with pytest.raises(ValueError, match="equal shapes"):
        penalty(net, real, fake[:1])


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"type": "GANLoss"}, "gan_type: missing"),
        ({"type": "GANLoss", "gan_type": "dcgan"}, "gan_type: should be 'vanilla'"),
        ({"type": "RelativisticGANLoss", "gan_type": "hinge"}, "gan_type: should be 'lsgan' or 'vanilla'"),
        ({"type": "RelativisticGANLoss", "pool_size": -1}, "should be at least 0 and 1, got -1 and 1"),
        ({"type": "GradientPenalty", "interpolation": "pixel"}, "interpolation: should be 'sample' or 'batch'"),
    ],
)
def test_wrong_mappings_are_refused(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(deblurkit.DeblurkitError, match=message):
        build(mapping)
