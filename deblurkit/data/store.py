"""Where pixels are read from: files or LMDBs behind one interface, and which of the two a data set uses."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from deblurkit.console import warn
from deblurkit.data.layouts import ROLES, LayoutName, PairedLayout, Sequences, find_layout, scan
from deblurkit.data.png import HEADER_BYTES, png_header
from deblurkit.errors import DataError
from deblurkit.image_io import Pixels, read_image

if TYPE_CHECKING:
    from deblurkit.data.lmdb_store import LmdbStore

StorageName = Literal["auto", "disk", "lmdb"]
#: Top, left, height and width of a crop in pixels.
Window = tuple[int, int, int, int]


class FrameStore(ABC):
    """Frames by key ("SEQUENCE/FRAME"), degraded or sharp ones."""

    @abstractmethod
    def size(self, key: str) -> tuple[int, int]:
        """Height and width of a frame, found without decoding it where the format allows that.

        Raises:
            DataError: the frame is missing or damaged.
        """

    @abstractmethod
    def read(self, key: str, window: Window | None = None) -> Pixels:
        """Pixels of a frame, or of a window of it, as an array of their own: `(h, w, 3)` RGB, uint8 or uint16.

        Raises:
            DataError: the frame is missing or damaged, or the window reaches over its borders.
        """

    @abstractmethod
    def place(self, key: str) -> str:
        """Where a frame lies, for messages: the file, or the LMDB and the key."""


class DiskStore(FrameStore):
    """Frames in picture files; a window costs the decoding of the whole frame.

    Args:
        paths: file by key.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths
        self._sizes: dict[str, tuple[int, int]] = {}

    def size(self, key: str) -> tuple[int, int]:
        """From a PNG's header; other formats are decoded, once."""
        if key not in self._sizes:
            path = self._paths[key]
            try:
                with path.open("rb") as file:
                    header = png_header(file.read(HEADER_BYTES))
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
            self._sizes[key] = (header.height, header.width) if header else read_image(path).shape[:2]
        return self._sizes[key]

    def read(self, key: str, window: Window | None = None) -> Pixels:
        """Decode the file, cut the window out."""
        return cut(read_image(self._paths[key]), window, self.place(key))

    def place(self, key: str) -> str:
        """The file's path."""
        return str(self._paths[key])


def cut(pixels: Pixels, window: Window | None, place: str) -> Pixels:
    """A window of a frame as a contiguous copy that does not keep the frame alive; None: the whole frame.

    Raises:
        DataError: the window reaches over the frame's borders.
    """
    if window is None:
        return np.ascontiguousarray(pixels)
    y, x, h, w = window
    height, width = pixels.shape[:2]
    if y < 0 or x < 0 or y + h > height or x + w > width:
        raise DataError(f"{place}: the window of {w}x{h} at ({x}, {y}) does not fit into the frame of {width}x{height}")
    return pixels[y : y + h, x : x + w].copy()


@dataclass(frozen=True)
class PairedStores:
    """The degraded and the sharp frames of a split.

    Attributes:
        sequences: frame names by sequence, in order. description: for messages and logs.
        fingerprint: facts that tell whether two runs had the same data.
    """

    lq: FrameStore
    gt: FrameStore
    sequences: Mapping[str, Sequence[str]]
    description: str
    fingerprint: Mapping[str, Any]


def frame_key(sequence: str, frame: str) -> str:
    """The key of a frame; entries of a flat LMDB have no sequence."""
    return f"{sequence}/{frame}" if sequence else frame


def lmdb_root(dataroot: Path) -> Path:
    """The folder that holds a data set's LMDBs: `datasets/GoPro` has them in `datasets/GoPro.lmdb`."""
    if dataroot.name in ("", ".."):  # "." and the like have no name to add to
        dataroot = dataroot.resolve()
    return dataroot if dataroot.suffix == ".lmdb" else dataroot.with_name(f"{dataroot.name}.lmdb")


def lmdb_path(root: Path, split: str, role: str) -> Path:
    """The LMDB of one role ("lq" or "gt") of a split."""
    return root / f"{split}_{role}.lmdb"


def open_stores(
    dataroot: str | Path,
    split: str,
    layout: LayoutName = "auto",
    lq: str = "blur",
    storage: StorageName = "auto",
) -> PairedStores:
    """Find a split and choose where it is read from.

    Args:
        dataroot: the data set's folder, or the `.lmdb` folder beside it. split: folder in it.
        layout: how the files lie. lq: folder of the degraded frames.
        storage: "disk": files. "lmdb": the LMDBs must be there. "auto": the LMDBs where they match the files (names,
            sizes and times say), or where there are no files; else the files.

    Raises:
        DataError: nothing usable is there; the message says what was looked for.
    """
    root = Path(dataroot).expanduser()
    paths = {role: lmdb_path(lmdb_root(root), split, role) for role in ROLES}
    missing = [str(path) for path in paths.values() if not (path / "data.mdb").is_file()]
    if storage == "disk" or (missing and storage == "auto"):
        found = find_layout(root, layout)
        return _on_disk(root, split, found, lq, scan(root, split, found, lq))
    if missing:
        raise DataError(
            f"{' and '.join(missing)}: not there; make it with `deblurkit lmdb make {root} --split {split}`"
        )

    from deblurkit.data.lmdb_store import LmdbStore

    stores = {role: LmdbStore(path) for role, path in paths.items()}
    kind = stores["lq"].kind
    differs = f"holds the frames of {kind!r}, not {lq!r}" if kind not in (None, lq) else ""
    again = f"make it again with `deblurkit lmdb make {root} --split {split} --lq {lq} --force`"
    if storage == "lmdb" or not (root / split).is_dir():
        if differs:
            raise DataError(f"{paths['lq']}: {differs}; {again}")
        return _in_lmdb(stores, split)
    found = find_layout(root, layout)
    sequences = scan(root, split, found, lq)
    if not differs and any(store.signature != signature(root, sequences, role) for role, store in stores.items()):
        differs = "does not match the files any more"
    if differs:
        warn(f"{paths['lq'].parent} ({split}): {differs}; reading the files instead, which is slower: {again}")
        return _on_disk(root, split, found, lq, sequences)
    return _in_lmdb(stores, split)


def _on_disk(root: Path, split: str, layout: PairedLayout, lq: str, sequences: Sequences) -> PairedStores:
    stores = {
        role: DiskStore({frame_key(name, p.name): p.path(role) for name, pairs in sequences.items() for p in pairs})
        for role in ROLES
    }
    fingerprint = {
        "storage": "disk",
        "lq": signature(root, sequences, "lq", times=False),
        "gt": signature(root, sequences, "gt", times=False),
    }
    names = {name: [p.name for p in pairs] for name, pairs in sequences.items()}
    description = f"{root / split} ({layout.name}, {lq}, files)"
    return PairedStores(stores["lq"], stores["gt"], names, description, fingerprint)


def _in_lmdb(stores: Mapping[str, LmdbStore], split: str) -> PairedStores:
    lq, gt = stores["lq"], stores["gt"]
    if lq.sequences != gt.sequences:
        keys = {role: set(store.keys()) for role, store in stores.items()}
        alone = sorted(keys["lq"] ^ keys["gt"])[:5]
        raise DataError(
            f"{lq.path} and {gt.path}: their frames differ, for example {', '.join(alone)}; make both again"
        )
    fingerprint = {"storage": "lmdb", "lq": lq.fingerprint(), "gt": gt.fingerprint()}
    return PairedStores(lq, gt, lq.sequences, f"{lq.path.parent} ({split}, LMDB, {lq.codec})", fingerprint)


def signature(root: Path, sequences: Sequences, role: str, times: bool = True) -> str:
    """A hash over names, sizes and (unless `times` is False) modification times of a split's files of one role.

    Raises:
        DataError: a file has gone.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in _paths(sequences, role):
        try:
            stat = path.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
        facts = (path.relative_to(root).as_posix(), stat.st_size, *((stat.st_mtime_ns,) if times else ()))
        digest.update(repr(facts).encode())
    return digest.hexdigest()


def _paths(sequences: Sequences, role: str) -> Iterable[Path]:
    return (pair.path(role) for pairs in sequences.values() for pair in pairs)
