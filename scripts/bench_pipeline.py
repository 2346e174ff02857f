"""Do decoding, restoring and encoding overlap, and does memory grow with the length of the video? Prints both.

    python scripts/bench_pipeline.py [--size 1280x720] [--frames 150] [--lengths 100 300 1000]

Overlap: a stand-in network sleeps 1.2 times as long as the slowest codec stage needs alone; without any waiting the
whole takes the sum of its sleeps. Once with the real codecs, which share the processor with everything else, and once
with stages that sleep as long as they need, which shows the waiting alone.
Memory: the peak of a process of its own for each length.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from deblurkit.contract import FrameContract
from deblurkit.engine.memory import peak_host_bytes
from deblurkit.engine.pipeline import restore_into
from deblurkit.engine.restore import Restorer
from deblurkit.image_io import Pixels, cv2
from deblurkit.network import Network
from deblurkit.video.reader import VideoReader
from deblurkit.video.writer import VideoWriter


class Sleep(Network):
    """Returns its input after a while, as a network on another device does."""

    def __init__(self, seconds: float) -> None:
        super().__init__(FrameContract(kind="image", halo=0))
        self.seconds, self.slept = seconds, 0.0

    def forward(self, x: Tensor) -> Tensor:
        started = time.perf_counter()
        time.sleep(self.seconds)
        self.slept += time.perf_counter() - started
        return x


def make_video(path: Path, size: tuple[int, int], frames: int) -> None:
    """A texture that drifts, with some noise: not trivial to encode."""
    width, height = size
    rng = np.random.default_rng(0)
    texture = cv2().GaussianBlur(rng.integers(0, 255, (height + 64, width + 64, 3), np.uint8), (0, 0), 3).astype(float)
    texture = np.clip((texture - texture.mean()) * 6 + 110, 0, 255).astype(np.uint8)
    with VideoWriter(path, rate=30) as writer:
        for index in range(frames):
            y, x = index % 64, 2 * index % 64
            writer.write(texture[y : y + height, x : x + width])


def stages(reader: VideoReader, target: Path) -> tuple[float, float]:
    """Seconds per frame of decoding alone and of encoding alone."""
    kept = []
    started, count = time.perf_counter(), 0
    for item in reader.stamped():
        count += 1
        if len(kept) < 150:  # what encoding is measured with
            kept.append(item)
    decode = (time.perf_counter() - started) / count
    started = time.perf_counter()
    with VideoWriter(target, reader) as writer:
        for pixels, timing in kept:
            writer.write(pixels, timing)
    return decode, (time.perf_counter() - started) / len(kept)


def overlap(folder: Path, size: tuple[int, int], frames: int) -> None:
    source, target = folder / "source.mp4", folder / "result.mp4"
    make_video(source, size, frames)
    reader = VideoReader(source)
    decode, encode = stages(reader, target)
    alone = f"decode {1e3 * decode:.1f} ms, encode {1e3 * encode:.1f} ms"
    print(f"{size[0]}x{size[1]}, {frames} frames, per frame alone: {alone}")
    seconds = 1.2 * max(decode, encode)
    with VideoWriter(target, reader) as writer:
        report("real codecs", seconds, frames, reader, writer)
    pixels = next(iter(reader))
    report("codecs that sleep", seconds, frames, SleepingSource(pixels, frames, decode), SleepingSink(encode))


def report(name: str, seconds: float, frames: int, source: Any, sink: Any) -> None:
    network = Sleep(seconds)
    restorer = Restorer(network, device="cpu")
    cpu, started = time.thread_time(), time.perf_counter()
    restore_into(restorer, source, sink)
    wall, cpu = time.perf_counter() - started, time.thread_time() - cpu
    ratio, alone = wall / network.slept, 1 + cpu / network.slept
    print(f"{name}: wall {wall:.2f} s = {ratio:.3f} of the sleeps ({network.slept:.2f} s)")
    print(f"    by the processor time of the restoring thread, on an idle machine: {alone:.3f}")


@dataclass
class SleepingSource:
    pixels: Pixels
    frames: int
    seconds: float

    def stamped(self) -> Iterator[tuple[Pixels, None]]:
        for _ in range(self.frames):
            time.sleep(self.seconds)
            yield self.pixels, None


@dataclass
class SleepingSink:
    seconds: float

    def write(self, pixels: Pixels, stamp: None) -> None:
        time.sleep(self.seconds)


def memory(folder: Path, size: tuple[int, int], lengths: list[int]) -> None:
    peaks: dict[int, int] = {}
    for length in lengths:
        source = folder / f"{length}.mp4"
        make_video(source, size, length)
        command = [sys.executable, __file__, "--peak", str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[length] = int(done.stdout)
        print(f"{length} frames: peak {peaks[length]} MiB, {peaks[length] / peaks[lengths[0]] - 1:+.1%}")


def peak(source: Path) -> None:
    reader = VideoReader(source)
    with VideoWriter(source.with_suffix(".out.mp4"), reader) as writer:
        restore_into(Restorer(Sleep(0.0), device="cpu"), reader, writer)
    print(peak_host_bytes() >> 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--lengths", type=int, nargs="*", default=[100, 300, 1000])
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    arguments: Any = parser.parse_args()
    if arguments.peak:
        peak(arguments.peak)
        return
    width, height = map(int, arguments.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before the start")
        overlap(Path(folder), (width, height), arguments.frames)
        memory(Path(folder), (width, height), arguments.lengths)


if __name__ == "__main__":
    main()
