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
from deblurkit.data.layouts import LAYOUTS, ROLES, Layout, LayoutName, Sequences, find_layout, locate, scan
from deblurkit.data.picture_size import picture_size
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
        """See `picture_size`; looked up once."""
        if key not in self._sizes:
            self._sizes[key] = picture_size(self._paths[key])
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
    y, x, h, w = check_window(window, pixels.shape, place)
    return pixels[y : y + h, x : x + w].copy()


def check_window(window: Window | None, shape: tuple[int, ...], place: str) -> Window:
    """The window, or that of the whole frame for None, in a frame of `shape` (h, w, 3).

    Raises:
        DataError: the window reaches over the frame's borders.
    """
    height, width = shape[:2]
    if window is None:
        return 0, 0, height, width
    y, x, h, w = window
    if y < 0 or x < 0 or y + h > height or x + w > width:
        raise DataError(f"{place}: the window of {w}x{h} at ({x}, {y}) does not fit into the frame of {width}x{height}")
    return window


@dataclass(frozen=True)
class PairedStores:
    """The degraded and the sharp frames of a split.

    Attributes:
        lq, gt: the two sides; `gt` is None where there are no sharp frames.
        sequences: frame names by sequence, in order. description: for messages and logs.
        fingerprint: facts that tell whether two runs had the same data.
    """

    lq: FrameStore
    gt: FrameStore | None
    sequences: Mapping[str, Sequence[str]]
    description: str
    fingerprint: Mapping[str, Any]


def frame_key(sequence: str, frame: str) -> str:
    """The key of a frame; single pictures are frames of the sequence ""."""
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
        dataroot: the data set's folder, or the `.lmdb` folder beside it. split: one of its splits.
        layout: how the files lie. lq: kind of the degraded frames.
        storage: "disk": files. "lmdb": the LMDBs must be there. "auto": the LMDBs where they match the files (names,
            sizes and times say), or where there are no files; else the files.

    Raises:
        DataError: nothing usable is there; the message says what was looked for.
    """
    root = Path(dataroot).expanduser()
    paths = {role: lmdb_path(lmdb_root(root), split, role) for role in ROLES}
    paths = {role: paths[role] for role in _made_roles(paths["lq"], split)}
    missing = [str(path) for path in paths.values() if not (path / "data.mdb").is_file()]
    if storage == "disk" or (missing and storage == "auto"):
        on_disk = find_layout(root, layout)
        return _on_disk(root, split, on_disk, lq, scan(root, split, on_disk, lq))
    if missing:
        raise DataError(
            f"{' and '.join(missing)}: not there; make it with `deblurkit lmdb make {root} --split {split}`"
        )

    from deblurkit.data.lmdb_store import LmdbStore

    stores = {role: LmdbStore(path) for role, path in paths.items()}
    kind = stores["lq"].kind
    differs = f"holds the frames of {kind!r}, not {lq!r}" if kind not in (None, lq) else ""
    again = f"make it again with `deblurkit lmdb make {root} --split {split} --lq {lq} --force`"
    found = None if storage == "lmdb" else locate(root, split, layout)
    if found is None:
        if differs:
            raise DataError(f"{paths['lq']}: {differs}; {again}")
        return _in_lmdb(stores, split)
    sequences = scan(root, split, found, lq)
    if not differs and any(store.signature != signature(root, sequences, role) for role, store in stores.items()):
        differs = "does not match the files any more"
    if differs:
        warn(f"{paths['lq'].parent} ({split}): {differs}; reading the files instead, which is slower: {again}")
        return _on_disk(root, split, found, lq, sequences)
    return _in_lmdb(stores, split)


def _made_roles(lq: Path, split: str) -> tuple[str, ...]:
    """The sides that a split's LMDBs should have, as far as the degraded one tells."""
    from deblurkit.data.lmdb_store import LmdbStore

    manifest = LmdbStore(lq).manifest if (lq / "data.mdb").is_file() else None
    return LAYOUTS[manifest.layout].roles(split) if manifest and manifest.layout in LAYOUTS else ROLES


def _on_disk(root: Path, split: str, layout: Layout, lq: str, sequences: Sequences) -> PairedStores:
    roles = layout.roles(split)
    stores = {
        role: DiskStore({frame_key(name, p.name): p.path(role) for name, pairs in sequences.items() for p in pairs})
        for role in roles
    }
    fingerprint = {"storage": "disk", **{role: signature(root, sequences, role, times=False) for role in roles}}
    names = {name: [p.name for p in pairs] for name, pairs in sequences.items()}
    description = f"{root} ({layout.name}, {split}, {lq}, files)"
    return PairedStores(stores["lq"], stores.get("gt"), names, description, fingerprint)


def _in_lmdb(stores: Mapping[str, LmdbStore], split: str) -> PairedStores:
    lq, gt = stores["lq"], stores.get("gt")
    if gt and lq.sequences != gt.sequences:
        keys = {role: set(store.keys()) for role, store in stores.items()}
        alone = sorted(keys["lq"] ^ keys["gt"])[:5]
        raise DataError(
            f"{lq.path} and {gt.path}: their frames differ, for example {', '.join(alone)}; make both again"
        )
    fingerprint = {"storage": "lmdb", **{role: store.fingerprint() for role, store in stores.items()}}
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
