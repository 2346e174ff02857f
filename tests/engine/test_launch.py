"""Where processes stand: Slurm's variables as torchrun's, and how many processes a command wants."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deblurkit.engine.launch import first_host, slurm_variables
from deblurkit.errors import DeviceError
from tests.support.runs import free_port, start, write_options
from tests.support.trees import make_tree

TASK = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_JOB_NODELIST": "gpu[03-05,07]-ib,big1"}


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("gpu[03-05,07]", "gpu03"),
        ("gpu[7,9-12]-ib,big1", "gpu7-ib"),
        ("r[1-2]n[003-004],x", "r1n003"),
        ("big1,gpu[1-2]", "big1"),
    ],
)
def test_the_first_host_of_a_node_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


def test_slurms_variables_are_torchruns() -> None:
    assert slurm_variables(TASK) == {
        "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu03-ib", "MASTER_PORT": "29500",
    }  # fmt: skip
    assert slurm_variables({**TASK, "MASTER_PORT": "4711"})["MASTER_PORT"] == "4711"


def test_without_slurm_it_is_said() -> None:
    with pytest.raises(DeviceError, match="SLURM_LOCALID, SLURM_JOB_NODELIST not set; start it as `srun"):
        slurm_variables({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"})


def test_two_slurm_tasks_train_together(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", splits=("train", "test"), sequences=1, frames=6, size=(32, 40), seed=1)
    options = write_options(tmp_path / "tiny.yml", tmp_path / "tree", train__total_iter=2, val__val_freq=None)
    port = free_port()
    tasks = [
        start(
            "train", "-opt", options, "--launcher", "slurm", SLURM_PROCID=rank, SLURM_LOCALID=rank, SLURM_NTASKS=2,
            SLURM_JOB_NODELIST="localhost", MASTER_PORT=port,
        )
        for rank in range(2)
    ]  # fmt: skip
    for task in tasks:
        done = task.wait()
        assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "experiments" / "tiny" / "run.json").read_text())
    assert record["devices"] == ["cpu", "cpu"]
    assert record["samples_seen"] == 8


def impatient() -> None:
    """In the process that is started: a meeting of two seconds."""
    from datetime import timedelta

    from deblurkit.engine import launch

    launch.MEETING = timedelta(seconds=2)


@pytest.mark.parametrize("missing", [0, 2])
def test_a_task_that_never_arrives_ends_the_others(tmp_path: Path, missing: int) -> None:
    """One that died before they met is nobody's child under Slurm: the others must not wait for ever."""
    options = write_options(tmp_path / "tiny.yml", tmp_path / "tree")
    port = free_port()
    tasks = [
        start(
            "train", "-opt", options, "--launcher", "slurm", SLURM_PROCID=rank, SLURM_LOCALID=rank, SLURM_NTASKS=3,
            SLURM_JOB_NODELIST="localhost", MASTER_PORT=port, before=impatient,
        )
        for rank in range(3) if rank != missing
    ]  # fmt: skip
    for task in tasks:
        done = task.wait(60)
        assert done.returncode == 2, done.stderr
        assert "of 3 cannot meet the others at MASTER_ADDR:MASTER_PORT = localhost" in done.stderr
    assert not (tmp_path / "experiments").exists()
