"""`DualPixelDataset`: defocused pictures as the two views of a dual-pixel sensor, with their sharp ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from typing_extensions import Required, TypedDict

from deblurkit.data.augment import AugmentName
from deblurkit.data.store import FrameStore, PairedStores, Window
from deblurkit.data.two_roots import Roots, open_roots
from deblurkit.data.video_dataset import VideoDataset
from deblurkit.errors import DataError
from deblurkit.image_io import Pixels
from deblurkit.registry import DATASET_REGISTRY


class DualPixelRoots(TypedDict, total=False):
    """Where the three trees lie. A picture has one name in all of them.

    Attributes:
        left, right: folders (or LMDBs) of the two views. gt: of the sharp pictures; without it nothing is scored.
        names: text file that lists pictures, in the first word of each line.
    """

    left: Required[str]
    right: Required[str]
    gt: str
    names: str


@DATASET_REGISTRY.register()
class DualPixelDataset(VideoDataset):
    """Pairs of views of a dual-pixel sensor, such as DPDD (Abuolaim, Brown: Defocus Deblurring Using Dual-Pixel Data).

    A sample: `lq` `(1, h, w, 6)`, the channels RGB of the left view and then those of the right one, `gt`
    `(1, h, w, 3)`, both uint8 or uint16 (DPDD's are uint16), and `key`. For networks whose contract has 6 channels,
    such as Restormer with `dual_pixel_task`. Restormer calls it `Dataset_DefocusDeblur_DualPixel_16bit`.

    Args:
        dataroot: see `DualPixelRoots`. augment: of `Augment`, but for rgb_shuffle.

    Raises:
        DataError: files are missing or do not fit together.
    """

    def __init__(self, dataroot: DualPixelRoots, augment: dict[AugmentName, float] | None = None) -> None:
        if "rgb_shuffle" in (augment or {}):
            raise DataError("augment: rgb_shuffle is for pictures of three channels")
        super().__init__(_roots(dataroot, "left"), "all", num_frame=1, augment=augment)
        left, right = self._stores, open_roots(_roots(dataroot, "right"))
        if left.sequences != right.sequences:
            raise DataError(f"{left.description} and {right.description}: their pictures have different names")
        self._stores: PairedStores = replace(
            left,
            lq=_SideBySide(left.lq, right.lq),
            description=f"{left.description} with {right.description}",
            fingerprint={"left": left.fingerprint, "right": right.fingerprint},
        )


def _roots(dataroot: DualPixelRoots, side: str) -> Roots:
    roots: Roots = {"lq": str(dataroot[side])}  # type: ignore[literal-required]
    if "gt" in dataroot:
        roots["gt"] = dataroot["gt"]
    if "names" in dataroot:
        roots["names"] = dataroot["names"]
    return roots


class _SideBySide(FrameStore):
    """Two stores as one whose pictures have the channels of both."""

    def __init__(self, left: FrameStore, right: FrameStore) -> None:
        self._left, self._right = left, right

    def size(self, key: str) -> tuple[int, int]:
        """See `FrameStore`; that of both."""
        sizes = self._left.size(key), self._right.size(key)
        if sizes[0] != sizes[1]:
            raise DataError(f"{self._left.place(key)} and {self._right.place(key)} have different sizes")
        return sizes[0]

    def read(self, key: str, window: Window | None = None) -> Pixels:
        """See `FrameStore`; `(h, w, 6)`."""
        views = [store.read(key, window) for store in (self._left, self._right)]
        if views[0].dtype != views[1].dtype or views[0].shape != views[1].shape:
            raise DataError(f"{self._left.place(key)} and {self._right.place(key)} differ in size or bits")
        return np.concatenate(views, axis=-1)

    def place(self, key: str) -> str:
        """The left view's."""
        return self._left.place(key)
