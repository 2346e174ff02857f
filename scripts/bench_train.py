"""What the training engine costs beside the training itself, and where its time goes.

    python scripts/bench_train.py                       # the CPU: overhead, and time spent waiting for data
    python scripts/bench_train.py --device cuda --crop 256 --batch 8 --network NAFNet --network DBN:num_frames=5

The engine (`Training.run`: sampling, loading, prefetching, step, guard, hooks) and bare PyTorch loops (forward, loss,
backward, the same optimiser) take turns in one process, a block of iterations each, so that whatever else the machine
does meets all of them. One bare loop has its samples from torch's `DataLoader` over the same data set, with as many
workers; the other one has a single batch, on the device already: what no training can have, and what shows the price of
data. Figures are medians over blocks. On a GPU the ways of computing (TF32, bf16, channels_last, compile) are compared
as well. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import ast
import copy
import itertools
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from operator import truediv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from deblurkit.data.lmdb_make import make_lmdb
from deblurkit.data.sampler import RequestSampler
from deblurkit.engine.launch import Place, resolve_device
from deblurkit.engine.record import device_name, peak_flops, training_flops
from deblurkit.engine.train import Training
from deblurkit.hooks.base import Hook
from deblurkit.image_io import write_image
from deblurkit.options import Options

WARM_UP = 3
WAYS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "TF32": {"tf32": True},
    "bf16": {"precision": "bf16"},
    "bf16, channels_last": {"precision": "bf16", "channels_last": True},
    "bf16, compile": {"precision": "bf16", "compile": True},
}


class Turns(Hook):
    """After each block of the engine's iterations one of each bare loop; remembers seconds per iteration of all."""

    def __init__(self, run: Training, block: int, bare: bool) -> None:
        self.block, self.bare = block, bare
        self.engine_seconds: list[float] = []
        self.loader_seconds: list[float] = []
        self.fixed_seconds: list[float] = []
        self.waiting: list[float] = []

        if not bare:
            return
        self.net = copy.deepcopy(run.model.net)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-4, fused=True)
        entry = run.options.sets("train")["train"]
        requests = RequestSampler(run.plan, seed=1, total_iter=10 * run.total_iterations)
        self.loaded = iter(
            DataLoader(
                run.dataset,
                batch_sampler=requests,
                num_workers=entry.num_worker_per_gpu,
                pin_memory=run.place.device.type == "cuda",
            )
        )

    def after_iter(self, run: Training, losses: Mapping[str, Tensor]) -> None:
        if run.iteration < WARM_UP:
            return
        device = run.place.device
        if run.iteration > WARM_UP and (run.iteration - WARM_UP) % self.block == 0:
            synchronize(device)
            seconds = time.perf_counter() - self.mark
            self.engine_seconds.append(seconds / self.block)
            self.waiting.append((run.data_wait - self.waited) / seconds)
            if self.bare:
                self.loader_seconds.append(self.bare_block(device, self.from_loader(device)))
                self.fixed_seconds.append(self.bare_block(device, itertools.repeat(run.current_batch)))
        if (run.iteration - WARM_UP) % self.block == 0:
            synchronize(device)
            self.mark, self.waited = time.perf_counter(), run.data_wait

    def from_loader(self, device: torch.device) -> Iterator[Mapping[str, Any]]:
        """Batches as a script would make them of what the loader gives."""
        for batch in self.loaded:
            frames = {name: batch[name].to(device, non_blocking=True) for name in ("lq", "gt")}
            yield {name: value.movedim(-1, -3).contiguous().float() / 255 for name, value in frames.items()}

    def bare_block(self, device: torch.device, batches: Iterator[Mapping[str, Any]]) -> float:
        """Seconds per iteration."""
        for i, batch in enumerate(itertools.islice(batches, self.block + 1)):  # the first one warms caches up again
            if i == 1:
                synchronize(device)
                started = time.perf_counter()
            lq, gt = batch["lq"], batch["gt"]
            restored = self.net.run(lq)["restored"]
            loss = (restored - (gt if gt.shape == restored.shape else gt[:, gt.shape[1] // 2])).abs().mean()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        synchronize(device)
        return (time.perf_counter() - started) / self.block


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_data(root: Path, frames: int) -> None:
    """Two sequences of smooth noise at GoPro's size, as PNG files and as a raw LMDB."""
    rng = np.random.default_rng(0)
    for sequence in range(2):
        for frame in range(frames):
            coarse = rng.integers(0, 256, (90, 160, 3), dtype=np.uint8)
            picture = cv2.resize(coarse, (1280, 720), interpolation=cv2.INTER_CUBIC)
            for kind in ("blur", "sharp"):
                write_image(root / "train" / f"seq{sequence}" / kind / f"{frame:06d}.png", picture)
    make_lmdb(root, ["train"], "paired")


def measure(
    arguments: argparse.Namespace, root: Path, network: Mapping[str, Any], storage: str, way: str, bare: bool = False
) -> tuple[Turns, Training]:
    """One run of the engine, with or without the bare loop between its blocks."""
    device = resolve_device(arguments.device)
    total = WARM_UP + arguments.block * arguments.blocks
    with tempfile.TemporaryDirectory() as folder:
        options = Options.model_validate(
            {
                "name": "bench",
                "datasets": {
                    "train": {
                        "type": "VideoDataset", "layout": "paired", "dataroot": str(root), "split": "train",
                        "storage": storage, "num_frame": arguments.frames, "gt_size": arguments.crop,
                        "batch_size_per_gpu": arguments.batch, "num_worker_per_gpu": arguments.workers,
                        "augment": {"hflip": 0.5, "vflip": 0.5, "transpose": 0.5}, "dataset_enlarge_ratio": 1000,
                    }
                },
                "network_g": dict(network),
                "path": {"experiments_root": folder},
                "train": {
                    "total_iter": total,
                    "optim_g": {"type": "Adam", "lr": 1e-4},
                    "losses": {"pixel": {"type": "L1Loss"}},
                    **WAYS[way],
                },
                "logger": {"use_tb_logger": False, "print_freq": total},
            }
        )  # fmt: skip
        run = Training(options, Place(device), "none")
        turns = Turns(run, arguments.block, bare)
        run.hooks.insert(0, turns)
        run.run()
    return turns, run


def parse_network(text: str) -> dict[str, Any]:
    """`NAFNet:width=32,enc_blk_nums=[1,1,1,28]` as it stands in an options file."""
    name, _, rest = text.partition(":")
    call = ast.parse(f"f({rest})", mode="eval").body
    assert isinstance(call, ast.Call)
    return {"type": name, **{str(word.arg): ast.literal_eval(word.value) for word in call.keywords}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--network", action="append", help="NAME:argument=value,... (may be repeated)")
    parser.add_argument("--frames", type=int, default=5, help="frames of a sample")
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--block", type=int, default=10, help="iterations of a block")
    parser.add_argument("--blocks", type=int, default=9)
    arguments = parser.parse_args()
    cv2.setNumThreads(0)  # its threads do not survive the fork that makes the workers
    device = resolve_device(arguments.device)
    networks = [parse_network(text) for text in arguments.network or ["DBN:num_frames=5"]]
    rows: list[str] = []
    ways: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        make_data(root, arguments.frames + 3)
        for network in networks:
            spelled = ", ".join(str(value) if key == "type" else f"{key}={value}" for key, value in network.items())
            for storage in ("lmdb", "disk"):
                turns, _ = measure(arguments, root, network, storage, "fp32", bare=True)
                times = (turns.engine_seconds, turns.loader_seconds, turns.fixed_seconds)
                shown = " | ".join(f"{1000 * statistics.median(seconds):.1f}" for seconds in times)
                over = " | ".join(f"{statistics.median(map(truediv, times[0], bare)) - 1:+.1%}" for bare in times[1:])
                rows.append(f"| {spelled} | {storage} | {shown} | {over} | {statistics.median(turns.waiting):.2%} |")
            if device.type != "cuda":
                continue
            first = 0.0
            for way in WAYS:
                turns, run = measure(arguments, root, network, "lmdb", way)
                seconds = statistics.median(turns.engine_seconds)
                first = first or seconds
                settings = run.options.training()
                peak = peak_flops(device_name(device), settings.precision, settings.tf32)
                work = training_flops(run.model.net, run.current_batch) * arguments.batch / seconds
                share = f"{work / peak:.1%}" if peak else "?"
                ways.append(f"| {spelled} | {way} | {1000 * seconds:.1f} | {first / seconds:.2f} | {share} |")
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores"
    print(
        f"{platform.machine()}, {machine}, {torch.get_num_threads()} thread(s), torch {torch.__version__}; batches of "
        f"{arguments.batch}, crops of {arguments.crop}, {arguments.workers} worker(s), medians of {arguments.blocks} "
        f"blocks of {arguments.block} iterations\n"
    )
    print(
        "| network | data | engine, ms | bare loop, torch's loader, ms | bare loop, one batch, ms | over the first | "
        "over the second | waiting for data |"
    )
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    if ways:
        print("\n| network | way | ms | times as fast as fp32 | of the peak |\n|---|---|---|---|---|")
        print("\n".join(ways))


if __name__ == "__main__":
    main()
