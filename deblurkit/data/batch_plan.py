"""How large batches and crops are at each iteration: one size throughout, or a progressive schedule (Restormer)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from deblurkit.compat.sampler import enlarged_visits
from deblurkit.errors import DataError

if TYPE_CHECKING:
    from deblurkit.options import DatasetOptions


@dataclass(frozen=True)
class Stage:
    """Iterations whose batches are alike.

    Attributes:
        first: the iteration, from 0, with which it begins. batch: samples that one process sees in a step.
        crop_size: side of the square crop of the ground truth in pixels; None: whole frames.
        iterations_per_epoch: global batches in a pass over the data. first_epoch: the pass, from 0, it begins with.
    """

    first: int
    batch: int
    crop_size: int | None
    iterations_per_epoch: int
    first_epoch: int


class Place(NamedTuple):
    """Where an iteration stands: its stage, its epoch (from 0) and the position of its first sample in the epoch."""

    stage: Stage
    epoch: int
    position: int


class BatchPlan:
    """Stages, and where in them an iteration stands; a pure function of the iteration.

    A stage begins with a new pass over the data. The last one has no end.

    Args:
        samples: of the data set. sizes: for each stage (iterations, batch of one process, crop size).
        world_size: processes that share a batch. enlarge_ratio: visits of each sample in an epoch.
        enlarged: BasicSR's epochs (`compat.sampler`).

    Attributes:
        world_size, samples, enlarged: as given. visits: samples in an epoch. stages: in order.

    Raises:
        DataError: an epoch is too short for one batch.
    """

    def __init__(
        self,
        samples: int,
        sizes: Sequence[tuple[int, int, int | None]],
        world_size: int = 1,
        enlarge_ratio: int = 1,
        enlarged: bool = False,
    ) -> None:
        self.samples, self.world_size, self.enlarged = samples, world_size, enlarged
        self.visits = enlarged_visits(samples, enlarge_ratio, world_size) if enlarged else samples * enlarge_ratio
        stages: list[Stage] = []
        epoch = 0
        firsts = accumulate((iterations for iterations, _, _ in sizes), initial=0)
        for first, (iterations, batch, crop_size) in zip(firsts, sizes, strict=False):
            per_epoch = self.visits // (batch * world_size)
            if per_epoch == 0:
                raise DataError(
                    f"{samples} samples, each visited {enlarge_ratio} times, do not fill a batch of "
                    f"{batch * world_size} (of all processes): lower batch_size_per_gpu (in a schedule "
                    "mini_batch_sizes), or raise dataset_enlarge_ratio"
                )
            stages.append(Stage(first, batch, crop_size, per_epoch, epoch))
            epoch += -(-iterations // per_epoch)
        self.stages = tuple(stages)

    @property
    def largest_crop(self) -> int:
        """Of all stages; 0: there are none."""
        return max(stage.crop_size or 0 for stage in self.stages)

    def at(self, iteration: int) -> Place:
        """Where an iteration, counted from 0, stands."""
        stage = next(stage for stage in reversed(self.stages) if stage.first <= iteration)
        epochs, step = divmod(iteration - stage.first, stage.iterations_per_epoch)
        return Place(stage, stage.first_epoch + epochs, step * stage.batch * self.world_size)

    def __str__(self) -> str:
        """The stages, for people."""
        texts = []
        for stage in self.stages:
            since = f"from iter {stage.first + 1:,} " if stage.first else ""
            size = f"crops of {stage.crop_size}" if stage.crop_size else "whole frames"
            batch = stage.batch * self.world_size
            texts.append(f"{since}batch {batch}, {size}, {stage.iterations_per_epoch:,} iterations an epoch")
        return "; ".join(texts)

    def epochs_before(self, iteration: int) -> float:
        """Passes over the data when an iteration, counted from 0, begins; one that a new stage cut short counts."""
        stage, epoch, position = self.at(iteration)
        return epoch + position / (stage.batch * self.world_size) / stage.iterations_per_epoch

    def samples_before(self, iteration: int) -> int:
        """Samples that all processes together have seen when an iteration, counted from 0, begins."""
        ends = [*(stage.first for stage in self.stages[1:]), iteration]
        return sum(
            max(min(end, iteration) - stage.first, 0) * stage.batch * self.world_size
            for stage, end in zip(self.stages, ends, strict=True)
        )


def plan_batches(options: DatasetOptions, samples: int, world_size: int = 1, parts: int = 1) -> BatchPlan:
    """The plan that a data set's options describe.

    Args:
        samples: of the data set. world_size: processes. parts: how many batches make one step (`train.accumulate`).

    Raises:
        DataError: an epoch is too short for one batch.
    """
    sizes: list[tuple[int, int, int | None]] = [(0, options.batch_size_per_gpu * parts, options.gt_size)]
    if options.iters:
        batches = [size * parts for size in options.mini_batch_sizes]
        sizes = list(zip(options.iters, batches, options.gt_sizes, strict=True))
    return BatchPlan(samples, sizes, world_size, options.dataset_enlarge_ratio, options.sampler == "enlarged")
