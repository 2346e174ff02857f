"""What a sampler asks a data set for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SampleRequest:
    """One sample to be made. Everything random about it is a function of (seed, epoch, position) alone.

    So a sample is the same for any number of workers and processes, with any prefetching and after a restart, and two
    visits of one index within an enlarged epoch (two positions) get two different crops.

    Attributes:
        index: which sample of the data set.
        epoch: which pass over the data, from 0.
        position: place of this sample in the epoch's order, from 0.
        crop_size: side of the square crop of the ground truth in pixels; None: the whole frame.
    """

    index: int
    epoch: int = 0
    position: int = 0
    crop_size: int | None = None

    def rng(self, seed: int) -> np.random.Generator:
        """The random generator for this sample."""
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, self.epoch, self.position))))
