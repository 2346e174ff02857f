"""Progressive schedules and mixup: what a batch is at each iteration, however training is cut up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from deblurkit.build import build_dataset, build_network
from deblurkit.data.base import Sample
from deblurkit.data.batch_plan import BatchPlan, plan_batches
from deblurkit.data.loader import build_loader
from deblurkit.data.mixup import RATIO, mix, mixup_ratio
from deblurkit.data.prefetcher import prefetch
from deblurkit.data.sampler import RequestSampler
from deblurkit.data.video_dataset import VideoDataset
from deblurkit.engine.launch import Place
from deblurkit.errors import DataError, OptionsError
from deblurkit.models.restoration_model import RestorationModel
from deblurkit.options import DatasetOptions, MixupOptions, load_options
from tests.support.runs import deblurkit, weights_hash, write_options
from tests.support.trees import make_tree

TABLE = json.loads((Path(__file__).parents[1] / "parity" / "progressive.json").read_text())
STAGES = {"iters": [3, 4, 2], "gt_sizes": [8, 16, 12], "mini_batch_sizes": [8, 4, 2]}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("progressive") / "tree", splits=("train",), frames=(5, 7), size=(24, 40))


def options(root: Path | str, **changes: Any) -> DatasetOptions:
    data = {"type": "VideoDataset", "dataroot": str(root), "split": "train", "num_frame": 1}
    return DatasetOptions(**{**data, "dataset_enlarge_ratio": 2, **STAGES, **changes})


def test_stages_equal_restormers_table():
    keys = ("iters", "gt_sizes", "mini_batch_sizes")
    plan = plan_batches(options("x", **{key: TABLE[key] for key in keys}), 2103, world_size=8)
    for iteration, number, size, batch in TABLE["stage_of_iteration"]:
        stage = plan.at(iteration - 1).stage  # the table counts from 1
        assert plan.stages.index(stage) == number
        assert (stage.crop_size, stage.batch) == (size, batch)


def test_epochs_and_positions():
    """24 visits: 3, 6, 12 batches a pass."""
    plan = plan_batches(options("x"), 12)
    places = [plan.at(i)[1:] for i in range(12)]
    assert places[:3] == [(0, 0), (0, 8), (0, 16)]
    assert places[3:7] == [(1, 0), (1, 4), (1, 8), (1, 12)]
    assert places[7:] == [(2, 0), (2, 2), (2, 4), (2, 6), (2, 8)]  # a stage begins with a new pass
    assert [plan.samples_before(i) for i in (0, 1, 3, 5, 7, 9, 20)] == [0, 8, 24, 32, 40, 44, 66]
    twice = plan_batches(options("x"), 12, world_size=1, parts=2)
    assert [stage.batch for stage in twice.stages] == [16, 8, 4]
    assert str(plan).split("; ")[1] == "from iter 4 batch 4, crops of 16, 6 iterations an epoch"
    with pytest.raises(DataError, match="3 samples, each visited 2 times, do not fill a batch of 8"):
        plan_batches(options("x"), 3)


def test_one_size_is_one_stage():
    plain = DatasetOptions(type="VideoDataset", gt_size=16, batch_size_per_gpu=4)
    plan = plan_batches(plain, 10, world_size=2)
    assert plan.stages == BatchPlan(10, [(0, 4, 16)], world_size=2).stages
    assert plan.samples_before(7) == 56


def test_the_sampler_asks_for_the_stages_crops_and_no_more():
    batches = list(RequestSampler(plan_batches(options("x"), 12), total_iter=12))
    assert [len(batch) for batch in batches] == [8] * 3 + [4] * 4 + [2] * 5
    assert [batch[0].crop_size for batch in batches] == [8] * 3 + [16] * 4 + [12] * 5
    for batch in batches:
        assert len({request.crop_size for request in batch}) == 1
    # no visit twice in a pass
    for epoch in range(3):
        positions = [r.position for batch in batches for r in batch if r.epoch == epoch]
        assert positions == list(range(len(positions)))


class CountingDataset(VideoDataset):
    """Counts the pixels that it is asked for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pixels = 0

    def __getitem__(self, request: Any) -> Sample:
        sample = super().__getitem__(request)
        self.pixels += sample["gt"][..., 0].numel()
        return sample


def test_nothing_is_loaded_and_thrown_away(root):
    data = CountingDataset(root, "train", num_frame=1)
    batches = list(build_loader(data, options(root), 5, total_iter=9))
    assert (
        data.pixels == sum(batch["gt"][..., 0].numel() for batch in batches) == 3 * 8 * 64 + 4 * 4 * 256 + 2 * 2 * 144
    )


def load(root: Path, first: int = 0, rank: int = 0, world_size: int = 1, **changes: Any) -> list[Sample]:
    opt = options(root, augment={"hflip": 0.5, "noise": 0.5}, **changes)
    loader = build_loader(build_dataset(opt.mapping(), 5), opt, 5, rank, world_size, first, 12)
    return list(prefetch(loader, "cpu"))


def assert_same(found: list[Sample], expected: list[Sample]) -> None:
    assert [batch["key"] for batch in found] == [batch["key"] for batch in expected]
    for one, other in zip(found, expected, strict=True):
        assert set(one) == {"lq", "gt", "key"}
        assert torch.equal(one["lq"], other["lq"])
        assert torch.equal(one["gt"], other["gt"])


@pytest.mark.parametrize("mixup", [None, {"use_identity": False}])
class TestInvariance:
    """The same samples from every road."""

    @pytest.mark.parametrize("first", [1, 3, 6, 7, 10])
    def test_a_run_goes_on_from_anywhere(self, root, first, mixup):
        assert_same(load(root, first, num_worker_per_gpu=first % 3, mixup=mixup), load(root, mixup=mixup)[first:])

    def test_processes_share_the_global_batch(self, root, mixup):
        whole = load(root, mixup=mixup, mini_batch_sizes=[8, 4, 4])
        parts = [load(root, rank=r, world_size=2, mixup=mixup, mini_batch_sizes=[4, 2, 2]) for r in range(2)]
        joined = [
            {k: a[k] + b[k] if k == "key" else torch.cat([a[k], b[k]]) for k in a} for a, b in zip(*parts, strict=True)
        ]
        assert_same(joined, whole)


class TestMixup:
    """Ratios and partners."""

    def test_ratios(self):
        drawn = [mixup_ratio(MixupOptions(use_identity=False), 1, 0, i) for i in range(2000)]
        assert np.mean(drawn) == pytest.approx(0.5, abs=0.02)
        # Beta(b, b) has the variance 1 / (8 b + 4)
        assert np.var(drawn) == pytest.approx(1 / (8 * 1.2 + 4), abs=0.006)
        assert mixup_ratio(MixupOptions(use_identity=False), 1, 0, 7) == drawn[7]
        others = {mixup_ratio(MixupOptions(use_identity=False), *where) for where in ((2, 0, 7), (1, 1, 7), (1, 0, 8))}
        assert len(others | {drawn[7]}) == 4
        half = [mixup_ratio(MixupOptions(), 1, 0, i) for i in range(2000)]
        assert 900 < half.count(1.0) < 1100
        assert [r for r in half if r != 1.0] == [d for r, d in zip(half, drawn, strict=True) if r != 1.0]

    @pytest.mark.parametrize("count", [1, 2, 4, 5])
    def test_both_sides_are_mixed_alike(self, count):
        lq, gt = torch.rand(count, 1, 3, 4, 4), torch.rand(count, 1, 3, 4, 4)
        mixed = mix({"lq": lq.clone(), "gt": gt.clone(), "key": ["a"] * count, RATIO: 0.25})
        assert set(mixed) == {"lq", "gt", "key"}
        partners = {1: [0], 2: [1, 0], 4: [1, 0, 3, 2], 5: [1, 0, 3, 2, 4]}[count]
        for name, frames in (("lq", lq), ("gt", gt)):
            torch.testing.assert_close(mixed[name], 0.25 * frames + 0.75 * frames[partners])

    def test_without_it_a_batch_is_left_alone(self):
        batch = {"lq": torch.rand(2, 3), "gt": torch.rand(2, 3)}
        assert mix(dict(batch))["lq"] is batch["lq"]
        assert mix({**batch, RATIO: 1.0})["gt"] is batch["gt"]

    def test_batches_are_mixed_before_they_arrive(self, root):
        plain, mixed = load(root), load(root, mixup={})
        ratios = [mixup_ratio(MixupOptions(), 5, *plan_batches(options(root), 12).at(i)[1:]) for i in range(12)]
        assert {ratio == 1.0 for ratio in ratios} == {True, False}
        for one, other, ratio in zip(plain, mixed, ratios, strict=True):
            partner = torch.arange(len(one["gt"])) ^ 1
            torch.testing.assert_close(other["gt"], ratio * one["gt"] + (1 - ratio) * one["gt"][partner])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iters": [1, 2]}, "three lists of one length: iters has 2, gt_sizes 3, mini_batch_sizes 3 items"),
        ({"gt_sizes": []}, "gt_sizes 0"),
        ({"gt_size": 16}, "replace gt_size and batch_size_per_gpu"),
        ({"batch_size_per_gpu": 4}, "replace gt_size and batch_size_per_gpu"),
        ({"iters": [1, 0, 3]}, "greater than 0"),
        ({"mixup": {"beta": 0.0}}, "greater than 0"),
        ({"mixup": {"betta": 1.0}}, "Extra inputs"),
    ],
)
def test_schedules_that_make_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        options("x", **changes)


def test_options_can_be_written_and_read_again():
    once = options("x", mixup={"beta": 2.0})
    assert DatasetOptions(**once.model_dump(mode="json")) == once


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("data") / "tree", frames=6, size=(24, 32))


class TestTraining:
    """The schedule in a run."""

    def write(self, folder: Path, tree: Path, **changes: Any) -> Path:
        path = write_options(folder / "tiny.yml", tree, **changes)
        values = yaml.safe_load(path.read_text())
        entry = values["datasets"]["train"]
        del entry["gt_size"], entry["batch_size_per_gpu"]
        entry |= {"iters": [3, 2], "gt_sizes": [8, 16], "mini_batch_sizes": [4, 2], "mixup": {"use_identity": False}}
        values["val"] = {"val_freq": None}
        path.write_text(yaml.safe_dump(values))
        return path

    def test_a_stopped_run_ends_with_the_same_bits(self, tree, tmp_path):
        whole, broken = (self.write(tmp_path / name, tree) for name in ("whole", "broken"))
        done = deblurkit("train", "-opt", whole)
        assert done.returncode == 0, done.stderr
        assert "8 samples, batch 4, crops of 8, 2 iterations an epoch; from iter 4 batch 2, crops of 16," in done.stderr
        record = json.loads((tmp_path / "whole" / "experiments" / "tiny" / "run.json").read_text())
        assert record["samples_seen"] == 3 * 4 + 5 * 2
        assert record["epochs"] == 3.25  # a pass and a half, then five batches of four
        for total in (4, 8):
            assert deblurkit("train", "-opt", broken, "--set", f"train.total_iter={total}").returncode == 0
        runs = [tmp_path / name / "experiments" / "tiny" / "models" for name in ("whole", "broken")]
        assert len({weights_hash(models / "net_g_latest.pth") for models in runs}) == 1

    def test_epochs_cannot_be_the_unit(self, tree, tmp_path):
        path = self.write(tmp_path, tree)
        with pytest.raises(OptionsError, match=r"train\.total_epoch: a progressive schedule .* give train\.total_iter"):
            load_options(path, overrides=["train.total_iter=null", "train.total_epoch=2"])

    def test_a_late_stage_that_is_larger_than_the_frames_is_told_at_once(self, tree, tmp_path):
        done = deblurkit("train", "-opt", self.write(tmp_path, tree), "--set", "datasets.train.gt_sizes=[8, 32]")
        assert done.returncode == 2
        assert "frames of 32x24 are smaller than the crop of 32x32; lower gt_size" in done.stderr
        assert not (tmp_path / "experiments").exists()

    def test_a_late_stage_that_the_network_cannot_take_is_told_at_once(self, tree, tmp_path):
        options = load_options(self.write(tmp_path, tree), overrides=["datasets.train.gt_sizes=[8, 18]"])
        network = build_network({"type": "DBN", "num_frames": 3, "inner_channels": 4})
        with pytest.raises(OptionsError, match=r"crops of 18x18, but DBN takes multiples of \(8, 8\)"):
            RestorationModel(options, {"g": network}, Place(torch.device("cpu")))
