"""AirNet's training: an encoder that learns to tell degradations apart, first alone, then beside the restoring part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from deblurkit.archs.airnet_arch import AirNet
from deblurkit.build import build_loss
from deblurkit.engine.launch import Place
from deblurkit.errors import OptionsError
from deblurkit.losses.contrastive_loss import ContrastiveLoss
from deblurkit.models.base import Batch, Terms
from deblurkit.models.restoration_model import RestorationModel
from deblurkit.options import Options
from deblurkit.registry import MODEL_REGISTRY


class _Comparison(nn.Module):
    """`AirNet.compare`, with the weights' pixel convention around it, as the `forward` of a module."""

    def __init__(self, net: AirNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, query: Tensor, key: Tensor, restore: bool) -> Terms:
        frames = query.shape[:2]
        query, key = (self.net.io.encode(view).flatten(0, 1) for view in (query, key))
        outputs = self.net.compare(query, key, restore)
        if restore:
            outputs["restored"] = self.net.io.decode(outputs["restored"]).unflatten(0, frames)
        return outputs


@MODEL_REGISTRY.register()
class AirNetModel(RestorationModel):
    """`RestorationModel` with a contrastive term (`train.contrastive`) over two views of each picture.

    A sample must have a second view `lq_2` (`AllInOneDataset`). In the first `encoder_only` units of the schedule the
    encoder is trained on the contrastive loss alone, with weight 1; then everything on `train.losses` and `weight`
    times that loss (Li et al., AirNet, CVPR 2022: 100 epochs, 0.1). What has no gradient yet is not stepped.

    With several processes the keys of all of them enter the queue in rank order, so that it is the same everywhere,
    and the same as in one process with the global batch; negatives of a sample are then as many as without them. The
    key encoder is the same everywhere because the query encoder is. Both and the queue are saved with the weights.
    `train.accumulate` counts each part of a batch as a batch of its own here.

    Raises:
        OptionsError: `train.contrastive` is missing or no `ContrastiveLoss`, the network is no AirNet, its queue does
            not fit the batches, or DDP is told that all parameters learn always.
    """

    sections = ("contrastive",)

    def __init__(self, options: Options, networks: Mapping[str, nn.Module], place: Place) -> None:
        train = options.training()
        if train.contrastive is None:
            raise OptionsError("model_type: AirNetModel needs train.contrastive")
        if not isinstance(networks["g"], AirNet):
            raise OptionsError(f"model_type: AirNetModel trains AirNet, not {type(networks['g']).__name__}")
        self.contrastive = train.contrastive
        self.contrast = build_loss(train.contrastive.mapping())
        if not isinstance(self.contrast, ContrastiveLoss):
            raise OptionsError(f"train.contrastive.type: {train.contrastive.type} is no ContrastiveLoss")
        if train.contrastive.output != "logits":
            raise OptionsError(f"train.contrastive.output: is logits, not {train.contrastive.output!r}")
        entry = options.datasets.get("train")
        length, batch = networks["g"].E.E.queue.shape[1], (entry.batch_size_per_gpu if entry else 1) * place.world_size
        if length % batch:
            raise OptionsError(
                f"network_g.batch_size: a queue of {length} keys is no multiple of the {batch} samples of a batch (of "
                f"all processes): set it to {batch}"
            )
        if train.contrastive.encoder_only:
            if train.static_graph:
                raise OptionsError("train.static_graph: with contrastive.encoder_only other parameters learn later")
            # DDP must expect that most parameters take no part at first
            train = train.model_copy(update={"find_unused_parameters": True})
            options = options.model_copy(update={"train": train})
        super().__init__(options, networks, place)
        self._alone = False

    def start_iteration(self, iteration: int, done: int) -> None:
        """See `Model.start_iteration`."""
        super().start_iteration(iteration, done)
        self._alone = done < self.contrastive.encoder_only

    def terms(self, batch: Batch) -> Terms:
        """The weighted loss terms of a batch."""
        if "lq_2" not in batch:
            raise OptionsError(
                f"datasets.train gives {', '.join(batch)}: AirNetModel needs a second view `lq_2`; use AllInOneDataset"
            )
        query, key = self._input(batch["lq"]), self._input(batch["lq_2"])
        outputs = cast(Terms, self.runners["g"](query, key, not self._alone))
        contrast = self.contrast(outputs["logits"])
        if self._alone:
            return {"contrastive": contrast}
        return {**self._loss_terms(outputs, batch), "contrastive": self.contrastive.weight * contrast}

    def _runner(self, role: str, net: nn.Module) -> nn.Module:
        return _Comparison(cast(AirNet, net))
