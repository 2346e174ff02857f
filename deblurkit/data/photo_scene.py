"""Blurred clips of photos: a camera moves smoothly over a photo, with cut-outs of others that move on their own.

Every sub-frame is drawn exactly for its moment and added up in linear light, as a shutter does; the sharp frame is the
one in the middle of the exposure. Nothing reaches beyond the photo's borders.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deblurkit.data.camera_path import CameraPath, Floats, View, exposure_times, inverse, project
from deblurkit.data.light import Development
from deblurkit.data.scene import FINER, PlannedLayer, Scene, ScenePlan, finer
from deblurkit.data.scene_things import Thing
from deblurkit.data.store import FrameStore
from deblurkit.errors import DataError
from deblurkit.image_io import Pixels, cv2

Range = tuple[float, float]

#: Pixels of a photo, made smaller, that are read around what is seen.
_MARGIN = 2
#: A photo is at least so much larger than the frames, so that the camera has room to move.
ROOM = 1.15


@dataclass(frozen=True)
class SceneOptions:
    """What clips of photos look like. A range `(low, high)` is drawn from for every clip.

    Attributes:
        motion: typical way of the picture during an exposure, in pixels; small values are as likely as large ones (log
            scale).
        duty: share of the time from one frame to the next that the shutter is open.
        shrink: photo pixels for a frame's pixel, on each side, from 1; as far as the photo is large enough (log scale).
        objects: most moving things before the photo; each number from 0 is as likely.
        highlights: how much brighter than white a photo's white may be (they then draw streaks); 0: as it is.
        curve: of the photos, a name in `light.CURVES`.
    """

    motion: Range = (1.0, 24.0)
    duty: Range = (0.3, 1.0)
    shrink: Range = (1.0, 3.0)
    objects: int = 3
    highlights: float = 3.0
    curve: str = "srgb"

    def __post_init__(self) -> None:
        for name, lowest, highest in (("motion", 0.01, 200.0), ("duty", 0.01, 1.0), ("shrink", 1.0, 64.0)):
            low, high = getattr(self, name)
            if not lowest <= low <= high <= highest:
                raise DataError(f"{name} {[low, high]} is a range within {lowest:g} to {highest:g}")
        if not 0 <= self.objects <= 20:
            raise DataError(f"objects {self.objects}: at most that many things move before the photo, 0 to 20")
        if not 0 <= self.highlights <= 100:
            raise DataError(f"highlights {self.highlights:g}: 0 (as they are) to 100 times as bright again")


class PhotoScenes:
    """Draws scenes from a store of photos.

    Args:
        photos: the store. keys: its photos. options: what clips look like.
    """

    def __init__(self, photos: FrameStore, keys: Sequence[str], options: SceneOptions) -> None:
        self._photos, self._keys, self._options = photos, keys, options
        self._development = Development(options.curve)

    def fits(self, key: str, height: int, width: int) -> bool:
        """True when a photo is large enough for frames of that size."""
        return self.most_shrink(key, height, width) >= 1

    def check(self, key: str, height: int, width: int) -> None:
        """Raise DataError for a photo that is too small."""
        if not self.fits(key, height, width):
            found = self._photos.size(key)
            raise DataError(
                f"{self._photos.place(key)}: is {found[1]}x{found[0]}; frames of {width}x{height} need a photo that is "
                f"{ROOM} times as large on each side"
            )

    def draw(self, rng: np.random.Generator, key: str, height: int, width: int, frames: int) -> Scene:
        """A scene before the photo `key`, of `frames` frames; see `plan`."""
        return self.plan(rng, key, height, width, frames).lit(self._development)

    def plan(self, rng: np.random.Generator, key: str, height: int, width: int, frames: int) -> ScenePlan:
        """What is seen, and where, before the photo `key`, in `frames` frames.

        Raises:
            DataError: the photo is too small, missing or damaged.
        """
        self.check(key, height, width)
        options = self._options
        duty = rng.uniform(*options.duty)
        motion = log_uniform(rng, options.motion)
        shrink = log_uniform(rng, options.shrink, self.most_shrink(key, height, width))
        gain = rng.random() * options.highlights * (rng.random() < 0.5)

        whole = [side / shrink for side in self._photos.size(key)]  # of the photo, in pixels of frames
        top, left = (rng.random() * (most - side) for most, side in zip(whole, (height, width), strict=True))
        focal = rng.uniform(0.7, 1.5) * max(whole)
        view = View(height, width, focal, ((whole[1] - 1) / 2 - left, (whole[0] - 1) / 2 - top))
        path = CameraPath(rng, view, motion / duty, rest=(frames - 1) / 2)
        moments = np.arange(frames * 8 + 1) / 8 - 0.5
        offset = _fit(path, moments, (left, top), (whole[1], whole[0]))

        donor = self._keys[int(rng.integers(len(self._keys)))]  # one for all things: each photo has to be decoded
        count = int(rng.integers(options.objects + 1))
        things = [Thing(rng, view, frames, motion / duty) for _ in range(count)]
        things.sort(key=lambda thing: -thing.depth)
        times = self._exposures(path, things, view, frames, duty)

        shape = (*times.shape, 3, 3)
        pixels, places = self._background(key, path.to_plane(times.ravel()), offset, shrink, view)
        layers = [PlannedLayer(pixels, None, finer(places).reshape(shape))]
        pictures = self._cut_outs(donor, things) if things else []
        for thing, pixels in zip(things, pictures, strict=True):
            places = finer(thing.places(path, times.ravel())).reshape(shape)
            layers.append(PlannedLayer(pixels, thing.coverage(FINER), places))
        return ScenePlan(layers, height, width, gain)

    def most_shrink(self, key: str, height: int, width: int) -> float:
        """The most that a photo may be made smaller for frames of that size; below 1 it is too small."""
        found = self._photos.size(key)
        return min(found[0] / (height * ROOM), found[1] / (width * ROOM))

    def _exposures(self, path: CameraPath, things: list[Thing], view: View, frames: int, duty: float) -> Floats:
        """The moments of all sub-frames `(frames, count)`: so many that nothing moves by a pixel between two."""
        count = 9
        times = np.stack([exposure_times(i, duty, count) for i in range(frames)])
        corners = view.corners()
        ways = [project(inverse(path.to_plane(times.ravel())), corners)]
        ways += [project(inverse(thing.places(path, times.ravel())), thing.corners()) for thing in things]
        longest = max(
            float(np.hypot(*np.moveaxis(np.diff(way.reshape(frames, count, 2, -1), axis=1), 2, 0)).sum(1).max())
            for way in ways
        )
        longest *= count / (count - 1)  # the moments lie in the middles of equal parts
        count = max(3, math.ceil(longest) + 1)
        count += 1 - count % 2
        return np.stack([exposure_times(i, duty, count) for i in range(frames)])

    def _background(
        self, key: str, places: Floats, offset: tuple[float, float], shrink: float, view: View
    ) -> tuple[Pixels, Floats]:
        """The part of the photo that is seen, and homographies from frames to it."""
        height, width = self._photos.size(key)
        shift = np.array([[1, 0, offset[0]], [0, 1, offset[1]], [0, 0, 1]])
        places = shift @ places  # pixels of the whole photo, made smaller
        seen = project(places, view.corners())
        low = np.maximum(np.floor((seen.min((0, 2)) - _MARGIN) * shrink), 0).astype(int)
        high = np.ceil((seen.max((0, 2)) + 1 + _MARGIN) * shrink).astype(int)
        x, y = int(low[0]), int(low[1])
        right, bottom = min(int(high[0]), width), min(int(high[1]), height)
        pixels = self._photos.read(key, (y, x, bottom - y, right - x))
        size = round((right - x) / shrink), round((bottom - y) / shrink)
        # made smaller by whole pixels, so by not quite `shrink`
        ratio = np.array([size[0] / (right - x), size[1] / (bottom - y)])
        start = np.array([x, y]) * ratio
        scale = ratio * shrink
        middle = (scale - 1) / 2  # centres of pixels lie at half their size
        to_patch = np.array([[scale[0], 0, middle[0] - start[0]], [0, scale[1], middle[1] - start[1]], [0, 0, 1]])
        return resized(pixels, size), to_patch @ places

    def _cut_outs(self, key: str, things: list[Thing]) -> list[Pixels]:
        """The parts of a photo that things show."""
        pixels = self._photos.read(key)
        height, width = pixels.shape[:2]
        found = []
        for thing in things:
            taken = min(int(thing.side * thing.shrink), height, width)
            x, y = (int(share * (most - taken)) for share, most in zip(thing.share, (width, height), strict=True))
            found.append(resized(pixels[y : y + taken, x : x + taken], (thing.side, thing.side)))
        return found


def _fit(
    path: CameraPath, moments: Floats, start: tuple[float, float], room: tuple[float, float]
) -> tuple[float, float]:
    """Where the frame at rest lies in the photo (x, y), so that the camera never looks beyond it.

    A way that is too long is made livelier first (it goes to and fro more), then weaker, which has an end since there
    is room around a camera that stands still.
    """
    while True:
        seen = project(path.to_plane(moments), path.view.corners())
        low, high = seen.min((0, 2)), seen.max((0, 2)) + 1
        if (high - low <= room).all():
            return tuple(np.clip(start, -low, np.array(room) - high).tolist())
        if not path.livelier():
            path.weaken(0.8)


def resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Made smaller by averaging areas (larger, which a thing of a small photo may have to be, by cubic curves)."""
    module = cv2()
    if pixels.shape[1::-1] == size:
        return pixels
    rule = module.INTER_AREA if size[0] <= pixels.shape[1] else module.INTER_CUBIC
    return module.resize(pixels, size, interpolation=rule)


def log_uniform(rng: np.random.Generator, limits: Range, most: float = math.inf) -> float:
    """A number from a range, none above `most`, whose logarithm is uniform."""
    low, high = (math.log(min(limit, most)) for limit in limits)
    return math.exp(rng.uniform(low, high))
