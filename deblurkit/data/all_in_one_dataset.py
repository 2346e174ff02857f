"""`AllInOneDataset`: single pictures with several kinds of degradation, two views of each (AirNet, CVPR 2022)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deblurkit.data.all_in_one_pictures import (
    MULTIPLE,
    PairRoots,
    Pictures,
    add_noise,
    open_pictures,
    root_name,
    with_noise,
)
from deblurkit.data.base import EvaluationClip, FrameDataset, Sample
from deblurkit.data.request import SampleRequest
from deblurkit.data.store import Window
from deblurkit.errors import DataError, did_you_mean
from deblurkit.image_io import Pixels
from deblurkit.registry import DATASET_REGISTRY
from deblurkit.video.source import SequenceSource

#: Geometric modes: `mode // 2` quarter turns counter-clockwise, then mirrored top-bottom if odd; 0 leaves all as it is.
MODES = range(8)


@DATASET_REGISTRY.register()
class AllInOneDataset(FrameDataset):
    """Pictures with noise, rain, haze or blur, each seen twice: two crops that are degraded alike.

    A sample: `lq` and `lq_2` uint8 or uint16 `(1, h, w, 3)` RGB, two views of one picture; `gt` and `gt_2` the sharp
    ones; `key` "KIND/PICTURE"; `degradation` the kind. The two views of noisy pictures lie at different places, are
    turned alike and have noise of their own; those of pairs are turned each its own way.

    Kinds take turns: in each round of `len(types)` samples of an epoch's order every kind comes once, in a random
    order, and all pictures of a kind come once before one comes again. What index is asked for does not matter.

    Args:
        types: kinds of degradation: `denoise_SIGMA` (white Gaussian noise, SIGMA of 255), derain, dehaze, deblur.
        roots: where the pictures of each lie: `denoise`: a folder of clean pictures, or several; the others: see
            `PairRoots`. Noisy values are cut to whole numbers (not rounded), as in AirNet.
        samples_per_type: visits of each kind in an epoch.
        augment_modes: of the eight ways to turn and mirror, those that are drawn; AirNet leaves pictures never as they
            are (0 is missing). See `MODES`.

    In evaluation pictures are whole, but cut to multiples of 16, and noise is numpy's RandomState(0) for each.

    Raises:
        DataError: an unknown kind, missing roots or pictures, pictures without a partner.
    """

    def __init__(
        self,
        types: list[str],
        roots: dict[str, str | list[str] | PairRoots],
        samples_per_type: int = 400,
        augment_modes: list[int] = [1, 2, 3, 4, 5, 6, 7],  # noqa: B006 (never changed)
    ) -> None:
        if not types or len(set(types)) < len(types):
            raise DataError(f"types: {types} should name each kind of degradation once")
        if samples_per_type < 1:
            raise DataError(f"samples_per_type is a number from 1, not {samples_per_type}")
        if not augment_modes or not set(augment_modes) <= set(MODES):
            raise DataError(f"augment_modes: {augment_modes} should be some of 0 to 7")
        self._modes = tuple(augment_modes)
        self._samples_per_type = samples_per_type
        known = {root_name(name) for name in types}
        for name in roots:
            if name not in known:
                hint = did_you_mean(name, known) or f"; types need {', '.join(sorted(known))}"
                raise DataError(f"roots: {name!r} belongs to no kind in `types`{hint}")
        opened: dict[str, Pictures] = {}
        for name in sorted(known):
            if name not in roots:
                raise DataError(f"roots: `{name}` is missing: where the pictures for {', '.join(types)} lie")
            opened[name] = open_pictures(name, roots[name])
        self._kinds = [with_noise(opened[root_name(name)], name) for name in types]

    def __len__(self) -> int:
        return self._samples_per_type * len(self._kinds)

    def __getitem__(self, request: SampleRequest | int) -> Sample:
        """Make a sample.

        Raises:
            DataError: no crop is asked for, it does not fit, or a picture is missing or damaged.
        """
        if isinstance(request, int):
            request = SampleRequest(request, position=request)
        if request.crop_size is None:
            raise DataError("AllInOneDataset gives two crops of each picture: set gt_size")
        kind, key = self._choose(request)
        rng = request.rng(self.seed)
        corners = rng.random((2, 2))
        modes = [self._modes[i] for i in rng.integers(len(self._modes), size=2)]
        windows = self._windows(kind, key, request.crop_size, corners)
        if kind.lq is None:
            modes[1] = modes[0]
        sharp = [_turn(view, mode) for view, mode in zip(_read(kind.sharp, key, windows), modes, strict=True)]
        if kind.lq is None:
            degraded = [add_noise(view, kind.sigma, rng.standard_normal(view.shape, np.float32)) for view in sharp]
        else:
            degraded = [_turn(view, mode) for view, mode in zip(_read(kind.degraded, key, windows), modes, strict=True)]
        views = zip(("lq", "lq_2", "gt", "gt_2"), [*degraded, *sharp], strict=True)
        tensors = {name: torch.from_numpy(np.ascontiguousarray(view)[None]) for name, view in views}
        return {**tensors, "key": f"{kind.name}/{key}", "degradation": kind.name}

    def check_crop(self, crop_size: int) -> None:
        """Look at every picture."""
        for kind in self._kinds:
            for key in kind.keys:
                self._windows(kind, key, crop_size, np.zeros((1, 2)))

    def clips(self, merge: bool) -> list[EvaluationClip]:
        """Every picture of every kind; a kind is a sequence."""
        found = []
        for kind in self._kinds:
            for key in kind.keys:
                degraded, sharp = (partial(_read_middle, kind, key, read) for read in (kind.degraded, kind.sharp))
                source = SequenceSource(f"{kind.name}/{key}", [degraded])
                found.append(EvaluationClip(kind.name, source, scored=(0,), names=(key,), read_gt=(sharp,)))
        return found

    def fingerprint(self) -> dict[str, Any]:
        """What was read for each kind: a hash for each side and a count."""
        return {kind.name: {**kind.fingerprint, "pictures": len(kind.keys)} for kind in self._kinds}

    def _choose(self, request: SampleRequest) -> tuple[Pictures, str]:
        """Kind and picture, by the place in the epoch's order alone."""
        turn, place = divmod(request.position, len(self._kinds))
        order = _generator(self.seed, 1, request.epoch, turn).permutation(len(self._kinds))
        number = int(order[place])
        kind = self._kinds[number]
        rounds, at = divmod(request.epoch * self._samples_per_type + turn, len(kind.keys))
        return kind, kind.keys[int(_shuffled(self.seed, number, rounds, len(kind.keys))[at])]

    def _windows(self, kind: Pictures, key: str, crop: int, corners: NDArray[np.float64]) -> list[Window]:
        """Crops at places drawn from [0, 1)."""
        top, left, height, width = kind.middle(key)
        if crop > min(height, width):
            raise DataError(
                f"{kind.gt.place(kind.gt_keys[key])}: cut to multiples of {MULTIPLE} it is {width}x{height}, smaller "
                f"than the crop of {crop}x{crop}; lower gt_size"
            )
        return [
            (top + int(y * (height - crop + 1)), left + int(x * (width - crop + 1)), crop, crop) for y, x in corners
        ]


def _turn(pixels: Pixels, mode: int) -> Pixels:
    turned = np.rot90(pixels, mode // 2)
    return turned[::-1] if mode % 2 else turned


def _read(read: Callable[[str, Window], Pixels], key: str, windows: Sequence[Window]) -> list[Pixels]:
    """Some windows of a picture, decoded once."""
    top, left = (min(window[i] for window in windows) for i in (0, 1))
    bottom, right = (max(window[i] + window[i + 2] for window in windows) for i in (0, 1))
    part = read(key, (top, left, bottom - top, right - left))
    return [part[y - top : y - top + h, x - left : x - left + w] for y, x, h, w in windows]


def _read_middle(kind: Pictures, key: str, read: Callable[[str, Window], Pixels]) -> Pixels:
    return read(key, kind.middle(key))


def _generator(seed: int, purpose: int, *numbers: int) -> np.random.Generator:
    """Random numbers that are no sample's own: the spawn key keeps them apart."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, *numbers), spawn_key=(purpose,))))


@lru_cache(maxsize=16)
def _shuffled(seed: int, kind: int, rounds: int, count: int) -> NDArray[np.int64]:
    """The order of a kind's pictures the so many-th time that all of them come."""
    return _generator(seed, 2, kind, rounds).permutation(count)
