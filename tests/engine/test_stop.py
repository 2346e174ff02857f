"""A run that is asked to stop within a validation, or before it has begun to train."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch

from tests.support.runs import distributed, start, weights_hash, write_options, write_plugins
from tests.support.trees import make_tree

#: Asks for the end when a validation begins; once.
STOP_HOOK = '''
import os
import signal
from pathlib import Path

from deblurkit.hooks.base import Hook
from deblurkit.registry import HOOK_REGISTRY


@HOOK_REGISTRY.register()
class StopHook(Hook):
    """Sends a signal to one of the processes."""

    def __init__(self, iteration: int, rank: int = 0) -> None:
        self.iteration, self.rank = iteration, rank

    def before_val(self, run):
        sent = run.folder / "sent"
        if run.iteration == self.iteration and run.place.rank == self.rank and not sent.exists():
            sent.touch()
            os.kill(os.getpid(), signal.SIGTERM)
'''


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "tree"
    make_tree(root, splits=("train", "test"), sequences=2, frames=6, size=(32, 40), seed=1)
    return root


@pytest.mark.parametrize(("processes", "at"), [(1, 4), (1, 8), (2, 5)])
def test_a_validation_is_left_and_made_up_for(processes: int, at: int, tree: Path, tmp_path: Path) -> None:
    """With two processes one is asked, at an iteration in which they do not talk about it."""
    folders = []
    for name in ("whole", "stopped"):
        plugins = write_plugins(tmp_path / name / "plugins")
        Path(plugins[0], "stop_hook.py").write_text(STOP_HOOK)
        options = write_options(
            tmp_path / name / "tiny.yml", tree, plugins=plugins, network_g={"type": "PlainNet"},
            val__val_freq=1 if at == 5 else 4, train__ema_decay=0.5, logger__save_checkpoint_freq=2,
            train__hooks=[{"type": "StopHook", "iteration": at if name == "stopped" else -1, "rank": processes - 1}],
        )  # fmt: skip
        folders.append(options.parent / "experiments" / "tiny")
        done = distributed(processes, "train", "-opt", options)
        if name == "stopped":
            assert done.returncode == 143, done.stderr
            assert f"validation at iter {at}: stopped" in done.stderr
            assert f"validation on val at iter {at}:" not in done.stderr
            assert "Traceback" not in done.stderr
            assert not json.loads((folders[1] / "run.json").read_text())["finished"]
            done = distributed(processes, "train", "-opt", options)
            assert f"going on after iter {at}" in done.stderr or at == 8
            assert f"validation on val at iter {at}:" in done.stderr
        assert done.returncode == 0, done.stderr
    for which in ("latest", "best"):
        first, second = (weights_hash(folder / "models" / f"net_g_{which}.pth") for folder in folders)
        assert first == second
    states = [torch.load(folder / "training_states" / "8.state", weights_only=True) for folder in folders]
    assert [hook for hook in states[0]["hooks"].values() if "best" in hook] == [
        hook for hook in states[1]["hooks"].values() if "best" in hook
    ]
    assert not states[1]["validation_due"]


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="the system has no SIGUSR1")
def test_preempted_before_it_trains(tree: Path, tmp_path: Path) -> None:
    options = write_options(tmp_path / "tiny.yml", tree)
    running = start("train", "-opt", options, before=_preempt_when_the_options_are_read)
    done = running.wait()
    assert done.returncode == 75, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "experiments").exists()


def _preempt_when_the_options_are_read() -> None:
    import os

    import deblurkit.options

    read = deblurkit.options.read_source

    def interrupted(*arguments: object) -> object:
        os.kill(os.getpid(), signal.SIGUSR1)
        return read(*arguments)  # type: ignore[arg-type]

    deblurkit.options.read_source = interrupted  # type: ignore[assignment]
