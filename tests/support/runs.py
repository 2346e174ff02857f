"""Small training runs: an options file for a tree made by `trees.make_tree`, and the command line in a subprocess."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from tests.support.runs_process import Running

#: A network without batch norm, so that results do not depend on how a batch is divided among processes.
PLAIN_NET = '''
import torch
from torch import nn
from deblurkit.contract import FrameContract
from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY


@ARCH_REGISTRY.register()
class PlainNet(Network):
    """Two convolutions over a window of three frames."""

    def __init__(self, width: int = 6):
        super().__init__(FrameContract(kind="window", frames=3, target=1, multiple=2, halo=4))
        self.first = nn.Conv2d(9, width, 5, padding=2)
        self.last = nn.Conv2d(width, 3, 5, padding=2)

    def forward(self, x):
        return x[:, 1] + self.last(torch.relu(self.first(x.flatten(1, 2))))
'''

#: Keeps the losses of every step of every process in `losses_rankN.json`.
LOSS_HOOK = '''
import json
from deblurkit.hooks.base import Hook
from deblurkit.registry import HOOK_REGISTRY


@HOOK_REGISTRY.register()
class LossFileHook(Hook):
    """Writes the sums of the loss terms at the end."""

    def before_train(self, run):
        self.losses = []

    def after_iter(self, run, losses):
        self.losses.append(sum(float(value) for value in losses.values()))

    def after_train(self, run):
        (run.folder / f"losses_rank{run.place.rank}.json").write_text(json.dumps(self.losses))
'''


def write_plugins(folder: Path) -> list[str]:
    """A folder with `PlainNet` and `LossFileHook`, as `plugins` in the options."""
    folder.mkdir(parents=True)
    (folder / "plain_arch.py").write_text(PLAIN_NET)
    (folder / "loss_file_hook.py").write_text(LOSS_HOOK)
    return [str(folder)]


def write_options(path: Path, dataroot: Path, **changes: Any) -> Path:
    """An options file for a tiny run; `changes` replace values by dotted key (`train__total_iter=3`)."""
    data = {"type": "VideoDataset", "layout": "paired", "dataroot": str(dataroot), "num_frame": 3}
    values: dict[str, Any] = {
        "schema": "deblurkit/1",
        "name": "tiny",
        "num_gpu": 0,
        "manual_seed": 7,
        "datasets": {
            "train": {
                **data,
                "split": "train",
                "gt_size": 16,
                "batch_size_per_gpu": 2,
                "augment": {"hflip": 0.5, "vflip": 0.5, "transpose": 0.5},
            },
            "val": {**data, "split": "test"},
        },
        "network_g": {"type": "DBN", "num_frames": 3, "inner_channels": 4, "zero_init_residual": True},
        "path": {"experiments_root": str(path.parent / "experiments"), "results_root": str(path.parent / "results")},
        "train": {
            "total_iter": 8,
            "optim_g": {"type": "Adam", "lr": 1e-3, "betas": [0.9, 0.99]},
            "scheduler": {"type": "MultiStepRestartLR", "milestones": [5], "gamma": 0.5},
            "losses": {"pixel": {"type": "L1Loss"}},
        },
        "val": {"val_freq": 4},
        "logger": {"print_freq": 2, "save_checkpoint_freq": 2, "use_tb_logger": False},
    }
    for dotted, value in changes.items():
        at = values
        *parents, last = dotted.split("__")
        for parent in parents:
            at = at[parent]
        at[last] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def environment() -> dict[str, str]:
    """The environment for a subprocess: two processes at most, one thread each, no launcher's variables."""
    kept = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "OMP_NUM_THREADS": "1"}


def command(*arguments: object) -> list[str]:
    """The command line `deblurkit ARGUMENTS`, for a process that imports everything itself (3 s)."""
    return [sys.executable, "-m", "deblurkit", *(str(argument) for argument in arguments)]


def start(*arguments: object, before: Callable[[], Any] | None = None, **variables: object) -> Running:
    """Start the command line in a process of its own; `before` is called there first, `variables` are environment."""
    changed = {key: str(value) for key, value in variables.items()}
    return Running([str(argument) for argument in arguments], {**environment(), **changed}, before)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start_ranks(count: int, *arguments: object) -> list[Running]:
    """Start the processes of a distributed run, as torchrun does (and without its imports)."""
    port = free_port()
    return [
        start(*arguments, RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=count, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        for rank in range(count)
    ]


def deblurkit(
    *arguments: object, timeout: float = 180, before: Callable[[], Any] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line and wait for it."""
    return start(*arguments, before=before).wait(timeout)


def distributed(count: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in `count` processes; what the first one that failed said, else rank 0."""
    done = [rank.wait() for rank in start_ranks(count, *arguments)]
    return next((one for one in done if one.returncode), done[0])


def weights_hash(path: Path) -> str:
    """A hash over the names and bits of all tensors in a weights file."""
    digest = hashlib.sha256()
    for key, value in sorted(torch.load(path, weights_only=True)["params"].items()):
        digest.update(key.encode() + value.numpy().tobytes())
    return digest.hexdigest()
