"""How the files of a data set lie on the disk: from (dataroot, split, kind of blurred frames) to sequences of pairs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deblurkit.console import warn
from deblurkit.errors import DataError, did_you_mean
from deblurkit.image_io import list_images, natural_key

LayoutName = Literal["auto", "gopro", "paired"]
#: Degraded frames and ground truth.
ROLES = ("lq", "gt")


@dataclass(frozen=True)
class FramePair:
    """A degraded and a sharp picture of one moment; `name` is the stem that both files have."""

    name: str
    lq: Path
    gt: Path

    def path(self, role: str) -> Path:
        """The file for "lq" or "gt"."""
        return self.lq if role == "lq" else self.gt


Sequences = dict[str, list[FramePair]]


class PairedLayout:
    """`ROOT/SPLIT/SEQUENCE/{blur,sharp}/*`: pictures of any format, blurred and sharp ones have the same stem."""

    name = "paired"
    form = "ROOT/{train,test}/SEQUENCE/{blur,sharp}/*.png"
    gt = "sharp"

    def splits(self, root: Path) -> list[str]:
        """Folders in `root` that hold sequences, sorted."""
        return [split.name for split in _folders(root) if any((s / self.gt).is_dir() for s in _folders(split))]

    def recognises(self, root: Path) -> bool:
        """True when `root` lies in this form."""
        return bool(self.splits(root))

    def expected(self, split: str) -> Mapping[str, int]:
        """Frames of each sequence of the published data set; empty where there is no such thing."""
        return {}

    def scan(self, root: Path, split: str, lq: str = "blur") -> Sequences:
        """Find the pairs of a split by listing folders; no picture is opened.

        Args:
            root: the data set's folder. split: "train", "test" or another folder in it.
            lq: folder of the degraded frames in each sequence.

        Returns:
            pairs by sequence; sequences and frames sorted by name, digits as numbers.

        Raises:
            DataError: split or folders are missing or empty, or blurred and sharp names differ.
        """
        folder = root / split
        if not folder.is_dir():
            raise DataError(f"{root}: has no split {split!r} ({_found(self.splits(root))}); {self._wanted()}")
        sequences = [s for s in _folders(folder) if (s / self.gt).is_dir() or (s / lq).is_dir()]
        if not sequences:
            found = _found(s.name for s in _folders(folder))
            raise DataError(f"{folder}: holds no sequence with folders {lq}, {self.gt} ({found}); {self._wanted()}")
        return {s.name: self._pairs(s, lq) for s in sequences}

    def differences(self, split: str, sequences: Sequences) -> list[str]:
        """Where a split differs from the published counts, a text a sequence."""
        expected = self.expected(split)
        if not expected:
            return []
        texts = [f"{name} is missing" for name in expected if name not in sequences]
        for name, pairs in sequences.items():
            if name not in expected:
                texts.append(f"{name} is not in the published set")
            elif len(pairs) != expected[name]:
                texts.append(f"{name} has {len(pairs)} frames instead of {expected[name]}")
        return texts

    def _wanted(self) -> str:
        return f"layout {self.name} is {self.form}"

    def _pairs(self, sequence: Path, lq: str) -> list[FramePair]:
        """The pairs of one sequence."""
        blurred, sharp = self._by_stem(sequence, lq), self._by_stem(sequence, self.gt)
        for names, kind, others, other in ((blurred, lq, sharp, self.gt), (sharp, self.gt, blurred, lq)):
            alone = names.keys() - others.keys()
            if alone:
                raise DataError(
                    f"{sequence}: {len(alone)} of {len(names)} frames in {kind} have no partner in {other}: "
                    f"{_some(alone)}; a blurred and a sharp picture of one moment must have the same name"
                )
        return [FramePair(stem, path, sharp[stem]) for stem, path in blurred.items()]

    def _by_stem(self, sequence: Path, kind: str) -> dict[str, Path]:
        folder = sequence / kind
        if not folder.is_dir():
            raise DataError(f"{sequence}: has no folder {kind!r} ({_found(f.name for f in _folders(sequence))})")
        found: dict[str, Path] = {}
        for path in list_images(folder):
            if path.stem in found:
                raise DataError(
                    f"{folder}: {found[path.stem].name} and {path.name} have the same frame name; remove one"
                )
            found[path.stem] = path
        if not found:
            raise DataError(f"{folder}: holds no picture ({_found(f.name for f in folder.iterdir())})")
        return found


class GoProLayout(PairedLayout):
    """GOPRO_Large as its authors pack it: `blur` is averaged in linear light, `blur_gamma` with a gamma of 2.2."""

    name = "gopro"
    form = "ROOT/{train,test}/GOPRxxxx_yy_zz/{blur,blur_gamma,sharp}/NNNNNN.png"

    _sequence = re.compile(r"GOPR\d{4}_\d{2}_\d{2}")

    def recognises(self, root: Path) -> bool:
        """True when the splits hold sequences with GoPro's names."""
        return any(self._sequence.fullmatch(s.name) for split in self.splits(root) for s in _folders(root / split))

    def expected(self, split: str) -> Mapping[str, int]:
        """The published counts: 22 sequences, 2103 pairs for training; 11 and 1111 for testing."""
        return GOPRO_FRAMES.get(split, {})


def _gopro(names_by_frames: Mapping[int, str]) -> dict[str, int]:
    counts = {f"GOPR{name}": frames for frames, names in names_by_frames.items() for name in names.split()}
    return dict(sorted(counts.items()))


#: Frames of each sequence of GOPRO_Large.
GOPRO_FRAMES: Mapping[str, Mapping[str, int]] = {
    "train": _gopro(
        {
            48: "0374_11_03",
            60: "0380_11_00",
            75: "0372_07_01",
            80: "0374_11_01 0477_11_00",
            100: "0372_07_00 0374_11_02 0379_11_00 0384_11_01 0384_11_02 0384_11_03 0384_11_04 0385_11_00 0386_11_00 "
            "0857_11_00 0868_11_01 0868_11_02 0871_11_01 0881_11_00 0884_11_00",
            110: "0378_13_00",
            150: "0374_11_00",
        }
    ),
    "test": _gopro(
        {
            77: "0862_11_00",
            100: "0384_11_00 0384_11_05 0385_11_01 0396_11_00 0854_11_00 0868_11_00 0869_11_00 0871_11_00 0881_11_01",
            134: "0410_11_00",
        }
    ),
}

#: The layouts, the more particular ones first.
LAYOUTS: Mapping[str, PairedLayout] = {layout.name: layout for layout in (GoProLayout(), PairedLayout())}


def find_layout(root: Path, name: str = "auto") -> PairedLayout:
    """The layout called `name`; "auto": the first one that recognises `root`.

    Raises:
        DataError: unknown name, `root` is missing, or nothing recognises it.
    """
    if name != "auto" and name not in LAYOUTS:
        raise DataError(
            f"layout {name!r} is unknown{did_you_mean(name, LAYOUTS)}; there are {', '.join(LAYOUTS)} and auto"
        )
    if not root.is_dir():
        raise DataError(
            f"{root}: {'is not a folder' if root.exists() else 'does not exist'}; `dataroot` is a data set's folder"
        )
    if name != "auto":
        return LAYOUTS[name]
    for layout in LAYOUTS.values():
        if layout.recognises(root):
            return layout
    found = _found([f.name for f in _folders(root)] or (f.name for f in root.iterdir()))
    if any((s / PairedLayout.gt).is_dir() for s in _folders(root)):
        raise DataError(
            f"{root}: its folders are sequences ({found}); give the folder above it, which holds the splits"
        )
    forms = " or ".join(layout.form for layout in LAYOUTS.values())
    raise DataError(f"{root}: no layout is recognised ({found}); looked for {forms}")


def scan(root: Path, split: str, layout: PairedLayout, lq: str) -> Sequences:
    """The pairs of a split, with a warning where it differs from the published data set.

    Raises:
        DataError: see `PairedLayout.scan`.
    """
    sequences = layout.scan(root, split, lq)
    differences = layout.differences(split, sequences)
    if differences:
        wanted = layout.expected(split)
        warn(
            f"{root / split}: {len(sequences)} sequences, {sum(map(len, sequences.values()))} frames; the published "
            f"{layout.name} {split} set has {len(wanted)} sequences, {sum(wanted.values())} frames: "
            f"{_some(differences, limit=6, separator='; ')}"
        )
    return sequences


def _folders(parent: Path) -> list[Path]:
    """Visible folders in a folder, sorted by name."""
    if not parent.is_dir():
        return []
    return sorted((p for p in parent.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural_key)


def _found(names: Iterable[str]) -> str:
    """What there was instead, for a message."""
    visible = [name for name in names if not name.startswith(".")]
    return f"found: {_some(visible)}" if visible else "found nothing"


def _some(names: Iterable[str], limit: int = 5, separator: str = ", ") -> str:
    """The first few of many names."""
    ordered = sorted(names, key=natural_key)
    more = f"{separator}and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return separator.join(ordered[:limit]) + more
