"""BasicSR's order of samples, as a foreign options file gets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deblurkit.compat.sampler import enlarged_order, enlarged_visits
from deblurkit.data.batch_plan import plan_batches
from deblurkit.data.sampler import RequestSampler
from deblurkit.options import DatasetOptions, load_options
from tests.support.parity import FOLDER

TABLE = json.loads((FOLDER / "enlarged_sampler.json").read_text())
FILES = Path(__file__).parent / "files"


@pytest.mark.parametrize("title", TABLE["enlarged_sampler"])
def test_each_process_sees_what_it_sees_upstream(title: str) -> None:
    words = {key: int(value) for key, value in (word.split("=") for word in title.split())}
    expected, world = TABLE["enlarged_sampler"][title], words["world"]
    options = DatasetOptions(type="X", sampler="enlarged", dataset_enlarge_ratio=words["ratio"])
    plan = plan_batches(options, words["len"], world)
    per_epoch = plan.stages[0].iterations_per_epoch
    assert per_epoch == len(expected[0])
    for rank in range(world):
        first = words["epoch"] * per_epoch
        batches = list(RequestSampler(plan, seed=99, rank=rank, first_iter=first, total_iter=first + per_epoch))
        assert [request.index for (request,) in batches] == expected[rank]
        assert {request.epoch for (request,) in batches} == {words["epoch"]}


@pytest.mark.parametrize("entry", TABLE["epochs"])
def test_an_epoch_is_as_long_as_the_loader_makes_it(entry: dict[str, Any]) -> None:
    """Upstream prints ceil(visits / batch) and drops the last batch where it is not full: one less."""
    options = DatasetOptions(
        type="X",
        sampler="enlarged",
        dataset_enlarge_ratio=entry["ratio"],
        batch_size_per_gpu=entry["batch_size_per_gpu"],
    )
    found = plan_batches(options, entry["len"], entry["world_size"]).stages[0].iterations_per_epoch
    full = enlarged_visits(entry["len"], entry["ratio"], entry["world_size"]) % (
        entry["batch_size_per_gpu"] * entry["world_size"]
    )
    assert found == entry["iters_per_epoch"] - (full > 0)


def test_batches_of_several_processes_share_no_visit() -> None:
    options = DatasetOptions(type="X", sampler="enlarged", batch_size_per_gpu=2)
    plan = plan_batches(options, 13, 3)
    assert plan.visits == 15
    ranks = [list(RequestSampler(plan, rank=rank, total_iter=2)) for rank in range(3)]
    positions = sorted(request.position for batches in ranks for batch in batches for request in batch)
    assert positions == list(range(12))
    order = enlarged_order(13, 15, 0).tolist()
    assert [request.index for request in ranks[1][0]] == [order[1], order[4]]


def test_which_files_get_it() -> None:
    assert load_options(FILES / "rcan.yml").datasets["train"].sampler == "enlarged"
    assert load_options(FILES / "nafnet_gopro.yml").datasets["train"].sampler == "enlarged"
    assert load_options(FILES / "restormer_motion.yml").datasets["train"].sampler == "seeded"  # a schedule's own order
    assert DatasetOptions(type="X").sampler == "seeded"
