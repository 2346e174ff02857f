"""Speed and memory of the inference path beside the plain way: tables in Markdown.

    python scripts/bench_infer.py                                  # both tables; a quarter of an hour on two idle cores
    python scripts/bench_infer.py --only EDVR --size 64 --frames 60
    python scripts/bench_infer.py --speed --device cuda --size 720x1280 --only CDVD_TSP
    python scripts/bench_infer.py --memory --lengths 100 1000

Speed. The plain way holds the clip as one tensor on the device and runs the network on every window of it, each
computed anew; a stream or clip network runs on the whole clip. Ours is `Restorer`, which gets frames as pixels, one at
a time. For pictures and windows both take turns, frame by frame, so that what else the machine does slows both; the
ratio is of one run. On a CPU it is processor time of one thread; "fps" are frames for each such second. "MACs allow" is
what counted multiply-accumulates allow where windows share their work; "reached" is the ratio's share. "difference" is
the largest between both results. A clip network has two rows: in overlapping segments, which compute a part of the
frames twice and do not see the whole clip, and exact. Networks have their first weights, stirred, and frames are noise.

Memory. Peak of a process of its own (the resident set; on a GPU also what torch's allocator held), over the length of
the video. Ours is `restore_video`, from file to file. The plain way decodes all, restores all, encodes all. "ours,
above" is by how much the process of the longest video grew beyond what it had when the network was there.
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
from deblurkit.engine.memory import peak_host_bytes
from deblurkit.engine.pixels import to_pixels
from deblurkit.engine.restore import Restorer
from deblurkit.network import Network, count_macs, count_shared_macs
from deblurkit.testing import stir
from deblurkit.video.reader import VideoReader
from deblurkit.video.writer import VideoWriter

#: For the table of speeds: networks as papers have them (BasicVSR++ with fewer blocks), and the side of the frames.
NETWORKS: dict[str, tuple[dict[str, Any], int]] = {
    "NAFNet, width 32": (
        {
            "type": "NAFNet",
            "width": 32,
            "enc_blk_nums": [1, 1, 1, 28],
            "middle_blk_num": 1,
            "dec_blk_nums": [1, 1, 1, 1],
        },
        128,
    ),
    "DBN": ({"type": "DBN"}, 96),
    "EDVR M, deblurring": ({"type": "EDVR", "hr_in": True, "with_predeblur": True}, 160),
    "EDVR L, deblurring": (
        {"type": "EDVR", "hr_in": True, "with_predeblur": True, "num_feat": 128, "num_reconstruct_block": 40},
        96,
    ),
    "CDVD_TSP": ({"type": "CDVD_TSP", "n_sequence": 5, "is_mask_filter": True}, 64),
    "ESTRNN": ({"type": "ESTRNN"}, 64),
    "BasicVSR++, deblurring": ({"type": "BasicVSRPlusPlus", "num_blocks": 3, "is_low_res_input": False}, 64),
}
#: For the table of memory: one of each kind, small, since the frames' share is what is looked at.
SMALL: dict[str, dict[str, Any]] = {
    "NAFNet (image)": {
        "type": "NAFNet", "width": 8, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [1],
    },
    "DBN (window)": {"type": "DBN", "inner_channels": 4},
    "EDVR (window that shares)": {
        "type": "EDVR", "num_feat": 16, "deformable_groups": 2, "num_extract_block": 1, "num_reconstruct_block": 1,
        "hr_in": True, "with_predeblur": True,
    },
    "ESTRNN (stream)": {"type": "ESTRNN", "n_features": 4, "n_blocks": 1},
    "BasicVSR++ (clip)": {
        "type": "BasicVSRPlusPlus", "mid_channels": 8, "num_blocks": 1, "is_low_res_input": False,
    },
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


def speed(name: str, size: tuple[int, int] | None, frames: int, device: torch.device) -> list[str]:
    """The rows of a network in the table of speeds."""
    arguments, side = NETWORKS[name]
    net = build(arguments).to(device)
    height, width = net.contract.padded_size(*(size or (side, side)))
    clip = list(noise(frames, (height, width)))
    x = torch.from_numpy(np.stack(clip)).to(device).permute(0, 3, 1, 2).float()[None] / 255
    ways: dict[str, dict[str, Any]] = {"": {}}
    if net.contract.kind == "clip":
        ways = {", segments": {}, **({", exact": {"exact": True}} if net.has_sweeps else {})}
    rows = []
    with torch.inference_mode():
        warm = net.contract.frames if net.contract.kind == "window" else sum(net.contract.context) + 3
        net.run(x[:, :warm])
        for way, settings in ways.items():
            restorer = Restorer(net, device=str(device), tile=0, **settings)
            plain, ours = Clock(device), Clock(device)
            measure = in_turns if net.contract.kind in ("image", "window") else one_after_the_other
            difference = measure(restorer, clip, x, plain, ours)
            ratio = plain.seconds / ours.seconds
            allowed = count_macs(net, height, width) / count_shared_macs(net, height, width) if net.splits else 1.0
            rates = f"{frames / plain.seconds:.2f} | {frames / ours.seconds:.2f} | {ratio:.2f} | {allowed:.2f}"
            what = f"{name}{way} | {net.contract.kind} | {height}x{width}"
            rows.append(f"| {what} | {rates} | {ratio / allowed:.0%} | {difference:.1e} |")
    return rows


def in_turns(restorer: Restorer, clip: list[Pixels], x: Tensor, plain: Clock, ours: Clock) -> float:
    """Time both ways, frame by frame; the largest difference."""
    net, frames, difference = restorer.net, len(clip), 0.0
    past, future = net.contract.context
    found = restorer.restore_tensors(iter(clip))
    for center in range(frames):
        window = window_indices(center, past, future, frames, "reflection")
        with plain:
            expected = net.run(x[:, center] if net.contract.kind == "image" else x[:, window])["restored"][0].cpu()
        with ours:
            _, restored = next(found)
        difference = max(difference, float((restored - expected).abs().max()))
    return difference


def one_after_the_other(restorer: Restorer, clip: list[Pixels], x: Tensor, plain: Clock, ours: Clock) -> float:
    """Time the whole clip at once, and ours; the largest difference."""
    with plain:
        whole = restorer.net.run(x[:, with_context(restorer.net, len(clip))])["restored"][0].cpu()
    with ours:
        parts = [tensor for _, tensor in restorer.restore_tensors(iter(clip))]
    return float((torch.stack(parts) - whole).abs().max())


def with_context(net: Network, count: int) -> list[int]:
    """Positions of what a network sees in order to restore a whole clip."""
    past, future = net.contract.context
    before = window_indices(0, past, 0, count, "reflection")[:-1]
    after = window_indices(count - 1, 0, future, count, "reflection")[1:]
    return [*before, *range(count), *after]


def memory(name: str, way: str, source: Path, device: str) -> dict[str, float]:
    """Peak memory of a process of its own, in MiB: `host`, `above` what it had before, and on a GPU `device`."""
    command = [sys.executable, __file__, "--child", name, way, str(source), "--device", device]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(name: str, way: str, source: Path, device: torch.device) -> None:
    """Restore a video one way or the other and print the peak memory."""
    net = build(SMALL[name]).to(device)
    restorer = Restorer(net, device=str(device), tile=0)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "restored.mp4"
        if way == "ours":
            restorer.restore_video(source, target)
        else:
            plainly(net, source, target, device)
    found = {"host": peak_host_bytes() / 2**20}
    found["above"] = found["host"] - before
    if device.type == "cuda":
        found["device"] = torch.cuda.max_memory_allocated(device) / 2**20
    print(json.dumps(found))


def plainly(net: Network, source: Path, target: Path, device: torch.device) -> None:
    """All frames into a tensor, all restored, all written."""
    reader, contract = VideoReader(source), net.contract
    clip = np.stack(list(reader))
    frames = torch.from_numpy(clip).to(device).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        if contract.kind == "image":
            restored = [net.run(frame[None])["restored"][0] for frame in frames]
        elif contract.kind == "window":
            windows = [window_indices(i, *contract.context, len(clip), "reflection") for i in range(len(clip))]
            restored = [net.run(frames[None, window])["restored"][0] for window in windows]
        else:
            restored = list(net.run(frames[None, with_context(net, len(clip))])["restored"][0])
    with VideoWriter(target, reader) as writer:
        for (_, timing), tensor in zip(reader.stamped(), restored, strict=True):
            writer.write(to_pixels(tensor, np.uint8), timing)


def _size(text: str) -> tuple[int, int]:
    parts = [int(part) for part in text.split("x")]
    return (parts[0], parts[-1])


def speeds(only: str, size: tuple[int, int] | None, frames: int, device: torch.device) -> None:
    """Print that table."""
    print(f"Frames per second, {frames} frames\n")
    print("| network | kind | size | plain, fps | ours, fps | ratio | MACs allow | reached | difference |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in (name for name in NETWORKS if only in name):
        for row in speed(name, size, frames, device):
            print(row, flush=True)
    print()


def memories(only: str, size: tuple[int, int], lengths: list[int], device: str) -> None:
    """Print that table."""
    heads = [f"{way}, {length} frames" for way in ("ours", "plain") for length in lengths]
    print(f"Peak memory in MiB, {size[0]}x{size[1]}{'' if device == 'cpu' else ': host + device'}\n")
    print("| network | " + " | ".join(heads) + " | ours, above | ours, longest to shortest |")
    print("|---" * (len(heads) + 3) + "|")
    with tempfile.TemporaryDirectory() as folder:
        sources = [Path(folder) / f"{length}.mp4" for length in lengths]
        for source, length in zip(sources, lengths, strict=True):
            with VideoWriter(source, codec="libx264") as writer:
                for frame in noise(length, size):
                    writer.write(frame)
        for name in (name for name in SMALL if only in name):
            found = [memory(name, way, source, device) for way in ("ours", "plain") for source in sources]
            cells = [" + ".join(f"{one[key]:.0f}" for key in ("host", "device") if key in one) for one in found]
            longest = found[len(lengths) - 1]
            growth = longest["host"] / found[0]["host"]
            print(f"| {name} | {' | '.join(cells)} | {longest['above']:.0f} | {growth:.3f} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument(
        "--size", type=_size, help="of the frames: N or HxW; by default each network's own, 64 for memory"
    )
    parser.add_argument("--frames", type=int, default=60, help="for the speeds")
    parser.add_argument("--lengths", type=int, nargs="+", default=[100, 1000], help="of videos, for the memory")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--speed", action="store_true", help="that table only")
    parser.add_argument("--memory", action="store_true", help="that table only")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)  # helpers of a second thread spin while they wait, and count as work
    if options.child:
        name, way, source = options.child
        child(name, way, Path(source), device)
        return
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads\n")
    if options.speed or not options.memory:
        speeds(options.only, options.size, options.frames, device)
    if options.memory or not options.speed:
        memories(options.only, options.size or (64, 64), options.lengths, options.device)


if __name__ == "__main__":
    main()
