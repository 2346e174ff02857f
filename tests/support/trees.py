"""The shared generator of small data trees: moving texture, sharp and as an exposure of some length sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deblurkit.data.layouts import GOPRO_FRAMES
from deblurkit.image_io import Pixels, cv2

#: Sharp moments per blurred frame; as many again, less one, pass before the next.
EXPOSURE = 7
_PERIOD = 8
_SWING = 20


def make_tree(
    root: Path,
    layout: Literal["gopro", "paired"] = "paired",
    splits: Sequence[str] = ("train", "test"),
    sequences: int = 2,
    frames: int | Sequence[int] = 8,
    size: tuple[int, int] = (48, 64),
    seed: int = 0,
    dtype: Any = np.uint8,
    ending: str = ".png",
    gamma: bool = False,
) -> Path:
    """Write `ROOT/SPLIT/SEQUENCE/{blur,sharp}/*`, the same for the same arguments.

    Every blurred frame is the mean of `EXPOSURE` moments of a texture that moves smoothly (up to about 6 pixels during
    an exposure, another way in each sequence); the sharp one is the middle moment. So a network can learn to deblur it.

    Args:
        layout: "gopro" takes GoPro's names (sequences and six-digit frames that do not begin at 0).
        frames: per sequence, or one number for each. size: height and width. dtype: uint8 or uint16 pixels.
        ending: picture format. gamma: also write `blur_gamma`, averaged in linear light.

    Returns:
        `root`.
    """
    lengths = [frames] * sequences if isinstance(frames, int) else list(frames)
    for split_number, split in enumerate(splits):
        published = [*GOPRO_FRAMES.get(split, ()), *(f"GOPR0999_11_{i:02d}" for i in range(sequences))]
        for number, length in enumerate(lengths):
            rng = np.random.default_rng((seed, split_number, number))
            folder = root / split / (published[number] if layout == "gopro" else f"seq{number:03d}")
            first, digits = (47 + 100 * number, 6) if layout == "gopro" else (0, 8)
            for t, moments in enumerate(_exposures(rng, length, size)):
                pictures = {"sharp": moments[EXPOSURE // 2], "blur": moments.mean(axis=0)}
                if gamma:
                    pictures["blur_gamma"] = (moments**2.2).mean(axis=0) ** (1 / 2.2)
                for kind, picture in pictures.items():
                    _write(folder / kind / f"{first + t:0{digits}d}{ending}", _to_pixels(picture, dtype))
    return root


def write_pairs(
    lq: Path,
    gt: Path,
    names: Sequence[str],
    size: tuple[int, int] = (24, 32),
    scale: int = 1,
    lq_names: Sequence[str] = (),
    seed: int = 0,
) -> None:
    """Write a sequence of blurred and sharp frames into two folders, in the form of any data set.

    Args:
        names: file names. size: height and width of the sharp frames. scale: the blurred ones are that much smaller.
        lq_names: names of the blurred files where they differ.
    """
    rng = np.random.default_rng((seed, len(names), *map(ord, gt.as_posix()[-40:])))
    for name, lq_name, moments in zip(names, lq_names or names, _exposures(rng, len(names), size), strict=True):
        _write(gt / name, _to_pixels(moments[EXPOSURE // 2], np.uint8))
        _write(lq / lq_name, _to_pixels(moments.mean(axis=0)[::scale, ::scale], np.uint8))


def _exposures(rng: np.random.Generator, length: int, size: tuple[int, int]) -> list[np.ndarray]:
    """For every frame the moments of its exposure, `(EXPOSURE, h, w, 3)` float32 in [0, 1]."""
    height, width = size
    canvas = _texture(rng, height + 2 * _SWING + 2, width + 2 * _SWING + 2)
    phases, speeds = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.03, 0.055, 2)
    exposures = []
    for t in range(length):
        moments = []
        for k in range(EXPOSURE):
            y, x = np.rint(_SWING * (1 + np.sin(phases + speeds * (t * _PERIOD + k)))).astype(int)
            moments.append(canvas[y : y + height, x : x + width])
        exposures.append(np.stack(moments))
    return exposures


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Coloured noise at several scales with hard edges, `(height, width, 3)` float32 in [0, 1]."""
    total = np.zeros((height, width, 3), np.float32)
    for cell in (2, 5, 12, 30):
        noise = rng.random((height // cell + 2, width // cell + 2, 3), np.float32)
        total += cv2().resize(noise, (width, height), interpolation=cv2().INTER_NEAREST) * (cell**0.5)
    total -= total.min()
    return total / total.max()


def _write(path: Path, pixels: Pixels) -> None:
    """Not as `image_io.write_image` does it: syncing every file to the disk would be most of the time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2().imwrite(str(path), np.ascontiguousarray(pixels[..., ::-1]))


def _to_pixels(picture: np.ndarray, dtype: Any) -> Pixels:
    return np.rint(picture * np.iinfo(dtype).max).astype(dtype)
