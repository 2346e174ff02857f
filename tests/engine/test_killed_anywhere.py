"""SIGKILL at random moments: the resumed run ends with the weights of one that nobody disturbed, bit for bit."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.runs import distributed, start_ranks, write_options, write_plugins
from tests.support.runs_process import Running
from tests.support.trees import make_tree

pytestmark = pytest.mark.slow

MOMENTS = 20
ITERATIONS = 24


def options_for(processes: int, accumulate: int, ema_decay: float, plugins: list[str]) -> dict[str, Any]:
    """Everything that has a state: AdamW, rates that always change, random losses, averages, stages, workers."""
    changes: dict[str, Any] = {
        "train__total_iter": ITERATIONS, "train__accumulate": accumulate, "train__ema_decay": ema_decay,
        "train__optim_g": {"type": "AdamW", "lr": 1e-3, "weight_decay": 1e-2},
        "train__scheduler": {"type": "CosineAnnealingRestartLR", "periods": [10, 20], "restart_weights": [1, 0.5]},
        "train__losses": {"pixel": {"type": "L1Loss"}, "hard": {"type": "HEMLoss", "weight": 0.5}},
        "val__val_freq": 8, "logger__print_freq": 1, "logger__save_checkpoint_freq": 3,
        "datasets__train__num_worker_per_gpu": 1, "datasets__train__prefetch_mode": "cpu", "plugins": plugins,
    }  # fmt: skip
    if processes > 1:
        changes["network_g"] = {"type": "PlainNet"}
    if ema_decay:
        changes |= {
            "datasets__train__gt_size": None, "datasets__train__batch_size_per_gpu": 1,
            "datasets__train__iters": [7, 17], "datasets__train__gt_sizes": [16, 24],
            "datasets__train__mini_batch_sizes": [2, 1], "datasets__train__mixup": {"beta": 1.2},
        }  # fmt: skip
    else:
        changes["datasets__train__batch_size_per_gpu"] = 1
    return changes


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of the last weights and of the best, averages included."""
    found = {}
    for which in ("latest", "best"):
        content = torch.load(folder / "experiments" / "tiny" / "models" / f"net_g_{which}.pth", weights_only=True)
        for part in ("params", "params_ema"):
            found.update({f"{which}.{part}.{key}": value for key, value in content.get(part, {}).items()})
    return found


def unfinished(folder: Path) -> list[Path]:
    """Temporary files of checkpoints."""
    root = folder / "experiments" / "tiny"
    return [*root.glob("models/.*.pth"), *root.glob("training_states/.*.state")]


def wait_until(rank: Running, iteration: int) -> None:
    """Until an iteration is done, or all."""
    rank.wait_for(lambda: rank.ended or f"iter {iteration}," in rank.stderr)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_at_any_moment(processes: int, accumulate: int, ema_decay: float, tmp_path: Path) -> None:
    """While it starts, in some iteration, and while a checkpoint is being written."""
    make_tree(tmp_path / "tree", splits=("train", "test"), sequences=2, frames=6, size=(32, 40), seed=1)
    changes = options_for(processes, accumulate, ema_decay, write_plugins(tmp_path / "plugins"))
    options = write_options(tmp_path / "whole" / "tiny.yml", tmp_path / "tree", **changes)
    distributed(processes, "train", "-opt", options, "--set", "train.total_iter=1")  # the server is warm after this one
    started = time.monotonic()
    ranks = start_ranks(processes, "train", "-opt", options, "--resume", "none")
    wait_until(ranks[0], 1)
    start_seconds = time.monotonic() - started
    for rank in ranks:
        done = rank.wait()
        assert done.returncode == 0, done.stderr
    expected = weights(options.parent)

    torn = 0
    for moment in range(MOMENTS):
        draw = random.Random(f"{processes} {accumulate} {ema_decay} {moment}")
        options = write_options(tmp_path / str(moment) / "tiny.yml", tmp_path / "tree", **changes)
        iteration = draw.randint(1, ITERATIONS)
        ranks = start_ranks(processes, "train", "-opt", options)
        kind = ("starting", "training", "training", "saving")[moment % 4]
        if kind == "starting":
            time.sleep(draw.uniform(0, start_seconds))
        else:
            wait_until(ranks[0], iteration)
        if kind == "training":
            time.sleep(draw.uniform(0, 0.03))
        if kind == "saving":
            while not ranks[0].ended and not unfinished(options.parent):
                time.sleep(0.0003)
        draw.shuffle(ranks)
        for rank in ranks:
            if not rank.ended:
                rank.send_signal(signal.SIGKILL)
        for rank in ranks:
            rank.wait(30)
        torn += bool(unfinished(options.parent))
        again = distributed(processes, "train", "-opt", options)
        assert again.returncode == 0, again.stderr
        if kind != "starting" and iteration > 3:
            assert "going on after iter" in again.stderr or "is finished already" in again.stderr, again.stderr
        found = weights(options.parent)
        different = [key for key in expected if not torch.equal(found[key], expected[key])]
        assert found.keys() == expected.keys()
        assert not different, f"moment {moment} ({kind}):\n{again.stderr}"
        assert not unfinished(options.parent)
    assert torn  # some were hit within a file
