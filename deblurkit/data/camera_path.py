"""Smooth random motion of a hand-held camera and of things before it, and the homographies that they make.

Times are in frames: frame i of a clip is exposed around time i. A pinhole camera with focal length f (pixels) turns and
moves before planes that face it at rest; a plane at depth D = 1 is the photo, things lie before it (D < 1). Sums of
sines are smooth at every time scale and can be asked for any moment, so that sub-frames are exact, not interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class SmoothMotion:
    """A smooth random function of time with several components; each has speed 1 (root mean square) in the long run.

    Waves with log-uniform frequencies and the same speed each: most of the way is made by the slow ones, as with hands,
    whose displacement falls with frequency.

    Args:
        rng: draws it. components: how many independent functions. slow, fast: frequencies in cycles a frame.
        waves: for each component.
    """

    def __init__(
        self, rng: np.random.Generator, components: int, slow: float = 0.01, fast: float = 0.2, waves: int = 6
    ) -> None:
        self._draws = rng.random((components, waves))
        self._speeds = rng.standard_normal((components, waves)) * np.sqrt(2 / waves)
        self._phases = rng.uniform(0, 2 * np.pi, (components, waves))
        self._fast = fast
        self._set(slow)

    def _set(self, slow: float) -> None:
        self._slow = slow
        self._rates = 2 * np.pi * slow * (self._fast / slow) ** self._draws

    def livelier(self) -> bool:
        """Raise the lowest frequency, so that the same speed leads less far; False when that has an end."""
        if self._slow * 2 > self._fast / 2:
            return False
        self._set(self._slow * 2)
        return True

    def __call__(self, times: Floats) -> Floats:
        """Values at `times` `(n,)`, as `(n, components)`."""
        angles = times[:, None, None] * self._rates + self._phases
        return np.asarray((np.sin(angles) * (self._speeds / self._rates)).sum(-1))


@dataclass(frozen=True)
class View:
    """What a frame shows: its size and the camera behind it.

    Attributes:
        height, width: of frames in pixels. focal: focal length in pixels.
        axis: where the optical axis meets the frame (x, y); a crop of a larger frame has it elsewhere than its middle.
    """

    height: int
    width: int
    focal: float
    axis: tuple[float, float]

    def corners(self) -> Floats:
        """Centres of the four corner pixels, homogeneous, `(3, 4)`."""
        right, bottom = self.width - 1, self.height - 1
        return np.array([[0, right, 0, right], [0, 0, bottom, bottom], [1, 1, 1, 1]], np.float64)


class CameraPath:
    """A camera that turns and moves smoothly at random.

    The way that a picture moves on the sensor is shared out among turning (pan, tilt), moving sideways, rolling and
    moving along the axis, in proportions that are drawn.

    Args:
        rng: draws it. view: what is seen. speed: typical speed of the picture, in pixels a frame. rest: when the camera
            is where it is at rest.
    """

    def __init__(self, rng: np.random.Generator, view: View, speed: float, rest: float = 0.0) -> None:
        self.view, self._rest = view, np.array([rest])
        turn, side = rng.uniform(0.3, 1.0), rng.uniform(0.0, 1.0)
        roll, zoom = rng.uniform(0.0, 0.5), rng.uniform(0.0, 0.4)
        lever = 0.5 * float(np.hypot(view.height, view.width))
        scale = speed / float(np.sqrt(2 * turn**2 + 2 * side**2 + roll**2 + zoom**2))
        # pan, tilt, roll; then x, y, z in depths of the photo's plane
        self._rates = scale * np.array(
            [turn / view.focal] * 2 + [roll / lever] + [side / view.focal] * 2 + [zoom / lever], np.float64
        )
        self._motion = SmoothMotion(rng, 6)

    def livelier(self) -> bool:
        """See `SmoothMotion.livelier`."""
        return self._motion.livelier()

    def weaken(self, factor: float) -> None:
        """Move by so much less."""
        self._rates *= factor

    def to_plane(self, times: Floats, depth: float = 1.0) -> Floats:
        """Homographies from frames to a plane, `(n, 3, 3)`.

        At rest they are the identity: the plane's coordinates are the pixels of a frame that the camera takes in its
        place at rest.
        """
        values = (self._motion(times) - self._motion(self._rest)) * self._rates
        rays = rotations(values[:, :3]) @ self._inverse_intrinsics()
        x, y, z = values[:, 3], values[:, 4], values[:, 5]
        hit = np.zeros((len(times), 3, 3))  # where a ray meets the plane
        hit[:, 0, 0] = hit[:, 1, 1] = depth - z
        hit[:, 0, 2], hit[:, 1, 2], hit[:, 2, 2] = x, y, 1
        focal, (cx, cy) = self.view.focal / depth, self.view.axis
        return np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1]]) @ hit @ rays

    def _inverse_intrinsics(self) -> Floats:
        focal, (cx, cy) = self.view.focal, self.view.axis
        return np.array([[1 / focal, 0, -cx / focal], [0, 1 / focal, -cy / focal], [0, 0, 1]])


def rotations(angles: Floats) -> Floats:
    """Rotation matrices `(n, 3, 3)` of pan, tilt and roll `(n, 3)` in radians, turned in this order."""
    pan, tilt, roll = angles.T
    zero, one = np.zeros_like(pan), np.ones_like(pan)

    def stack(*rows: list[Floats]) -> Floats:
        return np.stack([np.stack(row, -1) for row in rows], -2)

    about_y = stack([np.cos(pan), zero, np.sin(pan)], [zero, one, zero], [-np.sin(pan), zero, np.cos(pan)])
    about_x = stack([one, zero, zero], [zero, np.cos(tilt), -np.sin(tilt)], [zero, np.sin(tilt), np.cos(tilt)])
    about_z = stack([np.cos(roll), -np.sin(roll), zero], [np.sin(roll), np.cos(roll), zero], [zero, zero, one])
    return about_y @ about_x @ about_z


def project(homographies: Floats, points: Floats) -> Floats:
    """Points `(3, k)`, homogeneous, through homographies `(n, 3, 3)`: `(n, 2, k)`."""
    mapped = homographies @ points
    return mapped[:, :2] / mapped[:, 2:]


def inverse(homographies: Floats) -> Floats:
    """Homographies the other way, `(n, 3, 3)`."""
    return np.asarray(np.linalg.inv(homographies), np.float64)


def exposure_times(frame: float, duty: float, count: int) -> Floats:
    """Moments of `count` sub-frames of an exposure around `frame` that lasts `duty` frames; equal shares, centred."""
    return frame + duty * ((np.arange(count) + 0.5) / count - 0.5)
