"""Flat layers that move, and the light that a shutter lets in from them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from deblurkit.data.camera_path import Floats
from deblurkit.data.light import Light
from deblurkit.image_io import cv2


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
