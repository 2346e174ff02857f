"""What keeping freed memory (`deblurkit.engine.memory.keep_freed_memory`) gains on a CPU: a table in Markdown.

    python scripts/bench_allocator.py [--size 512] [--rounds 5] [NETWORK ...]

Each figure is of a process of its own; the two ways take turns, and the ratio is of the medians. Sizes of networks are
those of their tests (`check_args`).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch

from deblurkit.engine.memory import keep_freed_memory, peak_host_bytes
from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY

_CALLS = 8


def measure(name: str, size: int) -> dict[str, float]:
    """Milliseconds of a call and of a step of training, page faults of a call, and the peak in MiB."""
    torch.manual_seed(0)
    cls: type[Network] = ARCH_REGISTRY.get(name)
    net = cls(**cls.check_args)
    x, small = (torch.rand_like(net.example_input(side, side)) for side in (size, size // 2))

    def call() -> None:
        with torch.inference_mode():
            net.eval().run(x)

    def step() -> None:
        net.train().run(small)["restored"].square().mean().backward()

    figures = {}
    for title, work in (("call", call), ("step", step)):
        work()
        before, times = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, []
        for _ in range(_CALLS):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        figures[title] = statistics.median(times) * 1e3
        figures[f"{title}_faults"] = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / _CALLS
    return {**figures, "peak": peak_host_bytes() / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["NAFNet", "DBN", "MIMOUNet", "Restormer", "ESTRNN"])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--own", choices=("kept", "returned"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.own:
        if options.own == "kept":
            keep_freed_memory()
        print(json.dumps(measure(options.networks[0], options.size)))
        return
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.size} pixels a side, steps at half\n"
    )
    print("| network | call ms | kept | faults | kept | step ms | kept | peak MiB | kept |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in options.networks:
        rows: dict[str, list[dict[str, float]]] = {"returned": [], "kept": []}
        for _ in range(options.rounds):
            for way, found in rows.items():
                command = [sys.executable, __file__, name, "--size", str(options.size), "--own", way]
                found.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        plain, kept = (
            {key: statistics.median(one[key] for one in found) for key in found[0]} for found in rows.values()
        )
        cells = [
            f"{plain['call']:.0f} | {plain['call'] / kept['call']:.2f}x",
            f"{plain['call_faults']:.0f} | {kept['call_faults']:.0f}",
            f"{plain['step']:.0f} | {plain['step'] / kept['step']:.2f}x",
            f"{plain['peak']:.0f} | {kept['peak']:.0f}",
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
