"""`deblurkit convert`: weights of any form that is known here as a file that says which network they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deblurkit.contract import PixelConvention
from deblurkit.engine.checkpoint import load_network, read_checkpoint, save_network
from deblurkit.errors import CheckpointError
from deblurkit.network import Network

_ENDINGS = (".pth", ".safetensors")


def convert_weights(
    source: Path,
    target: Path,
    config: Mapping[str, Any] | None = None,
    io: Mapping[str, Any] | None = None,
    averaged: bool = True,
) -> Network:
    """Write the weights of `source` to `target`, with network and pixel convention.

    Args:
        source: see `read_checkpoint`. target: ends in .pth or .safetensors.
        config: `{"type": ..., arguments}`; None: as the source says.
        io: the pixels that the weights take, where the source does not say; None: RGB in [0, 1].
        averaged: take the moving average of the weights where the source has one.

    Raises:
        CheckpointError: the source cannot be read or does not fit, or the target is called otherwise.
    """
    if target.suffix not in _ENDINGS:
        raise CheckpointError(f"{target}: weights are written as {' or '.join(_ENDINGS)}")
    try:
        convention = PixelConvention.from_mapping(io) if io is not None else None
    except ValueError as error:
        raise CheckpointError(f"--io: {error}") from None
    net = load_network(source, config, strict=True, averaged=averaged, io=convention)
    save_network(target, net, read_checkpoint(source, averaged).iteration)
    return net
