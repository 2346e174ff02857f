"""The loader of a training: worker processes that make the batches which a `RequestSampler` asks for."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from deblurkit.data.base import FrameDataset, Sample
from deblurkit.data.batch_memory import BatchMemory, StoredBatch
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
        `mixup.mix` needs. They are for `prefetcher.prefetch`, which turns square crops. A `DeblurkitError` of a sample
        is raised as it is, any other error as a RuntimeError that holds the traceback.

    Raises:
        DataError: too few samples for a batch.
    """
    plan = plan_batches(options, len(dataset), world_size, parts)
    sampler = RequestSampler(plan, seed, rank, first_iter, total_iter)
    collate = _Collate()
    workers = options.num_worker_per_gpu
    # forked workers have the parent's classes as they are; spawned ones would have to import them by name, which a
    # plugin's file does not have
    context = "fork" if workers and "fork" in multiprocessing.get_all_start_methods() else None
    return _Loader(
        partial(_mixup_ratios, plan, options.mixup, seed, first_iter),
        collate,
        _Guarded(dataset),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
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
            return self._dataset.for_transport(request)
        except DeblurkitError as error:
            return _Failed(error)
        except Exception:  # a bug: its traceback does not travel by itself
            return _Failed(RuntimeError(f"making sample {request} failed:\n{traceback.format_exc()}"))


class _Loader(DataLoader[Any]):
    def __init__(
        self, ratios: Callable[[], Iterator[float | None]], collate: _Collate, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._ratios, self._collate = ratios, collate

    def __iter__(self) -> Any:
        forked = self.multiprocessing_context is not None
        memory = _batch_memory(self.num_workers) if forked else None
        self._collate.memory = memory
        self.worker_init_fn = partial(_start_worker, os.getpid() if forked else None)
        # the workers start here, in the thread that asks for the iterator, not at the first batch
        batches = super().__iter__()
        self._collate.memory = None  # the workers have it
        return _finish(batches, self._ratios(), memory)


def _batch_memory(workers: int) -> BatchMemory | None:
    try:
        return BatchMemory(workers)
    except OSError:  # little address space (`ulimit -v`): batches go torch's way, which is slower
        return None


def _mixup_ratios(plan: BatchPlan, options: MixupOptions | None, seed: int, first_iter: int) -> Iterator[float | None]:
    """For each batch how it is mixed; None: not at all."""
    for iteration in itertools.count(first_iter):
        _, epoch, position = plan.at(iteration)
        yield mixup_ratio(options, seed, epoch, position) if options else None


def _finish(batches: Iterator[Any], ratios: Iterator[float | None], memory: BatchMemory | None) -> Iterator[Sample]:
    """Raise what failed; find the batches that lie in `memory`, which this keeps; add the ratios for mixing."""
    error: Exception | None = None
    for batch, ratio in zip(batches, ratios, strict=False):
        if isinstance(batch, _Failed):
            error = batch.error
            break
        if isinstance(batch, StoredBatch):
            batch = batch.open()
        if ratio is not None:
            batch[RATIO] = ratio
        yield batch
    # torch ends its workers when nothing refers to the iterator any more; a traceback would (left to the garbage
    # collector, it finds its queues collected already, and waits for the workers in vain)
    del batches, memory
    if error is not None:
        raise error


class _Collate:
    """Stack samples, in a worker into the `memory` that it was forked with; a failed one takes the batch's place."""

    def __init__(self) -> None:
        self.memory: BatchMemory | None = None

    def __call__(self, samples: list[Any]) -> Any:
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
        worker = get_worker_info()
        try:
            if self.memory is None or worker is None:
                return default_collate(samples)
            return self.memory.put(worker.id, samples)
        except RuntimeError as error:
            if "shared memory" not in str(error):
                raise
            return _Failed(
                DataError(
                    "/dev/shm has no room for a batch, which travels there when it is very large or the trainer is far "
                    f"behind: enlarge it (a container: --shm-size=1g), or lower batch_size_per_gpu. Torch says: {error}"
                )
            )


def _start_worker(parent: int | None, index: int) -> None:
    """One thread, no signals that are meant for the main process, and an end with it.

    Torch limits its own threads here.

    Args:
        parent: the main process, if this one was forked of it. index: which worker this is.
    """
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), name="end with the trainer", daemon=True).start()
    cv2().setNumThreads(1)
    # a Ctrl-C, a scheduler's SIGTERM or SIGUSR1 reaches the whole group: the main process must be able to save first. A
    # second SIGTERM (torch's, when a worker does not end by itself) has its usual effect.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def _end_with(parent: int) -> None:
    """End this process soon after its parent, which may have been killed: nobody would ever tell it to stop.

    (Torch's workers look for that too, but only where they wait for requests, not where a pipe is full.)
    """
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
