"""Sampler, loader and prefetcher: who asks for what, and that nothing but the seed decides it."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deblurkit.build import build_dataset
from deblurkit.data.base import EvaluationClip, FrameDataset, Sample
from deblurkit.data.batch_plan import BatchPlan
from deblurkit.data.lmdb_make import make_lmdb
from deblurkit.data.loader import build_loader
from deblurkit.data.prefetcher import prefetch, to_float
from deblurkit.data.request import SampleRequest
from deblurkit.data.sampler import RequestSampler
from deblurkit.errors import DataError, DeviceError
from deblurkit.options import DatasetOptions
from tests.support.trees import make_tree


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_tree(tmp_path_factory.mktemp("shared") / "tree", splits=("train",), frames=(5, 7), size=(24, 40))
    make_lmdb(root)
    return root


def options(root: Path, **changes: Any) -> DatasetOptions:
    values = {
        "type": "VideoDataset",
        "dataroot": str(root),
        "split": "train",
        "num_frame": 3,
        "augment": {"hflip": 0.5, "vflip": 0.5, "transpose": 0.5},
        "gt_size": 16,
        "batch_size_per_gpu": 4,
        "dataset_enlarge_ratio": 2,
    }
    return DatasetOptions(**{**values, **changes})


class TestSampler:
    """Orders and batches."""

    def plan(self, samples: int = 10, batch: int = 4, crop: Any = None, **arguments: int) -> BatchPlan:
        return BatchPlan(samples, [(0, batch, crop)], **arguments)

    def requests(self, plan: BatchPlan | None = None, total: int = 9, **arguments: Any) -> list[list[SampleRequest]]:
        return list(RequestSampler(plan or self.plan(), total_iter=total, **arguments))

    def test_an_epoch_visits_every_sample_ratio_times(self):
        plan = self.plan(batch=6, enlarge_ratio=3)
        batches = self.requests(plan, 10)
        assert plan.stages[0].iterations_per_epoch == 5
        for epoch in (0, 1):
            requests = [r for batch in batches[5 * epoch : 5 * epoch + 5] for r in batch]
            assert {r.epoch for r in requests} == {epoch}
            assert [r.position for r in requests] == list(range(30))
            assert np.bincount([r.index for r in requests]).tolist() == [3] * 10
        orders = [[r.index for batch in part for r in batch] for part in (batches[:5], batches[5:])]
        assert orders[0] != orders[1]
        assert orders[0] != sorted(orders[0])

    def test_what_does_not_fill_a_batch_is_left_out(self):
        sampler = RequestSampler(self.plan(), total_iter=9)
        assert [sampler.plan.at(i)[1:] for i in range(5)] == [(0, 0), (0, 4), (1, 0), (1, 4), (2, 0)]
        assert [batch[0].epoch for batch in sampler] == [0, 0, 1, 1, 2, 2, 3, 3, 4]
        assert len(sampler) == 9

    @pytest.mark.parametrize("first", [1, 2, 5, 8])
    def test_it_starts_anywhere(self, first):
        plan = self.plan(crop=8)
        assert self.requests(plan, first_iter=first) == self.requests(plan)[first:]

    @pytest.mark.parametrize("processes", [2, 4])
    def test_processes_share_the_global_batch(self, processes):
        whole = self.requests()
        plan = self.plan(batch=4 // processes, world_size=processes)
        parts = [self.requests(plan, rank=rank) for rank in range(processes)]
        assert [[r for part in batch for r in part] for batch in zip(*parts, strict=True)] == whole

    def test_seeds_differ_and_the_order_is_not_a_samples_stream(self):
        assert self.requests(seed=1) != self.requests(seed=2)
        order = [r.index for batch in self.requests(self.plan(batch=10), 1, seed=3) for r in batch]
        stream = SampleRequest(0, 0, 0).rng(3).permutation(10).tolist()
        assert order != stream

    def test_too_few_samples(self):
        with pytest.raises(
            DataError, match=r"3 samples, each visited 1 times, do not fill a batch of 8 .*dataset_enlarge"
        ):
            self.plan(3, 4, world_size=2)


def batches(
    opt: DatasetOptions, first: int = 0, total: int = 9, rank: int = 0, world_size: int = 1, mode: Any = None
) -> list[Sample]:
    dataset = build_dataset(opt.mapping(), seed=5)
    loader = build_loader(dataset, opt, 5, rank, world_size, first, total)
    return list(prefetch(loader, "cpu", mode))


def assert_same(found: list[Sample], expected: list[Sample]) -> None:
    assert [b["key"] for b in found] == [b["key"] for b in expected]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one["lq"], other["lq"])
        assert torch.equal(one["gt"], other["gt"])


@pytest.fixture(scope="module")
def expected(root: Path) -> list[Sample]:
    """Nine batches over three epochs, made in the plainest way."""
    return batches(options(root))


def test_batches_are_float_frames(root, expected):
    assert len(expected) == 9
    assert expected[0]["lq"].shape == (4, 3, 3, 16, 16)
    assert expected[0]["gt"].shape == (4, 1, 3, 16, 16)
    assert expected[0]["lq"].dtype == torch.float32
    assert expected[0]["lq"].is_contiguous()
    assert 0 <= expected[0]["lq"].min() < expected[0]["lq"].max() <= 1
    dataset = build_dataset(options(root).mapping(), seed=5)
    plan = BatchPlan(len(dataset), [(0, 4, 16)], enlarge_ratio=2)
    request = next(iter(RequestSampler(plan, seed=5, total_iter=9)))[2]
    frame = dataset[request]["lq"][1].numpy()  # turned already: asked by itself, a data set gives whole samples
    np.testing.assert_array_equal(expected[0]["lq"][2, 1], (frame / np.float32(255)).transpose(2, 0, 1))


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize(("workers", "mode"), [(0, "auto"), (1, None), (1, "cpu"), (2, "auto"), (4, "auto"), (4, None)])
def test_workers_and_prefetch_change_nothing(root, expected, workers, mode):
    assert_same(batches(options(root, num_worker_per_gpu=workers), mode=mode), expected)


@pytest.mark.parametrize("storage", ["disk", "lmdb"])
@pytest.mark.parametrize("first", [1, 4, 7])
def test_a_run_goes_on_from_the_middle(root, expected, first, storage):
    opt = options(root, storage=storage, num_worker_per_gpu=first % 2)
    assert_same(batches(opt, first=first, mode="auto"), expected[first:])


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_two_processes_see_the_global_batches(root, expected, workers):
    opt = options(root, batch_size_per_gpu=2, num_worker_per_gpu=workers)
    halves = zip(*(batches(opt, rank=rank, world_size=2) for rank in range(2)), strict=True)
    joined = [{k: a[k] + b[k] if k == "key" else torch.cat([a[k], b[k]]) for k in a} for a, b in halves]
    assert_same(joined, expected)


def test_visits_of_one_index_get_different_crops(root):
    opt = options(root, dataset_enlarge_ratio=20, batch_size_per_gpu=1)
    found: dict[str, list[torch.Tensor]] = {}
    for batch in batches(opt, total=60):
        found.setdefault(batch["key"][0], []).append(batch["gt"])
    assert max(len(crops) for crops in found.values()) > 3
    for crops in found.values():
        assert len({crop.numpy().tobytes() for crop in crops}) == len(crops)


def test_loading_leaves_torchs_random_numbers_alone(root):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    batches(options(root, num_worker_per_gpu=1), total=2)
    assert torch.equal(torch.get_rng_state(), state)


class Fragile(FrameDataset):
    """Four numbers a sample; index 5 fails."""

    def __init__(self, error: Exception | None = None, sizes: bool = False) -> None:
        self.error, self.sizes = error, sizes

    def __len__(self) -> int:
        return 8

    def __getitem__(self, request: SampleRequest | int) -> Sample:
        assert isinstance(request, SampleRequest)
        if request.index == 5 and self.error:
            raise self.error
        side = 2 + request.index if self.sizes else 2
        return {"lq": torch.full((1, side, 2, 3), request.index, dtype=torch.uint8), "key": f"s/{request.index}"}

    def clips(self, merge: bool) -> list[EvaluationClip]:
        return []

    def fingerprint(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("mode", [None, "cpu"])
class TestErrors:
    """What goes wrong in a worker."""

    def load(self, dataset: FrameDataset, workers: int, mode: Any) -> list[Sample]:
        opt = DatasetOptions(type="Fragile", batch_size_per_gpu=2, num_worker_per_gpu=workers)
        return list(prefetch(build_loader(dataset, opt, 0, total_iter=4), "cpu", mode))

    def test_the_users_error_arrives_as_it_is(self, workers, mode):
        with pytest.raises(DataError) as caught:
            self.load(Fragile(DataError("x.png: is cut off")), workers, mode)
        assert str(caught.value) == "x.png: is cut off"

    def test_a_bug_keeps_its_traceback(self, workers, mode):
        with pytest.raises(RuntimeError, match=r"(?s)SampleRequest\(index=5.*in __getitem__.*ZeroDivisionError: a bug"):
            self.load(Fragile(ZeroDivisionError("a bug")), workers, mode)

    def test_sizes_that_do_not_stack(self, workers, mode):
        with pytest.raises(DataError, match=r"different sizes do not make a batch \(lq: s/. .*: give gt_size"):
            self.load(Fragile(sizes=True), workers, mode)


def pixel_batches(count: int, log: list[int] | None = None) -> Iterator[Sample]:
    try:
        for i in range(count):
            if log is not None:
                log.append(i)
            yield {"lq": torch.full((1, 1, 2, 2, 3), i, dtype=torch.uint8), "key": [str(i)], "noise": torch.ones(1)}
    finally:
        if log is not None:
            log.append(-1)


def prefetch_threads() -> int:
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


class TestPrefetcher:
    """The thread."""

    def test_conversion_is_division_in_float32(self):
        for dtype, top in ((np.uint8, 255), (np.uint16, 65535)):
            levels = np.arange(top + 1, dtype=dtype)[:, None, None, None].repeat(3, 3)
            found = to_float(torch.from_numpy(levels))
            assert found.dtype == torch.float32
            np.testing.assert_array_equal(found[:, 0, 0, 0].numpy(), levels[:, 0, 0, 0] / np.float32(top))

    @pytest.mark.parametrize("mode", [None, "cpu", "auto"])
    def test_order_and_end(self, mode):
        fetched = prefetch(pixel_batches(5), "cpu", mode)
        assert [int(b["key"][0]) for b in fetched] == list(range(5))
        assert list(fetched) == []
        assert prefetch_threads() == 0

    def test_float_tensors_and_texts_pass(self):
        batch = next(prefetch(pixel_batches(1), "cpu"))
        assert batch["noise"].tolist() == [1.0]
        assert batch["key"] == ["0"]

    def test_one_batch_ahead_and_no_more(self):
        log: list[int] = []
        fetched = prefetch(pixel_batches(9, log), "cpu")
        next(fetched)
        deadline = time.monotonic() + 5
        while log != [0, 1] and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert log == [0, 1]
        fetched.close()
        assert log == [0, 1, -1]
        assert list(fetched) == []

    @pytest.mark.parametrize("mode", [None, "cpu"])
    def test_a_consumer_that_leaves_stops_everything(self, mode):
        log: list[int] = []
        fetched = prefetch(pixel_batches(9, log), "cpu", mode)
        next(fetched)
        del fetched
        gc.collect()
        assert prefetch_threads() == 0
        assert log[-1] == -1

    def test_leaving_a_loader_with_workers_ends_them(self, root):
        opt = options(root, num_worker_per_gpu=2)
        dataset = build_dataset(opt.mapping())
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        before = set(children.read_text().split())
        fetched = prefetch(build_loader(dataset, opt, 0, total_iter=1000), "cpu")
        next(fetched)
        workers = set(children.read_text().split()) - before
        assert len(workers) == 2
        started = time.monotonic()
        fetched.close()
        assert time.monotonic() - started < 4  # torch waits five seconds for a worker that does not hear of the end
        assert not workers & set(children.read_text().split())

    def test_workers_leave_signals_to_the_main_process(self, root):
        opt = options(root, num_worker_per_gpu=1)
        dataset = build_dataset(opt.mapping())
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        before = set(children.read_text().split())
        with contextlib.closing(prefetch(build_loader(dataset, opt, 0, total_iter=1000), "cpu")) as fetched:
            next(fetched)
            (worker,) = set(children.read_text().split()) - before
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                os.kill(int(worker), number)
            for _ in range(20):
                next(fetched)
            assert worker in children.read_text().split()

    def test_waiting_is_measured(self):
        def slow() -> Iterator[Sample]:
            for batch in pixel_batches(3):
                time.sleep(0.05)
                yield batch

        waited = {}
        for mode in (None, "cpu"):
            fetched = prefetch(slow(), "cpu", mode)
            for _ in fetched:
                time.sleep(0.1)  # the consumer's own work
            waited[mode] = fetched.wait_seconds
        assert waited[None] >= 0.15
        assert waited["cpu"] < 0.12

    def test_cuda_needs_a_gpu(self):
        with pytest.raises(DeviceError, match="prefetch_mode: cuda needs a GPU, but the device is cpu"):
            prefetch(pixel_batches(1), "cpu", "cuda")

    @pytest.mark.gpu
    def test_modes_give_the_same_on_a_gpu(self, root):
        opt = options(root, num_worker_per_gpu=2, mixup={"use_identity": False})
        results = []
        for device, mode in (("cpu", None), ("cuda", "cuda"), ("cuda:0", "auto"), ("cuda", "cpu"), ("cuda", None)):
            loader = build_loader(build_dataset(opt.mapping(), 5), opt, 5, total_iter=9, pin_memory=device != "cpu")
            fetched = []
            for batch in prefetch(loader, device, mode):
                torch.zeros(1 << 20, device=device).add_(1)  # allocations that would reuse memory given back too early
                fetched.append({k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in batch.items()})
            results.append(fetched)
        for other in results[1:]:
            assert_same(other, results[0])
        for dtype, top in ((torch.uint8, 255), (torch.uint16, 65535)):
            levels = torch.arange(top + 1, dtype=torch.int32).to(dtype)[:, None, None, None].expand(-1, 1, 1, 3)
            assert torch.equal(to_float(levels.cuda()).cpu(), to_float(levels))
            crops = torch.randint(top + 1, (8, 2, 6, 6, 3), generator=torch.Generator().manual_seed(0)).to(dtype)
            assert torch.equal(to_float(crops.cuda(), range(8)).cpu(), to_float(crops, range(8)))
