"""Adversarial training: a generator that restores, and a discriminator that tells restored from sharp frames."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from deblurkit.build import build_loss
from deblurkit.engine.launch import Place
from deblurkit.errors import OptionsError
from deblurkit.losses.base import AdversarialLoss, DiscriminatorPenalty
from deblurkit.models.base import Batch, Terms
from deblurkit.models.discriminators import Discriminators
from deblurkit.models.restoration_model import RestorationModel
from deblurkit.network import Network
from deblurkit.options import Options
from deblurkit.registry import MODEL_REGISTRY


class _Judgement(nn.Module):
    """The discriminator's whole loss as one `forward`, so that DDP sees one forward and one backward pass."""

    def __init__(
        self, net: nn.Module, gan: AdversarialLoss, penalties: Mapping[str, tuple[DiscriminatorPenalty, float]]
    ) -> None:
        super().__init__()
        self.net = net
        # not as submodules: the adversarial loss may have buffers of its own, which belong to every process
        self.__dict__["_parts"] = (gan, dict(penalties))

    def forward(self, real: Tensor, fake: Tensor, weight: float) -> Terms:
        gan, penalties = self.__dict__["_parts"]
        terms = {"d": weight * gan.discriminator(self.net(real), self.net(fake))}
        for name, (penalty, factor) in penalties.items():
            terms[f"d_{name}"] = factor * penalty(self.net, real, fake)
        return terms


@MODEL_REGISTRY.register()
class GANModel(RestorationModel):
    """`RestorationModel` with an adversarial term (`train.gan`) and a discriminator (`network_d`, `train.optim_d`).

    A step as in BasicSR's SRGANModel: the generator on its losses and the adversarial term, the discriminator fixed;
    then the discriminator on sharp and (detached) restored frames. With `step_first: discriminator` the discriminator
    comes first, on the same restored frames, and judges them anew for the generator.

    A discriminator sees single frames `(N, C, H, W)`; the frames of clips are taken one by one. There may be several
    discriminators (`Discriminators`): their losses' mean counts, and one optimiser has them all.

    Raises:
        OptionsError: `network_d`, `train.optim_d` or `train.gan` is missing, or its type is no adversarial loss.
    """

    sections = ("gan",)

    def __init__(self, options: Options, networks: Mapping[str, nn.Module], place: Place) -> None:
        train = options.training()
        if "d" not in networks or train.gan is None or train.optim_d is None:
            raise OptionsError("model_type: GANModel needs network_d, train.gan and train.optim_d")
        if train.truncate and cast(Network, networks["g"]).contract.kind == "stream":
            raise OptionsError("train.truncate: a GANModel's stream network takes clips as a whole; leave it out")
        self.gan_options = train.gan
        self.gan = cast(AdversarialLoss, _built(train.gan.mapping(), AdversarialLoss, "train.gan", place))
        self.penalties = {
            name: (
                cast(
                    DiscriminatorPenalty,
                    _built(entry.mapping(), DiscriminatorPenalty, f"train.gan.penalties.{name}", place),
                ),
                entry.weight,
            )
            for name, entry in train.gan.penalties.items()
        }
        super().__init__(options, networks, place)
        self._check_output("train.gan.output", train.gan)
        self.add_stepper("optim_d", train.optim_d, self.networks["d"])

    def train_step(self, batch: Batch) -> Terms:
        """See `Model.train_step`."""
        settings, judge = self.gan_options, self.networks["d"]
        due = self.iteration > settings.net_d_init_iters and self.iteration % settings.net_d_iters == 0
        judge_first = settings.step_first == "discriminator"
        pairs: list[tuple[Tensor, Tensor]] = []  # sharp and restored, of a generator that was stepped already
        restored: list[Terms] = []  # with the graph for a generator that is stepped after
        if isinstance(judge, Discriminators):
            judge.draw()

        def generator_terms(part: Batch) -> Terms:
            outputs = restored.pop() if restored else self.runners["g"](self._input(part["lq"]))
            fake, real = self._judged(outputs, part)
            if not judge_first:
                pairs.append((real, fake.detach()))
            judged = judge(real) if self.gan.needs_real else None
            adversarial = settings.weight * self.gan.generator(judge(fake), judged)
            return {**self._loss_terms(outputs, part), "gan": adversarial}

        def discriminator_terms(part: Batch) -> Terms:
            # of a batch in parts each is restored twice: their graphs together might not fit into the memory
            keep = due and judge_first and self.train_options.accumulate == 1
            if pairs:
                real, fake = pairs.pop(0)
            else:
                with contextlib.nullcontext() if keep else torch.no_grad():
                    outputs = self.runners["g"](self._input(part["lq"]))
                    fake, real = self._judged(outputs, part)
                if keep:
                    restored.append(outputs)
            return cast(Terms, self.runners["d"](real, fake.detach(), settings.discriminator_weight))

        def step_generator() -> Terms:
            if not due:
                return {}
            judge.requires_grad_(False)
            terms = self.optimise("optim_g", "g", batch, generator_terms)
            judge.requires_grad_(True)
            return terms

        if judge_first:
            judged = self.optimise("optim_d", "d", batch, discriminator_terms)
            return {**step_generator(), **judged}
        return {**step_generator(), **self.optimise("optim_d", "d", batch, discriminator_terms)}

    def _judged(self, outputs: Terms, part: Batch) -> tuple[Tensor, Tensor]:
        """Restored and sharp frames `(N, C, H, W)` as the discriminators see them."""
        black, white = self.gan_options.input_range
        restored, sharp = (frames.flatten(0, -4) for frames in self._pair(outputs, part, self.gan_options))
        if (black, white) == (0.0, 1.0):
            return restored, sharp
        return restored * (white - black) + black, sharp * (white - black) + black

    def state(self) -> dict[str, Any]:
        """With the adversarial loss's own state (pools of earlier judgements)."""
        return {**super().state(), "gan": self.gan.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put `state()` of an earlier process back."""
        super().load_state(state)
        self.gan.load_state_dict(state["gan"])

    def _runner(self, role: str, net: nn.Module) -> nn.Module:
        return _Judgement(net, self.gan, self.penalties) if role == "d" else super()._runner(role, net)


def _built(mapping: Mapping[str, Any], kind: type[nn.Module], key: str, place: Place) -> nn.Module:
    loss = cast(nn.Module, build_loss(mapping)).to(place.device)
    if not isinstance(loss, kind):
        raise OptionsError(f"{key}.type: {mapping['type']} is no {kind.__name__}")
    return loss
