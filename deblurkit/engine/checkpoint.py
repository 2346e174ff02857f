"""Weights and training states on disk: written atomically, read without running code, refused when they do not fit."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deblurkit.build import build_network
from deblurkit.compat.checkpoints import find_state_dict, fit_names
from deblurkit.contract import PixelConvention
from deblurkit.errors import CheckpointError, MissingWeightsError, RegistryError
from deblurkit.files import atomic_path
from deblurkit.network import Network

SCHEMA = "deblurkit-checkpoint/1"
STATE_SCHEMA = "deblurkit-training-state/1"


@dataclass(frozen=True)
class Checkpoint:
    """A weights file that was read.

    Attributes:
        path: where it lies. state: parameters and buffers by name.
        network: `{"type": ..., arguments}` of the network it belongs to; None if the file does not say (other tools').
        io: the pixel convention of the weights; None if the file does not say.
        iteration: training steps done, None if the file does not say.
    """

    path: Path
    state: dict[str, Tensor]
    network: dict[str, Any] | None = None
    io: PixelConvention | None = None
    iteration: int | None = None


def save_network(
    path: str | Path, net: nn.Module, iteration: int | None = None, average: nn.Module | None = None
) -> None:
    """Write a network's weights atomically; `.safetensors` or, for any other ending, torch's format.

    The file has BasicSR's keys `params` and, with `average`, `params_ema`; and `network` and `io`, so that
    `load_network` can build it again. A `.safetensors` file holds one set of weights: the average where there is one.
    """
    io = net.io if isinstance(net, Network) else PixelConvention()
    facts = {"schema": SCHEMA, "network": config_of(net), "io": io.to_mapping(), "iter": iteration}
    with atomic_path(path) as temporary:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(_on_cpu(average or net), temporary, metadata={"deblurkit": json.dumps(facts)})
        else:
            averaged = {} if average is None else {"params_ema": _on_cpu(average)}
            save_tensors({"params": _on_cpu(net), **averaged, **facts}, temporary)


def save_tensors(content: Mapping[str, Any], path: Path) -> None:
    """`torch.save` to a path of `atomic_path`.

    Raises:
        CheckpointError: it cannot be written.
    """
    try:
        torch.save(content, path)
    except RuntimeError as error:  # torch's own writer does not say why: a full disk, mostly
        if str(error).startswith("DataLoader worker"):  # raised by a signal handler wherever the process happens to be
            raise
        raise CheckpointError(f"{path.parent}: a checkpoint cannot be written there; is the disk full?") from error


def _on_cpu(net: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()}


def read_checkpoint(path: str | Path, averaged: bool = True) -> Checkpoint:
    """Read a weights file of this or another tool (BasicSR, SimDeblur, plain state dicts, safetensors).

    Args:
        averaged: take the moving average of the weights (`params_ema`) where the file has one.

    Raises:
        CheckpointError: the file is missing (MissingWeightsError), damaged, holds other objects than tensors, or no
            weights.
    """
    path = Path(path)
    content, facts = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    state = find_state_dict(content, averaged)
    if state is None:
        raise CheckpointError(f"{path}: holds no network weights")
    network = facts.get("network")
    try:
        io = PixelConvention.from_mapping(facts["io"]) if facts.get("io") is not None else None
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    iteration = facts.get("iter")
    return Checkpoint(
        path,
        state,
        dict(network) if isinstance(network, Mapping) and "type" in network else None,
        io,
        iteration if isinstance(iteration, int) else None,
    )


def _read_torch(path: Path) -> tuple[Any, Mapping[str, Any]]:
    content = _torch_load(path)
    return content, content if isinstance(content, Mapping) else {}


def _read_safetensors(path: Path) -> tuple[Any, Mapping[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise MissingWeightsError(path)
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("deblurkit", "{}"))
            return {key: file.get_tensor(key) for key in file.keys()}, facts  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: is damaged or not a safetensors file: {error}") from None


def _torch_load(path: Path) -> Any:
    """`torch.load` that never runs code from the file."""
    if not path.is_file():
        raise MissingWeightsError(path)
    try:
        with path.open("rb") as file:
            magic = file.read(2)
        if magic == b"PK":
            with zipfile.ZipFile(path) as archive:  # torch checks no sums: a flipped byte would go unnoticed
                bad = archive.testzip()
            if bad is not None:
                raise CheckpointError(f"{path}: is damaged ({bad} does not match its checksum)")
        elif magic[:1] != b"\x80":  # torch's older format is a pickle
            raise CheckpointError(f"{path}: is not a weights file")
        return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except zipfile.BadZipFile:
        raise CheckpointError(f"{path}: is cut off or damaged") from None
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: was not loaded: it holds Python objects beside tensors, and loading those could run code"
        ) from None
    except Exception as error:  # a damaged pickle makes the reader stumble in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: is damaged or not a weights file: {reason}") from None


def load_weights(
    net: nn.Module, checkpoint: Checkpoint, strict: bool = True, io: PixelConvention | None = None
) -> list[str]:
    """Put a checkpoint's weights into a network; names that wrappers or other tools have changed are found.

    Args:
        strict: False: what has another name or size is left as it is.
        io: the weights' pixel convention, for a file that does not say it. (One that does knows best.)

    Returns:
        names that did not fit (empty when strict).

    Raises:
        CheckpointError: names or sizes differ; the message names both networks and the first differences.
    """
    own = net.state_dict()
    state = fit_names(checkpoint.state, own)
    missing = [key for key in own if key not in state]
    surplus = [key for key in state if key not in own]
    sized = [key for key in own if key in state and own[key].shape != state[key].shape]
    if strict and (missing or surplus or sized):
        facts = [f"{len(missing)} missing ({_first(missing)})"] if missing else []
        facts += [f"{len(surplus)} unknown ({_first(surplus)})"] if surplus else []
        facts += [
            f"{len(sized)} of another size ({_first(sized)}: {tuple(state[sized[0]].shape)} in the file, "
            f"{tuple(own[sized[0]].shape)} in the network)"
        ] if sized else []  # fmt: skip
        origin = f" They were saved for {spell(checkpoint.network)}." if checkpoint.network else ""
        raise CheckpointError(
            f"{checkpoint.path}: these weights do not fit {spell(config_of(net))}: {', '.join(facts)}.{origin}"
        )
    net.load_state_dict({k: v for k, v in state.items() if k in own and k not in sized}, strict=False)
    if isinstance(net, Network):
        net.io = checkpoint.io or io or PixelConvention()
    return [*missing, *surplus, *sized]


def config_of(net: nn.Module) -> dict[str, Any]:
    """`{"type": ..., arguments}` of a network or a discriminator that `build_network` made."""
    config: Any = getattr(net, "config", {"type": type(net).__name__})
    return dict(config)


def spell(config: Mapping[str, Any]) -> str:
    """A network's configuration as one would write the call: `DBN(num_frames=5, ...)`."""
    arguments = ", ".join(f"{key}={value!r}" for key, value in config.items() if key != "type")
    return f"{config['type']}({arguments})"


def _first(keys: list[str]) -> str:
    return keys[0] + (", ..." if len(keys) > 1 else "")


def load_network(
    path: str | Path,
    config: Mapping[str, Any] | None = None,
    strict: bool = True,
    averaged: bool = True,
    io: PixelConvention | None = None,
) -> Network:
    """A network with its weights, in evaluation mode on the CPU.

    Args:
        path: weights file. config: `{"type": ..., arguments}`; None: as the file says. strict: see `load_weights`.
        averaged: see `read_checkpoint`. io: see `load_weights`.

    Raises:
        CheckpointError: see `read_checkpoint` and `load_weights`; or the file does not say which network it belongs to.
    """
    checkpoint = read_checkpoint(path, averaged)
    config = config or checkpoint.network
    if config is None:
        raise CheckpointError(
            f"{path}: the file does not say which network its weights belong to (another tool wrote it); "
            "name it: `network_g: {type: ...}` in an options file, or load_network(path, {'type': ...})"
        )
    try:
        net = build_network(config)
    except RegistryError as error:
        raise CheckpointError(f"{path}: its network cannot be built here: {error}") from error
    load_weights(net, checkpoint, strict, io)
    return net.eval()


def describe_checkpoint(path: str | Path) -> dict[str, Any]:
    """What is in a weights file, for people: network, pixel convention, iteration, number of parameters."""
    checkpoint = read_checkpoint(path)
    sizes = [value.numel() for value in checkpoint.state.values() if value.is_floating_point()]
    return {
        "file": str(path),
        "network": checkpoint.network,
        "io": checkpoint.io.to_mapping() if checkpoint.io else None,
        "iter": checkpoint.iteration,
        "tensors": len(checkpoint.state),
        "values": sum(sizes),
    }


def save_training_state(path: Path, iteration: int, content: Mapping[str, Any]) -> None:
    """Write what a run needs beside the weights to go on; plain values and tensors only."""
    with atomic_path(path) as temporary:
        save_tensors({"schema": STATE_SCHEMA, "iter": iteration, **content}, temporary)


def read_training_state(path: Path) -> dict[str, Any]:
    """Read a training state.

    Raises:
        CheckpointError: missing, damaged, or of another kind.
    """
    content = _torch_load(path)
    if not isinstance(content, dict) or content.get("schema") != STATE_SCHEMA:
        raise CheckpointError(f"{path}: is not a training state of this version ({STATE_SCHEMA})")
    return content


def list_states(folder: Path) -> list[Path]:
    """Training states `ITER.state` in a folder, the newest first."""
    found = [path for path in folder.glob("*.state") if re.fullmatch(r"\d+", path.stem)]
    return sorted(found, key=lambda path: int(path.stem), reverse=True)
