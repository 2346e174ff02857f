"""BasicSR's order of samples (`XPixelGroup/BasicSR@8d56e3a: basicsr/data/data_sampler.py`, EnlargedSampler).

The order of an epoch depends on the epoch's number alone, not on `manual_seed`, and an epoch is completed to the same
number of visits for every process. (`enlarged_sampler` in `tests/parity`.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def enlarged_visits(samples: int, ratio: int, world_size: int) -> int:
    """Visits in an epoch, of all processes: `samples * ratio`, rounded up to a multiple of `world_size`."""
    return -(-samples * ratio // world_size) * world_size


def enlarged_order(samples: int, visits: int, epoch: int) -> NDArray[np.int64]:
    """The samples of an epoch in order; process r of n takes those at positions r, r + n, r + 2n, ..."""
    import torch

    order = torch.randperm(visits, generator=torch.Generator().manual_seed(epoch))
    return np.asarray(order.numpy() % samples, dtype=np.int64)
