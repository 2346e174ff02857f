"""Layouts of video data sets. (Facts: DATASETS.md of the project's notes, section 1.)"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from deblurkit.data.layout_base import (
    SPLITS,
    WHOLE,
    FramePair,
    Layout,
    Published,
    Sequences,
    by_stem,
    folders,
    found_names,
    pair_folders,
    some,
)
from deblurkit.errors import DataError
from deblurkit.image_io import list_images


class PairedLayout(Layout):
    """`ROOT/SPLIT/SEQUENCE/{blur,sharp}/*`: pictures of any format, blurred and sharp ones have the same stem."""

    name = "paired"
    form = "ROOT/{train,test}/SEQUENCE/{blur,sharp}/*.png"
    kinds: tuple[str, ...] = ()

    def splits(self, root: Path) -> list[str]:
        """Folders that hold sequences."""
        return [split.name for split in folders(root) if any((s / self.gt).is_dir() for s in folders(split))]

    def has(self, root: Path, split: str) -> bool:
        """True when there is such a folder."""
        return (root / split).is_dir()

    def find(self, root: Path, split: str, lq: str) -> Sequences:
        """See `Layout.find`."""
        folder = root / split
        sequences = [s for s in folders(folder) if (s / self.gt).is_dir() or (s / lq).is_dir()]
        if not sequences:
            found = found_names(s.name for s in folders(folder))
            raise DataError(f"{folder}: holds no sequence with folders {lq}, {self.gt} ({found}); {self.wanted()}")
        return {s.name: pair_folders(s / lq, s / self.gt) for s in sequences}


class GoProLayout(PairedLayout):
    """GOPRO_Large as its authors pack it: `blur` is averaged in linear light, `blur_gamma` with a gamma of 2.2."""

    name = "gopro"
    form = "ROOT/{train,test}/GOPRxxxx_yy_zz/{blur,blur_gamma,sharp}/NNNNNN.png"
    kinds = ("blur", "blur_gamma")

    _sequence = re.compile(r"GOPR\d{4}_\d{2}_\d{2}")

    def recognises(self, root: Path) -> bool:
        """True when the splits hold sequences with GoPro's names."""
        return any(self._sequence.fullmatch(s.name) for split in self.splits(root) for s in folders(root / split))

    def published(self, root: Path, split: str) -> Published | None:
        """22 sequences, 2103 pairs for training; 11 and 1111 for testing."""
        lengths = GOPRO_FRAMES.get(split)
        return Published(len(lengths), sum(lengths.values()), lengths, size=(720, 1280)) if lengths else None


class DvdLayout(Layout):
    """DVD ("DeepVideoDeblurring"), JPEG pictures: split by the names of the 10 test videos, or by folders made by hand.

    `train` is `ROOT/train`, or the videos of `quantitative_datasets` that are not for testing; `test` is `ROOT/test`,
    or those that are. Some videos are upright.
    """

    name = "dvd"
    form = "ROOT/quantitative_datasets/VIDEO/{input,GT}/NNNNN.jpg or ROOT/{train,test}/VIDEO/{input,GT}/NNNNN.jpg"
    gt = "GT"

    def splits(self, root: Path) -> list[str]:
        """Of train and test those that have videos."""
        return [split for split in DVD_FRAMES if self._videos(root, split)]

    def find(self, root: Path, split: str, lq: str) -> Sequences:
        """See `Layout.find`."""
        return {video.name: pair_folders(video / "input", video / self.gt) for video in self._videos(root, split)}

    def published(self, root: Path, split: str) -> Published | None:
        """61 videos, 5708 pairs for training; 10 and 1000 for testing."""
        lengths = DVD_FRAMES[split]
        return Published(len(lengths), sum(lengths.values()), lengths, size=(720, 1280))

    def _videos(self, root: Path, split: str) -> list[Path]:
        by_hand = [video for video in folders(root / split) if (video / self.gt).is_dir()]
        if by_hand:
            return by_hand
        whole = root / "quantitative_datasets" if root.name != "quantitative_datasets" else root
        videos = [video for video in folders(whole) if (video / self.gt).is_dir()]
        return [video for video in videos if (video.name in DVD_FRAMES["test"]) == (split == "test")]


class RedsLayout(Layout):
    """REDS: `train` (240 clips) and `val` (30), and the splits that papers make of them.

    With the clips of val called 240 to 269, as BasicSR regroups them: `reds4` (000, 011, 015, 020 of train) and
    `train_reds4` (the other 266); `official` (240 to 269) and `official4` (240, 241, 246, 257), trained on `train`.
    A train folder that holds the clips 240 to 269 already serves as well. `test` has no sharp frames.

    `lq`: blur, blur_comp (MPEG), blur_jpeg, or with `scale: 4` blur_bicubic, sharp_bicubic.
    """

    name = "reds"
    form = "ROOT/{train,val}/{train,val}_{sharp,blur,...}/CCC/FFFFFFFF.png, or without the first level"
    kinds = ("blur", "blur_comp", "blur_jpeg", "blur_bicubic", "sharp_bicubic")

    def splits(self, root: Path) -> list[str]:
        """Of train, val and test those whose folders are there."""
        wanted = {"train": ("sharp",), "val": ("sharp",), "test": self.kinds}
        return [
            split for split, kinds in wanted.items() if any(self._folder(root, split, kind).is_dir() for kind in kinds)
        ]

    def more_splits(self, root: Path) -> list[str]:
        """The derived splits."""
        there = self.splits(root)
        found = ["reds4"] if "train" in there else []
        regrouped = (self._folder(root, "train", "sharp") / "240").is_dir()
        if "val" in there or regrouped:
            found += ["official", "official4"]
            found += ["train_reds4"] if "train" in there else []
        return found + (["val"] if regrouped and "val" not in there else [])

    def paired(self, split: str) -> bool:
        """False for test."""
        return split != "test"

    def find(self, root: Path, split: str, lq: str) -> Sequences:
        """See `Layout.find`."""
        if split == "test":
            folder = self._folder(root, "test", lq)
            return {clip.name: _unpaired(clip) for clip in _some_folders(folder)}
        clips = self._clips(root, lq, ("train",)) if split in ("train", "reds4") else {}
        if split in ("val", "official", "official4"):
            clips = self._clips(root, lq, ("val",)) or self._clips(root, lq, ("train",))
        elif split == "train_reds4":
            clips = self._clips(root, lq, ("train", "val"))
        names = [name for name in clips if name in _reds_clips(split)]
        found = {name: pair_folders(*clips[name]) for name in names}
        if split == "val":  # under its own names, from 000
            found = {f"{int(name) - 240:03d}": pairs for name, pairs in found.items()}
        if not found:
            raise DataError(f"{root}: split {split!r} has none of its clips; {self.wanted()}")
        return found

    def published(self, root: Path, split: str) -> Published | None:
        """100 frames a clip."""
        if split == "test":
            return Published(30, 3000, each=100)
        names = _reds_clips(split) if split != "val" else [f"{i:03d}" for i in range(30)]
        return Published(len(names), 100 * len(names), dict.fromkeys(names, 100), size=(720, 1280))

    def _folder(self, root: Path, split: str, kind: str) -> Path:
        base = root / split if (root / split).is_dir() else root
        folder = base / f"{split}_{kind}"
        return folder / "X4" if kind.endswith("bicubic") else folder

    def _clips(self, root: Path, lq: str, parts: tuple[str, ...]) -> dict[str, tuple[Path, Path]]:
        """Folders of the two sides by regrouped name."""
        found: dict[str, tuple[Path, Path]] = {}
        for part in parts:
            degraded = self._folder(root, part, lq)
            clips = folders(self._folder(root, part, "sharp"))
            if clips and not degraded.is_dir():
                there = found_names(f.name for f in folders(degraded.parent))
                raise DataError(f"{degraded}: is not there ({there}); {self.wanted()}")
            for sharp in clips:
                shifted = part == "val" and sharp.name.isdecimal() and int(sharp.name) < 240
                name = f"{int(sharp.name) + 240:03d}" if shifted else sharp.name
                found[name] = degraded / sharp.name, sharp
        return found


def _reds_clips(split: str) -> list[str]:
    """The clips of a split, val's as 240 to 269."""
    reds4, official4 = ["000", "011", "015", "020"], ["240", "241", "246", "257"]
    train, val = [f"{i:03d}" for i in range(240)], [f"{i:03d}" for i in range(240, 270)]
    return {
        "train": train,
        "val": val,
        "official": val,
        "official4": official4,
        "reds4": reds4,
        "train_reds4": [clip for clip in (*train, *val) if clip not in reds4],
    }[split]


class BsdLayout(Layout):
    """BSD (beam splitter): one of its three exposures, the 8-bit RGB pictures."""

    name = "bsd"
    form = "ROOT/{train,valid,test}/SEQUENCE/{Blur,Sharp}/RGB/NNNNNNNN.png with ROOT such as BSD/BSD_1ms8ms"
    gt = "Sharp"

    def splits(self, root: Path) -> list[str]:
        """Folders that hold sequences."""
        return [split for split in SPLITS if any((s / self.gt / "RGB").is_dir() for s in folders(root / split))]

    def find(self, root: Path, split: str, lq: str) -> Sequences:
        """See `Layout.find`."""
        sequences = [s for s in folders(root / split) if s.suffix != ".lmdb"]  # which sub-images may lie beside
        return {s.name: pair_folders(s / "Blur" / "RGB", s / self.gt / "RGB") for s in sequences}

    def published(self, root: Path, split: str) -> Published | None:
        """60 sequences of 100 frames for training, 20 of 100 for validation, 20 of 150 for testing."""
        if split == "test":
            names = next((ids for exposure, ids in BSD_TEST.items() if root.name.endswith(exposure)), ())
            return Published(20, 3000, dict.fromkeys(names, 150), each=150, size=(480, 640))
        count = {"train": 60, "valid": 20}.get(split)
        return Published(count, 100 * count, each=100, size=(480, 640)) if count else None


class VimeoLayout(Layout):
    """Septuplets of Vimeo90K: `ROOT/vimeo_septuplet` is sharp, `ROOT/vimeo_septuplet_KIND` degraded, split by lists."""

    name = "vimeo"
    form = "ROOT/vimeo_septuplet{,_KIND}/sequences/00001/0001/im1.png, ROOT/vimeo_septuplet/sep_{train,test}list.txt"
    kinds = ()

    def splits(self, root: Path) -> list[str]:
        """Those that have a list."""
        return [split for split in ("train", "test") if self._list(root, split).is_file()]

    def find(self, root: Path, split: str, lq: str) -> Sequences:
        """See `Layout.find`."""
        degraded, sharp = (root / name / "sequences" for name in (f"vimeo_septuplet_{lq}", "vimeo_septuplet"))
        if not degraded.is_dir():
            found = found_names(f.name for f in folders(root))
            raise DataError(f"{degraded}: is not there ({found}); lq is what follows vimeo_septuplet_ in its name")
        names = self._list(root, split).read_text(encoding="utf-8").split()
        return {name: pair_folders(degraded / name, sharp / name) for name in names}

    def published(self, root: Path, split: str) -> Published | None:
        """64612 septuplets for training, 7824 for testing."""
        count = {"train": 64612, "test": 7824}[split]
        return Published(count, 7 * count, each=7)

    def _list(self, root: Path, split: str) -> Path:
        return root / "vimeo_septuplet" / f"sep_{split}list.txt"


class ParallelLayout(Layout):
    """`ROOT/{KIND,GT}/SEQUENCE/*`: two trees of the same form, as test sets are often packed (REDS4, UDM10, Vid4)."""

    name = "parallel"
    form = "ROOT/{blur,GT}/SEQUENCE/*.png, or the same below ROOT/{train,test}"
    gt = "GT"
    kinds = ()

    def splits(self, root: Path) -> list[str]:
        """`all` where the root itself holds the trees, else the folders that do."""
        if self._holds(root):
            return [WHOLE]
        return [split for split in SPLITS if self._holds(root / split)]

    def find(self, root: Path, split: str, lq: str) -> Sequences:
        """See `Layout.find`."""
        base = root if split == WHOLE else root / split
        names = {side: [s.name for s in _some_folders(base / side)] for side in (lq, self.gt)}
        alone = set(names[lq]) ^ set(names[self.gt])
        if alone:
            raise DataError(f"{base}: {some(alone)}: not both in {lq} and in {self.gt}")
        return {name: pair_folders(base / lq / name, base / self.gt / name) for name in names[lq]}

    def _holds(self, base: Path) -> bool:
        return any(list_images(clip) for clip in folders(base / self.gt)[:1])


class FramesLayout(Layout):
    """Degraded frames only: a folder of pictures, or a folder of such folders. For tests without figures."""

    name = "frames"
    form = "ROOT/*.png or ROOT/SEQUENCE/*.png, or the same below ROOT/{train,test}"

    def splits(self, root: Path) -> list[str]:
        """`all` where the root itself holds pictures or sequences, else the folders that do."""
        if self._sequences(root):
            return [WHOLE]
        return [split for split in SPLITS if self._sequences(root / split)]

    def paired(self, split: str) -> bool:
        """No."""
        return False

    def find(self, root: Path, split: str, lq: str) -> Sequences:
        """See `Layout.find`."""
        found = self._sequences(root if split == WHOLE else root / split)
        return {name: _unpaired(folder) for name, folder in found.items()}

    def _sequences(self, base: Path) -> dict[str, Path]:
        if base.is_dir() and list_images(base):
            return {base.resolve().name: base}  # "." has no name
        return {folder.name: folder for folder in folders(base) if list_images(folder)}


def _unpaired(folder: Path) -> list[FramePair]:
    return [FramePair(stem, path, None) for stem, path in by_stem(folder).items()]


def _some_folders(parent: Path) -> list[Path]:
    found = folders(parent)
    if not found:
        raise DataError(f"{parent}: holds no sequences ({found_names(f.name for f in folders(parent.parent))})")
    return found


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


def _dvd() -> dict[str, dict[str, int]]:
    """(Names and lengths of the training videos as in KAIR's list of them.)"""
    hundred = [f"720p_240fps_{i}" for i in (1, 3, 5, 6)]
    numbers = (1, 4, 5, 8, *range(10, 16), 17, 19, *range(22, 27), 28, 29, *range(34, 37), 38, *range(40, 45), 46, 47)
    hundred += [f"IMG_{i:04d}" for i in (*numbers, 51, 53, 54, 55, 56, 58)]
    train = dict.fromkeys(hundred, 100)
    train.update({"C0036": 63, "C0041": 229})
    gopr = {9633: 35, 9636: 48, 9641: 137, 9642: 83, 9643: 97, 9645: 65, 9648: 88, 9652: 71}
    train.update({f"GOPR{number}": frames for number, frames in gopr.items()})
    img = {9: 41, 45: 61, 150: 50, 151: 60, 153: 120, 155: 78, 164: 46, 173: 70, 180: 50, 183: 113, 200: 103}
    train.update({f"IMG_{number:04d}": frames for number, frames in img.items()})
    test = ["720p_240fps_2", *(f"IMG_{i:04d}" for i in (3, 21, 30, 31, 32, 33, 37, 39, 49))]
    return {"train": dict(sorted(train.items())), "test": dict.fromkeys(test, 100)}


#: Frames of each video of DVD's quantitative part, by the conventional split.
DVD_FRAMES: Mapping[str, Mapping[str, int]] = _dvd()

#: Sequences of BSD's test sets by exposure; the same number is other footage in each.
BSD_TEST: Mapping[str, tuple[str, ...]] = {
    exposure: tuple(numbers.split())
    for exposure, numbers in {
        "1ms8ms": "022 027 034 036 042 046 051 054 057 063 076 077 081 087 100 103 115 119 120 121",
        "2ms16ms": "015 020 028 044 052 053 069 072 073 075 078 080 099 107 109 119 120 121 128 129",
        "3ms24ms": "000 002 003 004 006 010 014 049 055 074 082 087 088 091 094 098 111 113 128 131",
    }.items()
}
