"""Weights by file or by name, and by default: what `--weights` and `Restorer.from_weights` accept."""

from __future__ import annotations

import os
from pathlib import Path

from deblurkit.errors import CheckpointError, did_you_mean

#: Where the weights that come with the package lie.
SHIPPED = Path(__file__).resolve().parent.parent / "weights"

#: The environment variable that names a folder of weights, several (as in PATH), or one file.
VARIABLE = "DEBLURKIT_WEIGHTS"

#: Endings of weights files; of two files of one name in one folder the first of these is taken.
ENDINGS = (".safetensors", ".pth", ".pt", ".ckpt")

#: The name that is taken where nobody names weights and there are several.
DEFAULT = "default"


def own_folder() -> Path:
    """Where a person keeps weights: `.deblurkit/weights` in the home directory."""
    return Path("~").expanduser() / ".deblurkit" / "weights"


def known_weights() -> dict[str, Path]:
    """The weights that can be named: those of `DEBLURKIT_WEIGHTS`, of `own_folder` and of the package, in this order.

    Returns:
        files by name, which is the file's without its ending; of two of one name the one that is found first.

    Raises:
        CheckpointError: `DEBLURKIT_WEIGHTS` names something that is not there.
    """
    found: dict[str, Path] = {}
    for place in [*_named_by_variable(), own_folder(), SHIPPED]:
        for path in [place] if place.is_file() else _weights_in(place):
            found.setdefault(path.stem, path)
    return found


def _named_by_variable() -> list[Path]:
    places = [Path(part).expanduser() for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    for place in places:
        if not place.exists():
            raise CheckpointError(
                f"{VARIABLE}: {place} does not exist; it names a folder of weights, or a weights file"
            )
    return places


def _weights_in(folder: Path) -> list[Path]:
    try:
        files = [path for path in folder.iterdir() if path.suffix in ENDINGS]
    except OSError:  # mostly: it is not there
        return []
    return sorted(files, key=lambda path: (path.stem, ENDINGS.index(path.suffix)))


def find_weights(name: str | Path) -> Path:
    """The file that a path or a name stands for.

    A file wins over a name. What ends as weights files do, or has a folder in front, is a path.

    Raises:
        CheckpointError: there is neither; the message lists the names there are.
    """
    path = Path(name)
    if path.is_dir():
        names = ", ".join(file.name for file in _weights_in(path))
        raise CheckpointError(f"weights {path}: is a folder; name a file in it" + (f": {names}" if names else ""))
    if path.exists() or path.suffix in ENDINGS or len(path.parts) > 1:
        return path
    known = known_weights()
    if str(name) in known:
        return known[str(name)]
    names = f"the weights by name are {', '.join(known)}" if known else f"no weights are in {own_folder()}"
    raise CheckpointError(
        f"weights {str(name)!r}: no such file, and {names}{did_you_mean(str(name), known)}; name a .pth or "
        ".safetensors file"
    )


def default_weights() -> Path:
    """The weights to take where nobody names some: a file that `DEBLURKIT_WEIGHTS` names, those called "default", or
    the only ones there are.

    Raises:
        CheckpointError: there are none, or several; the message says what to do.
    """
    named = next((place for place in _named_by_variable() if place.is_file()), None)
    if named is not None:
        return named
    known = known_weights()
    if DEFAULT in known or len(known) == 1:
        return known.get(DEFAULT) or next(iter(known.values()))
    if known:
        raise CheckpointError(
            f"no weights: choose with --weights {'|'.join(known)}; a file called {DEFAULT}.pth in {own_folder()} would "
            "be taken without being named"
        )
    raise CheckpointError(
        f"no weights: name a file with --weights, or put one into {own_folder()} (or a folder that {VARIABLE} names), "
        "and it is taken without being named. None come with deblurkit yet: train some (`bash scripts/demo.sh` takes "
        "minutes, `deblurkit train -opt options/train_dbn.yml` days), or fit those of another tool with `deblurkit "
        f"convert upstream.pth --arch NAFNet -o {own_folder() / 'nafnet.pth'}`"
    )
