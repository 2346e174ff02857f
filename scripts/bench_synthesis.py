"""How long a worker takes for a sample of `SynthesisDataset`: CPU time, median and mean, with one thread.

    python scripts/bench_synthesis.py PHOTOS [--samples 30] [--size 256] [--frames 5]

PHOTOS is a folder of photos. An LMDB of raw pixels is made of them in a temporary folder.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from deblurkit.build import build_dataset
from deblurkit.data.lmdb_make import make_lmdb
from deblurkit.data.request import SampleRequest

CASES: dict[str, dict[str, Any]] = {
    "photos": {},
    "photos, render: device": {"render": "device"},
    "photos, objects: 0": {"objects": 0},
    "photos, crf: [15, 32]": {"crf": [15, 32]},
    "shake": {"mode": "shake"},
    "shake, one frame": {"mode": "shake", "num_frame": 1},
}


def measure(root: Path, storage: str, samples: int, size: int, arguments: dict[str, Any]) -> tuple[float, float]:
    """Median and mean of the CPU time of a sample, in ms."""
    data = build_dataset({"type": "SynthesisDataset", "dataroot": str(root), "storage": storage, **arguments})
    data.for_transport(SampleRequest(0, 0, 0, size))
    times = []
    for i in range(samples):
        started = time.process_time()
        data.for_transport(SampleRequest(i * 7 % len(data), 0, i, size))
        times.append(1000 * (time.process_time() - started))
    return float(np.median(times)), float(np.mean(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--frames", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("ms of CPU time for a sample, median (mean)", "files", "raw LMDB")
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "photos"
        shutil.copytree(given.photos, stored)
        make_lmdb(stored, layout="photos")
        for name, arguments in CASES.items():
            arguments = {"num_frame": given.frames, **arguments}
            figures = [measure(stored, s, given.samples, given.size, arguments) for s in ("disk", "lmdb")]
            table.add_row(name, *(f"{median:.0f} ({mean:.0f})" for median, mean in figures))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
