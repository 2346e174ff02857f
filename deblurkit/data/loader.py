"""The loader of a training: worker processes that make the batches which a `RequestSampler` asks for."""

from __future__ import annotations

import itertools
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from deblurkit.data.base import FrameDataset, Sample
from deblurkit.data.batch_plan import BatchPlan, plan_batches
from deblurkit.data.mixup import RATIO, mixup_ratio
from deblurkit.data.request import SampleRequest
from deblurkit.data.sampler import RequestSampler
from deblurkit.errors import DataError, DeblurkitError
from deblurkit.image_io import cv2
from deblurkit.options import DatasetOptions, MixupOptions


def build_loader(
    dataset: FrameDataset,
    options: DatasetOptions,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    first_iter: int = 0,
    total_iter: int = 0,
    pin_memory: bool = False,
    parts: int = 1,
) -> DataLoader[Sample]:
    """A loader over all iterations from `first_iter` to `total_iter`, across epochs.

    Args:
        dataset, options: what is loaded, and how. seed: `manual_seed`.
        rank, world_size: which process this is, of how many. first_iter: iterations already done.
        pin_memory: put batches where copies to a GPU need not wait.
        parts: how many batches make one step (`train.accumulate`); they come as one.

    Returns:
        batches: the samples' dicts with tensors stacked along a new first axis, and with `options.mixup` the entry that
        `mixup.mix` needs. A `DeblurkitError` of a sample is
        raised as it is, any other error as a RuntimeError that holds the traceback.

    Raises:
        DataError: too few samples for a batch.
    """
    plan = plan_batches(options, len(dataset), world_size, parts)
    sampler = RequestSampler(plan, seed, rank, first_iter, total_iter)
    workers = options.num_worker_per_gpu
    # forked workers have the parent's classes as they are; spawned ones would have to import them by name, which a
    # plugin's file does not have
    context = "fork" if workers and "fork" in multiprocessing.get_all_start_methods() else None
    return _Loader(
        partial(_mixup_ratios, plan, options.mixup, seed, first_iter),
        _Guarded(dataset),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        # an iterator draws a seed for its workers; from torch's own generator it would make a resumed run differ
        generator=torch.Generator().manual_seed(seed),
        multiprocessing_context=context,
    )


class _Failed:
    """An error that travels from a worker in place of a sample. (Torch would send the traceback as its message.)"""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _Guarded(Dataset[Any]):
    """A data set whose errors come out as `_Failed`."""

    def __init__(self, dataset: FrameDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, request: SampleRequest) -> Sample | _Failed:
        try:
            return self._dataset[request]
        except DeblurkitError as error:
            return _Failed(error)
        except Exception:  # a bug: its traceback does not travel by itself
            return _Failed(RuntimeError(f"making sample {request} failed:\n{traceback.format_exc()}"))


class _Loader(DataLoader[Any]):
    def __init__(self, ratios: Callable[[], Iterator[float | None]], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ratios = ratios

    def __iter__(self) -> Any:
        # the workers start here, in the thread that asks for the iterator, not at the first batch
        return _finish(super().__iter__(), self._ratios())


def _mixup_ratios(plan: BatchPlan, options: MixupOptions | None, seed: int, first_iter: int) -> Iterator[float | None]:
    """For each batch how it is mixed; None: not at all."""
    for iteration in itertools.count(first_iter):
        _, epoch, position = plan.at(iteration)
        yield mixup_ratio(options, seed, epoch, position) if options else None


def _finish(batches: Iterator[Any], ratios: Iterator[float | None]) -> Iterator[Sample]:
    """Raise what failed; add the ratios for mixing."""
    error: Exception | None = None
    for batch, ratio in zip(batches, ratios, strict=False):
        if isinstance(batch, _Failed):
            error = batch.error
            break
        if ratio is not None:
            batch[RATIO] = ratio
        yield batch
    # torch ends its workers when nothing refers to the iterator any more; a traceback would (left to the garbage
    # collector, it finds its queues collected already, and waits for the workers in vain)
    del batches
    if error is not None:
        raise error


def _collate(samples: list[Any]) -> Any:
    """Stack the samples; a failed one takes the place of the batch."""
    for sample in samples:
        if isinstance(sample, _Failed):
            return sample
    for name, value in samples[0].items():
        shapes = {tuple(s[name].shape): s["key"] for s in samples} if isinstance(value, torch.Tensor) else {}
        if len(shapes) > 1:
            found = ", ".join(f"{key} {shape}" for shape, key in shapes.items())
            return _Failed(
                DataError(
                    f"samples of different sizes do not make a batch ({name}: {found}): give gt_size, or set "
                    "batch_size_per_gpu to 1"
                )
            )
    return default_collate(samples)


def _start_worker(index: int) -> None:
    """One thread, and no signals that are meant for the main process. (Torch limits its own threads here.)"""
    cv2().setNumThreads(1)
    # a Ctrl-C, a scheduler's SIGTERM or SIGUSR1 reaches the whole group: the main process must be able to save first. A
    # second SIGTERM (torch's, when a worker does not end by itself) has its usual effect.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
