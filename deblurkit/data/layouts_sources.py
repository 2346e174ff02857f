"""Layouts of sharp pictures that blurred ones are made of: photos, and high-frame-rate video as frames."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from deblurkit.data.layout_base import SPLITS, WHOLE, FramePair, Layout, Published, Sequences, by_stem, folders
from deblurkit.data.layouts_video import GOPRO_FRAMES
from deblurkit.errors import DataError
from deblurkit.image_io import is_image, list_images, natural_key


class PhotosLayout(Layout):
    """Single sharp pictures of any size, in a folder and the folders in it; taken where it is named only.

    A picture is called by its path below ROOT, without ending and joined by `_`.
    """

    name = "photos"
    form = "pictures in ROOT and in all folders below it (never recognised: name it)"

    def splits(self, root: Path) -> list[str]:
        """`all`, where there is a picture."""
        return [WHOLE] if next(_pictures(root), None) else []

    def recognises(self, root: Path) -> bool:
        """Never: it could be anything."""
        return False

    def paired(self, split: str) -> bool:
        """No."""
        return False

    def find(self, root: Path, split: str, lq: str) -> Sequences:
        """See `Layout.find`."""
        found: dict[str, FramePair] = {}
        for path in _pictures(root):
            name = "_".join(path.relative_to(root).with_suffix("").parts)
            if name in found:
                raise DataError(f"{path}: {found[name].lq} has the same name here ({name}); rename one")
            found[name] = FramePair(name, path, None)
        return {"": list(found.values())}


def _pictures(root: Path) -> Iterator[Path]:
    """The pictures of a folder and those of its folders, in order; hidden folders are left out."""
    for folder, below, files in os.walk(root, followlinks=True):
        below[:] = sorted((name for name in below if not name.startswith(".")), key=natural_key)
        yield from (Path(folder, name) for name in sorted(files, key=natural_key) if is_image(Path(name)))


class GoProAllLayout(Layout):
    """GOPRO_Large_all: the sharp frames of 240 a second that GOPRO_Large was made of.

    A sequence GOPRxxxx_yy_zz has yy of them for each pair. (Together 34,874: 22,653 for training, 12,221 for testing.)
    """

    name = "gopro_large_all"
    form = "ROOT/{train,test}/GOPRxxxx_yy_zz/NNNNNN.png"

    _sequence = re.compile(r"GOPR\d{4}_(\d{2})_(\d{2})")

    def splits(self, root: Path) -> list[str]:
        """Folders that hold such sequences."""
        return [split for split in SPLITS if self._sequences(root / split)]

    def paired(self, split: str) -> bool:
        """No."""
        return False

    def find(self, root: Path, split: str, lq: str) -> Sequences:
        """See `Layout.find`."""
        return {
            sequence.name: [FramePair(stem, path, None) for stem, path in by_stem(sequence).items()]
            for sequence in self._sequences(root / split)
        }

    def published(self, root: Path, split: str) -> Published | None:
        """yy frames for each pair of GOPRO_Large."""
        lengths = {name: pairs * gopro_exposure(name)[0] for name, pairs in GOPRO_FRAMES.get(split, {}).items()}
        return Published(len(lengths), sum(lengths.values()), lengths, size=(720, 1280)) if lengths else None

    def _sequences(self, folder: Path) -> list[Path]:
        return [s for s in folders(folder) if self._sequence.fullmatch(s.name) and list_images(s)]


def gopro_exposure(sequence: str) -> tuple[int, int]:
    """How GOPRO_Large averaged a sequence of GOPRO_Large_all: frames of an exposure, and before the first whole one.

    Exposures touch. With zz in the name, frame 0 here is frame zz of the first exposure, whose beginning is missing: so
    that one is left out.

    Raises:
        DataError: the name is not GoPro's.
    """
    match = GoProAllLayout._sequence.fullmatch(sequence)
    frames, cut = (int(match[1]), int(match[2])) if match else (0, 0)
    if frames < 2 or cut >= frames:
        raise DataError(f"{sequence!r}: is not of the form GOPRxxxx_yy_zz with yy frames for each pair and zz below yy")
    return frames, (frames - cut) % frames
