"""What is registered, described for people: `deblurkit list` and `deblurkit show` print it."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deblurkit.contract import Capabilities, FrameContract
from deblurkit.errors import RegistryError, did_you_mean
from deblurkit.registry import REGISTRIES

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Argument:
    """A constructor argument: its type as text, and its default as text (None: it must be given)."""

    name: str
    type: str
    default: str | None


@dataclass(frozen=True)
class Entry:
    """A registered class.

    Attributes:
        kind: which registry, as `deblurkit list` spells it. name: as in an options file. cls: the class.
    """

    kind: str
    name: str
    cls: type

    @property
    def summary(self) -> str:
        """The docstring's first line."""
        return self.description.partition("\n")[0].strip()

    @property
    def description(self) -> str:
        """The docstring; "" without one."""
        return inspect.cleandoc(self.cls.__doc__ or "")

    @property
    def file(self) -> Path:
        """Where the class is defined."""
        return Path(inspect.getfile(self.cls))

    @property
    def arguments(self) -> list[Argument]:
        """The constructor's arguments in order."""
        from deblurkit.arguments import signature_of

        return [
            Argument(name, _spell(annotation), None if default is inspect.Parameter.empty else repr(default))
            for name, (annotation, default) in signature_of(self.cls).items()
        ]


def entries(kind: str) -> list[Entry]:
    """All entries of a kind, sorted by name."""
    registry = REGISTRIES[kind]
    return [Entry(kind, name, registry.get(name)) for name in registry.names()]


def find_entries(name: str) -> list[Entry]:
    """The entries called `name`, of any kind.

    Raises:
        RegistryError: there is none; with the nearest names.
    """
    found = [Entry(kind, name, registry.get(name)) for kind, registry in REGISTRIES.items() if name in registry.names()]
    if not found:
        known = [known for registry in REGISTRIES.values() for known in registry.names()]
        hint = did_you_mean(name, known) or f"; `deblurkit list {'|'.join(REGISTRIES)}|weights` shows what there is"
        raise RegistryError(f"nothing is registered as {name!r}, and there is no such file{hint}")
    return found


@dataclass(frozen=True)
class NetworkFacts:
    """What can be said of a network only once it is built.

    Attributes:
        contract: its frames and sizes; None for what restores nothing (discriminators).
        parameters: number of learnable values.
        macs: multiply-accumulates for one restored frame; None if not asked for.
    """

    contract: FrameContract | None
    parameters: int
    macs: float | None


def network_facts(
    name: str, arguments: Mapping[str, Any] | None = None, size: tuple[int, int] | None = None
) -> NetworkFacts:
    """Build a network without memory for its weights and look at it.

    Args:
        arguments: constructor arguments. size: (height, width) of the frame whose cost is counted; None: not counted.

    Raises:
        RegistryError: the arguments do not fit.
    """
    from deblurkit.network import Network, count_macs

    net = build_weightless(name, arguments or {})
    parameters = sum(parameter.numel() for parameter in net.parameters())
    if not isinstance(net, Network):
        return NetworkFacts(None, parameters, None)
    return NetworkFacts(net.contract, parameters, count_macs(net, *size) if size else None)


def build_weightless(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A network without memory for its weights (torch's meta device): quick to build, good for counting.

    Raises:
        RegistryError: the arguments do not fit.
    """
    import torch

    from deblurkit.build import build_network

    with torch.device("meta"):
        return build_network({"type": name, **arguments})


def contract_in_words(contract: FrameContract) -> dict[str, str]:
    """What a network takes and gives, as a person would say it, by topic."""
    past, future = contract.past, contract.future
    context = f", seeing {past} past and {future} future frames" if past or future else ""
    whole = f" whose length is a multiple of {contract.time_multiple}" if contract.time_multiple > 1 else ""
    frames = {
        "image": "one picture, restored by itself",
        "window": f"a window of {contract.frames} frames, of which frame {contract.target + 1} is restored",
        "clip": f"a clip{whole}, all frames restored at once{context}",
        "stream": f"frame by frame with a memory{context}",
    }[contract.kind]
    rows, columns = contract.sizes
    size = f"multiples of {rows}" if rows == columns else f"height a multiple of {rows}, width of {columns}"
    size = "any size" if (rows, columns) == (1, 1) else size
    size += f", at least {contract.min_size}" if contract.min_size > 1 else ""
    size += ", square" if contract.square else ""
    size += f" (others are completed: {contract.pad})" if size != "any size" else ""
    tiles = {
        "global": "differ from the whole picture: the network pools over it",
        "data": "are blended: how far the network looks depends on the picture",
    }
    able = [name for name in Capabilities.__dataclass_fields__ if getattr(contract.capabilities, name)]
    return {
        "frames": frames,
        "size": size,
        "result": "the size of the input" if contract.scale == 1 else f"{contract.scale} times the size of the input",
        "outputs": ", ".join(f"{o.name} (x{o.scale:g})" if o.scale != 1 else o.name for o in contract.outputs),
        "tiles": tiles.get(str(contract.halo), f"exact with {contract.halo} pixels of context"),
        "capable of": ", ".join(able),
    }


def _spell(annotation: Any) -> str:
    """An annotation as one would write it."""
    if annotation is Any:
        return "any"
    if annotation is Ellipsis:
        return "..."
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " | ".join(_spell(part) for part in typing.get_args(annotation))
    if typing.get_origin(annotation) is typing.Literal:
        return " | ".join(repr(value) for value in typing.get_args(annotation))
    if annotation is type(None):
        return "None"
    name = getattr(annotation, "__name__", str(annotation))
    parts = typing.get_args(annotation)
    if not parts or any(isinstance(part, list) for part in parts):  # the latter: Callable[[int], str]
        return name
    return f"{name}[{', '.join(_spell(part) for part in parts)}]"
