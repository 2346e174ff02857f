"""How fast samples come: from PNG files and from each kind of LMDB, with and without worker processes.

    python scripts/bench_data.py                            # its own 1280x720 frames
    python scripts/bench_data.py --source photos --make     # frames of a video or a folder of pictures; `lmdb make` too

The yardstick is the common road: both frames of a pair are decoded whole from an LMDB of PNGs, converted to float32 and
then cropped. All roads take turns with the same crops, so that whatever else the machine does meets all of them.
"core ms" is what the processes used of a core's time, which does not count what other programs used. Figures are
medians, ratios are medians of the ratios within a turn. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import cv2
import numpy as np
import torch

from deblurkit.build import build_dataset
from deblurkit.data import lmdb_make
from deblurkit.data.lmdb_make import make_lmdb
from deblurkit.data.lmdb_store import LmdbStore
from deblurkit.data.loader import build_loader
from deblurkit.data.store import PairedStores, Window, frame_key, open_stores
from deblurkit.image_io import Pixels, list_images, read_image
from deblurkit.options import DatasetOptions
from deblurkit.video.reader import VideoReader

HEIGHT, WIDTH = 720, 1280
CLIP = 10
#: How `lmdb make` is called for each LMDB.
FORMS: dict[str, dict[str, Any]] = {
    "PNG LMDB": {"codec": "png"},
    "tiled": {"codec": "tiled"},
    "raw, tiles of 64": {"codec": "raw", "tile": 64},
    "raw": {"codec": "raw"},
}
Read = Callable[[str, str, Window], Any]


def own_frames() -> Iterator[Pixels]:
    """A slow pan over noise of all scales, edges and a little sensor noise; as PNG it is as large as photos are."""
    rng = np.random.default_rng(0)
    height, width = 2 * HEIGHT, 3 * WIDTH
    scene = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 8):
        grid = rng.standard_normal((height >> octave, width >> octave, 1)) + 0.3 * rng.standard_normal((1, 1, 3))
        layer = cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        scene += layer * 1.6**octave
    scene = 118 + scene * (42 / scene.std())
    for _ in range(250):
        points = rng.integers(0, (width, height), 2) + rng.integers(-150, 150, (4, 2))
        cv2.fillConvexPoly(scene, points, rng.uniform(0, 255, 3).tolist(), cv2.LINE_AA)
    for i in itertools.count():
        y, x = (3 * i) % (height - HEIGHT), (5 * i) % (width - WIDTH)
        frame = scene[y : y + HEIGHT, x : x + WIDTH] + rng.normal(0, 1.2, (HEIGHT, WIDTH, 3))
        yield frame.clip(0, 255).astype(np.uint8)


def frames_of(source: Path | None) -> Iterator[Pixels]:
    """Frames of any size."""
    if source is None:
        return own_frames()
    if source.is_dir():
        pictures = [path for folder in [source, *sorted(source.rglob("*/"))] for path in list_images(folder)]
        return (read_image(path) for path in pictures)
    return iter(VideoReader(source))


def fit(frame: Pixels) -> Pixels | None:
    """The middle of a frame, shrunk to cover 1280x720; None: it is too small."""
    scale = max(HEIGHT / frame.shape[0], WIDTH / frame.shape[1])
    if scale > 1:
        return None
    frame = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else frame
    y, x = (frame.shape[0] - HEIGHT) // 2, (frame.shape[1] - WIDTH) // 2
    return frame[max(y, 0) :, max(x, 0) :][:HEIGHT, :WIDTH]


def make_tree(root: Path, source: Path | None, count: int) -> None:
    """Pairs as PNG files of level 1; the blurred ones are smeared by 9 pixels."""
    frames = (
        frame for frame in map(fit, frames_of(source)) if frame is not None and frame.shape[:2] == (HEIGHT, WIDTH)
    )
    made = 0
    for made, frame in enumerate(itertools.islice(frames, count), start=1):
        for kind, pixels in (("sharp", frame), ("blur", cv2.blur(frame, (9, 1)))):
            path = root / "train" / "seq" / kind / f"{made:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            # as other tools write them, not as deblurkit does
            cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if made <= CLIP:
        raise SystemExit(f"{source}: has {made} frames of at least {WIDTH}x{HEIGHT}; {CLIP + 1} are needed")


def common_road(stores: PairedStores) -> Read:
    """Decode the whole frame, make floats of it, crop."""

    def read(role: str, key: str, window: Window) -> Any:
        store = getattr(stores, role)
        assert isinstance(store, LmdbStore)
        with store.value(key) as data:
            encoded = np.frombuffer(data, np.uint8).copy()
        y, x, h, w = window
        return (cv2.imdecode(encoded, cv2.IMREAD_COLOR).astype(np.float32) / 255.0)[y : y + h, x : x + w]

    return read


class Cost(NamedTuple):
    """Seconds on the clock, and of a core."""

    wall: float
    core: float


class Meter:
    """What a block costs, worker processes included."""

    def __init__(self, workers: Sequence[int] = ()) -> None:
        self.workers = [Path(f"/proc/{pid}/stat") for pid in workers if Path("/proc/self/stat").exists()]
        self.started = self.now()

    def now(self) -> Cost:
        ticks = 0
        for path in self.workers:
            ticks += sum(map(int, path.read_text().rsplit(")", 1)[1].split()[11:13]))  # user and system time
        used = ticks / os.sysconf("SC_CLK_TCK") if self.workers else 0.0
        return Cost(time.perf_counter(), time.process_time() + used)

    def cost(self, samples: int = 1) -> Cost:
        """Of one sample since the beginning."""
        now = self.now()
        return Cost(*((a - b) / samples for a, b in zip(now, self.started, strict=True)))


Costs = dict[str, list[Cost]]


def time_reads(roads: dict[str, Read], keys: list[str], crop: int, clip: int, rounds: int) -> Costs:
    """What one sample of `clip` frame pairs costs, by road, in `rounds` turns."""
    rng = np.random.default_rng(1)
    found: Costs = {name: [] for name in roads}
    for turn in range(-1, rounds):  # the first one warms caches up
        window = (int(rng.integers(HEIGHT - crop + 1)), int(rng.integers(WIDTH - crop + 1)), crop, crop)
        first = int(rng.integers(len(keys) - clip + 1))
        for name, read in roads.items():
            meter = Meter()
            for key in keys[first : first + clip]:
                for role in ("lq", "gt"):
                    read(role, key, window)
            if turn >= 0:
                found[name].append(meter.cost())
    return found


class Loading:
    """A loader whose throughput is measured in blocks."""

    def __init__(self, arguments: argparse.Namespace, place: dict[str, Any], clip: int, workers: int) -> None:
        self.batch = arguments.batch if clip == 1 else max(arguments.batch // 4, 1)
        options = DatasetOptions(
            **{"type": "VideoDataset", "split": "train", "layout": "paired", **place},
            sampling="n_n", num_frame=clip, gt_size=arguments.crop, batch_size_per_gpu=self.batch,
            num_worker_per_gpu=workers, dataset_enlarge_ratio=10**4,
            augment={"hflip": 0.5, "vflip": 0.5, "transpose": 0.5},
        )  # fmt: skip
        others = set(multiprocessing.active_children())
        self.loader = iter(build_loader(build_dataset(options.mapping(), seed=0), options, 0, total_iter=10**8))
        self.workers = [int(child.pid or 0) for child in set(multiprocessing.active_children()) - others]
        self.ready = 2 * workers + 1  # batches that wait while others are measured
        self.count = 1
        for _ in range(self.ready + 2):
            next(self.loader)

    def cost(self, least: float) -> Cost:
        """Of a sample, measured for about so many seconds."""
        for _ in range(self.ready):
            next(self.loader)
        while True:
            meter = Meter(self.workers)
            for _ in range(self.count):
                next(self.loader)
            cost = meter.cost(self.count * self.batch)
            if cost.wall * self.count * self.batch >= least / 2:
                return cost
            self.count *= 2


def time_loaders(arguments: argparse.Namespace, places: dict[str, dict[str, Any]], clip: int, workers: int) -> Costs:
    """What a sample costs, by loader, in turns; "common" is the common road without a loader."""
    roads = {"": arguments.common}
    with contextlib.ExitStack() as stack:
        loaders = {name: Loading(arguments, place, clip, workers) for name, place in places.items()}
        if workers:
            with mock.patch("deblurkit.data.loader._batch_memory", return_value=None):
                loaders["raw, sent torch's way"] = Loading(arguments, places["raw"], clip, workers)
        for loading in loaders.values():
            stack.callback(loading.loader.close)
        found: Costs = {name: [] for name in ("common", *loaders)}
        for _ in range(arguments.blocks):
            found["common"] += time_reads(roads, arguments.keys, arguments.crop, clip, 1)[""]
            for name, loading in loaders.items():
                found[name].append(loading.cost(arguments.seconds))
        loaders.clear()
    return found


def middle(costs: list[Cost]) -> Cost:
    return Cost(*map(statistics.median, zip(*costs, strict=True)))


def times(over: list[Cost], under: list[Cost]) -> Cost:
    """How many times as much one costs as the other."""
    return middle([Cost(a.wall / b.wall, a.core / b.core) for a, b in zip(over, under, strict=True)])


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def bench_reading(arguments: argparse.Namespace, roads: dict[str, Read], sizes: dict[str, int]) -> None:
    keys = arguments.keys
    single = time_reads(roads, keys, arguments.crop, 1, arguments.rounds)
    clips = time_reads(roads, keys, arguments.crop, CLIP, max(arguments.rounds // CLIP, 3))
    print(
        row("where from", "MB a pair", "pair, core ms", "pairs/s and core", "times", f"{CLIP} pairs, core ms", "times")
    )
    print("|---|---|---|---|---|---|---|")
    for name in roads:
        pair, clip = middle(single[name]).core, middle(clips[name]).core
        print(
            row(
                name, f"{sizes[name] / len(keys) / 1e6:.2f}", f"{1000 * pair:.2f}", f"{1 / pair:.0f}",
                f"{times(single['common road'], single[name]).core:.1f}", f"{1000 * clip:.1f}",
                f"{times(clips['common road'], clips[name]).core:.1f}",
            )
        )  # fmt: skip


def bench_loading(arguments: argparse.Namespace, places: dict[str, dict[str, Any]]) -> None:
    heads = "ms a sample", "samples/s", "times", "core ms a sample", "samples/s and core", "times"
    print(row("loader", "workers", "pairs", *heads))
    print("|---|---|---|---|---|---|---|---|---|")
    for clip, workers in itertools.product((1, CLIP), (0, arguments.workers)):
        found = time_loaders(arguments, places, clip, workers)
        for name in found:
            if name != "common":
                cost, factor = middle(found[name]), times(found["common"], found[name])
                cells: list[object] = [name, workers, clip]
                for seconds, more in zip(cost, factor, strict=True):
                    cells += [f"{1000 * seconds:.2f}", f"{1 / seconds:.1f}", f"{more:.1f}"]
                print(row(*cells))


def bench_make(arguments: argparse.Namespace, root: Path) -> None:
    """`lmdb make` of the same PNG files."""
    ways: dict[str, tuple[dict[str, Any], int, bool]] = {}
    for workers in (1, arguments.workers):
        ways[f"png: files copied, {workers} thread(s)"] = {"codec": "png"}, workers, True
        ways[f"png: decoded and encoded, {workers} thread(s)"] = {"codec": "png"}, workers, False
        ways[f"tiled, {workers} thread(s)"] = {"codec": "tiled"}, workers, True
        ways[f"raw, {workers} thread(s)"] = {"codec": "raw"}, workers, True
    found: Costs = {name: [] for name in ways}
    pairs = len(list((root / "train" / "seq" / "blur").iterdir()))
    for turn in range(arguments.makes):
        for name, (form, workers, copies) in ways.items():
            # a picture that is no PNG is decoded and encoded
            foreign = (
                contextlib.nullcontext() if copies else mock.patch.object(lmdb_make, "png_header", return_value=None)
            )
            with foreign, tempfile.TemporaryDirectory(dir=root.parent) as folder, quiet():
                meter = Meter()
                make_lmdb(root, ["train"], "paired", workers=workers, output=f"{folder}/{turn}.lmdb", **form)
                found[name].append(meter.cost(pairs))
    encoded = "png: decoded and encoded, 1 thread(s)"
    print(
        row("`lmdb make`", "ms a pair", "core ms a pair", "times decoding and encoding on one core", "times one thread")
    )
    print("|---|---|---|---|---|")
    for name, costs in found.items():
        alone = found[name.replace(f"{arguments.workers} thread", "1 thread")]
        cost = middle(costs)
        factor, threads = times(found[encoded], costs).wall, times(alone, costs).wall
        print(row(name, f"{1000 * cost.wall:.1f}", f"{1000 * cost.core:.1f}", f"{factor:.1f}", f"{threads:.2f}"))


def quiet() -> contextlib.AbstractContextManager[Any]:
    return contextlib.redirect_stderr(io.StringIO())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="a video, or a folder with pictures in it or below it")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8, help="pairs in a batch; a quarter of that for clips")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=60, help="turns in which single crops are read")
    parser.add_argument("--blocks", type=int, default=5, help="turns in which loaders are measured")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a loader's turn")
    parser.add_argument("--make", action="store_true", help="measure `lmdb make` too")
    parser.add_argument("--makes", type=int, default=5, help="turns in which LMDBs are made")
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "set"
        make_tree(root, arguments.source, arguments.frames)
        stores = {"PNG files": open_stores(root, "train", "paired", storage="disk")}
        places: dict[str, dict[str, Any]] = {"PNG files": {"dataroot": str(root), "storage": "disk"}}
        sizes = {"PNG files": sum(path.stat().st_size for path in root.rglob("*.png"))}
        for name, form in FORMS.items():
            made = Path(folder) / f"{name}.lmdb"
            with quiet():
                make_lmdb(root, ["train"], "paired", output=made, **form)
            stores[name] = open_stores(made, "train", storage="lmdb")
            places[name] = {"dataroot": str(made), "storage": "lmdb"}
            sizes[name] = sum(path.stat().st_size for path in made.glob("*/data.mdb"))
        roads = {"common road": common_road(stores["PNG LMDB"])}
        for name, found in stores.items():
            roads[name] = lambda role, key, window, found=found: getattr(found, role).read(key, window)
        sizes["common road"] = sizes["PNG LMDB"]
        sequences = stores["PNG files"].sequences.items()
        arguments.common = roads["common road"]
        arguments.keys = [frame_key(name, frame) for name, frames in sequences for frame in frames]
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        versions = f"OpenCV {cv2.__version__}, torch {torch.__version__}"
        print(f"{platform.machine()}, {os.cpu_count()} cores (load {load}), {versions}")
        size = f"{WIDTH}x{HEIGHT}, crops of {arguments.crop}"
        print(f"{len(arguments.keys)} pairs of {size}, batches of {arguments.batch}\n")
        bench_reading(arguments, roads, sizes)
        print()
        bench_loading(arguments, places)
        if arguments.make:
            print()
            bench_make(arguments, root)


if __name__ == "__main__":
    main()
