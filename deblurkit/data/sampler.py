"""Which samples make which batch: a function of (seed, iteration) alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from deblurkit.data.request import SampleRequest
from deblurkit.errors import DataError


class RequestSampler(Sampler[list[SampleRequest]]):
    """Batches of requests for one process, from any iteration on, across epochs.

    An epoch's order is a permutation of `dataset_length * enlarge_ratio` visits. With G samples in a global batch (of
    all processes), batch i takes the positions i*G to (i+1)*G - 1, and each process its contiguous part of them: so
    the same samples meet in a batch for any number of processes with the same G. What fills no batch is left out.

    Args:
        dataset_length: number of samples. batch_size: of this process. world_size, rank: processes, and which this is.
        seed: `manual_seed`. enlarge_ratio: visits of each sample in an epoch. crop_size: for the requests.
        first_iter: iterations that are already done. total_iter: of the whole training.

    Attributes:
        iterations_per_epoch: number of global batches in an epoch.

    Raises:
        DataError: an epoch is too short for one batch.
    """

    def __init__(
        self,
        dataset_length: int,
        batch_size: int,
        world_size: int = 1,
        rank: int = 0,
        seed: int = 0,
        enlarge_ratio: int = 1,
        crop_size: int | None = None,
        first_iter: int = 0,
        total_iter: int = 0,
    ) -> None:
        self._length, self._visits = dataset_length, dataset_length * enlarge_ratio
        self._batch_size, self._global_batch, self._rank = batch_size, batch_size * world_size, rank
        self._seed, self._crop_size = seed, crop_size
        self._first, self._total = first_iter, total_iter
        self.iterations_per_epoch = self.count_iterations(dataset_length, self._global_batch, enlarge_ratio)

    @staticmethod
    def count_iterations(dataset_length: int, global_batch: int, enlarge_ratio: int = 1) -> int:
        """Iterations of an epoch.

        Args:
            dataset_length: number of samples. global_batch: samples in a batch, all processes together.
            enlarge_ratio: visits of each sample.

        Raises:
            DataError: there is not even one.
        """
        iterations = dataset_length * enlarge_ratio // global_batch
        if iterations == 0:
            raise DataError(
                f"{dataset_length} samples, each visited {enlarge_ratio} times, do not fill a batch of {global_batch} "
                "(of all processes): lower batch_size_per_gpu, or raise dataset_enlarge_ratio"
            )
        return iterations

    def epoch_of(self, iteration: int) -> int:
        """The epoch, from 0, that an iteration, counted from 0, belongs to."""
        return iteration // self.iterations_per_epoch

    def __len__(self) -> int:
        return max(self._total - self._first, 0)

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        known, order = -1, np.empty(0, np.int64)
        for iteration in range(self._first, self._total):
            epoch = self.epoch_of(iteration)
            if epoch != known:
                known, order = epoch, self._order(epoch)
            first = iteration % self.iterations_per_epoch * self._global_batch + self._rank * self._batch_size
            yield [
                SampleRequest(int(order[position]), epoch, position, self._crop_size)
                for position in range(first, first + self._batch_size)
            ]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        # the spawn key keeps it apart from the samples' own generators: without one, (seed, epoch) is padded with zeros
        # and is the same as (seed, epoch, position 0)
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((self._seed, epoch), spawn_key=(0,))))
        return rng.permutation(self._visits) % self._length
