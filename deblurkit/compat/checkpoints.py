"""The forms in which other tools keep a network's weights, brought to one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

#: Keys under which tools keep the state dict: BasicSR (and ours), SimDeblur, Lightning and many others.
_HOLDERS = ("params_ema", "params", "model", "state_dict", "net", "network")
#: What wrappers put in front of parameter names: DataParallel and DDP, torch.compile.
_PREFIXES = ("module.", "_orig_mod.")


def find_state_dict(content: Any, averaged: bool = True) -> dict[str, Tensor] | None:
    """The weights in a loaded checkpoint, under the network's own names; None if there are none.

    Args:
        averaged: take averaged weights (`params_ema`) where there are some.
    """
    if not isinstance(content, Mapping):
        return None
    for holder in _HOLDERS if averaged else _HOLDERS[1:]:
        if isinstance(content.get(holder), Mapping):
            found = find_state_dict(content[holder], averaged)
            if found:
                return found
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        return None
    state: dict[str, Tensor] = {str(key): value for key, value in content.items()}
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return {key: value.detach() if isinstance(value, torch.nn.Parameter) else value for key, value in state.items()}
