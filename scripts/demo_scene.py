"""Render the demo's footage: a room with moving toys, seen by a hand-held camera at 240 frames a second.

    python scripts/demo_scene.py OUT [--train 6] [--test 1] [--frames 168]

writes lossless videos OUT/train/room_1.mkv ... and OUT/test/room_7.mkv. Each has its own room, objects and camera path,
which follow from its number alone.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import av
import cv2
import demo_textures as textures
import demo_things as things
import numpy as np
from demo_things import FLOOR, FOCAL, HEIGHT, SUPERSAMPLE, WIDTH, Picture, Place, Sheet, Thing, View, rotation
from numpy.typing import NDArray

from deblurkit.files import atomic_path

RATE = 240
CEILING, BACK, SIDE = -1.6, 3.3, 2.3  # heights and distances in metres: ceiling, back wall, side walls
SHAKE = 0.008  # how far the camera turns to and fro, in radians
TEXELS = FOCAL / BACK  # supersampled pixels that a metre of the back wall covers
MIDWAY = 0.35  # the time (s) at which things that pass are at their place


def wobble(rng: np.random.Generator, amplitude: float, low: float, high: float) -> Callable[[float], float]:
    """A smooth random function of time (s) of about the given amplitude, with frequencies from `low` to `high` Hz."""
    frequencies, phases = rng.uniform(low, high, 4), rng.uniform(0, 2 * np.pi, 4)
    weights = low / frequencies
    weights *= amplitude / np.sqrt((weights**2).sum() / 2)
    return lambda t: float((weights * np.sin(2 * np.pi * frequencies * t + phases)).sum())


def glide(x: float, y: float, z: float, speed: float = 0.0) -> Place:
    """Along x at a constant speed (m/s)."""
    return lambda t: np.array((x + speed * (t - MIDWAY), y, z))


def hop(rng: np.random.Generator, x: float, z: float, radius: float, speed: float) -> Place:
    """Along x, bouncing on the floor."""
    start, peak = rng.uniform(0, 0.5), rng.uniform(0.25, 0.45)
    period = 2 * np.sqrt(2 * peak / 9.81)

    def place(t: float) -> NDArray[np.float64]:
        phase = (t + start) % period
        height = 9.81 / 2 * phase * (period - phase)
        return np.array((x + speed * (t - MIDWAY), FLOOR - radius - height, z))

    return place


def lit(picture: Picture, x: float, y: float) -> Picture:
    """A picture under a lamp that shines on the point (x, y), both from 0 to 1, and dims towards the edges."""
    height, width = picture.shape[:2]
    v, u = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    return picture * (0.55 + 0.6 * np.exp(-3.0 * ((u - x) ** 2 + (v - y) ** 2)))[..., None]


class Room:
    """A room with its things and a camera; everything follows from `seed`."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        side = int(rng.choice((-1, 1)))  # the side wall that the camera sees
        headlines = [str(line) for line in rng.permutation(textures.HEADLINES)]  # no two alike in a room
        self.sheets = [*self._walls(rng, side), *self._posters(rng, headlines)]
        self.things = self._things(rng, headlines)
        self._yaw, self._pitch, self._roll = (wobble(rng, a * SHAKE, 2.0, 7.0) for a in (1, 0.8, 0.6))
        self._sway = [wobble(rng, 0.012, 1.5, 5.0) for _ in range(3)]
        self._heading = side * rng.uniform(0.1, 0.2), rng.uniform(-0.14, -0.1)
        self._drift = np.array((rng.uniform(0.15, 0.35) * rng.choice((-1, 1)), 0, rng.uniform(-0.1, 0.2)))

    def _walls(self, rng: np.random.Generator, side: int) -> Iterator[Sheet]:
        high, wide, deep = FLOOR - CEILING, 2 * SIDE + 1.0, BACK - 0.75
        surfaces: list[tuple[Callable[..., Picture], float]] = [
            (textures.bricks, rng.uniform(0.09, 0.12)),
            (textures.wallpaper, rng.uniform(0.2, 0.3)),
            (textures.planks, rng.uniform(0.14, 0.2)),
        ]
        order = rng.permutation(len(surfaces))
        lamp = rng.uniform(0.3, 0.7)

        def paint(which: int, height: float, width: float, density: float) -> Picture:
            make, size = surfaces[order[which]]
            return make(rng, round(height * density), round(width * density), size * density)

        left = -wide / 2
        yield Sheet((left, CEILING, BACK), (wide, 0, 0), (0, high, 0), lit(paint(0, high, wide, TEXELS), lamp, 0.45))
        near = 0.85 * lit(paint(1, high, deep, 1.5 * TEXELS), 0.3, 0.4)
        yield Sheet((side * SIDE, CEILING, BACK), (0, 0, -deep), (0, high, 0), near)
        board = 0.6 * textures.planks(rng, round(0.24 * TEXELS), round(wide * TEXELS), 40)
        yield Sheet((left, FLOOR - 0.12, BACK - 0.02), (wide, 0, 0), (0, 0.12, 0), board)
        density = 2 * TEXELS
        ground = textures.tiles(rng, round(deep * density), round(wide * density), rng.uniform(0.25, 0.35) * density)
        yield Sheet((left, FLOOR, BACK), (wide, 0, 0), (0, 0, -deep), lit(ground, lamp, 0.4))

    def _posters(self, rng: np.random.Generator, headlines: list[str]) -> Iterator[Sheet]:
        x = -SIDE + 0.15
        while x < SIDE - 0.6:
            width = rng.uniform(0.6, 1.3)
            height = width * (rng.uniform(1.25, 1.4) if width < 0.9 else rng.uniform(0.35, 0.45))
            top = rng.uniform(-0.75, -0.55) if height > 0.6 else rng.uniform(-0.7, -0.2)
            density = 1.5 * TEXELS
            picture = textures.poster(rng, round(height * density), round(width * density), headlines.pop())
            yield Sheet((x, top, BACK - 0.01), (width, 0, 0), (0, height, 0), 0.95 * picture)
            x += width + rng.uniform(0.08, 0.3)

    def _things(self, rng: np.random.Generator, headlines: list[str]) -> list[Thing]:
        slots = rng.permutation((-0.95, -0.32, 0.32, 0.95)) + rng.uniform(-0.1, 0.1, 4)
        block, radius = rng.uniform(0.3, 0.38), 0.17

        def speed(low: float, high: float) -> float:
            return float(rng.uniform(low, high) * rng.choice((-1, 1)))

        return [
            things.Block(rng, glide(slots[0], FLOOR - block / 2, 2.1, speed(0.3, 0.9)), block, (0, 1, 0)),
            things.Block(rng, hop(rng, slots[1], rng.uniform(2.3, 2.6), 0.25, speed(0.4, 0.9)), 0.3, (1, 0.6, 0.3)),
            things.Ball(rng, hop(rng, slots[2], rng.uniform(1.8, 2.1), radius, speed(0.7, 1.3)), radius),
            things.Pinwheel(rng, glide(slots[3], FLOOR - 0.75, rng.uniform(2.5, 2.8)), rng.uniform(0.28, 0.36)),
            things.Sign(rng, glide(rng.uniform(-0.7, 0.7), -1.5, rng.uniform(2.4, 2.7)), 0.8, headlines.pop()),
        ]

    def view(self, t: float) -> View:
        """The camera at time t (s): it drifts, sways and shakes."""
        yaw, pitch = self._heading[0] + self._yaw(t), self._heading[1] + self._pitch(t)
        axes = rotation((0, 1, 0), yaw) @ rotation((1, 0, 0), pitch) @ rotation((0, 0, 1), self._roll(t))
        return View(self._drift * (t - MIDWAY) + [sway(t) for sway in self._sway], axes)

    def render(self, t: float) -> NDArray[np.uint8]:
        """The picture at time t (s), `(HEIGHT, WIDTH, 3)` RGB."""
        canvas = np.zeros((HEIGHT * SUPERSAMPLE, WIDTH * SUPERSAMPLE, 3), np.float32)
        view = self.view(t)
        for sheet in self.sheets:
            sheet.draw(canvas, view)
        for thing in sorted(self.things, key=lambda thing: -view.distance(thing.place(t))):
            thing.draw(canvas, view, t)
        picture = cv2.resize(canvas, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        return np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)

    def frames(self, count: int) -> Iterator[NDArray[np.uint8]]:
        """The first `count` frames at RATE frames a second."""
        for i in range(count):
            yield self.render(i / RATE)


def write_video(path: Path, frames: Iterator[NDArray[np.uint8]]) -> None:
    """Encode RGB frames without loss (FFV1)."""
    with atomic_path(path) as temporary, av.open(str(temporary), "w") as container:
        stream = container.add_stream("ffv1", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")))
        container.mux(stream.encode())


def film(seed: int, count: int, path: Path) -> str:
    """Render and encode one room; the line to print about it."""
    cv2.setNumThreads(1)  # the rooms share the processors already
    started = time.monotonic()
    write_video(path, Room(seed).frames(count))
    return f"{path}: {count} frames in {time.monotonic() - started:.0f} s"


def main() -> None:
    """Parse the command line, render the rooms side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=6, help="rooms to train on (default: %(default)s)")
    parser.add_argument("--test", type=int, default=1, help="rooms to test on (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=168, help="frames of each room (default: %(default)s)")
    arguments = parser.parse_args()
    rooms = range(1, arguments.train + arguments.test + 1)
    paths = [arguments.out / ("train" if i <= arguments.train else "test") / f"room_{i}.mkv" for i in rooms]
    with ProcessPoolExecutor(min(len(rooms), os.cpu_count() or 1)) as pool:
        for line in pool.map(film, rooms, itertools.repeat(arguments.frames), paths):
            print(line, flush=True)


if __name__ == "__main__":
    main()
