"""What every layout of a data set has: splits, pairs of pictures, and the counts that were published."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deblurkit.data.picture_size import picture_size
from deblurkit.errors import DataError, did_you_mean
from deblurkit.image_io import list_images, natural_key

#: Degraded frames and ground truth.
ROLES = ("lq", "gt")
#: Folders that are taken for splits where a data set has no names of its own.
SPLITS = ("train", "val", "valid", "test")
#: The split of a folder that has none.
WHOLE = "all"


@dataclass(frozen=True)
class FramePair:
    """A degraded and a sharp picture of one moment. `name` is the frame's name; `gt` is None where there is none."""

    name: str
    lq: Path
    gt: Path | None

    def path(self, role: str) -> Path:
        """The file for "lq" or "gt"."""
        path = self.lq if role == "lq" else self.gt
        assert path is not None
        return path


#: Pairs by sequence. Single pictures, which are no video, are the one sequence "".
Sequences = dict[str, list[FramePair]]


@dataclass(frozen=True)
class Published:
    """What a split holds as it was published.

    Attributes:
        frames: pairs in all. sequences: how many; 1 for single pictures.
        lengths: frames by sequence, as far as the names are known; all of them when there are `sequences` of them.
        each: frames of every sequence that `lengths` does not name; None: not known.
        size: height and width of the frames (or, in portrait, width and height); None: they vary.
    """

    sequences: int
    frames: int
    lengths: Mapping[str, int] = field(default_factory=dict)
    each: int | None = None
    size: tuple[int, int] | None = None

    def __str__(self) -> str:
        return _counts(self.sequences, self.frames, single=self.sequences == 1)

    def differences(self, found: Sequences) -> list[str]:
        """Where a split differs, a text a sequence."""
        texts = [f"{name} is missing" for name in self.lengths if name not in found]
        for name, pairs in found.items():
            wanted = self.lengths.get(name, self.each)
            if name not in self.lengths and len(self.lengths) == self.sequences:
                texts.append(f"{name} is not in the published set")
            elif wanted is not None and len(pairs) != wanted:
                texts.append(f"{name} has {len(pairs)} frames instead of {wanted}")
            if self.size:
                height, width = picture_size(pairs[0].gt or pairs[0].lq)
                if (height, width) not in (self.size, self.size[::-1]):
                    texts.append(f"{name} is {width}x{height} instead of {self.size[1]}x{self.size[0]}")
        return texts

    def difference(self, found: Sequences) -> str:
        """All differences in one text, "" where there are none."""
        counts = _counts(len(found), sum(map(len, found.values())), single="" in found)
        texts = self.differences(found)
        if not texts and counts == str(self):
            return ""
        details = f": {some(texts, limit=6, separator='; ')}" if texts else ""
        return f"{counts}; the published set has {self}{details}"


def _counts(sequences: int, frames: int, single: bool) -> str:
    return f"{frames} pictures" if single else f"{sequences} sequences, {frames} frames"


class Layout(ABC):
    """How the files of a data set lie below its folder.

    Attributes:
        name: in options. form: for messages. gt: name of the kind of sharp frames.
        kinds: the kinds of degraded frames (`lq`) that there are, the default first; empty: any folder's name.
    """

    name: str
    form: str
    gt: str = "sharp"
    kinds: tuple[str, ...] = ("blur",)

    @abstractmethod
    def splits(self, root: Path) -> list[str]:
        """The splits whose files are there and that together are the whole data set."""

    def more_splits(self, root: Path) -> list[str]:
        """Other splits that can be made of the files that are there."""
        return []

    @abstractmethod
    def find(self, root: Path, split: str, lq: str) -> Sequences:
        """The pairs of one of the splits, by listing folders; no picture is opened. Raises DataError."""

    def recognises(self, root: Path) -> bool:
        """True when `root` lies in this form."""
        return bool(self.splits(root))

    def paired(self, split: str) -> bool:
        """True when the split has sharp frames."""
        return True

    def roles(self, split: str) -> tuple[str, ...]:
        """The sides that a split has."""
        return ROLES if self.paired(split) else ROLES[:1]

    def published(self, root: Path, split: str) -> Published | None:
        """What the split should hold, where there is such a thing."""
        return None

    def has(self, root: Path, split: str) -> bool:
        """True when the split's files are there."""
        return split in self.splits(root) or split in self.more_splits(root)

    def scan(self, root: Path, split: str, lq: str = "blur") -> Sequences:
        """Find the pairs of a split; no picture is opened.

        Args:
            root: the data set's folder. split: one of its splits.
            lq: kind of the degraded frames; "sharp": the sharp ones stand for them (degradations are made of them).

        Returns:
            pairs by sequence; sequences and frames sorted by name, digits as numbers.

        Raises:
            DataError: there is no such split or kind, or degraded and sharp names differ.
        """
        if self.kinds and lq not in (*self.kinds, "sharp"):
            hint = did_you_mean(lq, self.kinds)
            raise DataError(f"{root}: layout {self.name} has no lq {lq!r}{hint}; there is {', '.join(self.kinds)}")
        if not self.has(root, split):
            more = self.more_splits(root)
            found = found_names(self.splits(root)) + (f"; can be made of them: {', '.join(more)}" if more else "")
            raise DataError(f"{root}: has no split {split!r} ({found}); {self.wanted()}")
        return self.find(root, split, lq)

    def wanted(self) -> str:
        """What the layout looks for, for messages."""
        return f"layout {self.name} is {self.form}"


def pair_folders(lq: Path, gt: Path) -> list[FramePair]:
    """The pairs of two folders whose pictures have the same stems.

    Raises:
        DataError: a folder is missing or empty, or pictures have no partner.
    """
    blurred, sharp = by_stem(lq), by_stem(gt)
    for names, folder, others, other in ((blurred, lq, sharp, gt), (sharp, gt, blurred, lq)):
        alone = names.keys() - others.keys()
        if alone:
            raise DataError(
                f"{folder}: {len(alone)} of {len(names)} frames have no partner in {other}: {some(alone)}; a blurred "
                "and a sharp picture of one moment must have the same name"
            )
    return [FramePair(stem, path, sharp[stem]) for stem, path in blurred.items()]


def by_stem(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by frame name, sorted. Raises DataError when there are none, or two of one name."""
    if not folder.is_dir():
        raise DataError(
            f"{folder.parent}: has no folder {folder.name!r} ({found_names(f.name for f in folders(folder.parent))})"
        )
    found: dict[str, Path] = {}
    for path in list_images(folder):
        if path.stem in found:
            raise DataError(f"{folder}: {found[path.stem].name} and {path.name} have the same frame name; remove one")
        found[path.stem] = path
    if not found:
        raise DataError(f"{folder}: holds no picture ({found_names(f.name for f in folder.iterdir())})")
    return found


def folders(parent: Path) -> list[Path]:
    """Visible folders in a folder, sorted by name; none where there is no such folder."""
    if not parent.is_dir():
        return []
    return sorted((p for p in parent.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural_key)


def found_names(names: Iterable[str]) -> str:
    """What there was instead, for a message."""
    visible = [name for name in names if not name.startswith(".")]
    return f"found: {some(visible)}" if visible else "found nothing"


def some(names: Iterable[str], limit: int = 5, separator: str = ", ") -> str:
    """The first few of many names."""
    ordered = sorted(names, key=natural_key)
    more = f"{separator}and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return separator.join(ordered[:limit]) + more
