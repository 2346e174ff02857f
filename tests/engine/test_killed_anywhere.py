"""SIGKILL at random moments: the resumed run ends with the weights of one that nobody disturbed, bit for bit."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.support.runs import distributed, start_ranks, weights_hash, write_options, write_plugins
from tests.support.trees import make_tree

pytestmark = pytest.mark.slow

MOMENTS = 20


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_at_any_moment(processes: int, accumulate: int, ema_decay: float, tmp_path: Path) -> None:
    """From the start of the processes to their end."""
    make_tree(tmp_path / "tree", splits=("train", "test"), sequences=2, frames=6, size=(32, 40), seed=1)
    changes = {
        "train__total_iter": 24, "train__accumulate": accumulate, "train__ema_decay": ema_decay, "val__val_freq": 8,
        "datasets__train__batch_size_per_gpu": 1, "datasets__train__num_worker_per_gpu": 1,
        "logger__save_checkpoint_freq": 3, "plugins": write_plugins(tmp_path / "plugins"),
    }  # fmt: skip
    if processes > 1:
        changes["network_g"] = {"type": "PlainNet"}

    options = write_options(tmp_path / "whole" / "tiny.yml", tmp_path / "tree", **changes)
    distributed(processes, "train", "-opt", options, "--set", "train.total_iter=1")  # the server is warm after this one
    started = time.monotonic()
    whole = distributed(processes, "train", "-opt", options, "--resume", "none")
    seconds = time.monotonic() - started
    assert whole.returncode == 0, whole.stderr
    latest = "experiments/tiny/models/net_g_latest.pth"
    expected = weights_hash(options.parent / latest)

    resumed = 0
    for moment in range(MOMENTS):
        options = write_options(tmp_path / str(moment) / "tiny.yml", tmp_path / "tree", **changes)
        ranks = start_ranks(processes, "train", "-opt", options)
        time.sleep(random.Random(moment).uniform(0, seconds))
        for rank in ranks:
            if not rank.ended:
                rank.send_signal(signal.SIGKILL)
        for rank in ranks:
            rank.wait(30)
        again = distributed(processes, "train", "-opt", options)
        assert again.returncode == 0, again.stderr
        resumed += "going on after iter" in again.stderr
        assert weights_hash(options.parent / latest) == expected, f"moment {moment}:\n{again.stderr}"
    assert resumed > MOMENTS // 4  # most moments lie between the first checkpoint and the end
