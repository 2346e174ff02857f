"""Layouts of single pictures, which are no video. (Facts: DATASETS.md of the project's notes, section 1.)"""

from __future__ import annotations

import re
from abc import abstractmethod
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
    pair_folders,
    some,
)
from deblurkit.errors import DataError
from deblurkit.image_io import list_images


class PicturesLayout(Layout):
    """Two folders of pictures with the same names, as MPRNet, Restormer, NAFNet and MIMO-UNet pack data sets.

    `lq: blur` is `{input,target}` or `{blur,sharp}`; `lq: crops` is `{input,target}_crops` or `{blur,sharp}_crops`, the
    patches that their preparation scripts cut.
    """

    name = "pictures"
    form = "ROOT/{train,test}/{input,target}/*.png or {blur,sharp}, or the same in ROOT itself"
    kinds: tuple[str, ...] = ("blur", "crops")
    whole = WHOLE

    def splits(self, root: Path) -> list[str]:
        """The split `whole` where the root itself holds the folders, else the folders that do."""
        if any(self._folders(root, kind) for kind in self.kinds):
            return [self.whole]
        return [split for split in SPLITS if any(self._folders(root / split, kind) for kind in self.kinds)]

    def find(self, root: Path, split: str, lq: str) -> Sequences:
        """See `Layout.find`."""
        base = root if self.splits(root) == [self.whole] else root / split
        found = self._folders(base, lq)
        if found is None:
            raise DataError(f"{base}: holds no folders for lq {lq!r}; {self.wanted()}")
        return {"": pair_folders(*found)}

    def _folders(self, base: Path, kind: str) -> tuple[Path, Path] | None:
        ending = "_crops" if kind == "crops" else ""
        for degraded, sharp in (("input", "target"), ("blur", "sharp")):
            pair = base / f"{degraded}{ending}", base / f"{sharp}{ending}"
            # of two folders without pictures of their own it is something else
            if all(folder.is_dir() for folder in pair) and any(list_images(folder) for folder in pair):
                return pair
        return None


#: Folders of blurred pictures in HIDE as it is published.
_HIDE_PARTS = {"train": ("train",), "test": ("test/test-close-ups", "test/test-long-shot")}


class HideLayout(PicturesLayout):
    """HIDE: as it is published, or re-packed as two folders in a folder that is called HIDE (2025 test pictures)."""

    name = "hide"
    form = "ROOT/{train,test/test-close-ups,test/test-long-shot,GT}/*.png or HIDE/{input,target}/*.png"
    kinds = ("blur",)
    whole = "test"

    def splits(self, root: Path) -> list[str]:
        """Of train and test those whose folders are there."""
        if (root / "GT").is_dir():
            return [
                split
                for split, parts in _HIDE_PARTS.items()
                if any((root / part).is_dir() and list_images(root / part) for part in parts)
            ]
        return super().splits(root)

    def recognises(self, root: Path) -> bool:
        """By its own folders, or by its name."""
        published = all((root / part).is_dir() for part in ("GT", *_HIDE_PARTS["test"]))
        return published or ("hide" in root.resolve().name.lower() and bool(super().splits(root)))

    def find(self, root: Path, split: str, lq: str) -> Sequences:
        """See `Layout.find`."""
        if not (root / "GT").is_dir():
            return super().find(root, split, lq)
        sharp = by_stem(root / "GT")  # of both splits
        found: list[FramePair] = []
        for part in _HIDE_PARTS[split]:
            blurred = by_stem(root / part)
            alone = blurred.keys() - sharp.keys()
            if alone:
                raise DataError(f"{root / part}: {len(alone)} pictures have no partner in {root / 'GT'}: {some(alone)}")
            found += [FramePair(stem, path, sharp[stem]) for stem, path in blurred.items()]
        return {"": found}

    def published(self, root: Path, split: str) -> Published | None:
        """6397 pairs for training, 2025 for testing."""
        return Published(1, {"train": 6397, "test": 2025}[split]) if split in _HIDE_PARTS else None


class ListLayout(Layout):
    """Pictures named in text files, a pair a line: the sharp one, a space, the blurred one, perhaps a space."""

    @abstractmethod
    def lists(self, root: Path) -> dict[str, Path]:
        """The list files that are there, by split."""

    @abstractmethod
    def frame_name(self, blurred: Path) -> str:
        """A name for a pair, unique in its split."""

    def splits(self, root: Path) -> list[str]:
        """Those that have a list."""
        return list(self.lists(root))

    def find(self, root: Path, split: str, lq: str) -> Sequences:
        """See `Layout.find`."""
        file = self.lists(root)[split]
        found: dict[str, FramePair] = {}
        missing: list[str] = []
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) != 2:
                raise DataError(f"{file}, line {number}: is not of the form `SHARP BLURRED`: {line[:80]!r}")
            sharp, blurred = (self._locate(root, text) for text in fields)
            missing += [text for text, path in zip(fields, (sharp, blurred), strict=True) if not path.is_file()]
            name = self.frame_name(blurred)
            if name in found:
                raise DataError(f"{file}, line {number}: {fields[1]} is there twice")
            found[name] = FramePair(name, blurred, sharp)
        if missing:
            raise DataError(f"{file}: {len(missing)} of its pictures are missing below {root}: {some(missing)}")
        if not found:
            raise DataError(f"{file}: is empty")
        return {"": list(found.values())}

    def _locate(self, root: Path, text: str) -> Path:
        """The file; names may begin with that of the data set's own folder."""
        first, _, rest = text.partition("/")
        return root / text if (root / first).is_dir() else root / rest


class RealBlurLayout(ListLayout):
    """RealBlur: splits `J_train`, `J_test` (camera JPEG), `R_train`, `R_test` (from raw). Sizes vary.

    (The folders' names are misspelled as published: RealBlur-J_ECC_IMCORR_centroid_itensity_ref.)
    """

    name = "realblur"
    form = "ROOT/RealBlur_{J,R}_{train,test}_list.txt and what they name"

    def lists(self, root: Path) -> dict[str, Path]:
        """`RealBlur_J_train_list.txt` is the split J_train."""
        files = {f"{kind}_{part}": f"RealBlur_{kind}_{part}_list.txt" for kind in "JR" for part in ("train", "test")}
        return {split: root / name for split, name in files.items() if (root / name).is_file()}

    def frame_name(self, blurred: Path) -> str:
        """`sceneNNN_blur_K`, as re-packed sets and the evaluation script have it."""
        return f"{blurred.parent.parent.name}_{blurred.stem}"

    def published(self, root: Path, split: str) -> Published | None:
        """3758 pairs for training, 980 for testing, in J and R alike."""
        return Published(1, 3758 if split.endswith("train") else 980)


class RsBlurLayout(ListLayout):
    """RSBlur: a split for each of its list files, which lie in ROOT, beside it or in `ROOT/datalist/RSBlur`."""

    name = "rsblur"
    form = "ROOT/00SS/NNNNNN/{gt/gt_sharp.png,real_blur/real_blur.png} and RSBlur_{real_train,real_test,...}.txt"

    _file = re.compile(r"RSBlur_((?:real|syn)_\w+)\.txt")

    def lists(self, root: Path) -> dict[str, Path]:
        """`RSBlur_real_test.txt` is the split real_test."""
        found: dict[str, Path] = {}
        for folder in (root.resolve().parent, root / "datalist" / "RSBlur", root):
            for path in sorted(folder.glob("RSBlur_*.txt")):
                match = self._file.fullmatch(path.name)
                if match:
                    found[match[1]] = path
        return dict(sorted(found.items()))

    def recognises(self, root: Path) -> bool:
        """By its lists and the groups' folders."""
        groups = [*folders(root), *folders(root / "RSBlur")]
        return bool(self.lists(root)) and any(re.fullmatch(r"00\d\d", group.name) for group in groups)

    def frame_name(self, blurred: Path) -> str:
        """The number, which is unique over all groups."""
        return blurred.parent.parent.name

    def published(self, root: Path, split: str) -> Published | None:
        """8878 pairs for training, 1120 for validation, 3360 for testing."""
        counts = {
            "real_train": 8878,
            "real_val": 1120,
            "real_test": 3360,
            "real_test_saturation": 1626,
            "real_test_non_saturation": 1734,
        }
        return Published(1, counts[split]) if split in counts else None
