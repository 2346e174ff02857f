"""Flat layers that move, and the light that a shutter lets in from them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from deblurkit.data.camera_path import Floats
from deblurkit.data.light import Development, Light
from deblurkit.image_io import Pixels, cv2

#: Layers are so much finer than frames: drawn with straight-line interpolation they keep their sharpness then.
FINER = 2
#: Light from which on pixels count as white, more or less.
BRIGHT = 0.85


def finer(places: Floats) -> Floats:
    """Homographies to pixels of a layer, from those to pixels of frames' size."""
    middle = (FINER - 1) / 2
    return np.asarray(np.array([[FINER, 0, middle], [0, FINER, middle], [0, 0, 1]]) @ places)


class Layer(NamedTuple):
    """Something flat to be drawn.

    Attributes:
        light: `(H, W, 3)` linear light, or `(H, W, 4)` with coverage behind it, which the light is multiplied by.
        places: homographies from frames to its pixels, by frame and sub-frame, `(frames, sub-frames, 3, 3)`.
    """

    light: Light
    places: Floats


class LightPair(NamedTuple):
    """What a sensor collects during an exposure, and in its middle moment alone: `(H, W, 3)` linear light."""

    blur: Light
    sharp: Light


class Scene(NamedTuple):
    """A clip to be drawn: its layers, the nearest one last, and the size of its frames."""

    layers: list[Layer]
    height: int
    width: int

    def expose(self, frame: int) -> LightPair:
        """Draw a frame."""
        module = cv2()
        size = self.width, self.height
        flags = module.INTER_LINEAR | module.WARP_INVERSE_MAP
        count = self.layers[0].places.shape[1]
        total = np.zeros((self.height, self.width, 3), np.float32)
        sharp = total
        background, *things = self.layers
        for moment in range(count):
            picture = module.warpPerspective(
                background.light,
                background.places[frame, moment],
                size,
                flags=flags,
                borderMode=module.BORDER_REPLICATE,
            )
            for thing in things:
                place = thing.places[frame, moment]
                box = _box(place, thing.light.shape, self.height, self.width)
                if box is None:
                    continue
                y, x, height, width = box
                moved = place @ np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])
                drawn = module.warpPerspective(thing.light, moved, (width, height), flags=flags)
                part = picture[y : y + height, x : x + width]
                part *= 1 - drawn[..., 3:]
                part += drawn[..., :3]
            if moment == count // 2:
                sharp = picture
            total += picture
        total /= count
        return LightPair(total, sharp)


class PlannedLayer(NamedTuple):
    """A layer before it is made finer and turned into light.

    Attributes:
        pixels: `(H, W, 3)` of frames' size. coverage: of its finer pixels, `(FINER H, FINER W)`; None: all.
        places: see `Layer`.
    """

    pixels: Pixels
    coverage: Light | None
    places: Floats


class ScenePlan(NamedTuple):
    """A scene before anything costly is done; see `Scene`. White is `1 + gain` times as bright as a frame shows it."""

    layers: list[PlannedLayer]
    height: int
    width: int
    gain: float

    def lit(self, development: Development) -> Scene:
        """The scene, its layers finer and in light."""
        return Scene([self._lit(layer, development) for layer in self.layers], self.height, self.width)

    def _lit(self, layer: PlannedLayer, development: Development) -> Layer:
        module = cv2()
        size = layer.pixels.shape[1] * FINER, layer.pixels.shape[0] * FINER
        light = development.to_light(module.resize(layer.pixels, size, interpolation=module.INTER_CUBIC))
        if self.gain:
            bright = np.clip((light.max(-1, keepdims=True) - BRIGHT) / (1 - BRIGHT), 0, 1)
            light *= 1 + np.float32(self.gain) * bright * bright
        if layer.coverage is not None:
            light = np.dstack([light * layer.coverage[..., None], layer.coverage])
        return Layer(light, layer.places)


def _box(place: Floats, shape: tuple[int, ...], height: int, width: int) -> tuple[int, int, int, int] | None:
    """Where in the frame a layer is: top, left, height and width; None: nowhere."""
    bottom, right = shape[0], shape[1]
    corners = np.array([[-1, right, -1, right], [-1, -1, bottom, bottom], [1, 1, 1, 1]], np.float64)
    mapped = np.linalg.inv(place) @ corners
    if mapped[2].min() <= 0:  # behind the camera
        return None
    seen = mapped[:2] / mapped[2]
    x, y = np.maximum(np.floor(seen.min(1)), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(seen.max(1)) + 1, (width, height)).astype(int).tolist()
    return (y, x, bottom - y, right - x) if right > x and bottom > y else None
