"""Mixup: every sample of a batch is blended with another one, degraded and sharp frames alike.

Restormer's form (`mixing_augs`; facts: TRAINING_ENGINE.md section 7 of the project's notes): one ratio a batch, drawn
from Beta(b, b). Partners there are a random permutation. Here they are neighbours in the batch, whose order is random
already: so the mixture is the same for any number of processes that each have an even number of samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from deblurkit.data.base import Sample
    from deblurkit.options import MixupOptions

#: The entry of a batch that tells the prefetcher how to mix it.
RATIO = "mixup_ratio"


def mixup_ratio(options: MixupOptions, seed: int, epoch: int, position: int) -> float:
    """The share that each sample keeps of itself, 0 to 1; 1: the batch stays as it is.

    Args:
        options: Beta's parameter and whether half of the batches stay as they are.
        seed: `manual_seed`. epoch, position: of the first sample of the global batch.
    """
    # the spawn key keeps it apart from the generators of samples and orders
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch, position), spawn_key=(1,))))
    ratio, skip = rng.beta(options.beta, options.beta), rng.random() < 0.5
    return 1.0 if options.use_identity and skip else float(ratio)


def mix(batch: Sample) -> Sample:
    """Mix the float frames of a batch, `lq`, `gt` and `gt_usm` `(B, ...)`, as its entry `RATIO` says, and take it away.

    Samples 0 and 1, 2 and 3, ... are partners; the last of an odd number stays as it is.
    """
    ratio = batch.pop(RATIO, 1.0)
    if ratio != 1.0:
        for name in {"lq", "gt", "gt_usm"} & batch.keys():
            batch[name] = _blend(batch[name], ratio)
    return batch


def _blend(frames: Tensor, ratio: float) -> Tensor:
    count = len(frames)
    partner = torch.arange(count, device=frames.device) ^ 1
    if count % 2:
        partner[-1] = count - 1
    # two roundings, not a fused one, so that all devices give the same
    return (frames * ratio).add_(frames[partner] * (1 - ratio))
