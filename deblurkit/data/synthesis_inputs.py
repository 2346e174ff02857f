"""What `deblurkit synth` is asked for: which inputs are video, which are photos, and which options go with them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np

from deblurkit.console import say
from deblurkit.data.camera_shake import ShakeOptions
from deblurkit.data.layouts import LAYOUTS, LayoutName
from deblurkit.data.photo_clips import ClipOptions
from deblurkit.data.photo_scene import SceneOptions
from deblurkit.data.synthesis import Averaging
from deblurkit.data.synthesis_files import AverageOptions, synthesise_layout, synthesise_photos, synthesise_videos
from deblurkit.data.synthesis_jobs import Output
from deblurkit.errors import DataError, did_you_mean
from deblurkit.image_io import cv2, list_images, read_image
from deblurkit.video.probe import kind_of, read_head

SynthMode = Literal["auto", "average", "photos", "shake"]

#: Neighbouring pictures of a folder whose small versions differ by less, in steps of 8 bits, are frames of a video.
_ALIKE = 28.0


@dataclass(frozen=True)
class Request:
    """What a person asks for; None: the default of what is made (see `Averaging`, `SceneOptions`, `ShakeOptions`).

    Attributes:
        mode: "auto": "average" for videos, frames of a video and GOPRO_Large_all, else "photos".
        frames, stride, duty, interpolate, curve: see `Averaging`; of photos only `curve` counts.
        scale: see `AverageOptions`. layout, split: the input is a data set; its sharp frames are averaged.
        size: of photos' frames, "640x360". length: of their clips. motion: "LOW:HIGH" pixels. objects: see
            `SceneOptions`. noise: most of it. crf: quality as video. limit: of pairs of a video, or of photos.
    """

    mode: SynthMode = "auto"
    frames: int | None = None
    stride: int | None = None
    duty: float | None = None
    interpolate: int = 1
    curve: str | None = None
    scale: float = 1.0
    layout: str | None = None
    split: str | None = None
    size: str = "640x360"
    length: int = 20
    motion: str | None = None
    objects: int = 3
    noise: float | None = None
    crf: int | None = None
    limit: int | None = None

    def average(self) -> AverageOptions:
        """For frames of video."""
        if self.frames is not None and self.duty is not None:
            raise DataError("a number of frames and a duty cycle both say how long an exposure is: give one of them")
        averaging = Averaging(
            7 if self.frames is None else self.frames,
            self.stride,
            self.curve or "gamma2.2",
            self.duty,
            self.interpolate,
        )
        return AverageOptions(averaging, self.scale, self.limit, self.noise or 0.0, self.crf)

    def clips(self, mode: Literal["photos", "shake"]) -> ClipOptions:
        """For photos."""
        given = [name for name in ("frames", "stride", "duty", "layout") if getattr(self, name) is not None]
        given += [name for name, default in (("interpolate", 1), ("scale", 1.0)) if getattr(self, name) != default]
        if given:
            raise DataError(f"--{given[0]} is for averaging frames of video; clips of photos are made by mode {mode}")
        motion = _range(self.motion)
        shake = ShakeOptions(motion) if motion and mode == "shake" else ShakeOptions()
        scene = SceneOptions(
            motion=motion if motion and mode == "photos" else SceneOptions.motion,
            objects=self.objects,
            curve=self.curve or SceneOptions.curve,
        )
        noise = ClipOptions.noise if self.noise is None else (0.0, self.noise)
        return ClipOptions(mode, scene, shake, noise, None if self.crf is None else (self.crf, self.crf))

    def frame_size(self) -> tuple[int, int]:
        """Height and width."""
        match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", self.size)
        if not match:
            raise DataError(f"a size of {self.size!r}: it is a width and a height such as 640x360")
        return int(match[2]), int(match[1])


def _range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    parts = text.split(":")
    try:
        low, high = float(parts[0]), float(parts[-1])
    except ValueError:
        low = high = float("nan")
    if len(parts) > 2 or not low <= high:
        raise DataError(f"a motion of {text!r}: it is a range of pixels such as 1:24, or one number")
    return low, high


def synthesise_inputs(paths: Sequence[Path], request: Request, output: Output) -> dict[Path, int]:
    """Make a data set of inputs; see `synthesise_videos`, `synthesise_layout` and `synthesise_photos`.

    Returns:
        pairs of each sequence, by its folder (or place in the LMDBs).

    Raises:
        DataError: an input is missing or of another kind than the rest, or options contradict each other. What making
            the sequences raises passes through.
    """
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: does not exist")
    if request.mode in ("photos", "shake"):
        return _photos(paths, request, output, "photos" if request.mode == "photos" else "shake")
    layouts = [_layout(path, request) for path in paths]
    if any(layouts):
        if len(paths) > 1:
            raise DataError(f"{paths[layouts.index(next(filter(None, layouts)))]}: is a data set; give it alone")
        published = layouts[0] == "gopro_large_all" and request.frames is request.stride is request.duty is None
        name = cast("LayoutName", layouts[0])
        return synthesise_layout(paths[0], name, request.split, output, request.average(), published)
    if request.mode == "average" or all(_is_video(path) for path in paths):
        return synthesise_videos(paths, output, request.average())
    if any(_is_video(path) for path in paths):
        raise DataError(
            "some inputs are video, others photos: make them one after the other, or say what they are with --mode"
        )
    if any(path.is_dir() for path in paths):
        say("pictures that differ are taken for photos; frames of a video: --mode average")
    return _photos(paths, request, output, "photos")


def _photos(
    paths: Sequence[Path], request: Request, output: Output, mode: Literal["photos", "shake"]
) -> dict[Path, int]:
    return synthesise_photos(
        paths,
        output,
        request.clips(mode),
        size=request.frame_size(),
        length=request.length,
        limit=request.limit,
    )


def _layout(path: Path, request: Request) -> str | None:
    """The layout of a data set whose sequences are to be averaged; None: it is none."""
    if request.layout is not None:
        if request.layout not in LAYOUTS:
            hint = did_you_mean(request.layout, LAYOUTS)
            raise DataError(f"layout {request.layout!r} is unknown{hint}; there are {', '.join(LAYOUTS)}")
        return request.layout
    return "gopro_large_all" if path.is_dir() and LAYOUTS["gopro_large_all"].recognises(path) else None


def _is_video(path: Path) -> bool:
    """True for a video, and for a folder whose pictures follow each other like the frames of one.

    A folder that is empty counts as one too: what is wrong with it is told where it is opened.
    """
    if path.is_file():
        return kind_of(read_head(path)) != "picture"
    files = list_images(path)
    if len(files) < 2:
        return not files and not any(folder.is_dir() for folder in path.iterdir())
    # a few pairs of neighbours, from all over the folder
    places = sorted({round(i * (len(files) - 2) / 4) for i in range(5)})
    return float(np.median([_difference(files[i], files[i + 1]) for i in places])) < _ALIKE


def _difference(one: Path, other: Path) -> float:
    """Mean difference of two pictures, made small, in steps of 8 bits; infinite for other sizes and depths."""
    module = cv2()
    pictures = [read_image(path) for path in (one, other)]
    if pictures[0].shape != pictures[1].shape or pictures[0].dtype != pictures[1].dtype:
        return float("inf")
    small = [module.resize(picture, (8, 8), interpolation=module.INTER_AREA) for picture in pictures]
    steps = np.iinfo(pictures[0].dtype).max / 255
    return float(np.abs(small[0].astype(float) - small[1]).mean() / steps)
