"""Time and memory of a clip network on a long video: the whole clip at once, and exactly in bounded memory.

    python scripts/bench_exact.py [--network BasicVSRPlusPlus] [--frames 40] [--size 128x192] [--budget 32]

Every way runs in a process of its own; its peak memory is printed less what it was before the first frame. "on disk"
has no budget at all: every map goes through the temporary file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

NETWORKS = {
    "BasicVSR": {"num_block": 10},
    "BasicVSRPlusPlus": {"num_blocks": 7, "is_low_res_input": False},
    "RealBasicVSRNet": {"num_propagation_blocks": 10, "num_cleaning_blocks": 5},
}
WAYS = ("whole", "exact, in memory", "exact, budget", "exact, on disk")


def main() -> int:
    """Run every way in a child and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="BasicVSRPlusPlus")
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--size", default="128x192", help="height x width")
    parser.add_argument("--budget", type=int, default=32, help="MiB of maps in memory, for one of the ways")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.way:
        run(settings)
        return 0
    print(f"{settings.network} {NETWORKS[settings.network]}, {settings.frames} frames of {settings.size}")
    print(f"{'way':20s} {'seconds':>8s} {'CPU s':>8s} {'peak MiB':>9s} {'file MiB':>9s}")
    for way in WAYS:
        child = [sys.executable, __file__, *sys.argv[1:], "--way", way]
        subprocess.run(child, check=True)
    return 0


def run(settings: argparse.Namespace) -> None:
    """One way."""
    import numpy as np
    import torch

    from deblurkit.build import build_network
    from deblurkit.engine import exact
    from deblurkit.engine.map_store import MapStore
    from deblurkit.engine.memory import peak_host_bytes
    from deblurkit.engine.runner import Runner

    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    height, width = map(int, settings.size.split("x"))
    net = build_network({"type": settings.network, **NETWORKS[settings.network]}).eval()
    frames = np.random.default_rng(0).integers(0, 256, (settings.frames, height, width, 3), np.uint8)
    stores: list[MapStore] = []

    class Watched(MapStore):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            stores.append(self)

    exact.MapStore = Watched  # type: ignore[misc]
    with torch.inference_mode():
        net.run(torch.zeros(1, 2, 3, 64, 64))
    before, started, used = peak_host_bytes(), time.perf_counter(), time.process_time()
    if settings.way == "whole":
        with torch.inference_mode():
            clip = torch.from_numpy(frames).permute(0, 3, 1, 2)[None] / 255
            count = net.run(clip)["restored"].shape[1]
    else:
        budgets = {"exact, in memory": 1 << 40, "exact, budget": settings.budget << 20, "exact, on disk": 0}
        runner = Runner(net, torch.device("cpu"), None, 0, 1)
        count = sum(1 for _ in exact.restore_exactly(runner, frames, budget=budgets[settings.way]))
    assert count == settings.frames
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    file = stores[0].on_disk / 2**20 if stores else 0
    grown = (peak_host_bytes() - before) / 2**20
    print(f"{settings.way:20s} {seconds:8.1f} {cpu:8.1f} {grown:9.0f} {file:9.0f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
