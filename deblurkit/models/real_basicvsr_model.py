"""RealBasicVSR's two stages: pixels and cleaned frames, then perceptual and adversarial terms on top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.contract import Output
from deblurkit.engine.launch import Place
from deblurkit.models.base import Batch, Terms
from deblurkit.models.gan_model import GANModel
from deblurkit.models.restoration_model import RestorationModel
from deblurkit.options import Options
from deblurkit.registry import MODEL_REGISTRY


@MODEL_REGISTRY.register()
class RealBasicVSRModel(GANModel):
    """Training of a network that cleans degraded frames before it restores them.

    Chan et al., "Investigating Tradeoffs in Real-World Video Super-Resolution", CVPR 2022. Stage one has none of
    `network_d`, `train.optim_d` and `train.gan`, and is a `RestorationModel`; with all three it is stage two, a
    `GANModel`, which starts from stage one's weights (`path.pretrain_network_g`).

    What differs from these: the sharp frames that belong to a smaller output (`output: cleaned`) are reduced by area,
    the mean of the pixels that one of the output's covers. Losses look at the sharpened frames of a data set with
    `target: gt_usm`.

    Raises:
        OptionsError: some of `network_d`, `train.optim_d` and `train.gan` are missing, but not all.
    """

    def __init__(self, options: Options, networks: Mapping[str, nn.Module], place: Place) -> None:
        train = options.training()
        self._adversarial = "d" in networks or train.gan is not None or train.optim_d is not None
        if self._adversarial:
            super().__init__(options, networks, place)
        else:
            RestorationModel.__init__(self, options, networks, place)

    def train_step(self, batch: Batch) -> Terms:
        """See `Model.train_step`."""
        return super().train_step(batch) if self._adversarial else RestorationModel.train_step(self, batch)

    def state(self) -> dict[str, Any]:
        """See `Model.state`."""
        return super().state() if self._adversarial else RestorationModel.state(self)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Model.load_state`."""
        if self._adversarial:
            super().load_state(state)
        else:
            RestorationModel.load_state(self, state)

    def _target(self, gt: Tensor, restored: Tensor, output: Output, x: Tensor) -> Tensor:
        if gt.shape[-2:] != restored.shape[-2:]:
            reduced = F.interpolate(gt.flatten(0, -4), size=restored.shape[-2:], mode="area")
            gt = reduced.view(*gt.shape[:-2], *reduced.shape[-2:])
        return super()._target(gt, restored, output, x)
