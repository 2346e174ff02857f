"""What degrading a clip costs: milliseconds of a core for each degradation of an options file.

    python scripts/bench_degradations.py                                # RealBasicVSR's, on a clip of its own
    python scripts/bench_degradations.py options/mine.yml --frames 30 --size 256

Times are what the process used of a core, which does not count what other programs used. Figures are medians and means
over clips that differ in all that is random; a step that is skipped counts. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from deblurkit.data.degradation_base import Clip, build_degradations
from deblurkit.data.degradations import UnsharpMasking
from deblurkit.options import load_options

RECIPE = Path(__file__).parent.parent / "options" / "train_realbasicvsr_net_reds.yml"


def own_clip(frames: int, size: int) -> Clip:
    """Noise of all scales that moves by two pixels a frame, float32 in 0 to 255."""
    rng = np.random.default_rng(0)
    side = size + 2 * frames
    scene = np.zeros((side, side, 3), np.float32)
    for octave in range(1, 7):
        cells = -(-side // 2**octave) + 1
        scene += cv2.resize(rng.random((cells, cells, 3), np.float32), (side, side)) * 2**octave
    scene *= 255 / scene.max()
    return [scene[2 * t : 2 * t + size, 2 * t : 2 * t + size].copy() for t in range(frames)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("options", nargs="?", default=RECIPE, type=Path)
    parser.add_argument("--frames", default=10, type=int)
    parser.add_argument("--size", default=256, type=int)
    parser.add_argument("--scale", default=4, type=int)
    parser.add_argument("--clips", default=40, type=int)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    entries = load_options(arguments.options).datasets["train"].arguments["degradations"]
    steps = [UnsharpMasking(), *build_degradations(entries)]
    clip = own_clip(arguments.frames, arguments.size)
    spent: list[list[float]] = [[] for _ in steps]
    for seed in range(arguments.clips):
        rng, degraded = np.random.default_rng(seed), clip
        for step, times in zip(steps, spent, strict=True):
            started = time.process_time()
            degraded = step(degraded, rng, (arguments.size // arguments.scale,) * 2)
            times.append(1000 * (time.process_time() - started))
    totals = [sum(times) for times in zip(*spent, strict=True)]
    print(f"{arguments.frames} frames of {arguments.size}x{arguments.size}, {arguments.clips} clips, core ms\n")
    print("| degradation | median | mean |\n|---|---|---|")
    names = [*(type(step).__name__ for step in steps), "**all**"]
    for name, times in zip(names, [*spent, totals], strict=True):
        print(f"| {name} | {statistics.median(times):.1f} | {statistics.fmean(times):.1f} |")


if __name__ == "__main__":
    main()
