"""What `run.json` says."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import deblurkit
from deblurkit.engine.launch import Place
from deblurkit.engine.record import Stopwatch, peak_flops, training_flops
from deblurkit.engine.train import Training
from deblurkit.network import count_macs
from tests.support.runs import write_options
from tests.support.trees import make_tree

CPU = Place(torch.device("cpu"))


@pytest.mark.parametrize(
    ("device", "precision", "tf32", "teraflops"),
    [
        ("cuda:0 (NVIDIA H200)", "bf16", False, 989.4),
        ("cuda:0 (NVIDIA H100 PCIe)", "bf16", False, 756),
        ("cuda:0 (NVIDIA H100 80GB HBM3)", "fp32", True, 494.7),
        ("cuda:3 (NVIDIA A100-SXM4-80GB)", "fp32", False, 19.5),
        ("cuda:0 (NVIDIA A10)", "fp16", False, 125),
        ("cuda:0 (NVIDIA GeForce RTX 4090)", "bf16", True, 165.2),
    ],
)
def test_peak_rates(device: str, precision: str, tf32: bool, teraflops: float) -> None:
    assert peak_flops(device, precision, tf32) == pytest.approx(teraflops * 1e12)


@pytest.mark.parametrize("device", ["cpu", "cuda:0 (NVIDIA GeForce GTX 1080)", "cuda:0 (NVIDIA A1000)"])
def test_no_peak_rate_is_made_up(device: str) -> None:
    assert peak_flops(device, "fp32", False) is None


def test_operations_of_a_training_step() -> None:
    window = deblurkit.build_network({"type": "DBN", "num_frames": 3, "inner_channels": 4})
    assert training_flops(window, {"lq": torch.zeros(2, 3, 3, 32, 48)}) == 6 * count_macs(window, 32, 48)
    stream = deblurkit.build_network({"type": "ESTRNN"})
    past, future = stream.contract.context
    frames = past + future + 4
    assert training_flops(stream, {"lq": torch.zeros(1, frames, 3, 32, 32)}) == 4 * 6 * count_macs(stream, 32, 32)


def test_utilization_is_a_share_of_all_devices_peaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """256 samples in 10 seconds of training, of 12 in all, on two GPUs."""
    make_tree(tmp_path / "tree", splits=("train", "test"), sequences=1, frames=6, size=(32, 40), seed=1)
    run = Training(deblurkit.load_options(write_options(tmp_path / "tiny.yml", tmp_path / "tree")), CPU)
    watch = Stopwatch(run)
    run.devices = ["cuda:0 (NVIDIA T4)", "cuda:1 (NVIDIA T4)"]
    run.current_batch = {"lq": torch.zeros(2, 3, 3, 16, 16)}
    run.iteration, run.validation_seconds = 128, 2.0
    monkeypatch.setattr(Stopwatch, "seconds", 12.0)
    figures = watch.figures(run)
    assert figures["samples_per_second"] == 25.6
    monkeypatch.setattr("deblurkit.engine.record.training_flops", lambda net, batch: 1e11)
    assert watch.figures(run)["model_flops_utilization"] == pytest.approx(25.6e11 / 16.2e12, abs=1e-4)
    run.devices = ["cuda:0 (NVIDIA T4)", "cuda:1 (an unknown one)"]
    assert watch.figures(run)["model_flops_utilization"] is None
    monkeypatch.setattr(run, "plan", SimpleNamespace(stages=(1, 2), samples_before=lambda iteration: 0))
    run.devices = ["cuda:0 (NVIDIA T4)"]
    assert watch.figures(run)["model_flops_utilization"] is None


def test_wall_time_is_that_of_all_sessions(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", splits=("train", "test"), sequences=1, frames=6, size=(32, 40), seed=1)
    record = tmp_path / "experiments" / "tiny" / "run.json"
    seconds = []
    for total in (2, 4):
        options = write_options(tmp_path / "tiny.yml", tmp_path / "tree", train__total_iter=total, val__val_freq=None)
        run = Training(deblurkit.load_options(options), CPU)
        run.watch.started -= 1000  # as if it had begun earlier
        assert run.run() == 0
        seconds.append(json.loads(record.read_text())["seconds"])
    assert 1000 <= seconds[0] < 1060
    assert 2000 <= seconds[1] < 2120
    assert json.loads(record.read_text())["this_session"]["first_iteration"] == 2
