"""Degraded and sharp frames in two trees (or LMDBs) of their own, as BasicSR's data sets have them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import Required, TypedDict

from deblurkit.data.layout_base import FramePair, Sequences, by_stem, some
from deblurkit.errors import DataError
from deblurkit.image_io import list_images, natural_key

if TYPE_CHECKING:
    from deblurkit.data.store import PairedStores


class Roots(TypedDict, total=False):
    """Where the two sides lie, and which of their frames count.

    Attributes:
        lq, gt: folders, or LMDBs in BasicSR's form or ours. Every folder that holds pictures is a sequence; pictures
            that lie in the root itself are single ones. Without `gt` there are only degraded frames.
        names: text file that lists sequences or pictures, in the first word of each line (BasicSR's `meta_info`).
        lq_name: how a degraded file is called after the sharp one's name: "{}_blur". Files only.
        only, without: sequences.
    """

    lq: Required[str]
    gt: str
    names: str
    lq_name: str
    only: list[str]
    without: list[str]


def open_roots(roots: Roots) -> PairedStores:
    """Find the frames of two trees.

    Raises:
        DataError: something is missing, or the two sides do not fit together.
    """
    from deblurkit.data.lmdb_store import LmdbStore
    from deblurkit.data.store import DiskStore, FrameStore, PairedStores, frame_key, signature

    paths = {role: Path(str(roots[role])).expanduser() for role in ("lq", "gt") if roots.get(role)}
    for role, path in paths.items():
        if not path.is_dir():
            raise DataError(f"{path}: does not exist; it is the {role} side of a data set's `dataroot`")
    in_lmdb = {path.suffix == ".lmdb" for path in paths.values()}
    if len(in_lmdb) > 1:
        raise DataError(f"{' and '.join(map(str, paths.values()))}: both have to be folders of pictures or LMDBs")
    stores: dict[str, FrameStore] = {}
    fingerprint: dict[str, Any]
    if in_lmdb == {True}:
        lmdbs = {role: LmdbStore(path) for role, path in paths.items()}
        keys = {role: set(store.keys()) for role, store in lmdbs.items()}
        alone = keys["lq"] ^ keys.get("gt", keys["lq"])
        if alone:
            raise DataError(f"{' and '.join(map(str, paths.values()))}: their frames differ: {some(alone)}")
        names = _chosen({name: list(frames) for name, frames in lmdbs["lq"].sequences.items()}, roots)
        stores.update(lmdbs)
        fingerprint = {"storage": "lmdb", **{role: store.fingerprint() for role, store in lmdbs.items()}}
    else:
        sequences = _scan(paths, roots.get("lq_name", "{}"))
        names = _chosen({name: [pair.name for pair in pairs] for name, pairs in sequences.items()}, roots)
        sequences = {name: [pair for pair in sequences[name] if pair.name in set(kept)] for name, kept in names.items()}
        fingerprint = {"storage": "disk"}
        for role, path in paths.items():
            files = {frame_key(name, p.name): p.path(role) for name, pairs in sequences.items() for p in pairs}
            stores[role] = DiskStore(files)
            fingerprint[role] = signature(path, sequences, role, times=False)
    if not names:
        raise DataError(f"{paths['lq']}: none of its frames is left; look at names, only and without of `dataroot`")
    description = f"{' and '.join(map(str, paths.values()))} ({fingerprint['storage']})"
    return PairedStores(stores["lq"], stores.get("gt"), names, description, fingerprint)


def _scan(paths: dict[str, Path], lq_name: str) -> Sequences:
    lead = paths.get("gt", paths["lq"])
    found: Sequences = {}
    for folder in _picture_folders(lead):
        name = folder.relative_to(lead).as_posix() if folder != lead else ""
        if "gt" not in paths:
            found[name] = [FramePair(stem, path, None) for stem, path in by_stem(folder).items()]
            continue
        degraded = by_stem(paths["lq"] / name)
        sharp = by_stem(folder)
        alone = [stem for stem in sharp if lq_name.format(stem) not in degraded]
        if alone:
            raise DataError(f"{folder}: {len(alone)} frames have no partner in {paths['lq'] / name}: {some(alone)}")
        found[name] = [FramePair(stem, degraded[lq_name.format(stem)], path) for stem, path in sharp.items()]
    if not found:
        raise DataError(f"{lead}: holds no pictures")
    return found


def _picture_folders(root: Path) -> Iterator[Path]:
    for folder, below, _ in os.walk(root, followlinks=True):
        below.sort(key=lambda name: natural_key(Path(name)))
        if list_images(Path(folder)):
            yield Path(folder)


def _chosen(names: dict[str, list[str]], roots: Roots) -> dict[str, list[str]]:
    """The frames that the options want, by sequence."""
    listed: set[str] | None = None
    if roots.get("names"):
        file = Path(roots["names"]).expanduser()
        if not file.is_file():
            raise DataError(f"{file}: does not exist; it is the list of frames (`names` of a `dataroot`)")
        lines = file.read_text(encoding="utf-8").splitlines()
        # pictures stand there with their ending, sequences without one
        words = [line.split()[0] for line in lines if line.strip()]
        listed = {*words, *(word.rpartition(".")[0] for word in words if "." in word)}
    kept: dict[str, list[str]] = {}
    for sequence, frames in names.items():
        if sequence in roots.get("without", ()) or ("only" in roots and sequence not in roots["only"]):
            continue
        if listed is not None and sequence not in listed:
            frames = [name for name in frames if (f"{sequence}/{name}" if sequence else name) in listed]
        if frames:
            kept[sequence] = frames
    return kept
