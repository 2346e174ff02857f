"""The camera of the demo scene and what it sees: sheets with pictures on them, and the toys that are made of those.

World coordinates are metres: x to the right, y down, z away from the camera; pictures are float32 RGB in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import demo_textures as textures
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Vector = Array | tuple[float, float, float]
Picture = textures.Picture
Place = Callable[[float], Array]  # from time (s) to a point

WIDTH, HEIGHT = 320, 180
SUPERSAMPLE = 2
FOCAL = 260.0 * SUPERSAMPLE  # in supersampled pixels
FLOOR = 0.85  # how far it lies below the camera
LIGHT = np.array((-0.45, -0.75, -0.5)) / np.linalg.norm((-0.45, -0.75, -0.5))  # direction towards the lamp


def rotation(axis: Vector, angle: float) -> Array:
    """Matrix of a turn by `angle` radians around an axis."""
    return np.asarray(cv2.Rodrigues(np.array(axis) / np.linalg.norm(axis) * angle)[0])


@dataclass
class View:
    """The camera at one moment: where it is, and its axes in the world as columns."""

    place: Array
    axes: Array

    def project(self, points: Array) -> Array:
        """Points relative to the camera, `(3, N)`, to homogeneous supersampled pixels `(3, N)`."""
        x, y = (WIDTH * SUPERSAMPLE - 1) / 2, (HEIGHT * SUPERSAMPLE - 1) / 2
        lens = np.array(((FOCAL, 0, x), (0, FOCAL, y), (0, 0, 1)))
        return lens @ self.axes.T @ points

    def distance(self, point: Array) -> float:
        """Metres from the camera."""
        return float(np.linalg.norm(point - self.place))


def window(canvas: Picture, left: float, right: float, top: float, bottom: float) -> tuple[int, int, int, int] | None:
    """The part of the canvas that covers a range of coordinates, as x0, x1, y0, y1; None when there is none."""
    x0, x1 = max(0, int(left) - 2), min(canvas.shape[1], int(right) + 3)
    y0, y1 = max(0, int(top) - 2), min(canvas.shape[0], int(bottom) + 3)
    return (x0, x1, y0, y1) if x0 < x1 and y0 < y1 else None


class Sheet:
    """A flat rectangle with a picture on it.

    Args:
        corner: its upper left corner. right, down: the edges that start there.
        picture: `(h, w, 3)`. cover: its opacity `(h, w)`, None for opaque.
    """

    def __init__(
        self, corner: Vector, right: Vector, down: Vector, picture: Picture, cover: Picture | None = None
    ) -> None:
        self.corner, self.right, self.down = (np.asarray(v, float) for v in (corner, right, down))
        alpha = np.ones(picture.shape[:2], np.float32) if cover is None else cover
        self.pixels = np.dstack((picture * alpha[..., None], alpha)).astype(np.float32)

    def draw(self, canvas: Picture, view: View, brightness: float = 1.0) -> None:
        """Put it on the canvas, in perspective and with smooth edges."""
        height, width = self.pixels.shape[:2]
        start = self.corner - view.place
        corners = np.stack((start, start + self.right, start + self.down, start + self.right + self.down), 1)
        x, y, depth = view.project(corners)
        if depth.min() < 0.05:
            raise ValueError("a sheet reaches behind the camera")
        x, y = x / depth, y / depth
        area = window(canvas, x.min(), x.max(), y.min(), y.max())
        if area is None:
            return
        x0, x1, y0, y1 = area
        half_texel = np.array(((1, 0, 0.5), (0, 1, 0.5), (0, 0, 1)))
        shift = np.array(((1, 0, -x0), (0, 1, -y0), (0, 0, 1)))
        warp = shift @ view.project(np.stack((self.right / width, self.down / height, start), 1)) @ half_texel
        seen = cv2.warpPerspective(self.pixels, warp, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
        under = canvas[y0:y1, x0:x1]
        under *= 1 - seen[..., 3:]
        under += brightness * seen[..., :3]


def shadow(x: float, z: float, width: float, depth: float, darkness: float) -> Sheet:
    """A soft dark spot on the floor."""
    v, u = (np.mgrid[:32, :32].astype(np.float32) + 0.5) / 16 - 1
    cover = darkness * np.clip(1 - np.hypot(u, v), 0, 1) ** 0.7
    corner = (x - width / 2, FLOOR - 0.002, z + depth / 2)
    return Sheet(corner, (width, 0, 0), (0, 0, -depth), textures.plain(32, 32, (0, 0, 0)), cover)


class Thing:
    """Something that moves; `place(t)` is its middle at time t (s)."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def draw(self, canvas: Picture, view: View, t: float) -> None:
        """Put it on the canvas as it is at time t."""
        raise NotImplementedError


class Block(Thing):
    """A toy block with letters that turns around an axis."""

    def __init__(self, rng: np.random.Generator, place: Place, side: float, axis: Vector) -> None:
        super().__init__(place)
        self.side, self.axis = side, axis
        self.start, self.speed = rng.uniform(0, 6), rng.uniform(2.5, 5) * rng.choice((-1, 1))
        letters = rng.permutation(list("ABCDEFGHKMNRSTX"))
        hue, pixels = rng.uniform(), round(side * FOCAL / 2.2)
        self.faces = [textures.block_face(rng, pixels, str(letters[i]), hue + i * 0.17) for i in range(6)]

    def draw(self, canvas: Picture, view: View, t: float) -> None:
        middle, turn = self.place(t), rotation(self.axis, self.start + self.speed * t)
        shadow(middle[0] + 0.05, middle[2], 2.1 * self.side, 1.8 * self.side, 0.6).draw(canvas, view)
        for i, face in enumerate(self.faces):
            normal = turn[:, i % 3] * (1 if i < 3 else -1)
            right, down = turn[:, (i + 1) % 3] * self.side, turn[:, (i + 2) % 3] * self.side
            if i >= 3:
                right, down = down, right
            face_middle = middle + normal * self.side / 2
            if normal @ (view.place - face_middle) > 0:
                brightness = 0.55 + 0.55 * max(0.0, float(normal @ LIGHT))
                Sheet(face_middle - right / 2 - down / 2, right, down, face).draw(canvas, view, brightness)


class Ball(Thing):
    """A striped ball that rolls and bounces."""

    def __init__(self, rng: np.random.Generator, place: Place, radius: float) -> None:
        super().__init__(place)
        self.radius = radius
        self.axis, self.speed = rng.uniform(-1, 1, 3), rng.uniform(3, 6) * rng.choice((-1, 1))
        hue = rng.uniform()
        tones = ((0, 0.8, 0.9), (0, 0.05, 0.97), (0.5, 0.8, 0.8), (0, 0.05, 0.97))
        self.stripes = np.array([textures.colour(hue + h, s, v) for h, s, v in tones], np.float32)
        self.band = np.array(textures.colour(hue + 0.6, 0.7, 0.35), np.float32)

    def draw(self, canvas: Picture, view: View, t: float) -> None:
        middle = self.place(t)
        height = FLOOR - self.radius - middle[1]
        size = 2 * self.radius * (1.1 + height)
        shadow(middle[0] + 0.1 * height, middle[2], size, size, 0.6 / (1 + 3 * height)).draw(canvas, view)
        x, y, depth = view.project((middle - view.place)[:, None])[:, 0]
        x, y, radius = x / depth, y / depth, FOCAL * self.radius / depth
        area = window(canvas, x - radius, x + radius, y - radius, y + radius)
        if area is None:
            return
        x0, x1, y0, y1 = area
        v, u = np.mgrid[y0:y1, x0:x1]
        u, v = (u - x) / radius, (v - y) / radius
        out = np.hypot(u, v)
        normal = np.stack((u, v, -np.sqrt(np.clip(1 - out**2, 0, 1))), -1) @ view.axes.T
        own = normal @ rotation(self.axis, self.speed * t)  # in the ball's own axes
        stripe = np.floor((np.arctan2(own[..., 1], own[..., 0]) / (2 * np.pi) + 0.5) * 8).astype(int) % 4
        paint = self.stripes[stripe]
        paint[(np.abs(own[..., 2]) > 0.9) | (np.abs(np.abs(own[..., 2]) - 0.45) < 0.05)] = self.band
        light = np.clip(normal @ LIGHT, 0, 1)[..., None]
        paint = np.clip(paint * (0.5 + 0.55 * light) + 0.5 * light**30, 0, 1)
        cover = np.clip((1 - out) * radius + 0.5, 0, 1)[..., None]
        canvas[y0:y1, x0:x1] += cover * (paint - canvas[y0:y1, x0:x1])


class Pinwheel(Thing):
    """A pinwheel that spins on a stick."""

    def __init__(self, rng: np.random.Generator, place: Place, radius: float) -> None:
        super().__init__(place)
        self.radius = radius
        self.start, self.speed = rng.uniform(0, 6), rng.uniform(4, 8) * rng.choice((-1, 1))
        self.picture, self.cover = textures.pinwheel(rng, round(2 * radius * FOCAL / 2.4))
        self.stick = textures.planks(rng, 8, 200, 8).transpose(1, 0, 2)

    def draw(self, canvas: Picture, view: View, t: float) -> None:
        middle = self.place(t)
        shadow(middle[0], middle[2], 0.5, 0.3, 0.45).draw(canvas, view)
        Sheet(middle - (0.012, 0, 0), (0.024, 0, 0), (0, FLOOR - middle[1], 0), self.stick).draw(canvas, view)
        right, down, _ = (rotation((0, 0, 1), self.start + self.speed * t) * 2 * self.radius).T
        corner = middle - (0, 0, 0.03) - right / 2 - down / 2
        Sheet(corner, right, down, self.picture, self.cover).draw(canvas, view)


class Sign(Thing):
    """A printed board that swings on two cords; `place` is where they are fixed."""

    def __init__(self, rng: np.random.Generator, place: Place, width: float, headline: str) -> None:
        super().__init__(place)
        self.width, self.height, self.cord = width, 0.42 * width, rng.uniform(0.9, 1.1)
        self.swing, self.phase = rng.uniform(0.12, 0.2), rng.uniform(0, 6)
        pixels = round(width * FOCAL / 2.2)
        self.picture = textures.poster(rng, round(0.42 * pixels), pixels, headline)
        self.string = textures.plain(64, 2, (0.2, 0.18, 0.15))

    def draw(self, canvas: Picture, view: View, t: float) -> None:
        turn = rotation((0, 0, 1), self.swing * np.sin(4.5 * t + self.phase)) @ rotation((0, 1, 0), 0.25)
        along, down, _ = turn.T
        top = self.place(t)
        for side in (-0.4, 0.4):
            start = top + along * self.width * side
            Sheet(start, along * 0.012, down * self.cord, self.string).draw(canvas, view)
        corner = top + down * self.cord - along * self.width / 2
        Sheet(corner, along * self.width, down * self.height, self.picture).draw(canvas, view, 0.95)
