"""Adversarial losses and penalties on the discriminator's gradient; x are its logits.

Sources: `XPixelGroup/BasicSR@8d56e3a` (GANLoss, GradientPenalty per sample, R1Penalty),
`VITA-Group/DeblurGANv2@c16bd9f` (RelativisticGANLoss), `KupynOrest/DeblurGAN@2499a87` (GradientPenalty per batch).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, distributed
from torch.nn import functional as F

from deblurkit.losses.base import AdversarialLoss, DiscriminatorPenalty, Logits, chosen, gradient_of
from deblurkit.registry import LOSS_REGISTRY

GANType = Literal["vanilla", "lsgan", "l1", "wgan", "wgan_softplus", "hinge"]
RelativisticType = Literal["lsgan", "vanilla"]
Interpolation = Literal["sample", "batch"]


@LOSS_REGISTRY.register()
class GANLoss(AdversarialLoss):
    """The usual GAN losses, all means; BasicSR's GANLoss and, for a list of logits, its MultiScaleGANLoss.

    | gan_type | discriminator: real + fake | generator |
    |---|---|---|
    | vanilla | BCE(sigmoid(x), 1) + BCE(sigmoid(x), 0) | BCE(sigmoid(x), 1) |
    | lsgan | (x - 1)^2 + x^2 | (x - 1)^2 |
    | l1 | abs(x - 1) + abs(x), what DeblurGAN and DeblurGAN-v2 call lsgan | abs(x - 1) |
    | wgan | -x + x | -x |
    | wgan_softplus | softplus(-x) + softplus(x) | softplus(-x) |
    | hinge | relu(1 - x) + relu(1 + x) | -x |

    Args:
        gan_type: see above. real_label, fake_label: the 1 and 0 of vanilla, lsgan and l1.
    """

    def __init__(self, gan_type: GANType, real_label: float = 1.0, fake_label: float = 0.0) -> None:
        super().__init__()
        self.gan_type: GANType = chosen("gan_type", gan_type, get_args(GANType))
        self.labels = {True: real_label, False: fake_label}

    def generator_term(self, fake: Tensor, real: Tensor | None, scale: int) -> Tensor:
        """See `AdversarialLoss.generator_term`."""
        return -fake.mean() if self.gan_type == "hinge" else self._judged(fake, as_real=True)

    def discriminator_term(self, real: Tensor, fake: Tensor, scale: int) -> Tensor:
        """See `AdversarialLoss.discriminator_term`."""
        return self._judged(real, as_real=True) + self._judged(fake, as_real=False)

    def _judged(self, logits: Tensor, as_real: bool) -> Tensor:
        """How far the logits are from what they should be."""
        if self.gan_type == "vanilla":
            return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, self.labels[as_real]))
        if self.gan_type == "lsgan":
            return ((logits - self.labels[as_real]) ** 2).mean()
        if self.gan_type == "l1":
            return (logits - self.labels[as_real]).abs().mean()
        wrong = -logits if as_real else logits
        if self.gan_type == "wgan_softplus":
            return F.softplus(wrong).mean()
        return F.relu(1 + wrong).mean() if self.gan_type == "hinge" else wrong.mean()


@LOSS_REGISTRY.register()
class RelativisticGANLoss(AdversarialLoss):
    """Real frames should look more real than the average fake, and fakes less than the average real one (RaGAN).

    With R, F the means over the last `pool_size` real and fake pictures that the discriminator was trained on, or with
    `pool_size` 0 over those at hand (ESRGAN; in the generator's loss a gradient reaches F then):

        discriminator: [d(real - F, 1) + d(fake - R, -1)] / 2        generator: [d(real - F, -1) + d(fake - R, 1)] / 2

    lsgan: d(x, t) = mean (x - t)^2, DeblurGAN-v2's "ragan-ls"; vanilla: d = BCE with logits, -1 standing for the label
    0, its "ragan". The discriminator's pictures enter the pools before R and F are taken. The pools are buffers, so
    they are saved with the state; in a training of several processes they hold the pictures of all of them.

    Args:
        gan_type: "lsgan" or "vanilla". pool_size: pictures; 0: no pool.
        scales: of the discriminator; each has pools of its own.
    """

    needs_real: ClassVar[bool] = True

    real_pool: Tensor
    fake_pool: Tensor

    def __init__(self, gan_type: RelativisticType = "lsgan", pool_size: int = 50, scales: int = 1) -> None:
        super().__init__()
        if pool_size < 0 or scales < 1:
            raise ValueError(f"pool_size and scales: should be at least 0 and 1, got {pool_size} and {scales}")
        self.gan_type: RelativisticType = chosen("gan_type", gan_type, get_args(RelativisticType))
        self.pool_size = pool_size
        for name in ("real_pool", "fake_pool"):  # the mean logit of each picture, oldest first; NaN: not filled yet
            self.register_buffer(name, torch.full((scales, pool_size), torch.nan))

    def generator_term(self, fake: Tensor, real: Tensor | None, scale: int) -> Tensor:
        """See `AdversarialLoss.generator_term`."""
        assert real is not None  # `generator` has seen to it
        if self.pool_size == 0:
            return self._relative(real, fake, real.mean(), fake.mean(), -1.0)
        return self._relative(real, fake, *self._pooled(real, fake, scale), -1.0)

    def discriminator_term(self, real: Tensor, fake: Tensor, scale: int) -> Tensor:
        """See `AdversarialLoss.discriminator_term`."""
        if scale >= len(self.real_pool):
            raise ValueError(
                f"the discriminator has more than {len(self.real_pool)} scales: set `scales` to their number"
            )
        for pool, logits in ((self.real_pool, real), (self.fake_pool, fake)):
            if self.pool_size:
                new = _of_all_processes(logits.detach().flatten(1).mean(dim=1)).to(pool)
                pool[scale] = torch.cat([pool[scale], new])[-self.pool_size :]
        return self._relative(real, fake, *self._pooled(real, fake, scale), 1.0)

    def _pooled(self, real: Tensor, fake: Tensor, scale: int) -> tuple[Tensor, Tensor]:
        """R and F; no gradient."""
        return _pool_mean(self.real_pool[scale], real), _pool_mean(self.fake_pool[scale], fake)

    def _relative(self, real: Tensor, fake: Tensor, reals: Tensor, fakes: Tensor, target: float) -> Tensor:
        above_fakes, above_reals = real - fakes, fake - reals
        return (self._distance(above_fakes, target) + self._distance(above_reals, -target)) / 2

    def _distance(self, x: Tensor, target: float) -> Tensor:
        if self.gan_type == "lsgan":
            return ((x - target) ** 2).mean()
        return F.softplus(-target * x).mean()  # BCE with logits against 1 or 0


def _pool_mean(pool: Tensor, logits: Tensor) -> Tensor:
    """The mean of what is in a pool; of the logits at hand as long as there is nothing."""
    mean = pool.nanmean()
    return torch.where(mean.isnan(), logits.detach().mean(), mean)


def _of_all_processes(values: Tensor) -> Tensor:
    """The values of every process, in the order of their ranks."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    gathered = [torch.empty_like(values) for _ in range(distributed.get_world_size())]
    distributed.all_gather(gathered, values)
    return torch.cat(gathered)


@LOSS_REGISTRY.register()
class GradientPenalty(DiscriminatorPenalty):
    """WGAN-GP: mean of (|grad D(a real + (1 - a) fake)| - 1)^2 with a random a in [0, 1); usual weight 10.

    |.| is the norm over the channels of one pixel, as in the repositories, not over the picture as in the paper
    (Gulrajani et al., NeurIPS 2017).

    Args:
        interpolation: one a for each "sample" (BasicSR) or one for the whole "batch" (DeblurGAN, DeblurGAN-v2).
    """

    def __init__(self, interpolation: Interpolation = "sample") -> None:
        super().__init__()
        self.interpolation: Interpolation = chosen("interpolation", interpolation, get_args(Interpolation))

    def penalty(self, discriminator: Callable[[Tensor], Logits], real: Tensor, fake: Tensor) -> Tensor:
        """See `DiscriminatorPenalty.forward`."""
        count = real.shape[0] if self.interpolation == "sample" else 1
        share = torch.rand(count, *[1] * (real.ndim - 1), dtype=real.dtype, device=real.device)
        mixed = (share * real + (1 - share) * fake).requires_grad_()
        norms = torch.linalg.vector_norm(gradient_of(discriminator(mixed), mixed), dim=-3)
        return ((norms - 1) ** 2).mean()


@LOSS_REGISTRY.register()
class R1Penalty(DiscriminatorPenalty):
    """Mean over the batch of |grad D(real)|^2, without the customary 1/2 (Mescheder et al., ICML 2018)."""

    def penalty(self, discriminator: Callable[[Tensor], Logits], real: Tensor, fake: Tensor) -> Tensor:
        """See `DiscriminatorPenalty.forward`."""
        judged = real.clone().requires_grad_()
        return (gradient_of(discriminator(judged), judged) ** 2).flatten(1).sum(dim=1).mean()
