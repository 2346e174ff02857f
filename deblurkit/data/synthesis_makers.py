"""What `SynthesisDataset` makes its samples of: photos, or places in sharp video."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from deblurkit.console import warn
from deblurkit.data.frame_sampling import FrameSampling
from deblurkit.data.light import SensorNoise
from deblurkit.data.photo_clips import ClipOptions, PhotoClips
from deblurkit.data.photo_scene import Range
from deblurkit.data.scene import ScenePlan
from deblurkit.data.store import FrameStore, Window, frame_key
from deblurkit.data.synthesis import Averaging, Pair, average_frames, compress_pairs
from deblurkit.errors import DataError
from deblurkit.video.source import SequenceSource

#: Of so many photos one is for validation (of fewer, the last).
HELD_OUT = 20

Size = tuple[int, int]


class Maker(ABC):
    """Makes the pairs of a sample."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def key(self, index: int) -> str:
        """The name of a sample."""

    @abstractmethod
    def make(
        self, rng: np.random.Generator, index: int, size: Size | None, place: tuple[float, float]
    ) -> Iterator[Pair]:
        """The pairs of a sample.

        Args:
            rng: draws all that is random but the place. size: height and width; None: of whole frames of video.
            place: of the crop in frames of video, [0, 1) from the top and from the left.

        Raises:
            DataError: a photo or frame is missing, damaged or too small.
        """

    @abstractmethod
    def check_crop(self, crop_size: int) -> None:
        """Raise DataError where there is nothing that is large enough."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """How samples are made, for the record of a run."""


class ClipMaker(Maker):
    """Clips of photos.

    Photos that are too small for what is asked for are stood in for by others.

    Args:
        photos, keys: the photos. part: "all", without every `HELD_OUT`th ("train"), or these ("val"); things before a
            photo come from the same part. options: how clips are made. frames: of each.
    """

    def __init__(
        self,
        photos: FrameStore,
        keys: Sequence[str],
        part: Literal["all", "train", "val"],
        options: ClipOptions,
        frames: int,
    ) -> None:
        if part not in ("all", "train", "val"):
            raise DataError(f"part {part!r} is unknown; there are all, train and val")
        every = min(HELD_OUT, len(keys))
        kept = [key for i, key in enumerate(keys) if part == "all" or (i % every == every - 1) == (part == "val")]
        if not kept:
            raise DataError(f"part {part} of {len(keys)} photo(s) is none: every {every}th is for validation")
        self._keys, self._part, self._options, self._frames = kept, part, options, frames
        self._clips = PhotoClips(photos, kept, options)
        self._large: dict[Size, list[str]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, index: int) -> str:
        """The photo's name."""
        return self._keys[index]

    def make(
        self, rng: np.random.Generator, index: int, size: Size | None, place: tuple[float, float]
    ) -> Iterator[Pair]:
        """See `Maker.make`; the place in a photo is drawn with the camera's way."""
        assert size is not None
        return self._clips.make(rng, self._photo(index, size), *size, self._frames)

    def plan(self, rng: np.random.Generator, index: int, size: Size) -> tuple[ScenePlan, SensorNoise]:
        """What `make` would draw, to be drawn elsewhere; see `PhotoClips.plan`."""
        return self._clips.plan(rng, self._photo(index, size), *size, self._frames)

    def _photo(self, index: int, size: Size) -> str:
        key = self._keys[index]
        if self._clips.fits(key, *size):
            return key
        large = self._fitting(size)
        return large[index % len(large)]

    def check_crop(self, crop_size: int) -> None:
        """See `Maker.check_crop`; warns of photos that are too small."""
        small = len(self._keys) - len(self._fitting((crop_size, crop_size)))
        if small:
            warn(
                f"{small} of {len(self._keys)} photos are too small for crops of {crop_size}x{crop_size}: others stand "
                "in for them"
            )

    def _fitting(self, size: Size) -> list[str]:
        if size not in self._large:
            found = [key for key in self._keys if self._clips.fits(key, *size)]
            if not found:
                self._clips.check(self._keys[0], *size)
            self._large[size] = found
        return self._large[size]

    def facts(self) -> dict[str, Any]:
        """See `Maker.facts`."""
        return {"part": self._part, **dataclasses.asdict(self._options)}


class AverageMaker(Maker):
    """Averages of frames of sharp video.

    Args:
        frames, sequences: the video. averaging: how. sampling: which exposures make a sample.
        noise, crf: see `ClipOptions`.
    """

    def __init__(
        self,
        frames: FrameStore,
        sequences: Mapping[str, Sequence[str]],
        averaging: Averaging,
        sampling: FrameSampling,
        noise: Range,
        crf: tuple[int, int] | None,
    ) -> None:
        self._options = ClipOptions(noise=noise, crf=crf)  # checks them
        if "" in sequences:
            raise DataError("mode average needs video; these are single pictures: use mode photos")
        self._frames, self._sequences, self._averaging, self._sampling = frames, sequences, averaging, sampling
        self._samples = [
            (name, position)
            for name, names in sequences.items()
            for position in sampling.positions(averaging.pairs(len(names)))
        ]
        if not self._samples:
            needed = (sampling.num_frame - 1) * averaging.step + averaging.needed
            raise DataError(
                f"every sequence is too short for a sample: {sampling.num_frame} exposures need {needed} frames"
            )

    def __len__(self) -> int:
        return len(self._samples)

    def key(self, index: int) -> str:
        """The first sharp frame that is restored."""
        name, position = self._samples[index]
        return frame_key(name, self._sequences[name][self._averaging.middle(position)])

    def make(
        self, rng: np.random.Generator, index: int, size: Size | None, place: tuple[float, float]
    ) -> Iterator[Pair]:
        """See `Maker.make`; of the frames only the crop is read."""
        name, position = self._samples[index]
        names = self._sequences[name]
        exposures = self._sampling.window(position, self._averaging.pairs(len(names))).inputs
        start = exposures[0] * self._averaging.step
        end = exposures[-1] * self._averaging.step + self._averaging.needed
        keys = [frame_key(name, names[i]) for i in range(start, end)]
        window = None if size is None else self._window(keys[0], size, place)
        source = SequenceSource(name, [partial(self._frames.read, key, window) for key in keys])
        noise, crf = self._options.draw(rng)
        return compress_pairs(average_frames(source, self._averaging, noise, rng), crf)

    def _window(self, key: str, size: Size, place: tuple[float, float]) -> Window:
        self._check(key, size)
        height, width = self._frames.size(key)
        return int(place[0] * (height - size[0] + 1)), int(place[1] * (width - size[1] + 1)), *size

    def _check(self, key: str, size: Size) -> None:
        height, width = self._frames.size(key)
        if size[0] > height or size[1] > width:
            raise DataError(
                f"{self._frames.place(key)}: frames of {width}x{height} are smaller than the crop of "
                f"{size[1]}x{size[0]}; lower gt_size"
            )

    def check_crop(self, crop_size: int) -> None:
        """See `Maker.check_crop`; one frame of each sequence is looked at."""
        for name, names in self._sequences.items():
            self._check(frame_key(name, names[0]), (crop_size, crop_size))

    def facts(self) -> dict[str, Any]:
        """See `Maker.facts`."""
        return {
            **dataclasses.asdict(self._averaging),
            "noise": self._options.noise,
            "crf": self._options.crf,
            "sequences": len(self._sequences),
        }
