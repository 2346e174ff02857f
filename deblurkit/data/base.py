"""What the trainer and the evaluator ask of a data set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from deblurkit.contract import TimePadding as TimePadding
from deblurkit.data.request import SampleRequest
from deblurkit.image_io import Pixels
from deblurkit.video.source import SequenceSource

Sample = dict[str, Any]


@dataclass(frozen=True)
class EvaluationClip:
    """A run of degraded frames to be restored in one go, and the sharp frames to compare some of them with.

    Attributes:
        sequence: name of the sequence, as in a sample's key.
        source: the degraded frames. scored: their positions in `source` that have a ground truth to compare with.
        names: frame names of the scored frames. read_gt: one function a scored frame; none where there are no sharp
            frames, and so no figures.
        time_padding: how windows are completed at the two ends; None: no scored frame needs it.
    """

    sequence: str
    source: SequenceSource
    scored: tuple[int, ...]
    names: tuple[str, ...]
    read_gt: tuple[Callable[[], Pixels], ...]
    time_padding: TimePadding | None = None


class FrameDataset(Dataset[Sample], ABC):
    """A data set of degraded and sharp frames.

    A sample is a dict: `lq` the degraded frames, `gt` the sharp ones, `key` "SEQUENCE/FRAME" of the frame that it is
    about. Integer tensors are pixels, uint8 or uint16 `(T, H, W, C)` RGB; the prefetcher makes float `(T, C, H, W)` in
    [0, 1] of them on the device. Float tensors pass as they are.

    Attributes:
        seed: what is random about a sample depends on it and on the request alone.
    """

    seed: int = 0

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def __getitem__(self, request: SampleRequest | int) -> Sample:
        """Make a sample; an integer stands for `SampleRequest(index)`."""

    def check_crop(self, crop_size: int) -> None:
        """Raise DataError where frames are too small for a crop that training will ask for: now, not when it does."""

    def for_transport(self, request: SampleRequest) -> Sample:
        """The sample for a loader, whose batches the prefetcher completes on the device (see `augment.ORIENTATION`)."""
        return self[request]

    @abstractmethod
    def clips(self, merge: bool) -> list[EvaluationClip]:
        """The whole set for evaluation.

        Args:
            merge: True: a network that sees windows asks, so overlapping windows of a sequence may become one run of
                frames (each is then read once). False: every sample is a clip of its own.
        """

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Facts that tell whether two runs had the same data; goes into `run.json`."""
