"""The layouts that there are, and which of them a data set's folder has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from deblurkit.console import warn
from deblurkit.data.layout_base import ROLES, FramePair, Layout, Sequences, folders, found_names
from deblurkit.data.layouts_pictures import HideLayout, PicturesLayout, RealBlurLayout, RsBlurLayout
from deblurkit.data.layouts_sources import GoProAllLayout, PhotosLayout
from deblurkit.data.layouts_video import (
    GOPRO_FRAMES,
    BsdLayout,
    DvdLayout,
    FramesLayout,
    GoProLayout,
    PairedLayout,
    ParallelLayout,
    RedsLayout,
    VimeoLayout,
)
from deblurkit.errors import DataError, did_you_mean

__all__ = [
    "GOPRO_FRAMES",
    "LAYOUTS",
    "ROLES",
    "FramePair",
    "Layout",
    "LayoutName",
    "PairedLayout",
    "Sequences",
    "find_layout",
    "locate",
    "scan",
]

LayoutName = Literal[
    "auto",
    "gopro",
    "dvd",
    "reds",
    "bsd",
    "hide",
    "realblur",
    "rsblur",
    "vimeo",
    "paired",
    "parallel",
    "pictures",
    "gopro_large_all",
    "photos",
    "frames",
]

#: The layouts, the more particular ones first.
LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        GoProLayout(),
        DvdLayout(),
        RedsLayout(),
        BsdLayout(),
        HideLayout(),
        RealBlurLayout(),
        RsBlurLayout(),
        VimeoLayout(),
        PairedLayout(),
        ParallelLayout(),
        PicturesLayout(),
        GoProAllLayout(),
        PhotosLayout(),
        FramesLayout(),
    )
}


def find_layout(root: Path, name: str = "auto") -> Layout:
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
    layout = _recognise(root)
    if layout:
        return layout
    found = found_names([f.name for f in folders(root)] or (f.name for f in root.iterdir()))
    if any((s / PairedLayout.gt).is_dir() for s in folders(root)):
        raise DataError(
            f"{root}: its folders are sequences ({found}); give the folder above it, which holds the splits"
        )
    inside = next((folder for folder in folders(root) if _recognise(folder)), None)
    if inside:
        raise DataError(f"{root}: no layout is recognised ({found}), but {inside.name} is a data set: give {inside}")
    forms = "\n  ".join(f"{layout.name}: {layout.form}" for layout in LAYOUTS.values())
    raise DataError(f"{root}: no layout is recognised ({found}); there are\n  {forms}")


def _recognise(root: Path) -> Layout | None:
    return next((layout for layout in LAYOUTS.values() if layout.recognises(root)), None)


def locate(root: Path, split: str, name: str = "auto") -> Layout | None:
    """The layout of a split whose files are there; None where they are not (but an LMDB may be).

    Raises:
        DataError: as `find_layout`, where `root` is there.
    """
    if not root.is_dir():
        return None
    layout = find_layout(root, name) if name != "auto" else _recognise(root)
    return layout if layout and layout.has(root, split) else None


def scan(root: Path, split: str, layout: Layout, lq: str) -> Sequences:
    """The pairs of a split, with a warning where it differs from the published data set.

    Raises:
        DataError: see `Layout.scan`.
    """
    sequences = layout.scan(root, split, lq)
    published = layout.published(root, split)
    difference = published.difference(sequences) if published else ""
    if difference:
        warn(f"{root} ({layout.name}, {split}): {difference}")
    return sequences
