"""`VideoDataset`: windows and clips of blurred sequences, or single pictures, with their sharp frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from deblurkit.console import warn
from deblurkit.data.augment import ORIENTATION, Augment, AugmentName, Draws, NoiseLaw, turn
from deblurkit.data.base import EvaluationClip, FrameDataset, Sample, TimePadding
from deblurkit.data.color_augment import ColorAugment, ColorRanges, change_colors
from deblurkit.data.frame_sampling import AnchorName, FrameSampling, FrameWindow, SamplingName, chunk_windows
from deblurkit.data.layouts import LayoutName
from deblurkit.data.request import SampleRequest
from deblurkit.data.store import FrameStore, StorageName, Window, frame_key, open_stores
from deblurkit.data.two_roots import Roots, open_roots
from deblurkit.errors import DataError, OptionsError
from deblurkit.image_io import Pixels
from deblurkit.registry import DATASET_REGISTRY
from deblurkit.video.source import SequenceSource


@DATASET_REGISTRY.register()
class VideoDataset(FrameDataset):
    """Frame windows of video sequences, or single pictures (`num_frame: 1`), in files or LMDBs.

    A sample: `lq` uint8 or uint16 `(num_frame, h, w, 3)` RGB, `gt` `(m, h * scale, w * scale, 3)` with one frame for
    each that is restored, `key` "SEQUENCE/FRAME" of the first of these. The crop is chosen before reading, and only it
    is read.

    Args:
        dataroot: the data set's folder. split: one of its splits. layout: how its files lie; see `layouts`.
            A mapping names the trees of the two sides instead, see `Roots`; split, layout, lq and storage then mean
            nothing.
        lq: kind of blurred frames, such as "blur_gamma" of GoPro; a folder's name in generic layouts.
        storage: "auto" takes `ROOT.lmdb/{split}_{lq,gt}.lmdb` where it matches the files, else the files.
        scale: size of the sharp frames relative to the degraded ones.
        sampling, num_frame, interval, overlapping, padding, past, future, anchors: which frames go in and which are
            restored; see `FrameSampling`.
        interval_list: steps between frames, of which each training sample draws one (BasicSR). It replaces `interval`.
        chunk: how recurrent networks are evaluated (n_n, context). "sample": each sample is a clip of its own, as in
            SimDeblur. {length, overlap}: chunks of so many frames that cover the whole sequence, see `chunk_windows`;
            by default they overlap by past + future. "whole": with a state that is carried through the sequence.
            With a `padding`, its first and last frames are restored too.
        mirror_sequence: a training sample is followed by itself backwards: 2 * num_frame frames (sampling n_n).
        augment, noise_sigma, noise_law: see `Augment`. color: see `ColorRanges`; None: colours stay as they are.

    Raises:
        DataError: files are missing or do not fit together, arguments contradict each other, or there is no sample.
        OptionsError: mirror_sequence for another sampling than n_n.
    """

    def __init__(
        self,
        dataroot: str | Path | Roots,
        split: str,
        layout: LayoutName = "auto",
        lq: str = "blur",
        storage: StorageName = "auto",
        scale: int = 1,
        sampling: SamplingName = "n_c",
        num_frame: int = 5,
        interval: int = 1,
        interval_list: list[int] | None = None,
        overlapping: bool = True,
        padding: TimePadding | None = None,
        past: int = 2,
        future: int = 2,
        anchors: AnchorName | list[int] | None = None,
        chunk: Literal["sample", "whole"] | dict[Literal["length", "overlap"], int] = "sample",
        augment: dict[AugmentName, float] | None = None,
        noise_sigma: tuple[float, float] = (0.0, 10.0),
        noise_law: NoiseLaw = "uniform",
        color: ColorRanges | None = None,
        mirror_sequence: bool = False,
    ) -> None:
        if mirror_sequence and sampling != "n_n":
            raise OptionsError(
                f"mirror_sequence: is for clips of which every frame is restored; sampling is {sampling}"
            )
        self._mirrored = mirror_sequence
        self._color = None if color is None else ColorAugment(color)
        self._intervals = tuple(interval_list or (interval,))
        if min(self._intervals) < 1 or (interval_list and interval != 1):
            raise DataError(f"interval_list {interval_list} has steps of 1 or more and replaces interval {interval}")
        if chunk != "sample" and (sampling not in ("n_n", "context") or max(self._intervals) > 1):
            raise DataError("chunk is for samplings that restore successive frames: n_n and context with interval 1")
        if isinstance(chunk, dict) and "length" not in chunk:
            raise DataError(f"chunk: {chunk} has no length, a number of frames; for whole sequences say `chunk: whole`")
        self._sampling = FrameSampling(
            sampling,
            num_frame,
            min(self._intervals),
            overlapping,
            padding if chunk == "sample" else None,
            past,
            future,
            tuple(anchors) if isinstance(anchors, list) else anchors,
        )
        self._augment = Augment(augment or {}, noise_sigma, noise_law)
        self._padding, self._chunk, self._scale = padding, chunk, scale
        if isinstance(dataroot, dict):
            self._stores = open_roots(dataroot)
        else:
            self._stores = open_stores(dataroot, split, layout, lq, storage)
        if "" in self._stores.sequences and num_frame > 1:
            raise DataError(f"{self._stores.description}: holds single pictures, no video: set num_frame to 1")
        self._samples: list[tuple[str, int]] = []
        self._list_samples()

    def _list_samples(self) -> None:
        """Sequence and first restored position of every sample."""
        n, step = self._sampling.num_frame, self._sampling.interval
        needs = f"num_frame {n}, interval {step} need {self._sampling.span(step)}"
        short = []
        for name, frames in self._stores.sequences.items():
            positions = self._sampling.positions(len(frames))
            self._samples += [(name, position) for position in positions]
            if not positions:
                short.append(f"{name} ({len(frames)} frames)")
        if not self._samples:
            raise DataError(f"{self._stores.description}: every sequence is too short for a sample: {needs} frames")
        if short:
            warn(f"{self._stores.description}: too short for a sample ({needs} frames): {', '.join(short)}")

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, request: SampleRequest | int) -> Sample:
        """Make a sample.

        Raises:
            DataError: a frame is missing or damaged, sizes do not fit, or the crop is larger than the frames.
        """
        sample = self._make(SampleRequest(request) if isinstance(request, int) else request)
        orientation = sample.pop(ORIENTATION)
        for name in ("lq", "gt"):
            sample[name] = torch.from_numpy(np.ascontiguousarray(turn(sample[name].numpy(), orientation)))
        return sample

    def for_transport(self, request: SampleRequest) -> Sample:
        """Make a sample whose square crops are still to be turned, as its entry `augment.ORIENTATION` says."""
        if type(self).__getitem__ is not VideoDataset.__getitem__:  # a subclass that makes something of whole samples
            return self[request]
        return self._make(request)

    def _make(self, request: SampleRequest) -> Sample:
        rng = request.rng(self.seed)
        draws = self._augment.draw(rng)
        name, window = self._draw_window(request.index, draws)
        inputs, targets = self._keys(name, window.inputs), self._keys(name, window.targets)
        degraded_crop = sharp_crop = None
        size = self._common_size(inputs, targets)
        if request.crop_size is not None:
            degraded_crop = self._crop(size, request.crop_size, draws, targets[0])
            y, x, height, width = (value * self._scale for value in degraded_crop)
            sharp_crop = y, x, height, width
        lq = self._read(self._stores.lq, inputs, degraded_crop, draws)
        gt = self._read(self._sharp(), targets, sharp_crop, draws)
        if self._mirrored:
            lq, gt = (np.concatenate([frames, frames[::-1]]) for frames in (lq, gt))
        if self._color:
            changes = self._color.draw(request, self.seed)
            lq, gt = change_colors(lq, changes), change_colors(gt, changes)
        self._augment.add_noise(turn(lq, draws.orientation), draws, rng)
        orientation = draws.orientation
        if lq.shape[1] != lq.shape[2]:  # turned frames of other shapes might not make a batch: the loader has to see it
            lq, gt = (np.ascontiguousarray(turn(frames, orientation)) for frames in (lq, gt))
            orientation = 0
        return {"lq": torch.from_numpy(lq), "gt": torch.from_numpy(gt), "key": targets[0], ORIENTATION: orientation}

    def check_crop(self, crop_size: int) -> None:
        """Look at one frame of each sequence, and at every single picture."""
        for name, frames in self._stores.sequences.items():
            for frame in frames if name == "" else frames[:1]:
                key = frame_key(name, frame)
                self._check_fits(self._sharp().size(key), crop_size, key)

    def clips(self, merge: bool) -> list[EvaluationClip]:
        """What is restored in one go: chunks or whole sequences (`chunk`), else samples.

        Windows around a middle frame (n_c, interval 1) are merged to one clip a sequence. Single pictures never are.
        """
        if len(set(self._intervals)) > 1:
            raise DataError(f"interval_list {list(self._intervals)} is for training; an evaluation needs one interval")
        if self._chunk != "sample":
            return self._chunks()
        whole: dict[str, list[int]] = {}
        found = []
        merge = merge and self._sampling.sampling == "n_c" and self._sampling.interval == 1
        for name, position in self._samples:
            if merge and name != "":
                whole.setdefault(name, []).append(position)
            else:
                found.append(self._clip(name, self._sampling.window(position, len(self._stores.sequences[name])), None))
        for name, positions in whole.items():
            window = FrameWindow(tuple(range(len(self._stores.sequences[name]))), tuple(positions))
            found.append(self._clip(name, window, self._padding))
        return found

    def fingerprint(self) -> dict[str, Any]:
        """What was read: from where, a hash for each side, and counts."""
        frames = sum(len(names) for names in self._stores.sequences.values())
        counts = {"sequences": len(self._stores.sequences), "frames": frames, "samples": len(self)}
        return {**self._stores.fingerprint, **counts}

    def _draw_window(self, index: int, draws: Draws) -> tuple[str, FrameWindow]:
        """The frames of a sample, with an interval and a direction as drawn."""
        name, position = self._samples[index]
        length = len(self._stores.sequences[name])
        # of a padded window any step fits
        fitting = [i for i in self._intervals if self._sampling.padding or self._sampling.span(i) <= length]
        interval = fitting[int(draws.interval * len(fitting))]
        window = self._sampling.window(position, length, interval, draws.place)
        return name, self._sampling.reversed(window) if draws.reverse else window

    def _keys(self, sequence: str, positions: Sequence[int]) -> list[str]:
        frames = self._stores.sequences[sequence]
        return [frame_key(sequence, frames[position]) for position in positions]

    def _sharp(self) -> FrameStore:
        if self._stores.gt is None:
            raise DataError(f"{self._stores.description}: has no sharp frames, so it cannot be trained on")
        return self._stores.gt

    def _common_size(self, inputs: list[str], targets: list[str]) -> tuple[int, int]:
        """Height and width that all degraded frames of a sample have; the sharp ones are `scale` times as large."""
        lq, gt = self._stores.lq, self._sharp()
        sharp = gt.size(targets[0])
        size = sharp[0] // self._scale, sharp[1] // self._scale
        wanted = {lq: size, gt: (size[0] * self._scale, size[1] * self._scale)}
        for store, key in [*((gt, key) for key in targets), *((lq, key) for key in inputs)]:
            found = store.size(key)
            if found != wanted[store]:
                raise DataError(
                    f"{store.place(key)} is {found[1]}x{found[0]}, {gt.place(targets[0])} is {sharp[1]}x{sharp[0]}; "
                    "the frames of a sequence must have one size, the sharp ones `scale` "
                    f"({self._scale}) times that of the blurred ones"
                )
        return size

    def _crop(self, size: tuple[int, int], gt_size: int, draws: Draws, key: str) -> Window:
        """Where the crop lies in the degraded frames."""
        height, width = size
        self._check_fits((height * self._scale, width * self._scale), gt_size, key)
        side = gt_size // self._scale
        return int(draws.top * (height - side + 1)), int(draws.left * (width - side + 1)), side, side

    def _check_fits(self, sharp: tuple[int, int], gt_size: int, key: str) -> None:
        if gt_size % self._scale:
            raise DataError(f"gt_size {gt_size} is no multiple of the scale {self._scale}")
        if gt_size > min(sharp):
            raise DataError(
                f"{self._sharp().place(key)}: frames of {sharp[1]}x{sharp[0]} are smaller than the crop of "
                f"{gt_size}x{gt_size}; lower gt_size"
            )

    def _read(self, store: FrameStore, keys: list[str], crop: Window | None, draws: Draws) -> Pixels:
        """Frames `(n, h, w, 3)`, coloured but not turned as drawn."""
        frames = [store.read(key, crop) for key in keys]
        if len({frame.dtype for frame in frames}) > 1:
            raise DataError(f"{store.place(keys[0])}: its sequence mixes pictures of 8 and 16 bits")
        if draws.rgb_shuffle:
            frames = [frame[..., draws.channels] for frame in frames]
        return np.stack(frames) if len(frames) > 1 else frames[0][None]

    def _chunks(self) -> list[EvaluationClip]:
        past, future = (self._sampling.past, self._sampling.future) if self._sampling.sampling == "context" else (0, 0)
        given: dict[Any, int] = self._chunk if isinstance(self._chunk, dict) else {}
        overlap = given.get("overlap", past + future)
        return [
            self._clip(name, window, self._padding)
            for name, frames in self._stores.sequences.items()
            for window in chunk_windows(
                len(frames), given.get("length"), overlap, past, future, padded=self._padding is not None
            )
        ]

    def _clip(self, sequence: str, window: FrameWindow, padding: TimePadding | None) -> EvaluationClip:
        lq, gt = self._stores.lq, self._stores.gt
        places = {position: i for i, position in enumerate(window.inputs)}
        readers: list[Callable[[], Pixels]] = [partial(lq.read, key) for key in self._keys(sequence, window.inputs)]
        return EvaluationClip(
            sequence=sequence,
            source=SequenceSource(sequence, readers),
            scored=tuple(places[position] for position in window.targets),
            names=tuple(self._stores.sequences[sequence][position] for position in window.targets),
            read_gt=tuple(partial(gt.read, key) for key in self._keys(sequence, window.targets)) if gt else (),
            time_padding=padding,
        )
