"""The weights that a training starts from: `path.pretrain_network_g` and `_d`, and files that arguments name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from deblurkit.console import warn
from deblurkit.engine.checkpoint import load_weights, read_checkpoint
from deblurkit.errors import MissingWeightsError
from deblurkit.options import Options

Built = TypeVar("Built")

_SHOWN = 5


def load_start_weights(options: Options, role: str, network: nn.Module, quiet: bool = False) -> str | None:
    """Put the weights that the options name into a network.

    Args:
        role: "g" or "d". quiet: say nothing of weights that were left out (`strict_load_g: false`).

    Returns:
        the file; None: the options name none.

    Raises:
        CheckpointError: the file is missing or damaged, or does not fit a network that is loaded strictly.
    """
    path = options.path
    file, strict, param_key = {
        "g": (path.pretrain_network_g, path.strict_load_g, path.param_key_g),
        "d": (path.pretrain_network_d, path.strict_load_d, path.param_key_d),
    }[role]
    if not file:
        return None
    io = path.convention() if role == "g" else None
    left = load_weights(network, read_checkpoint(file, averaged=param_key == "params_ema"), strict, io)
    if left and not quiet:
        names = ", ".join(left[:_SHOWN]) + (", ..." if len(left) > _SHOWN else "")
        warn(f"path.pretrain_network_{role}: {file}: {len(left)} names do not fit and are left out: {names}")
    return file


def build_without_missing(
    mapping: Mapping[str, Any],
    make: Callable[[Mapping[str, Any]], Built],
    tell: Callable[[str, MissingWeightsError], None] | None = None,
) -> Built:
    """What `make` builds of `mapping`; arguments that name weights which are not there are left out.

    For a plan, and for a run that goes on: its checkpoint has these weights.

    Args:
        tell: called with the name of each argument that is left out, and why.

    Raises:
        MissingWeightsError: no argument names the file.
    """
    try:
        return make(mapping)
    except MissingWeightsError as error:
        names = [name for name, value in mapping.items() if isinstance(value, str) and Path(value) == error.path]
        if not names:
            raise
        if tell is not None:
            for name in names:
                tell(name, error)
    return build_without_missing({key: value for key, value in mapping.items() if key not in names}, make, tell)
