"""Supervised restoration: outputs of one network against the sharp frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.build import build_loss
from deblurkit.contract import Output
from deblurkit.engine.launch import Place
from deblurkit.errors import OptionsError, did_you_mean
from deblurkit.losses.base import Loss
from deblurkit.models.base import Batch, Model, Terms
from deblurkit.network import State
from deblurkit.options import LooksAt, Options
from deblurkit.registry import MODEL_REGISTRY

#: The entry of a piece of a batch that goes on where the one before ended.
_CONTINUES = "continues"


@MODEL_REGISTRY.register()
class RestorationModel(Model):
    """Trains `network_g` on the weighted sum of `train.losses`, each looking at one of the network's outputs.

    Class attributes that a model may set:
        sections: which of `train.gan` and `train.contrastive` it uses; others would be ignored, so they are errors.

    Raises:
        OptionsError: a loss looks at an output that the network does not have, or a section that nothing uses.
    """

    sections: ClassVar[tuple[str, ...]] = ()

    def __init__(self, options: Options, networks: Mapping[str, nn.Module], place: Place) -> None:
        super().__init__(options, networks, place)
        train = self.train_options
        for section in ("gan", "contrastive"):
            if getattr(train, section) is not None and section not in self.sections:
                raise OptionsError(
                    f"train.{section}: a {type(self).__name__} has no use for it; should model_type be another one?"
                )
        self.add_stepper("optim_g", train.optim_g, self.net)
        self.losses = {name: (build_loss(loss.mapping()).to(place.device), loss) for name, loss in train.losses.items()}
        entry = options.datasets.get("train")
        sizes = [entry.gt_size, *entry.gt_sizes] if entry else []
        for size in filter(None, sizes):  # all stages of a schedule now, not when they begin
            self._check_crop(size // self.net.contract.scale, size // self.net.contract.scale)
        for name, (loss, looks_at) in self.losses.items():
            self._check_output(f"train.losses.{name}.output", looks_at)
            if not isinstance(loss, Loss):
                raise OptionsError(
                    f"train.losses.{name}.type: {type(loss).__name__} does not compare frames with frames"
                )
            if set(loss.needs) - ({"averaged"} if self.averages else set()):
                raise OptionsError(
                    f"train.losses.{name}.type: {type(loss).__name__} needs {', '.join(loss.needs)} frames; averaged "
                    "ones come with train.ema_decay"
                )

    def train_step(self, batch: Batch) -> Terms:
        """See `Model.train_step`; the terms are reported with their weights applied."""
        return self.optimise("optim_g", "g", batch, self.terms)

    def terms(self, batch: Batch) -> Terms:
        """The weighted loss terms of a batch."""
        x = self._input(batch["lq"])
        outputs = self.runners["g"](x, self._state) if _CONTINUES in batch else self.runners["g"](x)
        return self._loss_terms(outputs, batch)

    def pieces(self, part: Batch) -> Sequence[tuple[Batch, float]]:
        """See `Model.pieces`; with `train.truncate` a stream's clips come in groups of frames."""
        size = self.train_options.truncate
        if size is None or self.net.contract.kind != "stream":
            return [(part, 1.0)]
        context, length = sum(self.net.contract.context), part["lq"].shape[1]
        count = length - context
        found: list[tuple[Batch, float]] = []
        for start in range(0, count, size):
            stop = min(start + size, count)
            piece = dict(part)
            for name, value in part.items():
                # frames for all that goes in (context included), or for each that is restored
                if isinstance(value, Tensor) and value.ndim == 5 and value.shape[1] in (length, count):
                    piece[name] = value[:, start : stop + (context if value.shape[1] == length else 0)]
            if start:
                piece[_CONTINUES] = True
            found.append((piece, (stop - start) / count))
        return found

    @property
    def _state(self) -> State:
        """What the network's last piece of a clip left."""
        runner = self.runners["g"]
        inner = runner.module if isinstance(runner, nn.parallel.DistributedDataParallel) else runner
        return cast(State, inner.state)

    def _loss_terms(self, outputs: Terms, batch: Batch) -> Terms:
        terms: Terms = {}
        averaged: Terms = {}
        if any(loss.needs for loss, _ in self.losses.values()):
            with torch.no_grad():
                average = self.averages["g"]
                found = average.run(average.io.encode(batch["lq"]))
                averaged = {name: average.io.decode(value) for name, value in found.items()}
        for name, (loss, looks_at) in self.losses.items():
            restored, target = self._pair(outputs, batch, looks_at)
            more = {"averaged": self._together([averaged[one] for one in looks_at.outputs])} if loss.needs else {}
            terms[name] = looks_at.weight * loss(restored, target, **more)
        return terms

    def _pair(self, outputs: Terms, batch: Batch, looks_at: LooksAt) -> tuple[Tensor, Tensor]:
        """What a loss compares: an output, or several, and the frames that belong to it."""
        if looks_at.target not in batch:
            raise OptionsError(
                f"train: a loss looks at {looks_at.target!r} of a sample, but the data set gives {', '.join(batch)}"
            )
        restored, sharp = [], []
        for name in looks_at.outputs:
            output = next(output for output in self.net.contract.outputs if output.name == name)
            restored.append(outputs[name].float())
            sharp.append(self._target(batch[looks_at.target], restored[-1], output, batch["lq"]))
        return self._together(restored), self._together(sharp)

    def _together(self, frames: list[Tensor]) -> Tensor:
        """Frames `(B, C, h, w)` and clips `(B, T, C, h, w)` as one clip; a single one as it is."""
        if len(frames) == 1:
            return frames[0]
        if len({one.shape[-2:] for one in frames}) > 1:
            sizes = ", ".join(f"{one.shape[-2]}x{one.shape[-1]}" for one in frames)
            raise OptionsError(f"train: a loss looks at outputs of different sizes ({sizes}) together")
        return torch.cat([one.unsqueeze(1) if one.ndim == 4 else one for one in frames], dim=1)

    def _check_output(self, key: str, looks_at: LooksAt) -> None:
        known = [output.name for output in self.net.contract.outputs]
        for name in looks_at.outputs:
            if name not in known:
                hint = did_you_mean(name, known) or f"; it has {', '.join(known)}"
                raise OptionsError(f"{key}: {type(self.net).__name__} has no output {name!r}{hint}")

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
            past, future = output.context or contract.context
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
