"""Reading frames from LMDBs: this package's own (`raw`, `tiled` and `png` values with a manifest) and BasicSR's."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import lmdb
import numpy as np

from deblurkit.console import warn
from deblurkit.data.picture_size import encoded_size
from deblurkit.data.store import FrameStore, Window, check_window, cut, frame_key
from deblurkit.data.tiles import TileGrid, pick_tiles, read_raw, unpack_tiles
from deblurkit.errors import DataError
from deblurkit.image_io import Pixels, decode_image

SCHEMA = "deblurkit-lmdb/1"
MANIFEST = "manifest.json"
META_INFO = "meta_info.txt"

Codec = Literal["raw", "png", "tiled"]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class SequenceEntry:
    """Frames of a sequence: names in order, shape (h, w, 3) and checksum of each, and the dtype of them all.

    `checksums` are of the stored bytes, `pixels` of the pixels (`raw_bytes`); copied PNGs and some older
    LMDBs have none of these.
    """

    frames: tuple[str, ...]
    shapes: tuple[Shape, ...]
    dtype: str
    checksums: tuple[str, ...]
    pixels: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """One hash for all that is in the sequence."""
        return checksum(json.dumps([self.frames, self._short_shapes(), self.dtype, self.checksums]).encode())

    def to_json(self) -> dict[str, Any]:
        """Its part of `manifest.json`; `shape` is one where all are alike, else a list of them."""
        facts = {"frames": self.frames, "shape": self._short_shapes(), "dtype": self.dtype, "checksums": self.checksums}
        pixels = {"pixels": self.pixels} if self.pixels not in ((), self.checksums) else {}
        return {**facts, **pixels, "hash": self.hash}

    def content(self) -> list[Any]:
        """What the sequence shows, however it is stored."""
        return [self.frames, self._short_shapes(), self.dtype, self.pixels]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SequenceEntry:
        """What `to_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
        frames, shape = tuple(values["frames"]), values["shape"]
        shapes = tuple(map(_shape, shape)) if isinstance(shape[0], list) else (_shape(shape),) * len(frames)
        checksums, pixels = tuple(values["checksums"]), tuple(values.get("pixels", ()))
        if not len(frames) == len(shapes) == len(checksums) or len(pixels) not in (0, len(frames)):
            raise ValueError(f"{len(frames)} frames, {len(shapes)} shapes, {len(checksums)} + {len(pixels)} checksums")
        if values["dtype"] not in ("uint8", "uint16"):
            raise ValueError(f"dtype {values['dtype']!r}")
        return cls(frames, shapes, values["dtype"], checksums, pixels)

    def _short_shapes(self) -> Shape | tuple[Shape, ...]:
        return self.shapes[0] if len(set(self.shapes)) == 1 else self.shapes


@dataclass(frozen=True)
class Manifest:
    """What a `deblurkit-lmdb/1` holds; lies in it as `manifest.json`.

    Attributes:
        codec: "raw": values are row-major pixels, little-endian, of their sequence's shape and dtype. "tiled": packed
            tiles, see `tiles`. "png": PNG files.
        tile: side of the tiles of "tiled" in pixels, and of "raw" where it has tiles; None: there are none.
        split, role, layout, kind: where the frames come from: split, "lq" or "gt", layout, folder ("blur", "sharp").
        signature: names, sizes and times of the source files (`store.signature`).
    """

    codec: Codec
    split: str
    role: str
    layout: str
    kind: str
    signature: str
    sequences: Mapping[str, SequenceEntry]
    tile: int | None = None

    @property
    def fingerprint(self) -> str:
        """One hash for the content: names, shapes and pixels, however they are stored, not times and places.

        LMDBs whose pixels have no checksums (copied PNGs, and those made before) have one of codec and stored bytes.
        """
        if all(s.pixels for s in self.sequences.values()):
            return checksum(json.dumps({name: s.content() for name, s in self.sequences.items()}).encode())
        return checksum(json.dumps([self.codec, {name: s.hash for name, s in self.sequences.items()}]).encode())

    def to_json(self) -> dict[str, Any]:
        """The content of `manifest.json`."""
        return {
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in ("codec", "split", "role", "layout", "kind", "signature")},
            **({"tile": self.tile} if self.tile else {}),
            "fingerprint": self.fingerprint,
            "sequences": {name: sequence.to_json() for name, sequence in self.sequences.items()},
        }

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a `manifest.json`.

        Raises:
            DataError: it is damaged, or was written by a version that this one does not know.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["schema"] != SCHEMA:
                raise DataError(f"{path}: has schema {values['schema']!r}; this version of deblurkit reads {SCHEMA}")
            if values["codec"] not in get_args(Codec):
                raise DataError(f"{path}: codec {values['codec']!r} is unknown to this version of deblurkit")
            sequences = {name: SequenceEntry.from_json(entry) for name, entry in values["sequences"].items()}
            if values["codec"] == "raw" and not values.get("tile"):  # what is stored are the pixels
                sequences = {name: replace(entry, pixels=entry.checksums) for name, entry in sequences.items()}
            fields = {name: values[name] for name in ("codec", "split", "role", "layout", "kind", "signature")}
            tile = values.get("tile")
            if tile is None if values["codec"] == "tiled" else tile is not None and values["codec"] == "png":
                raise ValueError(f"codec {values['codec']} with tile {tile}")
            return cls(**fields, sequences=sequences, tile=None if tile is None else _side(tile))
        except (LookupError, TypeError, ValueError) as error:
            raise DataError(f"{path}: is damaged ({type(error).__name__}: {error}); make the LMDB again") from None


def _side(value: Any) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"tile {value!r}")
    return value


def _shape(values: Any) -> Shape:
    height, width, channels = (int(value) for value in values)
    return height, width, channels


def checksum(data: bytes | memoryview) -> str:
    """BLAKE2b of a value, 128 bits, in hexadecimal."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def raw_bytes(pixels: Pixels) -> memoryview:
    """The bytes of a frame `(h, w, 3)` as "raw" stores them: row-major, little-endian."""
    stored = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    return stored.reshape(-1).view(np.uint8).data


class LmdbStore(FrameStore):
    """Frames in an LMDB. The database is opened at the first read in each process; forking is safe at any time.

    Of a `raw` value only the bytes of the window are touched and copied, of a `tiled` one its table and the tiles that
    the window touches.

    Args:
        path: folder with `data.mdb` and either `manifest.json` or BasicSR's `meta_info.txt`, whose lines are
            `KEY.png (h,w,c) LEVEL`. The shapes in the latter are not trusted.

    Attributes:
        manifest: None for BasicSR's form. sequences: frame names by sequence, in order.
        meta_sizes: height and width by key as `meta_info.txt` claims them (BasicSR's form).

    Raises:
        DataError: it is missing or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._resolved = self.path.resolve()  # one database has one environment, however its path is spelled
        self.manifest: Manifest | None = None
        self.sequences: dict[str, tuple[str, ...]]
        self.meta_sizes: dict[str, tuple[int, int] | None] = {}
        self._warned = False
        self._facts: dict[str, tuple[Shape, str]] = {}  # shape and dtype by key, as the manifest says
        if not (self.path / "data.mdb").is_file():
            raise DataError(f"{self.path}: is not an LMDB (it has no data.mdb)")
        if (self.path / MANIFEST).is_file():
            self.manifest = Manifest.load(self.path / MANIFEST)
            self.sequences = {name: s.frames for name, s in self.manifest.sequences.items()}
            self._facts = {
                frame_key(name, frame): (shape, s.dtype)
                for name, s in self.manifest.sequences.items()
                for frame, shape in zip(s.frames, s.shapes, strict=True)
            }
        elif (self.path / META_INFO).is_file():
            self.meta_sizes = _read_meta_info(self.path / META_INFO)
            self.sequences = _by_sequence(self.meta_sizes)
        else:
            raise DataError(f"{self.path}: has neither {MANIFEST} nor {META_INFO}, so its keys are not known")

    @property
    def codec(self) -> Codec:
        """How values are stored."""
        return self.manifest.codec if self.manifest else "png"

    @property
    def kind(self) -> str | None:
        """Source folder of the frames ("blur", "blur_gamma", "sharp"); None: not known."""
        return self.manifest.kind if self.manifest else None

    @property
    def signature(self) -> str | None:
        """The source files' signature when the LMDB was made; None: not known."""
        return self.manifest.signature if self.manifest else None

    def keys(self) -> Iterator[str]:
        """All keys in order."""
        return (frame_key(name, frame) for name, frames in self.sequences.items() for frame in frames)

    def fingerprint(self) -> str:
        """A hash of the content; for BasicSR's form, which has no checksums, of keys and value sizes."""
        if self.manifest:
            return self.manifest.fingerprint
        digest = hashlib.blake2b(digest_size=16)
        for key in self.keys():
            with self.value(key) as data:
                digest.update(repr((key, len(data))).encode())
        return digest.hexdigest()

    @contextlib.contextmanager
    def value(self, key: str) -> Iterator[memoryview]:
        """The stored bytes of a frame, without a copy: valid inside the `with` block, which must be short.

        Raises:
            DataError: there is no such key, or the database is damaged there.
        """
        try:
            with _lock, _environment(self._resolved).begin(buffers=True) as transaction:
                data = transaction.get(key.encode())
                if data is None:
                    raise DataError(f"{self.place(key)}: there is no such entry; make the LMDB again")
                yield data
        except lmdb.Error as error:
            raise DataError(f"{self.place(key)}: cannot be read: {error}; copy or make the LMDB again") from None

    def size(self, key: str) -> tuple[int, int]:
        """From the manifest, or from the picture's header; a warning tells if `meta_info.txt` claims another one."""
        if key in self._facts:
            return self._facts[key][0][:2]
        with self.value(key) as data:
            size = encoded_size(bytes(data), self.place(key))
        claimed = self.meta_sizes.get(key)
        if claimed not in (None, size) and not self._warned:
            self._warned = True
            warn(
                f"{self.place(key)}: meta_info.txt says {claimed} pixels (h, w), the picture has {size}, which is used."
                f" `deblurkit lmdb verify {self.path}` names all such"
            )
        return size

    def read(self, key: str, window: Window | None = None) -> Pixels:
        """Copy a window out of a raw value; decode the tiles that it touches; decode a PNG and cut the window out."""
        if self.codec == "png" or key not in self._facts:
            with self.value(key) as data:
                encoded = bytes(data)
            return cut(decode_image(encoded, self.place(key)), window, self.place(key))
        shape, type_name = self._facts[key]
        dtype, side = np.dtype(type_name), self.manifest.tile if self.manifest else None
        place = self.place(key)
        window = check_window(window, shape, place)
        if self.codec == "tiled" and side:
            grid = TileGrid(shape[0], shape[1], side)
            with self.value(key) as data:  # decoding can wait until others may read
                tiles = pick_tiles(data, grid, window, place)
            return unpack_tiles(tiles, dtype, window, place)
        stored = dtype.newbyteorder("<")
        with self.value(key) as data:
            if len(data) != math.prod(shape) * dtype.itemsize:
                raise DataError(f"{place}: has {len(data)} bytes, not those of {shape} {type_name}")
            # a copy of the window must be made before the transaction ends, also when it is the whole frame
            if side:
                return read_raw(data, TileGrid(shape[0], shape[1], side), stored, window)
            return cut(np.frombuffer(data, stored).reshape(shape), window, place)

    def place(self, key: str) -> str:
        """The LMDB and the key."""
        return f"{self.path}: {key}"


def _read_meta_info(path: Path) -> dict[str, tuple[int, int] | None]:
    """Keys of BasicSR's list, with the size that it claims (None where a line has none)."""
    found: dict[str, tuple[int, int] | None] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        key = line.split(".")[0]  # as BasicSR's readers do
        if key == line:
            raise DataError(f"{path}, line {number}: is not of the form `KEY.png (h,w,c) LEVEL`: {line[:60]!r}")
        shape = line.partition("(")[2].partition(")")[0].split(",")
        numbers = [int(part) for part in shape if part.strip().isdigit()]
        found[key] = (numbers[0], numbers[1]) if len(numbers) >= 2 else None
    if not found:
        raise DataError(f"{path}: is empty")
    return found


def _by_sequence(keys: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Frame names by sequence (what stands before the last slash), sorted as BasicSR visits them."""
    found: dict[str, list[str]] = {}
    for key in sorted(keys):
        sequence, _, frame = key.rpartition("/")
        found.setdefault(sequence, []).append(frame)
    return {name: tuple(frames) for name, frames in found.items()}


# py-lmdb opens a database only once in a process, so all stores of one path share the environment. A child process must
# not go on with its parent's: it closes its copies at the fork and opens its own at the first read. Closing waits for
# the transactions of other threads, and a child has no such thread to end them: so nobody reads while a process forks.
_environments: dict[Path, lmdb.Environment] = {}
_lock = threading.Lock()


def _environment(path: Path) -> lmdb.Environment:
    """The open environment of a database; the caller holds the lock."""
    environment = _environments.get(path)
    if environment is not None:
        return environment
    try:
        # no lock file: readers never write, and a database is complete before it gets its name
        environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False, create=False)
    except lmdb.Error as error:
        raise DataError(f"{path}: cannot be opened: {error}") from None
    wanted = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    actual = (path / "data.mdb").stat().st_size
    if actual < wanted:  # reading behind the end of the file would kill the process
        environment.close()
        raise DataError(f"{path}: is cut off ({actual} of {wanted} bytes); copy it again")
    _environments[path] = environment
    return environment


def close(path: Path) -> None:
    """Close the database that this process has open at `path`, if it has: before it is replaced."""
    with _lock:
        environment = _environments.pop(path, None)
        if environment is not None:
            environment.close()


def _start_anew_in_child() -> None:
    for environment in _environments.values():
        environment.close()
    _environments.clear()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_start_anew_in_child)
