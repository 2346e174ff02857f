"""Training runs as a user starts them: exact resume, stopping, two processes, what lies in the folder afterwards."""

from __future__ import annotations

import json
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.support.runs import deblurkit, distributed, start, start_ranks, weights_hash, write_options, write_plugins
from tests.support.trees import make_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "tree"
    make_tree(root, splits=("train", "test"), sequences=2, frames=6, size=(32, 40), seed=1)
    return root


@pytest.fixture(scope="module")
def unbroken(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody disturbed."""
    options = write_options(tmp_path_factory.mktemp("unbroken") / "tiny.yml", tree)
    done = deblurkit("train", "-opt", options)
    assert done.returncode == 0, done.stderr
    return options.parent / "experiments" / "tiny"


def latest(folder: Path) -> Path:
    return folder / "models" / "net_g_latest.pth"


def test_folder_has_what_the_design_names(unbroken: Path) -> None:
    names = {str(path.relative_to(unbroken)) for path in unbroken.rglob("*") if path.is_file()}
    assert {"options.yml", "run.json", "train.log", "models/net_g_latest.pth", "models/net_g_best.pth"} <= names
    # keep_last is 3: iterations 4, 6, 8 of 2, 4, 6, 8
    assert {n for n in names if n.endswith(".state")} == {f"training_states/{i}.state" for i in (4, 6, 8)}
    assert {f"models/net_g_{i}.pth" for i in (4, 6, 8)} <= names
    assert "models/net_g_2.pth" not in names
    record = json.loads((unbroken / "run.json").read_text())
    assert record["finished"]
    assert record["iterations"] == 8
    assert record["samples_seen"] == 16
    assert record["data"]["train"]
    assert record["network"]["type"] == "DBN"
    assert record["seconds"] >= record["this_session"]["seconds"] > 0
    assert record["this_session"]["samples_per_second"] > 0
    assert record["this_session"]["model_flops_utilization"] is None  # no peak rate is known of a CPU
    assert record["devices"] == ["cpu"]
    assert record["peak_memory_bytes"] > 50_000_000
    assert record["weights_sha256"] == weights_hash(latest(unbroken))
    log = (unbroken / "train.log").read_text()
    assert "validation on val at iter 4" in log
    assert "validation on val at iter 8" in log
    assert "data wait" in log


def test_checkpoint_says_which_network_it_is(unbroken: Path) -> None:
    content = torch.load(latest(unbroken), weights_only=True)
    assert content["network"] == {
        "type": "DBN", "num_frames": 3, "in_channels": 3, "inner_channels": 4, "zero_init_residual": True,
    }  # fmt: skip
    assert content["io"]["order"] == "rgb"
    assert content["iter"] == 8


def test_the_same_options_give_the_same_bits(tree: Path, unbroken: Path, tmp_path: Path) -> None:
    options = write_options(tmp_path / "tiny.yml", tree, datasets__train__num_worker_per_gpu=2)
    assert deblurkit("train", "-opt", options).returncode == 0
    records = [json.loads((f / "run.json").read_text()) for f in (tmp_path / "experiments" / "tiny", unbroken)]
    assert records[0]["weights_sha256"] == records[1]["weights_sha256"]


@pytest.mark.parametrize("attempt", range(3))
def test_killed_at_a_random_moment_and_resumed_gives_the_same_bits(
    attempt: int, tree: Path, unbroken: Path, tmp_path: Path
) -> None:
    options = write_options(tmp_path / "tiny.yml", tree)
    folder = tmp_path / "experiments" / "tiny"
    running = start("train", "-opt", options)
    running.wait_for((folder / "training_states" / f"{(2, 4, 6)[attempt]}.state").exists)
    time.sleep(random.Random(attempt).uniform(0, 0.05))
    running.send_signal(signal.SIGKILL)
    running.wait()
    done = deblurkit("train", "-opt", options)
    assert done.returncode == 0, done.stderr
    assert weights_hash(latest(folder)) == weights_hash(latest(unbroken))


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 75)])
def test_a_signal_saves_and_exits_with_its_code(
    name: str, code: int, tree: Path, unbroken: Path, tmp_path: Path
) -> None:
    # checkpoints only at the end: what is there after the signal was saved because of it
    options = write_options(tmp_path / "tiny.yml", tree, logger__save_checkpoint_freq=1000, train__total_iter=100000)
    folder = tmp_path / "experiments" / "tiny"
    running = start("train", "-opt", options, "--set", "val.val_freq=null")
    running.wait_for(lambda: "iter 2," in running.stderr)
    running.send_signal(getattr(signal, name))
    done = running.wait()
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    states = list((folder / "training_states").glob("*.state"))
    assert len(states) == 1
    assert weights_hash(latest(folder)) == weights_hash(folder / "models" / f"net_g_{states[0].stem}.pth")
    if int(states[0].stem) <= 8:
        done = deblurkit("train", "-opt", options, "--set", "train.total_iter=8", "--set", "val.val_freq=null")
        assert done.returncode == 0, done.stderr
        assert weights_hash(latest(folder)) == weights_hash(latest(unbroken))


def test_a_damaged_checkpoint_is_skipped_with_a_warning(tree: Path, unbroken: Path, tmp_path: Path) -> None:
    options = write_options(tmp_path / "tiny.yml", tree)
    folder = tmp_path / "experiments" / "tiny"
    assert deblurkit("train", "-opt", options, "--set", "train.total_iter=6").returncode == 0
    state = folder / "training_states" / "6.state"
    state.write_bytes(state.read_bytes()[:-100])
    done = deblurkit("train", "-opt", options)
    assert done.returncode == 0, done.stderr
    assert "6.state" in done.stderr
    assert "going on after iter 4" in done.stderr
    assert weights_hash(latest(folder)) == weights_hash(latest(unbroken))


def test_a_finished_run_is_left_alone_and_none_archives_it(tree: Path, tmp_path: Path) -> None:
    options = write_options(tmp_path / "tiny.yml", tree, train__total_iter=2)
    root = tmp_path / "experiments"
    assert deblurkit("train", "-opt", options).returncode == 0
    before = latest(root / "tiny").stat().st_mtime_ns
    again = deblurkit("train", "-opt", options)
    assert again.returncode == 0
    assert "finished already" in again.stderr
    assert latest(root / "tiny").stat().st_mtime_ns == before
    anew = deblurkit("train", "-opt", options, "--resume", "none")
    assert anew.returncode == 0, anew.stderr
    assert len(list(root.glob("tiny_archived_*"))) == 1
    assert latest(root / "tiny").exists()


def test_changed_options_are_shown_on_a_resume(tree: Path, tmp_path: Path) -> None:
    options = write_options(tmp_path / "tiny.yml", tree, train__total_iter=2)
    assert deblurkit("train", "-opt", options).returncode == 0
    longer = deblurkit("train", "-opt", options, "--set", "train.total_iter=4")
    assert longer.returncode == 0
    assert "options changed since this run began:\n  train.total_iter: 2 -> 4\n" in longer.stderr
    added = ("--set", "train.total_iter=6", "--set", "train.hooks=[{type: EarlyStopHook, patience: 9}]")
    more = deblurkit("train", "-opt", options, *added)
    assert "  train.hooks: [] -> (not given)\n" in more.stderr
    assert "  train.hooks.0.patience: (not given) -> 9\n" in more.stderr
    again = deblurkit("train", "-opt", options, *added)
    assert "options changed" not in again.stderr


def test_epochs_as_the_unit(tree: Path, tmp_path: Path) -> None:
    options = write_options(
        tmp_path / "tiny.yml", tree, train__scheduler={"type": "MultiStepRestartLR", "milestones": [1], "gamma": 0.1}
    )
    values = yaml.safe_load(options.read_text())
    del values["train"]["total_iter"]
    values["train"]["total_epoch"] = 2
    values["val"]["val_freq"] = values["logger"]["save_checkpoint_freq"] = 1
    options.write_text(yaml.safe_dump(values))
    done = deblurkit("train", "-opt", options)
    assert done.returncode == 0, done.stderr
    # two sequences of 6 frames, windows of 3: 8 samples, batches of 2: 4 iterations an epoch
    assert "4 iterations an epoch, 8 in all" in done.stderr
    assert "[epoch 1, iter 4, lr (1.000e-03)]" in done.stderr
    assert "[epoch 2, iter 6, lr (1.000e-04)]" in done.stderr
    states = (tmp_path / "experiments" / "tiny" / "training_states").glob("*.state")
    assert {path.stem for path in states} == {"4", "8"}


def test_losses_fall_on_one_batch(tree: Path, tmp_path: Path) -> None:
    import deblurkit as package
    from deblurkit.data.prefetcher import to_device
    from deblurkit.engine.launch import Place
    from deblurkit.models.restoration_model import RestorationModel

    options = package.load_options(
        write_options(
            tmp_path / "tiny.yml",
            tree,
            train__optim_g={"type": "Adam", "lr": 3e-3},
            train__scheduler=None,
            network_g={"type": "DBN", "num_frames": 3, "inner_channels": 16, "zero_init_residual": True},
        )
    )
    torch.manual_seed(0)
    network = package.build_network(options.network_g.mapping())
    model = RestorationModel(options, {"g": network}, Place(torch.device("cpu")))
    dataset = package.build_dataset(options.datasets["train"].mapping())
    samples = [dataset[package.SampleRequest(i, 0, i, 32)] for i in range(4)]
    batch = {key: torch.stack([sample[key] for sample in samples]) for key in ("lq", "gt")}
    losses = []
    for i in range(40):
        model.start_iteration(i + 1, i)
        losses.append(float(model.train_step(to_device(batch, torch.device("cpu")))["pixel"]))
        model.finish_iteration()
    assert sorted(losses[-5:])[2] < 0.8 * losses[0], losses


@pytest.fixture(scope="module")
def make(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes options for a run of a network without batch norm."""
    plugins = write_plugins(tmp_path_factory.mktemp("plugins") / "own")

    def write(batch: int, **changes: Any) -> Path:
        return write_options(
            tmp_path_factory.mktemp("run") / "tiny.yml", tree, network_g={"type": "PlainNet"}, plugins=plugins,
            train__hooks=[{"type": "LossFileHook"}], datasets__train__batch_size_per_gpu=batch, **changes,
        )  # fmt: skip

    return write


@pytest.fixture(scope="module")
def two(make: Callable[..., Path]) -> Path:
    """The folder of a whole run of two processes."""
    options = make(2)
    done = distributed(2, "train", "-opt", options)
    assert done.returncode == 0, done.stderr
    # validation is shared among the processes; every frame is scored once
    line = next(line for line in done.stderr.splitlines() if "validation on val at iter 8" in line)
    assert "over 8 frames" in line
    return options.parent / "experiments" / "tiny"


class TestTwoProcesses:
    """gloo and DDP."""

    def test_batches_divided_in_any_way_give_the_same_losses(self, make: Callable[..., Path], two: Path) -> None:
        """One process with 4 samples, two with 2, one with twice 2."""
        ranks = [json.loads((two / f"losses_rank{rank}.json").read_text()) for rank in range(2)]
        expected = [sum(pair) / 2 for pair in zip(*ranks, strict=True)]
        assert len(expected) == 8
        for options in (make(4), make(2, train__accumulate=2)):
            done = deblurkit("train", "-opt", options)
            assert done.returncode == 0, done.stderr
            folder = options.parent / "experiments" / "tiny"
            assert json.loads((folder / "losses_rank0.json").read_text()) == pytest.approx(expected, rel=1e-5)
            ours, theirs = (torch.load(latest(run), weights_only=True)["params"] for run in (folder, two))
            for key, value in ours.items():
                torch.testing.assert_close(value, theirs[key], rtol=1e-4, atol=1e-6)

    def test_averages_are_validated_alike_by_all(self, make: Callable[..., Path], tree: Path) -> None:
        """Each process restores other frames, with an average of its own."""
        options = make(2, train__ema_decay=0.99, train__total_iter=2, val__val_freq=2)
        done = distributed(2, "train", "-opt", options)
        assert done.returncode == 0, done.stderr
        found = re.search(r"validation on val at iter 2: (psnr .*)", done.stderr)
        assert found
        weights = latest(options.parent / "experiments" / "tiny")
        alone = deblurkit("test", "-opt", options, "--weights", weights)
        assert f"val: {found[1]}" in alone.stderr, (found[1], alone.stderr)

    def test_killed_and_resumed_gives_the_same_bits(self, make: Callable[..., Path], two: Path) -> None:
        options = make(2)
        folder = options.parent / "experiments" / "tiny"
        ranks = start_ranks(2, "train", "-opt", options)
        ranks[0].wait_for((folder / "training_states" / "4.state").exists)
        for rank in ranks:
            rank.send_signal(signal.SIGKILL)
        for rank in ranks:
            rank.wait()
        again = distributed(2, "train", "-opt", options)
        assert again.returncode == 0, again.stderr
        assert weights_hash(latest(folder)) == weights_hash(latest(two))


class TestBadInput:
    """One clear message, exit code 2, nothing written."""

    def check(self, options: Path, *words: str, extra: tuple[object, ...] = ()) -> None:
        done = deblurkit("train", "-opt", options, *extra)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        for word in words:
            assert word in done.stderr, done.stderr
        assert not (options.parent / "experiments").exists()

    def test_data_that_is_not_there(self, tmp_path: Path) -> None:
        self.check(write_options(tmp_path / "tiny.yml", tmp_path / "nowhere"), "nowhere")

    def test_too_little_data_for_a_batch(self, tree: Path, tmp_path: Path) -> None:
        options = write_options(tmp_path / "tiny.yml", tree, datasets__train__batch_size_per_gpu=100)
        self.check(options, "8", "100", "batch_size_per_gpu")

    def test_a_loss_on_an_output_that_is_not_there(self, tree: Path, tmp_path: Path) -> None:
        options = write_options(tmp_path / "tiny.yml", tree)
        self.check(options, "restord", "restored", extra=("--set", "train.losses.pixel.output=restord"))

    def test_weights_of_another_network(self, tree: Path, unbroken: Path, tmp_path: Path) -> None:
        options = write_options(tmp_path / "tiny.yml", tree)
        wide = ("--set", "network_g.inner_channels=6", "--set", f"path.pretrain_network_g={latest(unbroken)}")
        self.check(options, "do not fit DBN(", "inner_channels=4", "inner_channels=6", extra=wide)

    def test_more_gpus_than_there_are(self, tree: Path, tmp_path: Path) -> None:
        options = write_options(tmp_path / "tiny.yml", tree)
        self.check(options, "--gpus 99", extra=("--gpus", 99))

    def test_an_optimiser_argument_that_torch_refuses(self, tree: Path, tmp_path: Path) -> None:
        options = write_options(tmp_path / "tiny.yml", tree)
        self.check(options, "Adam", "lr", extra=("--set", "train.optim_g.lr=-1.0"))


def test_a_window_that_does_not_fit_the_network_is_said_at_once(tree: Path, tmp_path: Path) -> None:
    options = write_options(tmp_path / "tiny.yml", tree)
    done = deblurkit("train", "-opt", options, "--set", "network_g.num_frames=5")
    assert done.returncode == 2
    assert "num_frame to 5" in done.stderr
    assert "Traceback" not in done.stderr


def test_dry_run_prints_the_plan_and_writes_nothing(tree: Path, tmp_path: Path) -> None:
    options = write_options(tmp_path / "tiny.yml", tree)
    done = deblurkit("train", "-opt", options, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "DBN" in done.stdout
    assert "8 samples" in done.stdout
    assert "from iter 5: lr 5.000e-04" in done.stdout
    assert not (tmp_path / "experiments").exists()
