"""The whole engine in twenty numbers: data, augmentation, sampling, network, loss, optimiser, schedule, averages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from deblurkit.engine.launch import Place
from deblurkit.engine.train import train
from deblurkit.options import load_options
from tests.support.runs import write_options, write_plugins
from tests.support.trees import make_tree

GOLDEN = Path(__file__).with_name("golden_losses.json")


@pytest.mark.usefixtures("own_registries")
def test_the_first_twenty_losses_are_what_they_were(tmp_path: Path) -> None:
    """A difference here changes every run of every user: if it is meant, write the new losses and say why."""
    make_tree(tmp_path / "tree", splits=("train", "test"), sequences=2, frames=6, size=(32, 40), seed=1)
    options = write_options(
        tmp_path / "tiny.yml", tmp_path / "tree", network_g={"type": "PlainNet"},
        plugins=write_plugins(tmp_path / "plugins"), train__hooks=[{"type": "LossFileHook"}], train__total_iter=20,
        train__warmup_iter=4, train__ema_decay=0.9, train__grad_clip=0.5, train__accumulate=2, val__val_freq=10,
        train__scheduler={"type": "CosineAnnealingRestartLR", "periods": [10, 10], "eta_min": 1e-6},
        train__losses={"pixel": {"type": "L1Loss"}, "square": {"type": "MSELoss", "weight": 2.0}},
    )  # fmt: skip
    assert train(load_options(options), Place(torch.device("cpu"))) == 0
    losses = json.loads((tmp_path / "experiments" / "tiny" / "losses_rank0.json").read_text())
    assert losses == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-5)
