"""Supervised restoration: outputs of one network against the sharp frames."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.build import build_loss
from deblurkit.contract import Output
from deblurkit.engine.launch import Place
from deblurkit.errors import OptionsError, did_you_mean
from deblurkit.models.base import Batch, Model, Terms
from deblurkit.options import Options
from deblurkit.registry import MODEL_REGISTRY


@MODEL_REGISTRY.register()
class RestorationModel(Model):
    """Trains `network_g` on the weighted sum of `train.losses`, each looking at one of the network's outputs.

    Raises:
        OptionsError: a loss looks at an output that the network does not have.
    """

    def __init__(self, options: Options, networks: Mapping[str, nn.Module], place: Place) -> None:
        super().__init__(options, networks, place)
        train = self.train_options
        self.add_stepper("optim_g", train.optim_g, self.net)
        self.losses = {
            name: (build_loss(loss.mapping()).to(place.device), loss.weight, loss.output)
            for name, loss in train.losses.items()
        }
        entry = options.datasets.get("train")
        for size in (entry.gt_sizes or [entry.gt_size]) if entry else []:
            if size is not None:  # all stages of a schedule now, not when they begin
                self._check_crop(size // self.net.contract.scale, size // self.net.contract.scale)
        known = [output.name for output in self.net.contract.outputs]
        for name, (_, _, output) in self.losses.items():
            if output not in known:
                hint = did_you_mean(output, known) or f"; it has {', '.join(known)}"
                raise OptionsError(
                    f"train.losses.{name}.output: {type(self.net).__name__} has no output {output!r}{hint}"
                )

    def train_step(self, batch: Batch) -> Terms:
        """See `Model.train_step`; the terms are reported with their weights applied."""
        return self.optimise("optim_g", "g", batch, self.terms)

    def terms(self, batch: Batch) -> Terms:
        """The weighted loss terms of a batch."""
        x = self._input(batch["lq"])
        outputs = self.runners["g"](x)
        terms = {}
        for name, (loss, weight, output) in self.losses.items():
            target = self._target(batch["gt"], outputs[output], self._output(output), x)
            terms[name] = weight * loss(outputs[output].float(), target)
        return terms

    def _output(self, name: str) -> Output:
        return next(output for output in self.net.contract.outputs if output.name == name)

    def _input(self, lq: Tensor) -> Tensor:
        """The frames as the network takes them."""
        contract = self.net.contract
        if contract.kind == "window" and lq.shape[1] != contract.frames:
            raise OptionsError(
                f"datasets.train gives {lq.shape[1]} frames a sample, but {type(self.net).__name__} takes windows of "
                f"{contract.frames}: set num_frame to {contract.frames}"
            )
        self._check_crop(*lq.shape[-2:])
        return lq

    def _check_crop(self, height: int, width: int) -> None:
        contract = self.net.contract
        if contract.padded_size(height, width) != (height, width):
            raise OptionsError(
                f"datasets.train gives crops of {height}x{width}, but {type(self.net).__name__} takes multiples of "
                f"{contract.sizes}, at least {contract.min_size}{' and square' if contract.square else ''}: "
                "change gt_size"
            )

    def _target(self, gt: Tensor, restored: Tensor, output: Output, x: Tensor) -> Tensor:
        """The sharp frames that belong to an output, at its size.

        Outputs at a smaller scale are compared with a bilinearly reduced ground truth (SRN, MIMO-UNet).
        """
        contract = self.net.contract
        if restored.ndim == 4:  # one frame a sample
            if gt.shape[1] == 1:
                gt = gt[:, 0]
            elif gt.shape[1] == x.shape[1]:
                gt = gt[:, contract.target]
        elif gt.shape[1] != restored.shape[1] and gt.shape[1] == x.shape[1]:
            past, future = contract.context
            gt = gt[:, past : gt.shape[1] - future]
        if gt.shape[:-2] != restored.shape[:-2]:
            raise OptionsError(
                f"{type(self.net).__name__} restores {tuple(restored.shape)} (output {output.name!r}) from "
                f"{tuple(x.shape)}, but datasets.train gives sharp frames {tuple(gt.shape)}: choose another `sampling`"
            )
        if gt.shape[-2:] != restored.shape[-2:]:
            flat = gt.flatten(0, -4)
            flat = F.interpolate(flat, size=restored.shape[-2:], mode="bilinear", align_corners=False)
            gt = flat.view(*gt.shape[:-2], *restored.shape[-2:])
        return gt
