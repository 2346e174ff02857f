"""What can happen beside the training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from deblurkit.engine.evaluate import Evaluation
    from deblurkit.engine.train import Training


class Hook:
    """Called by the training loop at its moments, on every process; override those that matter.

    A hook of one's own is registered with `HOOK_REGISTRY` and named in the options: `train: {hooks: [{type: MyHook}]}`.
    `run.place.is_main` tells whether this process is the one that writes files.
    """

    def before_train(self, run: Training) -> None:
        """Everything is built; the first step comes next."""

    def before_epoch(self, run: Training, epoch: int) -> None:
        """The first step of a pass over the data comes next, or the first one of a run that goes on within it.

        `epoch` counts from 1.
        """

    def before_iter(self, run: Training, batch: Mapping[str, Any]) -> None:
        """Step `run.iteration + 1` comes next, on this batch (on the device)."""

    def after_epoch(self, run: Training, epoch: int) -> None:
        """The last step of a pass is done; its `after_iter` comes next, so a checkpoint holds what is done here."""

    def after_iter(self, run: Training, losses: Mapping[str, Tensor]) -> None:
        """Step `run.iteration` is done; `losses` are scalars on the device (fetching one waits for the device)."""

    def before_val(self, run: Training) -> None:
        """A validation comes next."""

    def after_val(self, run: Training, results: Mapping[str, Evaluation]) -> None:
        """A validation is done; `results` by data set."""

    def ended(self) -> str:
        """Why a run that goes on from the loaded state needs no further step, and what would change that; "": it does.

        Asked once, after `load_state`, of a run that is started again.
        """
        return ""

    def after_train(self, run: Training) -> None:
        """The last step is done, or the run was asked to stop."""

    def close(self) -> None:
        """The run is over, well or with an error: give back files, threads and bars."""

    def state(self) -> dict[str, Any]:
        """Plain values and tensors that the hook needs again after a restart."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put `state()` of an earlier process back."""
