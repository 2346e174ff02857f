"""`GaussianNoiseDataset`: clean pictures, and the same with Gaussian noise that is made while they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from deblurkit.data.augment import AugmentName
from deblurkit.data.base import EvaluationClip, Sample, TimePadding
from deblurkit.data.frame_sampling import FrameWindow
from deblurkit.data.request import SampleRequest
from deblurkit.data.store import FrameStore, Window
from deblurkit.data.two_roots import Roots
from deblurkit.data.video_dataset import VideoDataset
from deblurkit.errors import DataError
from deblurkit.image_io import Pixels, cv2
from deblurkit.registry import DATASET_REGISTRY
from deblurkit.video.source import SequenceSource


@DATASET_REGISTRY.register()
class GaussianNoiseDataset(VideoDataset):
    """Clean pictures with Gaussian noise, neither rounded nor clipped, as Restormer trains and tests denoising.

    A sample: `lq` float32 `(1, C, h, w)`, about [0, 1], `gt` the clean pixels `(1, h, w, C)`, `key`. For an evaluation
    the noise of every picture is NumPy's `RandomState(0).normal`, as upstream has it. (Facts: swz30/Restormer's
    `Dataset_GaussianDenoising`.)

    Args:
        dataroot: folder (or LMDB) of clean pictures. names: text file that lists pictures, in the first word of each
            line.
        sigma: standard deviations of the noise in steps of 8 bits (25 means 25/255); for an evaluation one.
        draw: what a training sample gets: "choice": one of `sigma`; "range": uniform between the two of `sigma`.
        channels: 3: RGB, 1: grey (ITU-R BT.601). augment: of `Augment`.

    Raises:
        DataError: files are missing, or `sigma` does not fit.
    """

    def __init__(
        self,
        dataroot: str,
        sigma: list[float],
        draw: Literal["choice", "range"] = "choice",
        channels: Literal[1, 3] = 3,
        names: str | None = None,
        augment: dict[AugmentName, float] | None = None,
    ) -> None:
        if not sigma or min(sigma) < 0 or (draw == "range" and (len(sigma) != 2 or sigma[0] > sigma[1])):
            what = "two numbers, the lower one first" if draw == "range" else "at least one number from 0 on"
            raise DataError(f"sigma: with draw {draw!r} it is a list of {what}, got {sigma}")
        if channels == 1 and "rgb_shuffle" in (augment or {}):
            raise DataError("augment: rgb_shuffle is for pictures of three channels")
        roots: Roots = {"lq": dataroot}
        if names is not None:
            roots["names"] = names
        super().__init__(roots, "all", num_frame=1, augment=augment)
        clean = self._stores.lq if channels == 3 else _Grey(self._stores.lq)
        self._stores = replace(self._stores, lq=clean, gt=clean)
        self._sigma, self._draw = [float(value) for value in sigma], draw

    def __getitem__(self, request: SampleRequest | int) -> Sample:
        """Make a sample; see `VideoDataset`."""
        request = SampleRequest(request) if isinstance(request, int) else request
        sample = super().__getitem__(request)
        # the spawn key keeps it apart from the sample's own generator
        sequence = np.random.SeedSequence((self.seed, request.epoch, request.position), spawn_key=(4,))
        rng = np.random.Generator(np.random.PCG64(sequence))
        share = rng.random()
        low, high = self._sigma[0], self._sigma[-1]
        sigma = low + share * (high - low) if self._draw == "range" else self._sigma[int(share * len(self._sigma))]
        frames = _in_unit_range(sample["gt"].numpy())
        frames += rng.standard_normal(frames.shape, np.float32) * np.float32(sigma / 255)
        sample["lq"] = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))
        return sample

    def fingerprint(self) -> dict[str, Any]:
        """See `VideoDataset.fingerprint`; with the noise."""
        return {**super().fingerprint(), "sigma": self._sigma, "draw": self._draw}

    def _clip(self, sequence: str, window: FrameWindow, padding: TimePadding | None) -> EvaluationClip:
        if len(self._sigma) > 1:
            raise DataError(f"sigma: an evaluation needs one number, got {self._sigma}")
        clip = super()._clip(sequence, window, padding)
        readers: list[Callable[[], Pixels]] = [
            partial(_noisy, partial(self._stores.lq.read, key), self._sigma[0])
            for key in self._keys(sequence, window.inputs)
        ]
        return replace(clip, source=SequenceSource(sequence, readers))


class _Grey(FrameStore):
    """A store's pictures without their colours, `(h, w, 1)`."""

    def __init__(self, store: FrameStore) -> None:
        self._store = store

    def size(self, key: str) -> tuple[int, int]:
        """See `FrameStore`."""
        return self._store.size(key)

    def read(self, key: str, window: Window | None = None) -> Pixels:
        """See `FrameStore`."""
        module = cv2()
        grey: Pixels = module.cvtColor(self._store.read(key, window), module.COLOR_RGB2GRAY)[..., None]
        return grey

    def place(self, key: str) -> str:
        """See `FrameStore`."""
        return self._store.place(key)


def _in_unit_range(pixels: Pixels) -> NDArray[np.float32]:
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def _noisy(read: Callable[[], Pixels], sigma: float) -> Any:
    """A picture for evaluation: float32 `(h, w, C)`, about [0, 1]; always the same noise."""
    frame = _in_unit_range(read())
    frame += np.random.RandomState(0).normal(0, sigma / 255, frame.shape)
    return frame
