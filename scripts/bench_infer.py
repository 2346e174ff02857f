"""Speed and memory of the inference path beside the plain way: tables in Markdown.

    python scripts/bench_infer.py                                  # speed of all networks below, then memory
    python scripts/bench_infer.py --only EDVR --size 64 --frames 60
    python scripts/bench_infer.py --speed --device cuda --size 720x1280 --only CDVD_TSP
    python scripts/bench_infer.py --memory --lengths 100 1000

Speed. The plain way holds the clip as one tensor on the device and runs the network on every window of it, each
computed anew; a stream or clip network runs on the whole clip. Ours is `Restorer`, which gets frames as pixels, one at
a time. For windows both take turns, frame by frame, so that what else the machine does slows both; the ratio is of one
run. On a CPU it is processor time, so run it with OMP_NUM_THREADS=1; "fps" are frames for each such second.
"MACs allow" is what counted multiply-accumulates allow where windows share their work; "reached" is the ratio's share.
"difference" is the largest between both results. Networks have their first weights, stirred, and frames are noise.

Memory. Peak of a process of its own (the resident set; on a GPU also what torch's allocator held), over the length of
the video. Ours is `restore_video`, from file to file. The plain way decodes all, restores all, encodes all.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from deblurkit.build import build_network
from deblurkit.data.frame_sampling import window_indices
from deblurkit.engine.pixels import to_pixels
from deblurkit.engine.restore import Restorer
from deblurkit.network import Network, count_macs, count_shared_macs
from deblurkit.testing import stir
from deblurkit.video.reader import VideoReader
from deblurkit.video.writer import VideoWriter

#: For the table of speeds.
NETWORKS: dict[str, dict[str, Any]] = {
    "EDVR M, deblurring": {"type": "EDVR", "hr_in": True, "with_predeblur": True},
    "EDVR L, deblurring": {
        "type": "EDVR",
        "hr_in": True,
        "with_predeblur": True,
        "num_feat": 128,
        "num_reconstruct_block": 40,
    },
    "CDVD_TSP": {"type": "CDVD_TSP", "n_sequence": 5, "is_mask_filter": True},
    "DBN": {"type": "DBN"},
    "ESTRNN": {"type": "ESTRNN"},
    "BasicVSRPlusPlus": {"type": "BasicVSRPlusPlus"},
}
#: For the table of memory: one of each kind, small, since the frames' share is what is looked at.
SMALL: dict[str, dict[str, Any]] = {
    "NAFNet (image)": {
        "type": "NAFNet", "width": 8, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [1],
    },
    "DBN (window)": {"type": "DBN", "inner_channels": 4},
    "ESTRNN (stream)": {"type": "ESTRNN", "n_features": 4, "n_blocks": 1},
    "BasicVSR (clip)": {"type": "BasicVSR", "num_feat": 4, "num_block": 1},
}  # fmt: skip

Pixels = NDArray[Any]


def noise(count: int, size: tuple[int, int]) -> Iterator[Pixels]:
    """Frames that are made when they are asked for."""
    generator = np.random.default_rng(0)
    for _ in range(count):
        yield generator.integers(0, 256, (*size, 3), np.uint8)


def build(arguments: dict[str, Any]) -> Network:
    """A network whose branches are all at work."""
    torch.manual_seed(0)
    net = build_network(arguments)
    stir(net)
    return net.eval()


class Clock:
    """Adds up the time of what happens: on a CPU the processor's, which others do not add to; on a GPU to its end."""

    def __init__(self, device: torch.device) -> None:
        self._device, self.seconds = device, 0.0

    def __enter__(self) -> None:
        self._sync()
        self._started = self._now()

    def __exit__(self, *error: object) -> None:
        self._sync()
        self.seconds += self._now() - self._started

    def _now(self) -> float:
        return time.perf_counter() if self._device.type == "cuda" else time.process_time()

    def _sync(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def speed(name: str, size: tuple[int, int], frames: int, device: torch.device) -> str:
    """A row of the table of speeds."""
    net = build(NETWORKS[name]).to(device)
    height, width = net.contract.padded_size(*size)
    clip = list(noise(frames, (height, width)))
    x = torch.from_numpy(np.stack(clip)).to(device).permute(0, 3, 1, 2).float()[None] / 255
    past, future = net.contract.context
    restorer = Restorer(net, device=str(device), clip_length=frames, clip_overlap=0, tile=0)
    plain, ours = Clock(device), Clock(device)
    difference = 0.0
    with torch.inference_mode():
        net.run(x[:, : net.contract.frames] if net.contract.kind == "window" else x[:, : past + future + 3])  # warm
        if net.contract.kind == "window":
            found = restorer.restore_tensors(iter(clip))
            for center in range(frames):
                window = window_indices(center, past, future, frames, "reflection")
                with plain:
                    expected = net.run(x[:, window])["restored"][0].cpu()
                with ours:
                    _, restored = next(found)
                difference = max(difference, float((restored - expected).abs().max()))
        else:
            before = window_indices(0, past, 0, frames, "reflection")[:-1]
            after = window_indices(frames - 1, 0, future, frames, "reflection")[1:]
            with plain:
                whole = net.run(x[:, [*before, *range(frames), *after]])["restored"][0].cpu()
            with ours:
                parts: list[Tensor] = [tensor for _, tensor in restorer.restore_tensors(iter(clip))]
            difference = float((torch.stack(parts) - whole).abs().max())
    ratio = plain.seconds / ours.seconds
    allowed = count_macs(net, height, width) / count_shared_macs(net, height, width) if net.splits else 1.0
    rates = f"{frames / plain.seconds:.2f} | {frames / ours.seconds:.2f} | {ratio:.2f} | {allowed:.2f}"
    return f"| {name} | {net.contract.kind} | {height}x{width} | {rates} | {ratio / allowed:.0%} | {difference:.1e} |"


def memory(name: str, way: str, size: tuple[int, int], length: int, device: str) -> dict[str, float]:
    """Peak memory of a process of its own, in MiB: `host`, and on a GPU `device`."""
    command = [sys.executable, __file__, "--child", name, way, str(length), "--size", f"{size[0]}x{size[1]}"]
    done = subprocess.run([*command, "--device", device], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(name: str, way: str, length: int, size: tuple[int, int], device: torch.device) -> None:
    """Restore a video one way or the other and print the peak memory."""
    net = build(SMALL[name]).to(device)
    restorer = Restorer(net, device=str(device), tile=0)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "a.mp4", Path(folder) / "b.mp4"
        with VideoWriter(source, codec="libx264") as writer:
            for frame in noise(length, size):
                writer.write(frame)
        if way == "ours":
            restorer.restore_video(source, target)
        else:
            plainly(net, source, target, device)
    found = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if device.type == "cuda":
        found["device"] = torch.cuda.max_memory_allocated(device) / 2**20
    print(json.dumps(found))


def plainly(net: Network, source: Path, target: Path, device: torch.device) -> None:
    """All frames into a tensor, all restored, all written."""
    reader, contract = VideoReader(source), net.contract
    clip = np.stack(list(reader))
    frames = torch.from_numpy(clip).to(device).permute(0, 3, 1, 2).float() / 255
    past, future = contract.context
    with torch.inference_mode():
        if contract.kind == "image":
            restored = [net.run(frame[None])["restored"][0] for frame in frames]
        elif contract.kind == "window":
            windows = [window_indices(i, past, future, len(clip), "reflection") for i in range(len(clip))]
            restored = [net.run(frames[None, window])["restored"][0] for window in windows]
        else:
            before = window_indices(0, past, 0, len(clip), "reflection")[:-1]
            after = window_indices(len(clip) - 1, 0, future, len(clip), "reflection")[1:]
            restored = list(net.run(frames[None, [*before, *range(len(clip)), *after]])["restored"][0])
    with VideoWriter(target, reader) as writer:
        for (_, timing), tensor in zip(reader.stamped(), restored, strict=True):
            writer.write(to_pixels(tensor, np.uint8), timing)


def _size(text: str) -> tuple[int, int]:
    parts = [int(part) for part in text.split("x")]
    return (parts[0], parts[-1])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--size", type=_size, default=(64, 64), help="of the frames: N or HxW")
    parser.add_argument("--frames", type=int, default=60, help="for the speeds")
    parser.add_argument("--lengths", type=int, nargs="+", default=[100, 1000], help="of videos, for the memory")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--speed", action="store_true", help="that table only")
    parser.add_argument("--memory", action="store_true", help="that table only")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = torch.device(options.device)
    if options.child:
        name, way, length = options.child
        child(name, way, int(length), options.size, device)
        return
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads\n")
    if options.speed or not options.memory:
        print(f"{options.frames} frames\n")
        print("| network | kind | size | plain, fps | ours, fps | ratio | MACs allow | reached | difference |")
        print("|---|---|---|---|---|---|---|---|---|")
        for name in (name for name in NETWORKS if options.only in name):
            print(speed(name, options.size, options.frames, device), flush=True)
        print()
    if options.memory or not options.speed:
        heads = [f"{way}, {length} frames" for way in ("ours", "plain") for length in options.lengths]
        print(f"Peak memory in MiB, {options.size[0]}x{options.size[1]}\n")
        print("| network | " + " | ".join(heads) + " | ours, longest to shortest |")
        print("|---" * (len(heads) + 2) + "|")
        for name in (name for name in SMALL if options.only in name):
            found = [
                memory(name, way, options.size, length, options.device)
                for way in ("ours", "plain")
                for length in options.lengths
            ]
            cells = [" + ".join(f"{value:.0f}" for value in one.values()) for one in found]
            growth = found[len(options.lengths) - 1]["host"] / found[0]["host"]
            print(f"| {name} | " + " | ".join(cells) + f" | {growth:.3f} |", flush=True)


if __name__ == "__main__":
    main()
