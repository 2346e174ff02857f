"""Blurred/sharp clips of photos: by a camera that moves before them, or by kernels of camera shake."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from deblurkit.data.camera_shake import ShakeOptions, blur, random_kernel
from deblurkit.data.light import Development, SensorNoise
from deblurkit.data.photo_scene import PhotoScenes, Range, SceneOptions, log_uniform, resized
from deblurkit.data.scene import LightPair, ScenePlan
from deblurkit.data.store import FrameStore
from deblurkit.data.synthesis import Pair, compress_pairs
from deblurkit.data.video_crf import check_crf
from deblurkit.errors import DataError

PhotoMode = Literal["photos", "shake"]


@dataclass(frozen=True)
class ClipOptions:
    """How clips of photos are made. Of a range a value is drawn for each clip.

    Attributes:
        mode: "photos": a camera and things move, see `SceneOptions`. "shake": every frame is the same part of a photo,
            blurred by a kernel of its own, see `ShakeOptions`.
        scene, shake: for the two modes; `scene.shrink` and `scene.curve` are for both.
        noise: strength of the sensor's noise on blurred frames, see `SensorNoise`.
        crf: quality at which blurred frames are compressed as a video; None: they are not.
    """

    mode: PhotoMode = "photos"
    scene: SceneOptions = field(default_factory=SceneOptions)
    shake: ShakeOptions = field(default_factory=ShakeOptions)
    noise: Range = (0.0, 2.0)
    crf: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("photos", "shake"):
            raise DataError(f"mode {self.mode!r} is unknown; of photos, clips are made by photos or shake")
        low, high = self.noise
        if low > high:
            raise DataError(f"noise {[low, high]} is no range")
        for strength in self.noise:
            SensorNoise(strength)
        if self.crf is not None:
            if self.crf[0] > self.crf[1]:
                raise DataError(f"crf {list(self.crf)} is no range")
            for crf in self.crf:
                check_crf(crf)

    def draw(self, rng: np.random.Generator) -> tuple[SensorNoise, int | None]:
        """The noise and the CRF of a clip."""
        noise = SensorNoise(rng.uniform(*self.noise))
        return noise, None if self.crf is None else int(rng.integers(self.crf[0], self.crf[1] + 1))


class PhotoClips:
    """Makes clips of the photos of a store; the same generator gives the same clip.

    Args:
        photos: the store. keys: its photos. options: how.
    """

    def __init__(self, photos: FrameStore, keys: Sequence[str], options: ClipOptions) -> None:
        self._photos, self._options = photos, options
        self._scenes = PhotoScenes(photos, keys, options.scene)
        self._development = Development(options.scene.curve)

    def fits(self, key: str, height: int, width: int) -> bool:
        """True when a photo is large enough for frames of that size."""
        return self._scenes.fits(key, height, width)

    def check(self, key: str, height: int, width: int) -> None:
        """Raise DataError for a photo that is too small."""
        self._scenes.check(key, height, width)

    def make(self, rng: np.random.Generator, key: str, height: int, width: int, frames: int) -> Iterator[Pair]:
        """A clip of the photo `key`: pairs of uint8 pixels `(height, width, 3)`.

        Raises:
            DataError: the photo is too small, missing or damaged.
        """
        self.check(key, height, width)
        noise, crf = self._options.draw(rng)
        return compress_pairs(self._developed(rng, key, (height, width), frames, noise), crf)

    def plan(
        self, rng: np.random.Generator, key: str, height: int, width: int, frames: int
    ) -> tuple[ScenePlan, SensorNoise]:
        """A clip that is drawn elsewhere (mode photos without compression): what is seen, and its noise.

        Raises:
            DataError: as `make`.
        """
        self.check(key, height, width)
        noise, _ = self._options.draw(rng)
        return self._scenes.plan(rng, key, height, width, frames), noise

    def _developed(
        self, rng: np.random.Generator, key: str, size: tuple[int, int], frames: int, noise: SensorNoise
    ) -> Iterator[Pair]:
        make = self._moved if self._options.mode == "photos" else self._shaken
        for light in make(rng, key, size, frames):
            clipped = np.minimum(light.blur, 1)  # a sensor that is full counts no more
            yield Pair(self._development.to_pixels(noise.add(clipped, rng)), self._development.to_pixels(light.sharp))

    def _moved(self, rng: np.random.Generator, key: str, size: tuple[int, int], frames: int) -> Iterator[LightPair]:
        scene = self._scenes.draw(rng, key, *size, frames)
        for frame in range(frames):
            yield scene.expose(frame)

    def _shaken(self, rng: np.random.Generator, key: str, size: tuple[int, int], frames: int) -> Iterator[LightPair]:
        height, width = size
        kernels = [random_kernel(rng, self._options.shake) for _ in range(frames)]
        room = max(kernel.shape[0] // 2 for kernel in kernels)
        shrink = log_uniform(rng, self._options.scene.shrink, self._scenes.most_shrink(key, height, width))
        # around the part there is as much more as kernels reach, where the photo has it
        found = self._photos.size(key)
        whole = [int(side / shrink) for side in found]
        top, left = (int(rng.random() * (most - side + 1)) for most, side in zip(whole, size, strict=True))
        y, x = max(top - room, 0), max(left - room, 0)
        bottom, right = min(top + height + room, whole[0]), min(left + width + room, whole[1])
        scale = [side / most for side, most in zip(found, whole, strict=True)]
        window = [math.floor(y * scale[0]), math.floor(x * scale[1])]
        window += [math.floor(bottom * scale[0]) - window[0], math.floor(right * scale[1]) - window[1]]
        pixels = self._photos.read(key, (window[0], window[1], window[2], window[3]))
        light = self._development.to_light(resized(pixels, (right - x, bottom - y)))
        part = np.s_[top - y : top - y + height, left - x : left - x + width]
        for kernel in kernels:
            yield LightPair(blur(light, kernel)[part], light[part])
