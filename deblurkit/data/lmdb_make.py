"""Making LMDBs of a data set's files: every picture is checked, all cores work, an interrupted run can be continued."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from deblurkit.console import progress, say
from deblurkit.data.layouts import FramePair, Layout, LayoutName, Sequences, find_layout, scan
from deblurkit.data.lmdb_store import Codec, LmdbStore, Manifest, SequenceEntry, checksum, raw_bytes
from deblurkit.data.lmdb_writer import FrameRecord, LmdbWriter
from deblurkit.data.png import check_png, png_header
from deblurkit.data.store import frame_key, lmdb_path, lmdb_root, signature
from deblurkit.data.tiles import TILE, pack_lossless, pack_raw
from deblurkit.errors import DataError
from deblurkit.image_io import decode_image, encode_png
from deblurkit.pool import cores, ordered

#: zlib level for pictures that are not PNG files already; BasicSR's scripts use the same.
PNG_LEVEL = 1
_MAX_KEY_BYTES = 511  # LMDB's limit
_MAX_TILE = 4096
#: The codec, and the side of its tiles.
_Form = tuple[Codec, int | None]


def make_lmdb(
    dataroot: str | Path,
    splits: Iterable[str] = (),
    layout: LayoutName = "auto",
    lq: str = "blur",
    codec: Codec = "raw",
    workers: int | None = None,
    output: str | Path | None = None,
    force: bool = False,
    tile: int | None = None,
) -> list[Path]:
    """Make `ROOT.lmdb/{split}_{lq,gt}.lmdb` of a data set.

    An LMDB that matches its files is left alone. Interrupted (Ctrl-C, kill, full disk), the same call goes on from
    where it was; until an LMDB is whole it has a name that ends in `.partial`.

    Args:
        dataroot: the data set's folder. splits: which of its splits; none: those that make up the whole. layout: how
            its files lie. lq: kind of the degraded frames.
        codec: "raw" (pixels; crops are read without the rest), "tiled" (packed without loss, smaller than PNG; a crop
            costs the tiles that it touches) or "png" (PNG files are copied as they are; BasicSR can read it).
        workers: threads; None: one a core. output: folder for the LMDBs instead of `ROOT.lmdb`.
        force: make those again that are there.
        tile: side of the tiles in pixels. None: 128 for "tiled"; "raw" has none, but can (a crop is then read from
            fewer pages of the disk).

    Returns:
        the LMDBs, whether made or left alone.

    Raises:
        DataError: a picture is missing, damaged or of another size than its partner or its sequence; an LMDB is there
            that does not match and `force` is False; the disk is full.
    """
    if tile is not None and (codec == "png" or not 16 <= tile <= _MAX_TILE):
        raise DataError(f"tile {tile}: tiles are for the codecs raw and tiled, with a side of 16 to {_MAX_TILE} pixels")
    if codec == "tiled":
        tile = tile or TILE
    root = Path(dataroot).expanduser()
    found = find_layout(root, layout)
    names = list(splits) or found.splits(root)
    if not names:
        raise DataError(f"{root}: holds no split; layout {found.name} is {found.form}")
    folder = Path(output).expanduser() if output else lmdb_root(root)
    count = workers or cores()
    # errors in names come before any work
    plans = [_plan(root, split, found, lq, (codec, tile), folder) for split in names]
    return [path for split in plans for path in _make_split(split, count, force)]


@dataclass(frozen=True)
class _Plan:
    """One LMDB to be made."""

    target: Path
    form: _Form
    split: str
    role: str
    layout: str
    kind: str
    signature: str
    sequences: Sequences

    @property
    def purpose(self) -> dict[str, Any]:
        """What it is for; an interrupted run for the same purpose is continued."""
        codec, tile = self.form
        names = ("split", "role", "layout", "kind")
        return {"codec": codec, **({"tile": tile} if tile else {}), **{name: getattr(self, name) for name in names}}

    @property
    def sources(self) -> dict[str, Path]:
        return {key: pair.path(self.role) for key, pair in _pairs(self.sequences)}

    def outdated(self) -> str | None:
        """Why what is there is not the planned LMDB; None: it is."""
        if not (self.target / "data.mdb").is_file():
            return "is not an LMDB"
        there = LmdbStore(self.target)
        if there.manifest is None:
            return "was not made by deblurkit"
        codec, tile = self.form
        for name, wanted in (("codec", codec), ("tile", tile), ("kind", self.kind)):
            if getattr(there.manifest, name) != wanted:
                return f"has {name} {getattr(there.manifest, name)}, not {wanted}"
        return None if there.signature == self.signature else "does not match the files any more"


def _plan(root: Path, split: str, layout: Layout, lq: str, form: _Form, folder: Path) -> list[_Plan]:
    sequences = scan(root, split, layout, lq)
    for key, _ in _pairs(sequences):
        if len(key.encode()) > _MAX_KEY_BYTES:
            raise DataError(
                f"{root / split}: the name {key[:60]}... is longer than the {_MAX_KEY_BYTES} bytes of a key"
            )
        if form[0] == "png" and "." in key:
            raise DataError(
                f"{root / split}: {key!r} has a dot, at which BasicSR would cut it; rename it or use --codec raw"
            )
    kinds = {"lq": lq, "gt": layout.gt}
    return [
        _Plan(
            lmdb_path(folder, split, role),
            form,
            split,
            role,
            layout.name,
            kinds[role],
            signature(root, sequences, role),
            sequences,
        )
        for role in layout.roles(split)
    ]


def _make_split(plans: list[_Plan], workers: int, force: bool) -> list[Path]:
    """Make the LMDBs of a split that are not there yet."""
    wanted = []
    sizes = _Sizes()
    for plan in plans:
        if not plan.target.exists() or force:
            wanted.append(plan)
            continue
        reason = plan.outdated()
        if reason:
            raise DataError(f"{plan.target}: {reason}; --force makes it again")
        say(f"{plan.target}: is up to date")
        sizes.learn(plan, LmdbStore(plan.target))
    if wanted:
        _build(wanted, sizes, workers)
    return [plan.target for plan in plans]


def _build(plans: list[_Plan], sizes: _Sizes, workers: int) -> None:
    """Make LMDBs of the same sequences side by side, so that partners are seen together."""
    form = plans[0].form
    pairs = list(_pairs(plans[0].sequences))
    with contextlib.ExitStack() as stack:
        writers = {p.role: stack.enter_context(LmdbWriter(p.target, p.purpose, p.sources)) for p in plans}
        records = {role: dict(writer.kept) for role, writer in writers.items()}
        for role, kept in records.items():
            for key, record in kept.items():
                sizes.check(role, key, record, writers[role].partial)
        jobs = [(key, pair, [r for r in writers if key not in records[r]]) for key, pair in pairs]
        jobs = [job for job in jobs if job[2]]
        try:
            loaded = stack.enter_context(contextlib.closing(ordered(partial(_load, form=form), jobs, workers)))
            with progress(f"making {plans[0].target.parent} ({plans[0].split})", len(jobs), unit="pairs") as advance:
                for pair, entries in loaded:
                    for role, (record, data) in entries.items():
                        sizes.check(role, record.key, record, pair.path(role))
                        writers[role].put(record, data)
                        records[role][record.key] = record
                    advance(1)
            for plan in plans:
                lines = meta_info(records[plan.role], plan.sources) if form[0] == "png" else None
                writers[plan.role].finish(_manifest(plan, records[plan.role]), lines)
        except (KeyboardInterrupt, DataError) as error:
            for writer in writers.values():
                with contextlib.suppress(DataError):  # a disk that is full: the first error is the one to tell
                    writer.commit()
            if isinstance(error, KeyboardInterrupt):
                say(f"{plans[0].target.parent}: what is finished is kept; the same command goes on from there")
            raise


_Facts = tuple[int, int, str]  # height, width, dtype


class _Sizes:
    """Watches that all frames of a sequence have one size and bit depth, and fit their partners.

    Single pictures (the sequence "") may have any size, but one bit depth. A sharp frame may be a whole multiple of the
    size of its degraded partner (`scale`).
    """

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], tuple[_Facts, str]] = {}

    def learn(self, plan: _Plan, store: LmdbStore) -> None:
        """Take over the sizes of an LMDB that is up to date."""
        assert store.manifest is not None
        for name, entry in store.manifest.sequences.items():
            for frame, (height, width, _) in zip(entry.frames, entry.shapes, strict=True):
                self._first_like(plan.role, frame_key(name, frame), (height, width, entry.dtype), str(plan.target))

    def check(self, role: str, key: str, record: FrameRecord, place: Path) -> None:
        """Raise DataError naming both places where sizes differ."""
        facts = (record.height, record.width, record.dtype)
        first, first_place, dtype, dtype_place = self._first_like(role, key, facts, str(place))
        if facts != first:
            raise DataError(f"{place}: is {_named(facts)}, but {first_place} of the same sequence is {_named(first)}")
        if record.dtype != dtype:
            raise DataError(
                f"{place}: has pixels of {record.dtype}, {dtype_place} of {dtype}; a split has one bit depth"
            )
        other, other_place = self._first.get(("gt" if role == "lq" else "lq", _sized_alike(key)), (facts, ""))
        (height, width, _), (sharp_height, sharp_width, _) = (facts, other) if role == "lq" else (other, facts)
        scale = sharp_height // height
        if scale == 0 or (height * scale, width * scale) != (sharp_height, sharp_width):
            raise DataError(f"{place}: is {_named(facts)}, but its partner {other_place} is {_named(other)}")

    def _first_like(self, role: str, key: str, facts: _Facts, place: str) -> tuple[_Facts, str, str, str]:
        """The first of the same sequence and its place; the first bit depth of single pictures and its place."""
        first, first_place = self._first.setdefault((role, _sized_alike(key)), (facts, place))
        if _sized_alike(key) != key:
            return first, first_place, facts[2], place
        (_, _, dtype), dtype_place = self._first.setdefault((role, ""), (facts, place))
        return first, first_place, dtype, dtype_place


def _sized_alike(key: str) -> str:
    """What must have one size: a sequence, or a single picture."""
    return key.rpartition("/")[0] or key


def _named(facts: _Facts) -> str:
    return f"{facts[1]}x{facts[0]} {facts[2]}"


def _load(job: tuple[str, FramePair, list[str]], form: _Form) -> tuple[FramePair, dict[str, tuple[FrameRecord, Any]]]:
    """Read and check the files of a pair; runs in a thread (decoding and hashing let other threads work)."""
    key, pair, roles = job
    return pair, {role: _load_file(key, pair.path(role), form) for role in roles}


def _load_file(key: str, path: Path, form: _Form) -> tuple[FrameRecord, Any]:
    """The entry for a file."""
    try:
        stat = path.stat()
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    header = png_header(data)
    chunks = check_png(data, str(path)) if header else frozenset()
    value: Any
    codec, tile = form
    facts = stat.st_size, stat.st_mtime_ns
    if codec == "png" and header and b"eXIf" not in chunks:  # copied; decoding would take 20 times as long
        dtype = "uint16" if header.bits == 16 else "uint8"
        return FrameRecord(key, checksum(data), "", header.height, header.width, header.channels, dtype, *facts), data
    pixels = decode_image(data, str(path))
    (height, width, channels), dtype, raw = pixels.shape, str(pixels.dtype), raw_bytes(pixels)
    if codec == "png":  # EXIF may ask a reader to turn the picture, so it is stored as it is to be seen
        value = encode_png(pixels, PNG_LEVEL)
    elif codec == "tiled":
        value = pack_lossless(pixels, tile or TILE)
    else:
        value = pack_raw(pixels, tile) if tile else raw
    seen = checksum(raw)
    stored = seen if value is raw else checksum(value)
    return FrameRecord(key, stored, seen, height, width, channels, dtype, *facts), value


def _manifest(plan: _Plan, records: Mapping[str, FrameRecord]) -> Manifest:
    entries = {}
    for name, pairs in plan.sequences.items():
        found = [records[frame_key(name, pair.name)] for pair in pairs]
        entries[name] = SequenceEntry(
            frames=tuple(pair.name for pair in pairs),
            shapes=tuple((record.height, record.width, 3) for record in found),
            dtype=found[0].dtype,
            checksums=tuple(record.checksum for record in found),
            pixels=tuple(record.pixels for record in found) if all(record.pixels for record in found) else (),
        )
    return Manifest(**plan.purpose, signature=plan.signature, sequences=entries)


def meta_info(records: Mapping[str, FrameRecord], keys: Iterable[str]) -> str:
    """BasicSR's list. (The level is ours; files that were copied keep whatever level they had.)"""
    found = (records[key] for key in keys)
    return "".join(f"{r.key}.png ({r.height},{r.width},{r.channels}) {PNG_LEVEL}\n" for r in found)


def _pairs(sequences: Sequences) -> Iterator[tuple[str, FramePair]]:
    return ((frame_key(name, pair.name), pair) for name, pairs in sequences.items() for pair in pairs)
