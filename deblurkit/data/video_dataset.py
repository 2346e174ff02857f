"""`VideoDataset`: windows and clips of blurred sequences with their sharp frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from deblurkit.console import warn
from deblurkit.data.base import EvaluationClip, FrameDataset, Sample, TimePadding
from deblurkit.data.frame_sampling import FrameWindow, Sampling, sample_windows
from deblurkit.data.layouts import LayoutName
from deblurkit.data.request import SampleRequest
from deblurkit.data.store import FrameStore, StorageName, Window, frame_key, open_stores
from deblurkit.errors import DataError, did_you_mean
from deblurkit.image_io import Pixels
from deblurkit.registry import DATASET_REGISTRY
from deblurkit.video.source import SequenceSource

AugmentName = Literal["hflip", "vflip", "transpose"]


@DATASET_REGISTRY.register()
class VideoDataset(FrameDataset):
    """Frame windows of video sequences in files or LMDBs, with SimDeblur's samplings.

    A sample: `lq` uint8 or uint16 `(num_frame, h, w, 3)` RGB, `gt` `(m, h, w, 3)` with m = 1, or `num_frame` for n_n,
    `key` "SEQUENCE/FRAME" of the first ground-truth frame. The crop is chosen before reading, and only it is read.

    Args:
        dataroot: the data set's folder. split: folder in it. layout: how its files lie. lq: folder of blurred frames.
        storage: "auto" takes `ROOT.lmdb/{split}_{lq,gt}.lmdb` where it matches the files, else the files.
        sampling: which frames go in and which are restored; see `sample_windows`.
        num_frame: frames that go in. interval: step between them. overlapping: samples slide by one frame.
        padding: n_c only: how windows are completed at the ends of a sequence, so that every frame is restored. None:
            the frames at the ends are not (SimDeblur's protocol).
        augment: probability of each of hflip, vflip, transpose; applied in this order, to all frames alike.

    Raises:
        DataError: files are missing or do not fit together, or there is no sample.
    """

    def __init__(
        self,
        dataroot: str | Path,
        split: str,
        layout: LayoutName = "auto",
        lq: Literal["blur", "blur_gamma"] = "blur",
        storage: StorageName = "auto",
        sampling: Sampling = "n_c",
        num_frame: int = 5,
        interval: int = 1,
        overlapping: bool = True,
        padding: TimePadding | None = None,
        augment: dict[AugmentName, float] | None = None,
    ) -> None:
        self._probabilities = _probabilities(augment or {})
        self._padding = padding
        self._mergeable = sampling == "n_c" and interval == 1
        self._stores = open_stores(dataroot, split, layout, lq, storage)
        self._samples: list[tuple[str, FrameWindow]] = []
        short = []
        for name, frames in self._stores.sequences.items():
            windows = sample_windows(sampling, len(frames), num_frame, interval, overlapping, padding)
            self._samples += [(name, window) for window in windows]
            if not windows:
                short.append(f"{name} ({len(frames)} frames)")
        needs = f"num_frame {num_frame}, interval {interval} need {(num_frame - 1) * interval + 1}"
        if not self._samples:
            raise DataError(f"{self._stores.description}: every sequence is too short for a sample: {needs} frames")
        if short:
            warn(f"{self._stores.description}: too short for a sample ({needs} frames): {', '.join(short)}")

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, request: SampleRequest | int) -> Sample:
        """Make a sample.

        Raises:
            DataError: a frame is missing or damaged, sizes differ, or the crop is larger than the frames.
        """
        if isinstance(request, int):
            request = SampleRequest(request)
        name, window = self._samples[request.index]
        inputs, targets = self._keys(name, window.inputs), self._keys(name, window.targets)
        # all are drawn always, so that switching one augmentation on does not change the others
        top, left, *draws = request.rng(self.seed).random(5)
        crop: Window | None = None
        size = self._common_size(inputs, targets)
        if request.crop_size is not None:
            side = request.crop_size
            if side > min(size):
                raise DataError(
                    f"{self._stores.gt.place(targets[0])}: frames of {size[1]}x{size[0]} are smaller than the crop of "
                    f"{side}x{side}; lower gt_size"
                )
            crop = (int(top * (size[0] - side + 1)), int(left * (size[1] - side + 1)), side, side)
        turns = [draw < probability for draw, probability in zip(draws, self._probabilities, strict=True)]
        return {
            "lq": self._read(self._stores.lq, inputs, crop, turns),
            "gt": self._read(self._stores.gt, targets, crop, turns),
            "key": targets[0],
        }

    def clips(self, merge: bool) -> list[EvaluationClip]:
        """One clip per sequence where windows can be merged (n_c, interval 1), else one per sample."""
        if not (merge and self._mergeable):
            return [self._clip(name, w.inputs, w.targets, None) for name, w in self._samples]
        anchors: dict[str, list[int]] = {}
        for name, window in self._samples:
            anchors.setdefault(name, []).append(window.targets[0])
        return [
            self._clip(name, range(len(self._stores.sequences[name])), targets, self._padding)
            for name, targets in anchors.items()
        ]

    def fingerprint(self) -> dict[str, Any]:
        """What was read: from where, a hash for each side, and counts."""
        frames = sum(len(names) for names in self._stores.sequences.values())
        counts = {"sequences": len(self._stores.sequences), "frames": frames, "samples": len(self)}
        return {**self._stores.fingerprint, **counts}

    def _keys(self, sequence: str, positions: Any) -> list[str]:
        frames = self._stores.sequences[sequence]
        return [frame_key(sequence, frames[position]) for position in positions]

    def _common_size(self, inputs: list[str], targets: list[str]) -> tuple[int, int]:
        """Height and width that all frames of a sample have."""
        lq, gt = self._stores.lq, self._stores.gt
        size = gt.size(targets[0])
        for store, key in [*((lq, key) for key in inputs), *((gt, key) for key in targets)]:
            other = store.size(key)
            if other != size:
                raise DataError(
                    f"{store.place(key)} is {other[1]}x{other[0]}, {gt.place(targets[0])} is {size[1]}x{size[0]}; the "
                    "frames of a sequence, blurred and sharp, must have one size"
                )
        return size

    def _read(self, store: FrameStore, keys: list[str], crop: Window | None, turns: list[bool]) -> Tensor:
        """Frames `(n, h, w, 3)`, turned and flipped as `turns` (hflip, vflip, transpose) says."""
        hflip, vflip, transpose = turns
        frames = [store.read(key, crop) for key in keys]
        if len({frame.dtype for frame in frames}) > 1:
            raise DataError(f"{store.place(keys[0])}: its sequence mixes pictures of 8 and 16 bits")
        height, width, channels = frames[0].shape
        stacked = np.empty(
            (len(frames), *((width, height) if transpose else (height, width)), channels), frames[0].dtype
        )
        for place, frame in zip(stacked, frames, strict=True):
            view = frame[:, ::-1] if hflip else frame
            view = view[::-1] if vflip else view
            place[:] = view.swapaxes(0, 1) if transpose else view
        return torch.from_numpy(stacked)

    def _clip(self, sequence: str, inputs: Any, targets: Any, padding: TimePadding | None) -> EvaluationClip:
        lq, gt = self._stores.lq, self._stores.gt
        places = {position: i for i, position in enumerate(inputs)}
        readers: list[Callable[[], Pixels]] = [partial(lq.read, key) for key in self._keys(sequence, inputs)]
        return EvaluationClip(
            sequence=sequence,
            source=SequenceSource(sequence, readers),
            scored=tuple(places[position] for position in targets),
            names=tuple(self._stores.sequences[sequence][position] for position in targets),
            read_gt=tuple(partial(gt.read, key) for key in self._keys(sequence, targets)),
            time_padding=padding,
        )


def _probabilities(augment: Mapping[AugmentName, float]) -> tuple[float, float, float]:
    """Of hflip, vflip, transpose."""
    names = ("hflip", "vflip", "transpose")
    for name, value in augment.items():
        if name not in names:
            raise DataError(f"augment: {name!r} is unknown{did_you_mean(name, names)}; there are {', '.join(names)}")
        if not 0 <= value <= 1:
            raise DataError(f"augment: {name} is a probability from 0 to 1, got {value}")
    return augment.get("hflip", 0.0), augment.get("vflip", 0.0), augment.get("transpose", 0.0)
