"""Where the pictures of `AllInOneDataset` come from: clean ones that noise is added to, and pairs of several forms."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from deblurkit.data.layout_base import FramePair, some
from deblurkit.data.store import DiskStore, FrameStore, Window, frame_key, open_stores, signature
from deblurkit.errors import DataError, did_you_mean
from deblurkit.image_io import Pixels, is_image, natural_key

#: Kinds that pairs are read for; `denoise_SIGMA` is made of clean pictures.
PAIRED = ("derain", "dehaze", "deblur")
_DENOISE = re.compile(r"denoise_(\d+(?:\.\d+)?)")
#: Pictures are cut to multiples of it, from their middle.
MULTIPLE = 16


class PairRoots(TypedDict, total=False):
    """Where the pairs of one kind of degradation lie: two folders, or a split of a data set.

    Attributes:
        lq, gt: folders, each with those in it. A degraded picture belongs to the sharp one of the same name.
        match, gt_name: another rule: where the regular expression `match` is the degraded name (without its ending),
            `gt_name` is the sharp one's, with \\1 for the first group.
        names: text file with the degraded pictures that count, one a line (with or without endings).
        dataroot, split, layout, lq: see `VideoDataset`; `lq` is a kind of blurred frames then.
    """

    lq: str
    gt: str
    match: str
    gt_name: str
    names: str
    dataroot: str
    split: str
    layout: str


@dataclass(frozen=True)
class Pictures:
    """The pictures of one kind of degradation.

    Attributes:
        name: of the kind. keys: names of the pictures. gt, gt_keys: the sharp ones, and which of them belongs to a key.
        lq: the degraded ones; None: they are made of the sharp ones by noise of `sigma`, in steps of 8 bits.
        fingerprint: facts that tell whether two runs had the same pictures.
    """

    name: str
    keys: Sequence[str]
    gt: FrameStore
    gt_keys: Mapping[str, str]
    lq: FrameStore | None
    fingerprint: Mapping[str, Any]
    sigma: float = 0.0

    def size(self, key: str) -> tuple[int, int]:
        """Height and width of a picture.

        Raises:
            DataError: the two sides differ.
        """
        gt_key = self.gt_keys[key]
        size = self.gt.size(gt_key)
        if self.lq is not None and self.lq.size(key) != size:
            raise DataError(f"{self.lq.place(key)} and {self.gt.place(gt_key)} differ in size; they must be a pair")
        return size

    def sharp(self, key: str, window: Window) -> Pixels:
        """A part of the sharp picture."""
        return self.gt.read(self.gt_keys[key], window)

    def degraded(self, key: str, window: Window) -> Pixels:
        """A part of the degraded picture; noise is the same at every call, numpy's RandomState(0)."""
        if self.lq is not None:
            return self.lq.read(key, window)
        clean = self.sharp(key, window)
        return add_noise(clean, self.sigma, np.random.RandomState(0).standard_normal(clean.shape))

    def middle(self, key: str) -> Window:
        """The largest part whose sides are multiples of 16, from the middle of a picture."""
        height, width = self.size(key)
        rows, columns = height % MULTIPLE, width % MULTIPLE
        return rows // 2, columns // 2, height - rows, width - columns


def add_noise(pixels: Pixels, sigma: float, normal: NDArray[Any]) -> Pixels:
    """Gaussian noise as AirNet adds it: clipped and cut to whole numbers, not rounded.

    Args:
        pixels: uint8 or uint16. sigma: in steps of 8 bits. normal: standard normal values of the same shape.
    """
    top = np.iinfo(pixels.dtype).max
    return np.clip(pixels + normal * (sigma * top / 255), 0, top).astype(pixels.dtype)


def root_name(name: str) -> str:
    """Under which name in `roots` the pictures of a kind lie.

    Raises:
        DataError: there is no such kind.
    """
    if _DENOISE.fullmatch(name):
        return "denoise"
    if name not in PAIRED:
        hint = did_you_mean(name, ("denoise_50", *PAIRED))
        raise DataError(f"types: {name!r} is unknown{hint}; there are denoise_SIGMA, {', '.join(PAIRED)}")
    return name


def with_noise(pictures: Pictures, name: str) -> Pictures:
    """The pictures of `root_name(name)` as those of the kind `name`."""
    noise = _DENOISE.fullmatch(name)
    return replace(pictures, name=name, sigma=float(noise[1]) if noise else 0.0)


def open_pictures(name: str, roots: str | list[str] | PairRoots) -> Pictures:
    """The pictures that lie under a name in `roots`.

    Raises:
        DataError: folders are missing or empty, pictures have no partner, or keys that do not belong there.
    """
    if name == "denoise":
        if isinstance(roots, dict):
            raise DataError("roots.denoise: is a folder of clean pictures, or a list of folders")
        folders = [roots] if isinstance(roots, str) else list(roots)
        return _clean(name, [Path(folder).expanduser() for folder in folders])
    if not isinstance(roots, dict):
        raise DataError(f"roots.{name}: is a mapping with the folders `lq` and `gt`, or with `dataroot` and `split`")
    for key in roots:
        if key not in PairRoots.__annotations__:
            raise DataError(f"roots.{name}: {key!r} is unknown{did_you_mean(key, PairRoots.__annotations__)}")
    needed = ("dataroot", "split") if "dataroot" in roots else ("lq", "gt")
    missing = [key for key in needed if key not in roots]
    if missing:
        raise DataError(f"roots.{name}: `{missing[0]}` is missing; it needs {' and '.join(needed)}")
    if ("match" in roots) != ("gt_name" in roots):
        raise DataError(f"roots.{name}: `match` and `gt_name` go together")
    return _of_data_set(name, roots) if "dataroot" in roots else _of_folders(name, roots)


def _clean(name: str, folders: Sequence[Path]) -> Pictures:
    files: dict[str, Path] = {}
    hashes = []
    for folder in folders:
        found = _pictures(folder)
        twice = files.keys() & found.keys()
        if twice:
            raise DataError(f"{folder}: {len(twice)} pictures have names that another folder has: {some(twice)}")
        files.update(found)
        hashes.append(_hash(folder, found))
    store = DiskStore(files)
    return Pictures(name, list(files), store, {key: key for key in files}, None, {"gt": hashes})


def _of_folders(name: str, roots: PairRoots) -> Pictures:
    folders = {side: Path(roots[side]).expanduser() for side in ("lq", "gt")}
    degraded, sharp = _pictures(folders["lq"]), _pictures(folders["gt"])
    if "names" in roots:
        degraded = _listed(degraded, Path(roots["names"]).expanduser())
    partners = {}
    for key in degraded:
        parent, _, stem = key.rpartition("/")
        if "match" in roots:
            match = re.fullmatch(roots["match"], stem)
            if match is None:
                raise DataError(f"{degraded[key]}: `match` {roots['match']!r} does not fit its name")
            stem, parent = match.expand(roots["gt_name"]), ""
        partners[key] = f"{parent}/{stem}" if parent else stem
    alone = [key for key, partner in partners.items() if partner not in sharp]
    if alone:
        raise DataError(
            f"{folders['lq']}: {len(alone)} of {len(degraded)} pictures have no partner in {folders['gt']}: "
            f"{some(f'{key} ({partners[key]})' for key in alone)}; `match` and `gt_name` say which belong together"
        )
    used = {key: sharp[key] for key in partners.values()}
    hashes = {"lq": _hash(folders["lq"], degraded), "gt": _hash(folders["gt"], used)}
    return Pictures(name, list(degraded), DiskStore(sharp), partners, DiskStore(degraded), hashes)


def _of_data_set(name: str, roots: PairRoots) -> Pictures:
    stores = open_stores(roots["dataroot"], roots["split"], roots.get("layout", "auto"), roots.get("lq", "blur"))  # type: ignore[arg-type]
    if stores.gt is None:
        raise DataError(f"{stores.description}: has no sharp frames")
    keys = [frame_key(sequence, frame) for sequence, frames in stores.sequences.items() for frame in frames]
    return Pictures(name, keys, stores.gt, {key: key for key in keys}, stores.lq, stores.fingerprint)


def _pictures(folder: Path) -> dict[str, Path]:
    """The pictures in a folder and those in it, by path without ending, in order."""
    if not folder.is_dir():
        raise DataError(f"{folder}: does not exist; it is named in the data set's `roots`")
    found: dict[str, Path] = {}
    for path in sorted((p for p in folder.rglob("*") if is_image(p)), key=lambda p: natural_key(p.as_posix())):
        key = path.relative_to(folder).with_suffix("").as_posix()
        if key in found:
            raise DataError(f"{folder}: {found[key].name} and {path.name} have the same name; remove one")
        found[key] = path
    if not found:
        raise DataError(f"{folder}: holds no picture")
    return found


def _listed(pictures: dict[str, Path], file: Path) -> dict[str, Path]:
    if not file.is_file():
        raise DataError(f"{file}: does not exist; it is the list of pictures (`names`)")
    wanted = {line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()}
    kept = {key: path for key, path in pictures.items() if {key, key + path.suffix, path.name, path.stem} & wanted}
    if not kept:
        raise DataError(f"{file}: names none of the pictures in the folder")
    return kept


def _hash(root: Path, pictures: Mapping[str, Path]) -> str:
    pairs = [FramePair(key, path, None) for key, path in pictures.items()]
    return signature(root, {"": pairs}, "lq", times=False)
