"""Directories of TIFF files (TIFF 6.0; BigTIFF is read) and of EXIF, which has the same form: read, changed, copied."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

#: Bytes of a value by its kind.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}

BYTE, ASCII, SHORT, LONG, UNDEFINED = 1, 2, 3, 4, 7

EXIF, GPS, INTEROPERABILITY = 34665, 34853, 40965
_DIRECTORIES = (EXIF, GPS, INTEROPERABILITY)

#: What describes a picture in its first directory, not how its pixels are stored: title, camera, lens, software, times,
#: people, resolution.
DESCRIPTIVE = frozenset(
    (269, 270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432, 18246, 18249, EXIF, GPS, *range(40091, 40096))
)


class Entry(NamedTuple):
    """A value of a directory: its kind (TIFF 6.0, page 15), how many there are, and where they lie in the file."""

    kind: int
    values: int
    at: int

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return self.values * _SIZES[self.kind]


@dataclass(frozen=True)
class Directory:
    """A directory of a file.

    Attributes:
        data: the file. order: byte order for `struct`. entries: by tag. link: where the offset of the next directory
            lies. big: BigTIFF.
    """

    data: bytes = field(repr=False)
    order: str
    entries: Mapping[int, Entry]
    link: int
    big: bool = False

    def raw(self, tag: int) -> bytes:
        """The bytes of a value as they are stored; empty where there is none."""
        entry = self.entries.get(tag)
        return b"" if entry is None else self.data[entry.at : entry.at + entry.size]

    def numbers(self, tag: int, *default: int) -> tuple[int, ...]:
        """The whole numbers of a value; `default` where there are none, or of another kind."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in _WHOLE or not entry.values:
            return default
        return struct.unpack(f"{self.order}{entry.values}{_WHOLE[entry.kind]}", self.raw(tag))

    @property
    def next(self) -> int:
        """Where the next directory lies; 0: there is none."""
        return int(struct.unpack_from(self.order + ("Q" if self.big else "I"), self.data, self.link)[0])


def first_directory(data: bytes) -> Directory | None:
    """The first directory; None where it is damaged or this is no TIFF."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16:
        return None
    (version,) = struct.unpack_from(order + "H", data, 2)
    if version not in (42, 43):
        return None
    big = version == 43
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    return directory_at(data, at, order, big)


def directory_at(data: bytes, at: int, order: str, big: bool = False) -> Directory | None:
    """The directory at an offset, without values of unknown kinds and outside the file; None where it is damaged."""
    head, entry_form, inline = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    entry_size = struct.calcsize("<" + entry_form) + inline
    try:
        (count,) = struct.unpack_from(order + head, data, at)
        first = at + struct.calcsize("<" + head)
        link = first + entry_size * count
        struct.unpack_from(order + ("Q" if big else "I"), data, link)
    except (struct.error, OverflowError):  # of a damaged file; BigTIFF has offsets that Python's buffers have not
        return None
    entries = {}
    for place in range(first, link, entry_size):
        tag, kind, values = struct.unpack_from(order + entry_form, data, place)
        entry = Entry(kind, values, place + entry_size - inline)
        if kind not in _SIZES:
            continue
        if entry.size > inline:
            (where,) = struct.unpack_from(order + ("Q" if big else "I"), data, entry.at)
            entry = Entry(kind, values, where)
        if entry.at + entry.size <= len(data):
            entries[tag] = entry
    return Directory(data, order, entries, link, big)


#: What is to stand in a directory: for every tag the kind and the bytes, little-endian.
Values = dict[int, tuple[int, bytes]]


def shorts(*numbers: int) -> tuple[int, bytes]:
    """A value of 16-bit numbers, for `Values`."""
    return SHORT, struct.pack(f"<{len(numbers)}H", *numbers)


def pack_directory(values: Mapping[int, tuple[int, bytes]], at: int) -> bytes:
    """A little-endian directory, and what does not fit into it behind it, to lie at the even offset `at`."""
    end = at + 2 + 12 * len(values) + 4
    table, behind = struct.pack("<H", len(values)), b""
    for tag, (kind, content) in sorted(values.items()):
        table += struct.pack("<HHI", tag, kind, len(content) // _SIZES[kind])
        if len(content) <= 4:
            table += content.ljust(4, b"\x00")
        else:
            table += struct.pack("<I", end + len(behind))
            behind += content + bytes(len(content) % 2)
    return table + bytes(4) + behind


def edited(data: bytes, values: Values, exif: bytes = b"") -> bytes:
    """A little-endian TIFF with values set in its first directory, which becomes the only one, and EXIF beside them."""
    directory = first_directory(data)
    assert directory is not None
    assert directory.order == "<"
    own = {tag: (entry.kind, directory.raw(tag)) for tag, entry in directory.entries.items()}
    data += bytes(len(data) % 2)
    described, behind = _described(first_directory(exif), len(data))
    data += behind
    return (
        data[:4] + struct.pack("<I", len(data)) + data[8:] + pack_directory({**described, **own, **values}, len(data))
    )


def extracted(data: bytes) -> bytes:
    """What a TIFF says of its picture (camera, place, time) as EXIF of its own; empty where it says nothing."""
    described, behind = _described(first_directory(data), 8)
    if not described:
        return b""
    return struct.pack("<2sHI", b"II", 42, 8 + len(behind)) + behind + pack_directory(described, 8 + len(behind))


def _described(directory: Directory | None, at: int) -> tuple[Values, bytes]:
    """The descriptive values of a first directory, and its sub-directories, packed to lie at `at`."""
    if directory is None:
        return {}, b""
    kept = {tag: entry for tag, entry in directory.entries.items() if tag in DESCRIPTIVE}
    return _copied(directory, kept, at)


def _copied(directory: Directory, entries: Mapping[int, Entry], at: int, depth: int = 0) -> tuple[Values, bytes]:
    values: Values = {}
    behind = b""
    for tag, entry in entries.items():
        if tag not in _DIRECTORIES:
            values[tag] = entry.kind, _little(directory.raw(tag), entry.kind, directory.order)
            continue
        where = directory.numbers(tag, 0)[0]
        below = directory_at(directory.data, where, directory.order, directory.big) if where and depth < 3 else None
        if below is not None:
            inner, more = _copied(below, below.entries, at + len(behind), depth + 1)
            behind += more
            values[tag] = LONG, struct.pack("<I", at + len(behind))
            behind += pack_directory(inner, at + len(behind))
    return values, behind


def _little(content: bytes, kind: int, order: str) -> bytes:
    """Values in little-endian order."""
    size = 4 if kind in (5, 10) else _SIZES[kind]  # fractions are two numbers
    if order == "<" or size == 1:
        return content
    return b"".join(content[at : at + size][::-1] for at in range(0, len(content), size))


def pages(directory: Directory) -> Iterator[Directory]:
    """The directories that follow, each once."""
    seen = set()
    while directory.next and directory.next not in seen:
        seen.add(directory.next)
        following = directory_at(directory.data, directory.next, directory.order, directory.big)
        if following is None:
            return
        directory = following
        yield directory
