"""Files that arguments name and that weights start from: needed once, not when a run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import deblurkit
from deblurkit.engine.launch import Place
from deblurkit.engine.start_weights import build_without_missing
from deblurkit.engine.train import Training, train
from deblurkit.errors import CheckpointError, MissingWeightsError
from tests.support.runs import weights_hash, write_options
from tests.support.trees import make_tree

CPU = Place(torch.device("cpu"))

STARTED = """
from torch import nn
from deblurkit.contract import FrameContract
from deblurkit.engine.checkpoint import load_weights, read_checkpoint
from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY


@ARCH_REGISTRY.register()
class StartedNet(Network):
    def __init__(self, start: str | None = None, second: bool = False):
        super().__init__(FrameContract(kind="window", frames=3, target=1, halo=1))
        self.part = nn.Conv2d(3, 3, 3, padding=1)
        if second:
            self.second = nn.Conv2d(3, 3, 3, padding=1)
        if start is not None:
            load_weights(self.part, read_checkpoint(start))
        self.config["start"] = None

    def forward(self, x):
        return x[:, 1] + self.part(x[:, 1])
"""


def settings(tmp_path: Path, total: int, **arguments: Any) -> deblurkit.options.Options:
    plugins = tmp_path / "plugins"
    plugins.mkdir(exist_ok=True)
    (plugins / "started_arch.py").write_text(STARTED)
    return deblurkit.load_options(
        write_options(
            tmp_path / "tiny.yml", tmp_path / "tree", plugins=[str(plugins)], train__total_iter=total,
            network_g={"type": "StartedNet", **arguments}, val__val_freq=None,
        )
    )  # fmt: skip


@pytest.mark.usefixtures("own_registries")
def test_a_run_goes_on_without_the_file_that_it_started_from(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", splits=("train", "test"), sequences=1, frames=6, size=(32, 40), seed=1)
    start = tmp_path / "start.pth"
    torch.save({"params": torch.nn.Conv2d(3, 3, 3, padding=1).state_dict()}, start)
    folder = tmp_path / "experiments" / "tiny"
    assert train(settings(tmp_path, 4, start=str(start)), CPU) == 0
    unbroken = weights_hash(folder / "models" / "net_g_latest.pth")
    assert train(settings(tmp_path, 2, start=str(start)), CPU, "none") == 0
    start.unlink()
    assert train(settings(tmp_path, 4, start=str(start)), CPU) == 0
    assert weights_hash(folder / "models" / "net_g_latest.pth") == unbroken
    # what the checkpoint does not have is not made up
    with pytest.raises(CheckpointError, match="do not fit StartedNet"):
        Training(settings(tmp_path, 6, start=str(start), second=True), CPU)
    # a new run needs the file
    with pytest.raises(MissingWeightsError, match=r"start\.pth: there is no such file"):
        Training(settings(tmp_path, 6, start=str(start)), CPU, "none")


def test_only_arguments_that_name_a_missing_file_are_left_out(tmp_path: Path) -> None:
    here = tmp_path / "here.pth"
    here.write_bytes(b"")

    def make(mapping: Mapping[str, Any]) -> dict[str, Any]:
        for value in mapping.values():
            if isinstance(value, str) and value.endswith(".pth") and not Path(value).exists():
                raise MissingWeightsError(Path(value))
        if "hidden" in mapping:
            raise MissingWeightsError(Path("its_own.pth"))
        return dict(mapping)

    told: list[tuple[str, str]] = []
    mapping = {"type": "X", "a": "./one.pth", "b": str(here), "c": "nowhere/two.pth", "d": 3}
    found = build_without_missing(mapping, make, lambda name, error: told.append((name, str(error))))
    assert found == {"type": "X", "b": str(here), "d": 3}
    assert told == [("a", "one.pth: there is no such file"), ("c", "nowhere/two.pth: there is no such file")]
    with pytest.raises(MissingWeightsError, match=r"its_own\.pth"):
        build_without_missing({**mapping, "hidden": True}, make)
