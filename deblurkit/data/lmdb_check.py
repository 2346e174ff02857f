"""What LMDBs hold, and whether they still hold what was put in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deblurkit.console import progress
from deblurkit.data.layouts import LAYOUTS
from deblurkit.data.lmdb_store import LmdbStore, checksum
from deblurkit.data.picture_size import encoded_size
from deblurkit.data.png import check_png, png_header
from deblurkit.data.store import frame_key, lmdb_path, lmdb_root, signature
from deblurkit.errors import DataError
from deblurkit.image_io import decode_image, natural_key


@dataclass(frozen=True)
class LmdbInfo:
    """What an LMDB holds.

    Attributes:
        form: codec, the side of its tiles, and "BasicSR" where BasicSR made it. frames: by sequence.
        shapes: such as "1280x720 uint8".
        size: of the database on the disk, bytes. fingerprint: a hash of the content.
        source: how it stands to the files beside it: "unchanged", "changed", or "-" where there are none to compare.
    """

    path: Path
    form: str
    frames: Mapping[str, int]
    shapes: tuple[str, ...]
    size: int
    fingerprint: str
    source: str


@dataclass(frozen=True)
class LmdbVerdict:
    """The result of a check: how many entries were looked at, what is damaged, and what is odd but does no harm."""

    path: Path
    entries: int
    damages: tuple[str, ...]
    notes: tuple[str, ...]


def find_lmdbs(path: str | Path) -> list[LmdbStore]:
    """The LMDBs at a path: one LMDB, a `ROOT.lmdb` folder, or the `ROOT` beside it.

    Raises:
        DataError: there is none.
    """
    given = Path(path).expanduser()
    if (given / "data.mdb").is_file():
        return [LmdbStore(given)]
    root = lmdb_root(given)
    found = [LmdbStore(p.parent) for p in sorted(root.glob("*.lmdb/data.mdb"))]
    if not found:
        raise DataError(f"{root}: holds no LMDB; `deblurkit lmdb make {given}` makes them of a data set's files")
    return found


def inspect_lmdb(store: LmdbStore) -> LmdbInfo:
    """What `deblurkit lmdb info` shows of an LMDB."""
    manifest = store.manifest
    if manifest:
        entries = manifest.sequences.values()
        shapes = {f"{width}x{height} {s.dtype}" for s in entries for height, width, _ in set(s.shapes)}
    else:
        shapes = {"{1}x{0}".format(*store.size(key)) for key in store.keys()}  # noqa: SIM118 (a method of ours)
    return LmdbInfo(
        path=store.path,
        form=_form(store),
        frames={name: len(frames) for name, frames in store.sequences.items()},
        shapes=tuple(sorted(shapes, key=natural_key)) if len(shapes) <= 4 else (f"{len(shapes)} sizes",),
        size=(store.path / "data.mdb").stat().st_size,
        fingerprint=store.fingerprint(),
        source=_source_state(store),
    )


def _form(store: LmdbStore) -> str:
    if store.manifest is None:
        return f"{store.codec}, BasicSR"
    return f"{store.codec}, tiles of {store.manifest.tile}" if store.manifest.tile else store.codec


def _source_state(store: LmdbStore) -> str:
    """Compare with the files in the place where `make` looks for them by default."""
    manifest, root = store.manifest, store.path.parent.with_suffix("")
    if manifest is None or manifest.layout not in LAYOUTS or not LAYOUTS[manifest.layout].has(root, manifest.split):
        return "-"
    beside = lmdb_path(store.path.parent, manifest.split, "lq")
    degraded = LmdbStore(beside).kind if (beside / "data.mdb").is_file() else None
    try:
        sequences = LAYOUTS[manifest.layout].scan(root, manifest.split, degraded or "blur")
    except DataError:  # they are no whole data set any more
        return "changed"
    return "unchanged" if signature(root, sequences, manifest.role) == manifest.signature else "changed"


def verify_lmdb(store: LmdbStore) -> LmdbVerdict:
    """Read every entry and compare its checksum; entries without one (BasicSR's form) are checked as PNG files."""
    checksums: dict[str, Any] = {}
    if store.manifest:
        checksums = {
            frame_key(name, frame): known
            for name, sequence in store.manifest.sequences.items()
            for frame, known in zip(sequence.frames, sequence.checksums, strict=True)
        }
    keys = list(store.keys())
    damages: list[str] = []
    notes: list[str] = []
    with progress(f"verifying {store.path}", len(keys), unit="entries") as advance:
        for key in keys:
            try:
                with store.value(key) as data:
                    if key in checksums:
                        if checksum(data) != checksums[key]:
                            raise DataError(f"{store.place(key)}: its bytes have changed (wrong checksum)")
                    else:
                        notes += _check_picture(store, key, data)
            except DataError as error:
                damages.append(str(error))
            advance(1)
    return LmdbVerdict(store.path, len(keys), tuple(damages), tuple(notes))


def _check_picture(store: LmdbStore, key: str, data: memoryview) -> list[str]:
    """Check a value of BasicSR's form; returns what `meta_info.txt` says wrongly of it."""
    place = store.place(key)
    if png_header(data):
        check_png(data, place)
        size = encoded_size(bytes(data), place)
    else:
        height, width = decode_image(data, place).shape[:2]
        size = height, width
    claimed = store.meta_sizes[key]
    if claimed in (None, size):
        return []
    return [f"{place}: meta_info.txt says {claimed} pixels (h, w), the picture has {size}; its own size is used"]
