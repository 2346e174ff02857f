"""The record of a run, `run.json`: what ran, on what, with which data, how fast."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from deblurkit.engine.launch import gather_objects
from deblurkit.engine.memory import peak_host_bytes
from deblurkit.engine.reproducibility import environment, weights_hash
from deblurkit.files import write_json
from deblurkit.network import Network, count_macs

if TYPE_CHECKING:
    from deblurkit.engine.train import Training

SCHEMA = "deblurkit-run/1"

#: Peak rates of GPUs without sparsity in TFLOP/s, from NVIDIA's data sheets: 16-bit matrix units, TF32, plain fp32.
#: The first whose name is in the device's counts.
_PEAKS: dict[str, tuple[float, float, float]] = {
    "B200": (2250, 1125, 75),
    "H200": (989.4, 494.7, 66.9),
    "H100 PCIe": (756, 378, 51.2),
    "H100": (989.4, 494.7, 66.9),
    "A100": (312, 156, 19.5),
    "L40S": (362, 183, 91.6),
    "L4": (121, 60, 30.3),
    "A10": (125, 62.5, 31.2),
    "V100": (125, 15.7, 15.7),
    "T4": (65, 8.1, 8.1),
    "RTX 4090": (165.2, 82.6, 82.6),
    "RTX 3090": (71, 35.6, 35.6),
}


def peak_flops(device: str, precision: str, tf32: bool) -> float | None:
    """Floating-point operations a second that a GPU of this name can do at most; None where that is not known."""
    for name, (half, matrix, single) in _PEAKS.items():
        if re.search(rf"\b{name}\b", device):
            return 1e12 * (half if precision != "fp32" else matrix if tf32 else single)
    return None


def training_flops(net: Network, batch: Mapping[str, Any]) -> float:
    """Estimated operations for one sample of a batch in a training step: three times the forward pass's.

    Two for each multiply-accumulate; the backward pass takes twice the forward's (gradients of inputs and weights).
    """
    lq = batch["lq"]
    past, future = net.contract.context
    frames = 1 if net.contract.kind in ("image", "window") else lq.shape[1] - past - future
    return 3 * 2 * count_macs(net, *lq.shape[-2:]) * frames


def device_name(device: torch.device) -> str:
    """The device of a process, for people: "cuda:0 (NVIDIA H200)"."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most this process's tensors have taken on its GPU; on the CPU, `peak_host_bytes`."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else peak_host_bytes()


class Stopwatch:
    """Times a session of a run.

    Args:
        run: before its first step.
    """

    def __init__(self, run: Training) -> None:
        self.started, self.first = time.time(), run.iteration
        self._samples = run.plan.samples_before(run.iteration)

    @property
    def seconds(self) -> float:
        """Since the session began."""
        return time.time() - self.started

    def figures(self, run: Training) -> dict[str, Any]:
        """Steps, rates and shares of this session; validation does not count as training."""
        training = max(self.seconds - run.validation_seconds, 1e-9)
        throughput = (run.plan.samples_before(run.iteration) - self._samples) / training
        return {
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.started)),
            "seconds": round(self.seconds, 1),
            "validation_seconds": round(run.validation_seconds, 1),
            "first_iteration": self.first,
            "iterations_per_second": round((run.iteration - self.first) / training, 3),
            "samples_per_second": round(throughput, 3),
            "data_wait_share": round(run.data_wait / training, 4),
            "model_flops_utilization": _utilization(run, throughput),
        }


def _utilization(run: Training, throughput: float) -> float | None:
    """Estimated share of the devices' peak rate; None where that is not known, or where batches differ in size."""
    train = run.options.training()
    peaks = [peak_flops(device, train.precision, train.tf32) for device in run.devices]
    if len(run.plan.stages) > 1 or not run.current_batch or None in peaks:
        return None
    return round(throughput * training_flops(run.model.net, run.current_batch) / sum(filter(None, peaks)), 4)


def write_record(run: Training, watch: Stopwatch, finished: bool) -> None:
    """Write `run.json`; all processes call it together."""
    memory = max(gather_objects(run.place, peak_memory(run.place.device)))
    if run.place.is_main:
        write_json(run.folder / "run.json", _record(run, watch, finished, memory))
    # nobody ends before it is written: a launcher ends all processes when the first one exits
    gather_objects(run.place, None)


def _record(run: Training, watch: Stopwatch, finished: bool, memory: int) -> dict[str, Any]:
    net, session = run.model.net, watch.figures(run)
    return {
        "schema": SCHEMA,
        "name": run.options.name,
        "finished": finished,
        "iterations": run.iteration,
        "epochs": run.plan.epochs_before(run.iteration),
        "samples_seen": run.plan.samples_before(run.iteration),
        "seconds": round(run.earlier_seconds + session["seconds"], 1),  # of all sessions
        "seed": run.options.manual_seed,
        "network": net.config,
        "parameters": net.num_parameters,
        "weights_sha256": weights_hash(net),
        "processes": run.place.world_size,
        "devices": run.devices,
        "peak_memory_bytes": memory,
        "data": {"train": run.dataset.fingerprint(), **{k: v.fingerprint() for k, v in run.val_sets.items()}},
        "environment": environment(run.place.device),
        "this_session": session,
        "options": run.options.model_dump(by_alias=True, mode="json"),
    }
