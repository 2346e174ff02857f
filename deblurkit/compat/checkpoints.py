"""The forms in which other tools keep a network's weights, brought to one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

#: Keys under which tools keep the state dict: BasicSR (and ours), SimDeblur, STFAN, Lightning, OpenMMLab and others.
_HOLDERS = ("params_ema", "params", "model", "state_dict", "deblurnet_state_dict", "net", "network")
#: What wrappers put in front of parameter names: DataParallel and DDP, torch.compile.
_PREFIXES = ("module.", "_orig_mod.")
#: A whole training model in one state dict: its generator's part, the averaged one first (OpenMMLab).
_PARTS = ("generator_ema.", "generator.")
#: OpenMMLab's names of the BasicVSR family: pattern and ours.
_RENAMED = (
    (re.compile(r"\b(backward|forward)_resblocks\."), r"\1_trunk."),
    (re.compile(r"\bupsample([12])\.upsample_conv\."), r"upconv\1."),
)
_FLOW_LAYER = re.compile(r"(\bbasic_module\.\d+\.basic_module\.)(\d+)\.conv\.")


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


def fit_names(state: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """The weights under the names that a network has, as far as wrappers and other tools have changed them.

    What stands in front of all names is taken off where more names fit then (`model.` of zzh-tech's trainers, `cell.`
    of SimDeblur's), of a whole training model the generator's part is taken, and OpenMMLab's names are translated.

    Args:
        state: as `find_state_dict` returns it. wanted: the network's own names.
    """
    wanted = set(wanted)
    return max(_readings(dict(state)), key=lambda reading: len(wanted & reading.keys()) - len(reading.keys() - wanted))


def _readings(state: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """What a state dict may mean, the likeliest first."""
    yield state
    for part in _PARTS:
        found = {key.removeprefix(part): value for key, value in state.items() if key.startswith(part)}
        if found:
            yield from _readings(found)
    stripped = state
    while True:
        first = next(iter(stripped), "").partition(".")[0] + "."
        if not all(key.startswith(first) and key != first for key in stripped):
            break
        stripped = {key.removeprefix(first): value for key, value in stripped.items()}
        yield stripped
    renamed = {_renamed(key): value for key, value in state.items()}
    if renamed.keys() != state.keys():
        yield renamed


def _renamed(key: str) -> str:
    for pattern, own in _RENAMED:
        key = pattern.sub(own, key)
    return _FLOW_LAYER.sub(lambda found: f"{found[1]}{2 * int(found[2])}.", key)
