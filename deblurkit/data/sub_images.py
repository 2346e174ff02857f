"""Sub-images: the overlapping parts that BasicSR's, NAFNet's and OpenMMLab's preparation scripts cut frames into.

Their training reads whole stored pictures, so they are cut smaller once. (Facts: DATASETS.md of the project's notes,
sections 1 and 2.) The stores of this package read crops of whole frames, so that training here needs none of this.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from deblurkit.console import progress, say
from deblurkit.data.layout_base import WHOLE
from deblurkit.data.layouts import FramePair, Layout, LayoutName, find_layout, scan
from deblurkit.data.lmdb_make import PNG_LEVEL, meta_info
from deblurkit.data.lmdb_store import Manifest, SequenceEntry, checksum, raw_bytes
from deblurkit.data.lmdb_writer import FrameRecord, LmdbWriter
from deblurkit.data.picture_size import picture_size
from deblurkit.data.store import signature
from deblurkit.errors import DataError, DeblurkitError
from deblurkit.files import sync
from deblurkit.image_io import encode_png, read_image
from deblurkit.pool import cores, ordered

SubImageForm = Literal["crops", "sub"]

#: Side of sub-images of sharp frames and step between them: NAFNet's of GoPro; BasicSR's of DIV2K.
DEFAULTS: Mapping[SubImageForm, tuple[int, int]] = {"crops": (512, 256), "sub": (480, 240)}

_KINDS = {"lq": "blur", "gt": "sharp"}


class Grid(NamedTuple):
    """Where sub-images are cut from sharp frames, in pixels.

    Attributes:
        side, step: of a sub-image, and from one to the next.
        thresh: the last one, flush with the end, is left out where no more pixels than these would be new in it.
    """

    side: int
    step: int
    thresh: int = 0

    def starts(self, length: int) -> list[int]:
        """Where sub-images begin along one side of a frame; none where it is too short."""
        found = list(range(0, length - self.side + 1, self.step))
        if found and length - (found[-1] + self.side) > self.thresh:
            found.append(length - self.side)
        return found


class _Part(NamedTuple):
    """A sub-image: its key, and its place in its picture."""

    key: str
    top: int
    left: int
    side: int


@dataclass(frozen=True)
class _Task:
    """One LMDB or folder to be made. `pictures` are the files with their parts, `purpose` is what it is for."""

    target: Path
    purpose: Mapping[str, str]
    signature: str
    pictures: list[tuple[Path, list[_Part]]]

    def all_keys(self) -> list[str]:
        """Of all parts."""
        return [part.key for _, parts in self.pictures for part in parts]


def make_sub_images(
    dataroot: str | Path,
    splits: Iterable[str] = (),
    layout: LayoutName = "auto",
    lq: str = "blur",
    form: SubImageForm = "crops",
    grid: Grid | None = None,
    files: bool = False,
    workers: int | None = None,
    output: str | Path | None = None,
    force: bool = False,
) -> list[Path]:
    """Cut the frames of a data set into sub-images, as LMDBs in BasicSR's form (PNG, `meta_info.txt`) or as PNG files.

    "crops" gives `OUTPUT/SPLIT/blur_crops.lmdb` and `sharp_crops.lmdb` with keys `SEQUENCE-FRAME_s001`, as NAFNet's
    options for GoPro expect. "sub" gives `OUTPUT/SPLIT_sharp_sub.lmdb` and `SPLIT_blur_sub.lmdb` with keys
    `SEQUENCE_s001/FRAME` (of single pictures `NAME_s001`), as options for REDS and DIV2K do. Numbers count by rows.
    An interrupted run is gone on with by the same call; of files, a folder that is not whole is made again.

    Args:
        dataroot, splits, layout, lq: as in `make_lmdb`.
        grid: where they are cut; None: `DEFAULTS`. Of degraded frames that are smaller, all is smaller by that factor.
        files: folders of PNG files, named without `.lmdb`. workers: threads; None: one a core.
        output: folder; None: `dataroot`. force: make those again that are there.

    Returns:
        the LMDBs or folders.

    Raises:
        DataError: numbers out of range, frames smaller than a sub-image, something is there already; or as `make_lmdb`.
    """
    root = Path(dataroot).expanduser()
    grid = grid or Grid(*DEFAULTS[form])
    if grid.side < 8 or grid.step < 1 or grid.thresh < 0:
        raise DataError(f"sub-images of {grid.side} pixels, step {grid.step}, thresh {grid.thresh}: at least 8, 1, 0")
    found = find_layout(root, layout)
    names = list(splits) or found.splits(root)
    if not names:
        raise DataError(f"{root}: holds no split; layout {found.name} is {found.form}")
    folder = Path(output).expanduser() if output else root
    tasks = [task for split in names for task in _tasks(root, split, found, lq, form, grid, folder, files)]
    for task in tasks:
        if task.target.exists() and not force:
            raise DataError(f"{task.target}: exists already; --force makes it again")
    for task in tasks:
        (_write_files if files else _write_lmdb)(task, workers or cores())
    return [task.target for task in tasks]


def _tasks(
    root: Path, split: str, layout: Layout, lq: str, form: SubImageForm, grid: Grid, folder: Path, files: bool
) -> Iterator[_Task]:
    sequences = scan(root, split, layout, lq)
    ending = "" if files else ".lmdb"
    pictures: dict[str, list[tuple[Path, list[_Part]]]] = {role: [] for role in layout.roles(split)}
    for name, pairs in sequences.items():
        for pair in pairs:
            for role, parts in _parts(name, pair, list(pictures), form, grid).items():
                pictures[role].append((pair.path(role), parts))
    for role, found in pictures.items():
        kind = _KINDS[role]
        if form == "crops":
            target = (folder if split == WHOLE else folder / split) / f"{kind}_crops{ending}"
        else:
            target = folder / f"{'' if split == WHOLE else f'{split}_'}{kind}_sub{ending}"
        purpose = {
            "codec": "png",
            "split": split,
            "role": role,
            "layout": layout.name,
            "kind": lq if role == "lq" else layout.gt,
            "grid": f"{form} {grid.side} {grid.step} {grid.thresh}",
        }
        yield _Task(target, purpose, signature(root, sequences, role), found)


def _parts(sequence: str, pair: FramePair, roles: list[str], form: SubImageForm, grid: Grid) -> dict[str, list[_Part]]:
    """The sub-images of a frame's two sides, which have the same keys."""
    frame = pair.name.replace("/", "_")
    if "." in sequence or "." in frame:
        raise DataError(f"{pair.lq}: its name has a dot, at which BasicSR would cut it; rename it")
    sizes = {role: picture_size(pair.path(role)) for role in roles}
    height, width = sizes.get("gt", sizes["lq"])
    places = [(top, left) for top in grid.starts(height) for left in grid.starts(width)]
    if not places:
        raise DataError(
            f"{pair.path(roles[-1])}: is {width}x{height}, smaller than sub-images of {grid.side}x{grid.side}"
        )
    found = {}
    for role, size in sizes.items():
        scale = height // size[0]
        if scale < 1 or (size[0] * scale, size[1] * scale) != (height, width):
            raise DataError(f"{pair.path(role)}: is {size[1]}x{size[0]}, its partner {pair.gt} is {width}x{height}")
        if any(value % scale for place in places for value in (*place, grid.side)):
            raise DataError(
                f"{pair.path(role)}: is {scale} times smaller than its partner; crop and step must be multiples of that"
            )
        found[role] = [
            _Part(_key(sequence, frame, number, form), top // scale, left // scale, grid.side // scale)
            for number, (top, left) in enumerate(places, start=1)
        ]
    return found


def _key(sequence: str, frame: str, number: int, form: SubImageForm) -> str:
    if form == "sub" and sequence:
        return f"{sequence}_s{number:03d}/{frame}"
    return f"{sequence.replace('/', '_')}-{frame}_s{number:03d}" if sequence else f"{frame}_s{number:03d}"


def _cut(picture: tuple[Path, list[_Part]]) -> list[tuple[FrameRecord, bytes]]:
    """Read a picture and encode its parts; runs in a thread."""
    path, parts = picture
    stat, pixels = path.stat(), read_image(path)
    found = []
    for key, top, left, side in parts:
        part = pixels[top : top + side, left : left + side]
        data = encode_png(part, PNG_LEVEL)
        facts = (side, side, 3, str(pixels.dtype), stat.st_size, stat.st_mtime_ns)
        found.append((FrameRecord(key, checksum(data), checksum(raw_bytes(part)), *facts), data))
    return found


def _cut_all(
    task: _Task, pictures: list[tuple[Path, list[_Part]]], workers: int
) -> Iterator[tuple[FrameRecord, bytes]]:
    with (
        progress(f"making {task.target}", len(pictures), "pictures") as advance,
        contextlib.closing(ordered(_cut, pictures, workers)) as cut,
    ):
        for entries in cut:
            yield from entries
            advance(1)


def _write_lmdb(task: _Task, workers: int) -> None:
    sources = {part.key: path for path, parts in task.pictures for part in parts}
    with LmdbWriter(task.target, task.purpose, sources) as writer:
        records = dict(writer.kept)
        left = [(path, parts) for path, parts in task.pictures if any(part.key not in records for part in parts)]
        try:
            for record, data in _cut_all(task, left, workers):
                writer.put(record, data)
                records[record.key] = record
        except (KeyboardInterrupt, DataError) as error:
            with contextlib.suppress(DataError):  # a disk that is full: the first error is the one to tell
                writer.commit()
            if isinstance(error, KeyboardInterrupt):
                say(f"{task.target}: what is finished is kept; the same command goes on from there")
            raise
        writer.finish(_manifest(task, records), meta_info(records, task.all_keys()))


def _manifest(task: _Task, records: Mapping[str, FrameRecord]) -> Manifest:
    sequences: dict[str, list[FrameRecord]] = {}
    for key in task.all_keys():
        sequences.setdefault(key.rpartition("/")[0], []).append(records[key])
    purpose: dict[str, Any] = {name: value for name, value in task.purpose.items() if name != "grid"}
    return Manifest(
        **purpose,
        signature=task.signature,
        sequences={
            name: SequenceEntry(
                frames=tuple(record.key.rpartition("/")[2] for record in found),
                shapes=tuple((record.height, record.width, 3) for record in found),
                dtype=found[0].dtype,
                checksums=tuple(record.checksum for record in found),
                pixels=tuple(record.pixels for record in found),
            )
            for name, found in sequences.items()
        },
    )


def _write_files(task: _Task, workers: int) -> None:
    """PNG files, in a folder that gets its name when it is complete."""
    target = task.target
    partial, old = (target.with_name(f".{target.name}.{state}") for state in ("partial", "old"))
    try:
        for folder in (partial, old):
            if folder.exists():
                shutil.rmtree(folder)
        for record, data in _cut_all(task, task.pictures, workers):
            path = partial / f"{record.key}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        if target.exists():
            target.rename(old)
        partial.rename(target)
        sync(target.parent)
        if old.exists():
            shutil.rmtree(old)
    except OSError as error:
        raise DeblurkitError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        if partial.exists():
            shutil.rmtree(partial)
