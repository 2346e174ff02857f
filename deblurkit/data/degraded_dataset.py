"""`DegradedVideoDataset`: sharp clips, and degraded ones that are made of them while they are loaded."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from deblurkit.arguments import Problem
from deblurkit.data.augment import AugmentName, turn
from deblurkit.data.base import EvaluationClip, Sample, TimePadding
from deblurkit.data.degradation_base import (
    Clip,
    Size,
    build_degradations,
    degradation_problems,
    degrade,
    size_after,
)
from deblurkit.data.degradation_ops import as_frame, as_pixels
from deblurkit.data.degradations import UnsharpMasking
from deblurkit.data.frame_sampling import AnchorName, FrameWindow, SamplingName
from deblurkit.data.layouts import LayoutName
from deblurkit.data.request import SampleRequest
from deblurkit.data.store import StorageName
from deblurkit.data.two_roots import Roots
from deblurkit.data.video_dataset import VideoDataset
from deblurkit.errors import DataError, OptionsError
from deblurkit.image_io import Pixels
from deblurkit.registry import DATASET_REGISTRY
from deblurkit.video.source import SequenceSource


@DATASET_REGISTRY.register()
class DegradedVideoDataset(VideoDataset):
    """Clips of sharp videos, in any layout of `VideoDataset`, whose degraded frames are made by `degradations`.

    A sample: `lq` uint8 `(T, h, w, 3)` RGB, `gt` `(m, h * scale, w * scale, 3)`, `key`; with `unsharp` also `gt_usm`,
    the sharpened `gt`, of which the degraded frames are made then. The degradations see the crop, turned and mirrored
    as it is drawn; all that is random about them comes from the sample's generator.

    For evaluation each clip gets degradations of its own, always the same for one seed. `unsharp` is left out there: a
    restored frame is compared with the frame as it is, and the degraded ones are made of that.

    Args:
        dataroot, split, layout, storage: where the sharp frames are, as in `VideoDataset`.
        degradations: applied in order; see `degradations` and `build_degradations`. They must end with frames of the
            right size, so with RandomResize to `target_size: lq` where `scale` is not 1.
        lq: kind of the degraded frames that lie beside the sharp ones. They are not read; "sharp": there need be none.
            (An LMDB is found by the kind that it was made with.)
        scale: size of the sharp frames relative to the degraded ones.
        unsharp: arguments of `UnsharpMasking`, {} for RealBasicVSR's; None: no sharpening.
        mirror_sequence: the clip is followed by itself backwards: T = 2 * num_frame (sampling n_n, training only).
        sampling ... augment: as in `VideoDataset`; RandomNoise stands for the augmentation `noise`.

    Raises:
        OptionsError: a degradation that makes no sense, or degradations that end with another size.
        DataError: as `VideoDataset`.
    """

    def __init__(
        self,
        dataroot: str | Path | Roots,
        split: str,
        degradations: list[Any],
        layout: LayoutName = "auto",
        lq: str = "sharp",
        storage: StorageName = "auto",
        scale: int = 4,
        unsharp: dict[str, float] | None = None,
        mirror_sequence: bool = False,
        sampling: SamplingName = "n_n",
        num_frame: int = 15,
        interval: int = 1,
        interval_list: list[int] | None = None,
        overlapping: bool = True,
        padding: TimePadding | None = None,
        past: int = 2,
        future: int = 2,
        anchors: AnchorName | list[int] | None = None,
        chunk: Literal["sample", "whole"] | dict[Literal["length", "overlap"], int] = "sample",
        augment: dict[AugmentName, float] | None = None,
    ) -> None:
        problems = self.argument_problems({"degradations": degradations, "unsharp": unsharp, "scale": scale})
        if problems:
            raise OptionsError("\n".join(f"{'.'.join(path)}: {text}" for path, text in problems))
        if augment and "noise" in augment:
            raise OptionsError("augment: noise is a degradation here: use RandomNoise among the degradations")
        super().__init__(
            dataroot, split, layout, lq, storage, scale, sampling, num_frame, interval, interval_list, overlapping,
            padding, past, future, anchors, chunk, augment, mirror_sequence=mirror_sequence,
        )  # fmt: skip
        sharp = self._stores.gt or self._stores.lq
        self._stores = replace(self._stores, lq=sharp, gt=sharp)
        self._degradations = build_degradations(degradations)
        self._unsharp = None if unsharp is None else UnsharpMasking(**unsharp)  # type: ignore[arg-type]
        self._evaluated = _Evaluated()

    @staticmethod
    def argument_problems(arguments: Mapping[str, Any]) -> list[Problem]:
        """What is wrong with the degradations, for the check of an options file."""
        entries, unsharp, scale = (arguments.get(key) for key in ("degradations", "unsharp", "scale"))
        problems = degradation_problems(entries)
        if unsharp is not None:
            found = degradation_problems([{**unsharp, "type": "UnsharpMasking"}])
            problems += [(("unsharp", *path[2:]), text) for path, text in found]
        if not problems:
            after = size_after(build_degradations(entries or []), "lq" if scale == 1 else "gt")
            if after != "lq" and not isinstance(after, tuple):
                text = "it is not certain that frames end with the size of lq: end with RandomResize, target_size: lq"
                problems.append((("degradations",), text))
        return problems

    def __getitem__(self, request: SampleRequest | int) -> Sample:
        """Make a sample; see `VideoDataset`."""
        return self.for_transport(SampleRequest(request) if isinstance(request, int) else request)

    def for_transport(self, request: SampleRequest) -> Sample:
        """The whole sample: the degradations see frames that are turned already."""
        rng = request.rng(self.seed)
        draws = self._augment.draw(rng)
        name, window = self._draw_window(request.index, draws)
        inputs, targets = self._keys(name, window.inputs), self._keys(name, window.targets)
        height, width = self._size_of(inputs)
        crop = 0, 0, height - height % self._scale, width - width % self._scale
        if request.crop_size is not None:
            side = request.crop_size
            self._check_fits((height, width), side, inputs[0])
            crop = int(draws.top * (height - side + 1)), int(draws.left * (width - side + 1)), side, side
        sharp = np.ascontiguousarray(turn(self._read(self._sharp(), inputs, crop, draws), draws.orientation))
        clip = [as_frame(frame) for frame in sharp]
        if self._unsharp:
            clip = self._unsharp(clip, rng)
        slots = self._sampling.slots
        sample = {"gt": sharp[slots.start : slots.stop]}
        if self._unsharp:
            sample["gt_usm"] = np.stack([as_pixels(clip[slot]) for slot in slots])
        if self._mirrored:
            clip = [*clip, *reversed(clip)]
            sample = {side: np.concatenate([frames, frames[::-1]]) for side, frames in sample.items()}
        sample["lq"] = self._degraded(clip, rng)
        return {**{side: torch.from_numpy(frames) for side, frames in sample.items()}, "key": targets[0]}

    def check_crop(self, crop_size: int) -> None:
        """See `VideoDataset.check_crop`; also whether the degradations end with the size that belongs to the crop."""
        super().check_crop(crop_size)
        after = size_after(self._degradations, "lq" if self._scale == 1 else "gt")
        if isinstance(after, tuple) and after != (crop_size // self._scale,) * 2:
            raise OptionsError(
                f"degradations: they end with frames of {after[0]}x{after[1]}, but gt_size {crop_size} and scale "
                f"{self._scale} need {crop_size // self._scale}x{crop_size // self._scale}; set target_size: lq"
            )

    def _size_of(self, keys: Sequence[str]) -> Size:
        """Height and width of sharp frames, which must be the same for all."""
        store = self._sharp()
        size = store.size(keys[0])
        for key in keys:
            if store.size(key) != size:
                raise DataError(f"{store.place(key)}: has another size than {store.place(keys[0])}")
        return size

    def _degraded(self, clip: Clip, rng: np.random.Generator) -> Pixels:
        """The degraded frames `(T, h, w, 3)` of a clip."""
        height, width = clip[0].shape[:2]
        wanted = height // self._scale, width // self._scale
        degraded = degrade(clip, self._degradations, rng, wanted)
        sizes = {frame.shape[:2] for frame in degraded}
        if sizes != {wanted}:
            raise OptionsError(f"degradations: they end with frames of {sorted(sizes)}, not of {wanted}")
        return np.stack([as_pixels(frame) for frame in degraded])

    def _clip(self, sequence: str, window: FrameWindow, padding: TimePadding | None) -> EvaluationClip:
        clip = super()._clip(sequence, window, padding)
        store, keys = self._sharp(), self._keys(sequence, window.inputs)
        height, width = self._size_of(keys)
        whole = 0, 0, height - height % self._scale, width - width % self._scale
        sharp: Sequence[Callable[[], Pixels]] = [partial(store.read, key, whole) for key in keys]
        rng = np.random.SeedSequence((self.seed, zlib.crc32(" ".join(keys).encode())), spawn_key=(2,))
        make = partial(self._degraded_for_evaluation, sharp, rng)
        readers = [partial(self._evaluated.frame, tuple(keys), i, make) for i in range(len(keys))]
        targets = self._keys(sequence, window.targets)
        return replace(
            clip,
            source=SequenceSource(sequence, readers),
            read_gt=tuple(partial(store.read, key, whole) for key in targets),
        )

    def _degraded_for_evaluation(self, sharp: Sequence[Callable[[], Pixels]], seed: np.random.SeedSequence) -> Pixels:
        return self._degraded([as_frame(read()) for read in sharp], np.random.Generator(np.random.PCG64(seed)))


class _Evaluated:
    """The degraded frames of the clip that was asked for last: its frames drift, so they are made together."""

    def __init__(self) -> None:
        self._keys: tuple[str, ...] = ()
        self._frames: Pixels | None = None
        self._lock = threading.Lock()

    def frame(self, keys: tuple[str, ...], number: int, make: Callable[[], Pixels]) -> Pixels:
        """One of them."""
        with self._lock:
            if self._frames is None or self._keys != keys:
                self._frames, self._keys = make(), keys
            return self._frames[number]

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
