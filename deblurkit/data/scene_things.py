"""Things of random outline that move on their own before a photo."""

from __future__ import annotations

import numpy as np

from deblurkit.data.camera_path import CameraPath, Floats, SmoothMotion, View
from deblurkit.data.light import Light


class Thing:
    """A flat thing of random outline, nearer than the photo, that moves on its own.

    Attributes:
        share: which part of a photo it shows, [0, 1) from the left and from the top.
        side: of the square around it, in pixels at rest. shrink: photo pixels for one of these. depth: 0 to 1.
    """

    def __init__(self, rng: np.random.Generator, view: View, frames: int, speed: float) -> None:
        self.share = rng.random(), rng.random()
        self.side = max(8, int(min(view.height, view.width) * _log_uniform(rng, 0.12, 0.55)))
        self.shrink = _log_uniform(rng, 1.0, 3.0)
        self.depth = rng.uniform(0.5, 0.95)
        self._place = rng.uniform(0.05, 0.95, 2) * (view.width, view.height)
        self._moment = np.array([rng.uniform(0, max(frames - 1, 0))])
        # sideways in pixels, turning in radians, growing in parts of its size: all in the picture's speed at its rim
        own = speed * _log_uniform(rng, 0.2, 1.5)
        self._rates = own * np.array([1, 1, rng.uniform(0, 1) / self.side, rng.uniform(0, 0.5) / self.side])
        self._motion = SmoothMotion(rng, 4)
        # outline: a few waves around a circle or a flattened one
        self._turn, self._flat = rng.uniform(0, np.pi), rng.uniform(0.45, 1.0)
        self._waves = rng.standard_normal(5) * 0.35 / np.arange(2, 7)
        self._phases = rng.uniform(0, 2 * np.pi, 5)
        self._soft = rng.uniform(0.7, 2.5)

    def corners(self) -> Floats:
        """Of its square, homogeneous, `(3, 4)`."""
        end = self.side - 1
        return np.array([[0, end, 0, end], [0, 0, end, end], [1, 1, 1, 1]], np.float64)

    def places(self, path: CameraPath, times: Floats) -> Floats:
        """Homographies from frames to its square, `(n, 3, 3)`."""
        moved = (self._motion(times) - self._motion(self._moment)) * self._rates
        x, y = (self._place + moved[:, :2]).T
        # at most turned about and three times as large or small
        angle, size = moved[:, 2], np.exp(np.clip(moved[:, 3], -1, 1))
        cos, sin, middle = np.cos(angle) / size, np.sin(angle) / size, (self.side - 1) / 2
        own = np.zeros((len(times), 3, 3))
        own[:, 0, 0], own[:, 0, 1], own[:, 0, 2] = cos, sin, middle - cos * x - sin * y
        own[:, 1, 0], own[:, 1, 1], own[:, 1, 2] = -sin, cos, middle + sin * x - cos * y
        own[:, 2, 2] = 1
        return own @ path.to_plane(times, self.depth)

    def coverage(self, scale: int) -> Light:
        """How much of each pixel of its square it covers, with a soft rim.

        Args:
            scale: of the square, which has `scale * side` pixels on each side.
        """
        side = self.side * scale
        places = (np.arange(side) + 0.5) / side * 2 - 1
        x, y = np.meshgrid(places, places)
        cos, sin = np.cos(self._turn), np.sin(self._turn)
        x, y = cos * x + sin * y, (cos * y - sin * x) / self._flat
        angle = np.arctan2(y, x)
        turns = zip(range(2, 7), self._waves, self._phases, strict=True)
        waves = sum(size * np.cos(number * angle + phase) for number, size, phase in turns)
        outline = (1 + waves) / (1 + np.abs(self._waves).sum())
        rim = (outline - np.hypot(x, y)) * self._flat * side / 2  # pixels to the rim, roughly
        return np.clip(rim / (self._soft * scale), 0, 1).astype(np.float32)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
