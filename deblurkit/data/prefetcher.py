"""Bringing batches to the device one ahead of the step, and making float frames of pixels there."""

from __future__ import annotations

import functools
import queue
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from deblurkit.data.augment import ORIENTATION
from deblurkit.data.base import Sample
from deblurkit.data.mixup import mix
from deblurkit.data.scene_device import SCENE, draw_scenes
from deblurkit.errors import DeviceError
from deblurkit.threads import start_beside

PrefetchMode = Literal["auto", "cuda", "cpu"]


def prefetch(batches: Iterable[Sample], device: torch.device | str, mode: PrefetchMode | None = "auto") -> Prefetcher:
    """Iterate over `batches` on a device; the tensors are the same in every mode.

    Pixels, uint8 or uint16 `(B, T, H, W, C)`, are turned as the entry `augment.ORIENTATION` says, where there is one,
    and become contiguous float32 `(B, T, C, H, W)` in [0, 1] on the device; float tensors are moved, anything else
    passes.

    Args:
        batches: a loader. device: where they are wanted.
        mode: "cuda": a thread fetches the next batch and copies it on a stream of its own. "cpu": a thread fetches the
            next batch. None: no thread. "auto": "cuda" on a GPU, else "cpu".

    Raises:
        DeviceError: "cuda" for a device that is none.
    """
    device = torch.device(device)
    if mode == "auto":
        mode = "cuda" if device.type == "cuda" else "cpu"
    if mode == "cuda" and device.type != "cuda":
        raise DeviceError(f"prefetch_mode: cuda needs a GPU, but the device is {device}; use auto or cpu")
    if device == torch.device("cuda"):
        device = torch.device("cuda", torch.cuda.current_device())  # a thread has a current device of its own
    return Prefetcher(batches, device, mode)


def to_float(pixels: Tensor, orientations: Sequence[int] = ()) -> Tensor:
    """Pixels `(..., H, W, C)` to contiguous float32 `(..., C, H, W)` in [0, 1], on their device.

    Args:
        orientations: how each sample of a batch of square frames is turned, see `augment.ORIENTATION`; none: not at
            all.
    """
    top = 255.0 if pixels.dtype == torch.uint8 else 65535.0
    planes = pixels.movedim(-1, -3)
    if any(orientations):
        floats = torch.empty(planes.shape, dtype=torch.float32, device=pixels.device)
        for target, sample, orientation in zip(floats, planes, orientations, strict=True):
            target.copy_(_turned(sample, orientation))
    else:
        floats = planes.to(torch.float32, memory_format=torch.contiguous_format)
    # a divisor on the device: by a plain number CUDA multiplies with its reciprocal, which rounds unlike the CPU
    return floats.div_(torch.full((), top, device=floats.device))


def _turned(planes: Tensor, orientation: int) -> Tensor:
    """Pixels `(..., H, W)`, mirrored and transposed."""
    transposed = bool(orientation & 4)
    view = planes.transpose(-1, -2) if transposed else planes
    # mirroring comes first; after the transposition it is along the other axis
    axes = [axis for bit, axis in ((1, -2), (2, -1)) if orientation & bit]
    axes = axes if transposed else [-3 - axis for axis in axes]
    if not axes:
        return view
    if view.dtype == torch.uint16:  # which torch cannot flip
        return view.view(torch.int16).flip(axes).view(torch.uint16)
    return view.flip(axes)


def to_device(batch: Sample, device: torch.device) -> Sample:
    """Move a batch's tensors to the device, turn pixels and make floats of them there, mix samples if that is asked.

    Frames that are not drawn yet (`scene_device.SCENE`) are drawn there first.
    """
    moved: Sample = {}
    if SCENE in batch:
        batch = draw_scenes(batch, device)
    orientations = batch[ORIENTATION].tolist() if ORIENTATION in batch else ()
    for name, value in batch.items():
        if name == ORIENTATION:
            continue
        if isinstance(value, Tensor):
            value = value.to(device, non_blocking=True)
            value = to_float(value, orientations) if value.dtype in (torch.uint8, torch.uint16) else value
        moved[name] = value
    return mix(moved)


class _Ready(NamedTuple):
    """What the thread hands over: a batch (and the event that says when its copies are done), an error, or the end."""

    batch: Sample | None = None
    copied: Any = None
    error: BaseException | None = None


class _Exchange:
    """Between the thread and the consumer. The thread makes a batch for each `wanted`, until `stopped`."""

    def __init__(self) -> None:
        self.ready: queue.SimpleQueue[_Ready] = queue.SimpleQueue()
        self.wanted = threading.Semaphore(1)
        self.stopped = False


class Prefetcher(Iterator[Sample]):
    """Batches on the device; see `prefetch`. Call `close()` to leave it before its end.

    Attributes:
        wait_seconds: how long the consumer has waited for batches so far.
    """

    def __init__(self, batches: Iterable[Sample], device: torch.device, mode: Literal["cuda", "cpu"] | None) -> None:
        self.wait_seconds = 0.0
        self._device = device
        self._batches = iter(batches)  # here, so that worker processes are forked by the consumer's thread
        self._exchange: _Exchange | None = None
        self._finish: weakref.finalize[Any, Any]
        self._finished = False
        if mode is None:
            self._finish = weakref.finalize(self, _close_iterator, self._batches)
            return
        self._exchange = _Exchange()
        # the thread does not know this object, so that it can be forgotten, which also stops the thread
        work = functools.partial(_work, self._batches, device, mode, self._exchange)
        thread = start_beside(work, "prefetch", daemon=True)
        self._finish = weakref.finalize(self, _stop, thread, self._exchange)

    def close(self) -> None:
        """Stop the thread and the loader's workers; the iteration is over then."""
        self._finished = True
        self._finish()

    def __iter__(self) -> Prefetcher:
        return self

    def __next__(self) -> Sample:
        started = time.perf_counter()
        try:
            return self._next()
        finally:
            self.wait_seconds += time.perf_counter() - started

    def _next(self) -> Sample:
        if self._finished:
            raise StopIteration
        if self._exchange is None:
            return to_device(next(self._batches), self._device)
        ready = self._exchange.ready.get()
        self._exchange.wanted.release()  # the next one is made while the consumer works with this one
        if ready.batch is None:
            self.close()
            raise ready.error or StopIteration
        if ready.copied is None:
            return ready.batch if self._device.type == "cpu" else to_device(ready.batch, self._device)
        current = torch.cuda.current_stream(self._device)
        current.wait_event(ready.copied)
        for value in ready.batch.values():
            if isinstance(value, Tensor):
                # it was allocated for the side stream: without this its memory could be used again by the next copy
                # while the current stream still reads it
                value.record_stream(current)
        return ready.batch


def _work(batches: Iterator[Sample], device: torch.device, mode: Literal["cuda", "cpu"], exchange: _Exchange) -> None:
    """The thread: fetch and prepare until the end, an error, or `stopped`."""
    try:
        stream = torch.cuda.Stream(device) if mode == "cuda" else None
        while exchange.wanted.acquire() and not exchange.stopped:
            batch = next(batches, None)
            if batch is None:
                exchange.ready.put(_Ready())
                break
            if stream is not None:
                with torch.cuda.stream(stream):
                    exchange.ready.put(_Ready(to_device(batch, device), stream.record_event()))
            elif device.type == "cpu":
                exchange.ready.put(_Ready(to_device(batch, device)))
            else:  # copies on this thread's stream would not wait for the consumer's: it makes them itself
                exchange.ready.put(_Ready(batch))
    except BaseException as error:  # it is raised in the consumer
        exchange.ready.put(_Ready(error=error))
    finally:
        _close_iterator(batches)


def _stop(thread: threading.Thread, exchange: _Exchange) -> None:
    exchange.stopped = True
    exchange.wanted.release()
    if thread is not threading.current_thread():  # the garbage collector may run in any thread
        thread.join()


def _close_iterator(batches: Iterator[Any]) -> None:
    """End a generator, which lets go of the loader's worker processes."""
    close = getattr(batches, "close", None)
    if close is not None:
        close()
