"""Make docs/synthesis.jpg: clips of photos as `deblurkit synth` makes them.

    python scripts/make_synthesis_picture.py PHOTOS docs/synthesis.jpg

PHOTOS is a folder of photos of 320x180 or more; for the committed picture they are frames of `demo_scene.py`.
A row for each of three photos: three blurred frames of a clip, and the sharp partner of the last one. The fourth row:
frames that are blurred by kernels of camera shake, with the kernels.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from deblurkit.data.camera_shake import ShakeOptions, blur, random_kernel
from deblurkit.data.layouts_sources import PhotosLayout
from deblurkit.data.light import Development
from deblurkit.data.photo_clips import ClipOptions, PhotoClips
from deblurkit.data.photo_scene import SceneOptions
from deblurkit.data.store import DiskStore
from deblurkit.image_io import Pixels, write_image

SIZE = (144, 256)


def clip_row(clips: PhotoClips, key: str, seed: int) -> Pixels:
    pairs = list(clips.make(np.random.default_rng(seed), key, *SIZE, 5))
    return np.hstack([*(pairs[i].blur for i in (0, 2, 4)), pairs[4].sharp])


def shake_row(photo: Pixels, seed: int) -> Pixels:
    rng, development = np.random.default_rng(seed), Development("srgb")
    light = development.to_light(photo)
    tiles = []
    for _ in range(4):
        kernel = random_kernel(rng, ShakeOptions((20.0, 50.0)))
        tile = development.to_pixels(blur(light, kernel))[: SIZE[0], : SIZE[1]].copy()
        inset = np.sqrt(cv2.resize(kernel / kernel.max(), (40, 40), interpolation=cv2.INTER_AREA).clip(0))
        tile[4:44, 4:44] = (255 * inset[..., None]).astype(np.uint8)
        tiles.append(tile)
    return np.hstack(tiles)


def main() -> None:
    photos, target = Path(sys.argv[1]), Path(sys.argv[2])
    (pairs,) = PhotosLayout().find(photos, "all", "blur").values()
    store = DiskStore({pair.name: pair.lq for pair in pairs})
    keys = [pair.name for pair in pairs]
    scene = SceneOptions(motion=(6.0, 14.0), shrink=(1.0, 1.1), duty=(0.6, 1.0))
    clips = PhotoClips(store, keys, ClipOptions(scene=scene, noise=(1.0, 1.0)))
    rows = [clip_row(clips, keys[i], seed) for i, seed in enumerate((3, 6, 5))]
    picture = np.vstack([*rows, shake_row(store.read(keys[3]), 2)])
    write_image(target, picture, [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
