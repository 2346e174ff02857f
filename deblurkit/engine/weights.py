"""Weights by file or by name: what `--weights` and `Restorer.from_weights` accept."""

from __future__ import annotations

from pathlib import Path

from deblurkit.errors import CheckpointError, did_you_mean

#: Where the weights that come with the package lie.
SHIPPED = Path(__file__).resolve().parent.parent / "weights"

_ENDINGS = (".safetensors", ".pth")


def shipped_weights() -> dict[str, Path]:
    """The weights that come with this installation, by name."""
    files = sorted(path for ending in _ENDINGS for path in SHIPPED.glob(f"*{ending}"))
    return {path.stem: path for path in files}


def find_weights(name: str | Path) -> Path:
    """The file that a path, or the name of shipped weights, stands for.

    A file wins over a name. What ends in .pth or .safetensors, or has a folder in front, is a path.

    Raises:
        CheckpointError: there is neither; the message lists the names there are.
    """
    path = Path(name)
    if path.exists() or path.suffix in (".pt", *_ENDINGS) or len(path.parts) > 1:
        return path
    shipped = shipped_weights()
    if str(name) in shipped:
        return shipped[str(name)]
    known = f"the weights by name are {', '.join(shipped)}" if shipped else "no weights come with this installation"
    raise CheckpointError(
        f"weights {str(name)!r}: no such file, and {known}{did_you_mean(str(name), shipped)}; name a .pth or "
        ".safetensors file"
    )
