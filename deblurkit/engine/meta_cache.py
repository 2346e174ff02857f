"""Running a network on torch's meta device without asking twice what an operator gives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: What makes a result new: its shape, strides and dtype.
_Look = tuple[torch.Size, tuple[int, ...], torch.dtype]


class MetaCache:
    """Remembers the shapes that operators give on the meta device.

    Many operators find their shapes there by Python code that takes up to 0.1 s (`grid_sample`), and a network that
    walks through a clip asks for the same ones at every frame. Remembered are results that are new tensors, and
    operators that changed no more than the content of their first argument; all others (views) are asked anew. Other
    devices' tensors pass through.
    """

    def __init__(self) -> None:
        self._known: dict[Any, tuple[_Look, ...] | _Look] = {}  # (): the first argument, as it is
        self._others: set[Any] = set()  # operators of which nothing can be remembered

    def __call__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What an operator gives."""
        if func in self._others:
            return func(*args, **kwargs)
        key = (func, _look(args), _look(tuple(kwargs.items())) if kwargs else None)
        try:
            known = self._known.get(key)
        except TypeError:  # an argument that cannot be compared
            return func(*args, **kwargs)
        if known is None:
            result = func(*args, **kwargs)
            self._remember(key, func, args, result)
            return result
        if not known:
            return args[0]
        if isinstance(known[0], torch.Size):
            return _empty(*known)
        return tuple(_empty(*one) for one in known)

    def _remember(self, key: Any, func: Any, args: tuple[Any, ...], result: Any) -> None:
        outputs = (result,) if isinstance(result, Tensor) else result
        schema = func._schema
        if args and result is args[0] and isinstance(result, Tensor) and result.is_meta:
            if key[1][0] == _look(result):
                self._known[key] = ()
        elif schema.is_mutable or any(one.alias_info is not None for one in schema.returns):
            self._others.add(func)
        elif isinstance(outputs, tuple) and outputs and _are_new(outputs, args):
            looks = tuple((one.shape, one.stride(), one.dtype) for one in outputs)
            self._known[key] = looks[0] if isinstance(result, Tensor) else looks


def _look(value: Any) -> Any:
    """What an operator on the meta device can know of an argument. (True is not 1, and 1 is not 1.0.)"""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, (tuple, list)):
        return tuple([_look(one) for one in value])
    return value.__class__, value


def _are_new(outputs: tuple[Any, ...], args: tuple[Any, ...]) -> bool:
    """All are tensors on the meta device, each with a storage of its own, and no larger than it must be."""
    if not all(isinstance(one, Tensor) and one.is_meta for one in outputs):
        return False
    own = [one.untyped_storage() for one in outputs]
    given = {one.untyped_storage()._cdata for one in _tensors(args)}
    if len({one._cdata for one in own} - given) < len(outputs):
        return False
    again = (_empty(one.shape, one.stride(), one.dtype) for one in outputs)
    return all(one.untyped_storage().nbytes() == storage.nbytes() for one, storage in zip(again, own, strict=True))


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, (tuple, list)):
        return [tensor for one in value for tensor in _tensors(one)]
    return [value] if isinstance(value, Tensor) else []


def _empty(shape: torch.Size, stride: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
