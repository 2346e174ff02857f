"""`SynthesisDataset`: blurred/sharp samples that are made during training, of photos or of sharp video."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from deblurkit.data.augment import ORIENTATION, Augment, AugmentName, turn
from deblurkit.data.base import EvaluationClip, FrameDataset, Sample
from deblurkit.data.camera_shake import ShakeOptions
from deblurkit.data.frame_sampling import FrameSampling, SamplingName
from deblurkit.data.layouts import LayoutName
from deblurkit.data.photo_clips import ClipOptions
from deblurkit.data.photo_scene import SceneOptions
from deblurkit.data.request import SampleRequest
from deblurkit.data.scene_device import SCENE, DeviceScene
from deblurkit.data.store import FrameStore, StorageName, frame_key, open_stores
from deblurkit.data.synthesis import Averaging
from deblurkit.data.synthesis_makers import AverageMaker, ClipMaker, Maker
from deblurkit.errors import DataError
from deblurkit.image_io import Pixels
from deblurkit.registry import DATASET_REGISTRY
from deblurkit.video.source import SequenceSource

SynthesisMode = Literal["photos", "shake", "average"]


@DATASET_REGISTRY.register()
class SynthesisDataset(FrameDataset):
    """Samples that are made when they are asked for: any folder of photos, or of sharp video, is training data.

    A sample: `lq` uint8 `(num_frame, h, w, 3)` RGB, `gt` `(m, h, w, 3)` with one frame for each that is restored, `key`
    "PHOTO" or "SEQUENCE/FRAME". Everything random about it, motion, cut-outs and noise included, depends on (seed,
    epoch, position) alone, so that each visit of a photo gives another clip.

    Args:
        dataroot: the folder. mode: how blur is made.
            photos: a camera moves smoothly before a photo, with cut-outs of other photos that move on their own.
            shake: each frame is the same part of a photo, blurred by a random camera-shake kernel of its own.
            average: `frames` successive frames of sharp video are averaged; a sample takes `num_frame` exposures.
        layout, split, storage: how the files lie. Of a paired data set the sharp side is taken. For photos and shake:
            all pictures in `dataroot` and the folders in it.
        part: of a folder of photos: all, or without every 20th ("train"), or these only ("val").
        sampling, num_frame, past, future: which frames go in and which are restored; see `FrameSampling`.
        frame_size: height and width of frames where no `gt_size` asks for a crop, in validation for example. None: for
            average those of the video, else 256x256.
        motion: typical way of the picture during an exposure in pixels, a range; for shake the length of the way.
        duty, shrink, objects, highlights, curve: see `SceneOptions`; `curve` for average too, None: srgb of photos,
            gamma2.2 of video.
        frames, stride: for average, see `Averaging`.
        noise, crf: strength of sensor noise and quality as a video of blurred frames, ranges; see `ClipOptions`.
        augment, noise_sigma: see `Augment`.
        render: who draws training samples of photos. worker: the loader's processes. device: the prefetcher, on the
            GPU, so that workers decode and plan only; frames differ from theirs by rounding, and noise is another.

    Raises:
        DataError: there are no photos or frames, or arguments are out of range or contradict each other.
    """

    def __init__(
        self,
        dataroot: str | Path,
        mode: SynthesisMode = "photos",
        layout: LayoutName | None = None,
        split: str = "all",
        storage: StorageName = "auto",
        part: Literal["all", "train", "val"] = "all",
        sampling: SamplingName = "n_c",
        num_frame: int = 5,
        past: int = 2,
        future: int = 2,
        frame_size: tuple[int, int] | None = None,
        motion: tuple[float, float] | None = None,
        duty: tuple[float, float] = SceneOptions.duty,
        shrink: tuple[float, float] = SceneOptions.shrink,
        objects: int = SceneOptions.objects,
        highlights: float = SceneOptions.highlights,
        curve: str | None = None,
        frames: int = 7,
        stride: int | None = None,
        noise: tuple[float, float] = ClipOptions.noise,
        crf: tuple[int, int] | None = None,
        augment: dict[AugmentName, float] | None = None,
        noise_sigma: tuple[float, float] = (0.0, 10.0),
        render: Literal["worker", "device"] = "worker",
    ) -> None:
        self._sampling = FrameSampling(sampling, num_frame, past=past, future=future)
        self._augment = Augment(augment or {}, noise_sigma)
        self._mode = mode
        self._on_device = render == "device"
        if self._on_device and (mode != "photos" or crf is not None or (augment or {}).get("noise")):
            raise DataError("render: device is for mode photos, without crf and without the augmentation noise")
        found = open_stores(dataroot, split, layout or ("auto" if mode == "average" else "photos"), "blur", storage)
        self._store: FrameStore = found.gt or found.lq
        self._description = found.description
        self._fingerprint = dict(found.fingerprint)
        size = (frame_size[0], frame_size[1]) if frame_size else None
        noise, crf = (noise[0], noise[1]), crf and (crf[0], crf[1])
        self._curve = curve or ("gamma2.2" if mode == "average" else "srgb")
        self._maker: Maker
        if mode == "average":
            self._maker = AverageMaker(
                self._store, found.sequences, Averaging(frames, stride, self._curve), self._sampling, noise, crf
            )
            self._size = size
        else:
            scene = SceneOptions(
                (motion[0], motion[1]) if motion and mode == "photos" else SceneOptions.motion,
                (duty[0], duty[1]),
                (shrink[0], shrink[1]),
                objects,
                highlights,
                self._curve,
            )
            shake = ShakeOptions((motion[0], motion[1]) if motion and mode == "shake" else ShakeOptions.length)
            keys = [frame_key(name, frame) for name, names in found.sequences.items() for frame in names]
            self._maker = ClipMaker(self._store, keys, part, ClipOptions(mode, scene, shake, noise, crf), num_frame)
            self._size = size or (256, 256)

    def __len__(self) -> int:
        return len(self._maker)

    def __getitem__(self, request: SampleRequest | int) -> Sample:
        """Make a sample.

        Raises:
            DataError: a photo or frame is missing, damaged or too small.
        """
        sample = self._made(SampleRequest(request) if isinstance(request, int) else request)
        orientation = sample.pop(ORIENTATION)
        for name in ("lq", "gt"):
            sample[name] = torch.from_numpy(np.ascontiguousarray(turn(sample[name].numpy(), orientation)))
        return sample

    def for_transport(self, request: SampleRequest) -> Sample:
        """Make a sample whose square frames are still to be turned, as its entry `augment.ORIENTATION` says.

        With `render: device` they are still to be drawn too (`scene_device.SCENE`).
        """
        if self._on_device and request.crop_size is not None:
            return self._planned(request, request.crop_size)
        return self._made(request)

    def _planned(self, request: SampleRequest, side: int) -> Sample:
        assert isinstance(self._maker, ClipMaker)
        rng = request.rng(self.seed)
        draws = self._augment.draw(rng)
        plan, noise = self._maker.plan(rng, request.index, (side, side))
        scene = DeviceScene(
            plan,
            self._curve,
            noise,
            int(rng.integers(1 << 62)),
            tuple(self._sampling.slots),
            draws.reverse,
            draws.channels if draws.rgb_shuffle else (0, 1, 2),
        )
        return {SCENE: scene.pack(), "key": self._maker.key(request.index), ORIENTATION: draws.orientation}

    def _made(self, request: SampleRequest) -> Sample:
        rng = request.rng(self.seed)
        draws = self._augment.draw(rng)
        size = self._size if request.crop_size is None else (request.crop_size, request.crop_size)
        pairs = list(self._maker.make(rng, request.index, size, (draws.top, draws.left)))
        if draws.reverse:  # what is restored keeps its place
            pairs.reverse()
        lq = np.stack([pair.blur for pair in pairs])
        gt = np.stack([pairs[slot].sharp for slot in self._sampling.slots])
        if draws.rgb_shuffle:
            lq, gt = (np.ascontiguousarray(frames[..., draws.channels]) for frames in (lq, gt))
        orientation = draws.orientation
        self._augment.add_noise(turn(lq, orientation), draws, rng)
        if lq.shape[1] != lq.shape[2]:  # turned frames of other shapes might not make a batch: the loader has to see it
            lq, gt = (np.ascontiguousarray(turn(frames, orientation)) for frames in (lq, gt))
            orientation = 0
        key = self._maker.key(request.index)
        return {"lq": torch.from_numpy(lq), "gt": torch.from_numpy(gt), "key": key, ORIENTATION: orientation}

    def check_crop(self, crop_size: int) -> None:
        """Look at every photo, or at one frame of each sequence."""
        self._maker.check_crop(crop_size)

    def clips(self, merge: bool) -> list[EvaluationClip]:
        """Each sample as a clip of its own, made for (seed, epoch 0, its index): the same in every evaluation."""
        made = lru_cache(2)(lambda index: self[SampleRequest(index, 0, index)])  # its frames are asked for one by one
        return [self._clip(index, made) for index in range(len(self))]

    def _clip(self, index: int, made: Callable[[int], Sample]) -> EvaluationClip:
        def frame(side: str, place: int) -> Pixels:
            return np.asarray(made(index)[side][place].numpy())

        slots = self._sampling.slots
        key = self._maker.key(index)
        return EvaluationClip(
            sequence=key,
            source=SequenceSource(key, [partial(frame, "lq", i) for i in range(self._sampling.num_frame)]),
            scored=tuple(slots),
            names=tuple(f"{slot:06d}" for slot in slots),
            read_gt=tuple(partial(frame, "gt", i) for i in range(len(slots))),
        )

    def fingerprint(self) -> dict[str, Any]:
        """What samples are made of, how, and how many photos or places in videos there are."""
        return {**self._fingerprint, "mode": self._mode, **self._maker.facts(), "samples": len(self)}
