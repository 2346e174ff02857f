"""Which samples make which batch: a function of (seed, iteration) alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from deblurkit.compat.sampler import enlarged_order
from deblurkit.data.batch_plan import BatchPlan
from deblurkit.data.request import SampleRequest


class RequestSampler(Sampler[list[SampleRequest]]):
    """Batches of requests for one process, from any iteration on, across epochs.

    An epoch's order is a permutation of all its visits. With G samples in a global batch (of all processes), batch i
    takes the positions i*G to (i+1)*G - 1, and each process its contiguous part of them: so the same samples meet in a
    batch for any number of processes with the same G. What fills no batch is left out. Sizes are those of the plan's
    stage: nothing is asked for that is not used. (`BatchPlan.enlarged`: the order of BasicSR's sampler.)

    Args:
        plan: sizes and epochs. seed: `manual_seed`. rank: which of the plan's processes this is.
        first_iter: iterations that are already done. total_iter: of the whole training.
    """

    def __init__(self, plan: BatchPlan, seed: int = 0, rank: int = 0, first_iter: int = 0, total_iter: int = 0) -> None:
        self.plan = plan
        self._seed, self._rank, self._first, self._total = seed, rank, first_iter, total_iter

    def __len__(self) -> int:
        return max(self._total - self._first, 0)

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        known, order = -1, np.empty(0, np.int64)
        for iteration in range(self._first, self._total):
            stage, epoch, position = self.plan.at(iteration)
            if epoch != known:
                known, order = epoch, self._order(epoch)
            batch = range(position, position + stage.batch * self.plan.world_size)
            if self.plan.enlarged:  # each process takes every so many-th
                own = batch[self._rank :: self.plan.world_size]
            else:
                own = batch[self._rank * stage.batch : (self._rank + 1) * stage.batch]
            yield [SampleRequest(int(order[place]), epoch, place, stage.crop_size) for place in own]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self.plan.enlarged:
            return enlarged_order(self.plan.samples, self.plan.visits, epoch)
        # the spawn key keeps it apart from the samples' own generators: without one, (seed, epoch) is padded with zeros
        # and is the same as (seed, epoch, position 0)
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((self._seed, epoch), spawn_key=(0,))))
        return rng.permutation(self.plan.visits) % self.plan.samples
