"""Batches in memory that workers and trainer share: the same as torch's, and nothing is overwritten or left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import default_collate
from torch.utils.data._utils.pin_memory import pin_memory  # what torch's thread for that calls

from deblurkit.data import batch_memory, loader
from deblurkit.data.base import EvaluationClip, FrameDataset, Sample
from deblurkit.data.batch_memory import SLOTS, BatchMemory, StoredBatch
from deblurkit.data.loader import build_loader
from deblurkit.data.prefetcher import prefetch
from deblurkit.data.request import SampleRequest
from deblurkit.errors import DataError
from deblurkit.options import DatasetOptions

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked only on POSIX systems")


def sample(i: int) -> Sample:
    """Entries of all kinds."""
    generator = torch.Generator().manual_seed(i)
    return {
        "lq": torch.randint(0, 256, (2, 5, 7, 3), generator=generator).to(torch.uint8),
        "gt": torch.randint(0, 65536, (1, 5, 7, 3), generator=generator).to(torch.uint16),
        "key": f"s/{i}",
        "mask": torch.rand(5, 7, generator=generator) > 0.5,
        "flow": torch.rand(2, 5, 7, generator=generator).permute(1, 2, 0),  # not contiguous
        "sigma": i / 3,
        "number": i,
        "nothing": torch.zeros(0),
        "level": torch.tensor(i, dtype=torch.float64),
        "facts": {"name": f"n{i}", "size": torch.tensor([i, i])},
    }


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, torch.Tensor):
        return found.dtype == expected.dtype and torch.equal(found, expected)
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[name], expected[name]) for name in expected)
    return bool(found == expected)


class Numbered(FrameDataset):
    """Sample i, in as many visits as are asked for."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, request: SampleRequest | int) -> Sample:
        assert isinstance(request, SampleRequest)
        return sample(request.index)

    def clips(self, merge: bool) -> list[EvaluationClip]:
        return []

    def fingerprint(self) -> dict[str, Any]:
        return {}


def batches(workers: int, batch: int = 4, total: int = 30) -> Iterator[Sample]:
    opt = DatasetOptions(type="Numbered", batch_size_per_gpu=batch, num_worker_per_gpu=workers)
    return iter(build_loader(Numbered(), opt, 0, total_iter=total))


def test_a_batch_is_what_torch_makes_of_the_samples():
    memory = BatchMemory(2)
    samples = [sample(i) for i in range(3)]
    stored = memory.put(1, samples)
    assert isinstance(stored, StoredBatch)
    assert SLOTS <= stored.slot < 2 * SLOTS
    assert same(stored.open(), default_collate(samples))


def test_a_slot_is_free_when_no_tensor_of_it_is_left():
    memory = BatchMemory(1)
    expected = default_collate([sample(0)])
    first = memory.put(0, [sample(0)]).open()
    view = first["flow"][0, 1:3].mT
    kept = view.clone()
    del first
    for i in range(1, 20):  # the slot of `view` is not among those that these use
        stored = memory.put(0, [sample(i)])
        assert stored.slot != 0
        assert same(stored.open(), default_collate([sample(i)]))
    assert torch.equal(view, kept)
    del view
    assert memory.put(0, [sample(0)]).slot == 0
    assert same(memory.put(0, [sample(0)]).open(), expected)


def test_without_room_a_batch_goes_torchs_way(monkeypatch):
    memory = BatchMemory(2)
    expected = default_collate([sample(5)])
    held = [memory.put(0, [sample(5)]).open() for _ in range(SLOTS)]
    more = memory.put(0, [sample(5)])
    assert not isinstance(more, StoredBatch)
    assert all(same(batch, expected) for batch in (*held, more))
    assert isinstance(memory.put(1, [sample(5)]), StoredBatch)
    del held
    monkeypatch.setattr(batch_memory, "SLOT_BYTES", 256)
    assert same(memory.put(0, [sample(5)]), expected)


def test_pinning_copies_and_frees_the_slot(monkeypatch):
    """Pinned memory itself needs a GPU: `test_loading` has a test for one."""
    copied: list[torch.dtype] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: copied.append(tensor.dtype) or tensor.clone())
    memory = BatchMemory(1)
    stored = memory.put(0, [sample(3), sample(4)])
    pinned = pin_memory(stored)
    assert same(pinned, default_collate([sample(3), sample(4)]))
    assert len(copied) == 8  # all but the key and the facts
    assert memory.put(0, [sample(1)]).slot == stored.slot
    assert same(pinned, default_collate([sample(3), sample(4)]))


@forks
@pytest.mark.parametrize("workers", [1, 2])
def test_loaders_use_it_and_nobody_can_tell(monkeypatch, workers):
    expected = list(batches(0))
    opened: list[int] = []
    plain = StoredBatch.open
    monkeypatch.setattr(StoredBatch, "open", lambda batch: opened.append(batch.slot) or plain(batch))
    for found, wanted in zip(batches(workers), expected, strict=True):
        assert same(found, wanted)
    assert len(opened) == 30
    # a consumer that keeps every batch
    opened.clear()
    kept = list(batches(workers))
    assert all(same(found, wanted) for found, wanted in zip(kept, expected, strict=True))
    assert 0 < len(opened) < 30


@forks
def test_little_address_space(monkeypatch):
    def refuse(workers: int) -> None:
        raise OSError("Cannot allocate memory")

    expected = list(batches(0, total=4))
    monkeypatch.setattr(loader, "BatchMemory", refuse)
    assert all(same(found, wanted) for found, wanted in zip(batches(1, total=4), expected, strict=True))


@forks
def test_no_room_for_a_batch_that_goes_torchs_way(monkeypatch):
    def full(samples: Any) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(batch_memory, "SLOT_BYTES", 256)
    monkeypatch.setattr(batch_memory, "default_collate", full)
    with pytest.raises(DataError, match=r"/dev/shm has no room for a batch.*--shm-size=1g.*Torch says: unable"):
        list(batches(1, total=4))


@forks
def test_two_iterators_at_a_time_keep_apart():
    pairs = zip(batches(1), batches(2), batches(0), strict=True)
    assert all(same(one, third) and same(two, third) for one, two, third in pairs)


@forks
def test_nothing_is_left_when_an_iterator_is(monkeypatch):
    before = len(batch_memory._memories)
    fetched = prefetch(batches(2), "cpu")
    batch = next(fetched)
    assert len(batch_memory._memories) == before + 1
    fetched.close()
    del fetched
    gc.collect()
    assert batch["lq"].shape == (4, 2, 3, 5, 7)
    assert len(batch_memory._memories) == before


TRAINER = """
import multiprocessing, time
from tests.data import test_batch_memory
made = test_batch_memory.sample
def busy(i):
    time.sleep(600 if i % 4 else 0)
    return made(i)
test_batch_memory.sample = busy
found = test_batch_memory.batches(2, batch=1, total=10**6)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
list(found)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_workers_do_not_outlive_a_killed_trainer():
    # both are in the middle of a sample, where they do not look for messages
    trainer = subprocess.Popen([sys.executable, "-c", TRAINER], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout is not None
    workers = [int(pid) for pid in trainer.stdout.readline().split()]
    assert len(workers) == 2
    time.sleep(0.5)
    assert all(alive(pid) for pid in workers)
    trainer.send_signal(signal.SIGKILL)
    trainer.wait()
    trainer.stdout.close()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    orphans = [pid for pid in workers if alive(pid)]
    for pid in orphans:
        os.kill(pid, signal.SIGKILL)
    assert not orphans


def alive(pid: int) -> bool:
    """There, and no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
