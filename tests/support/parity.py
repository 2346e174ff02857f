"""Fixtures in `tests/parity`: what public reference implementations returned, and how to make the same inputs again.

`NAME.npz` holds the outputs of a network whose weights and inputs follow the rules below; `NAME.keys.tsv` lists its
state dict (key, shape, dtype). `meta` in the npz says the rest.
"""

from __future__ import annotations

import ast
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

FOLDER = Path(__file__).parent.parent / "parity"


@dataclass(frozen=True)
class Fixture:
    """One reference: `meta` as stored, `outputs` in the order in which the network returns them."""

    name: str
    meta: Mapping[str, Any]
    outputs: tuple[NDArray[np.float32], ...]

    @property
    def arch(self) -> str:
        return str(self.meta["arch"])

    def keys(self) -> list[tuple[str, str, str]]:
        """Key, shape ("64x15x5x5" or "scalar") and dtype of every entry of the state dict."""
        return keys_of(self.name)

    def prepare(self, net: nn.Module) -> nn.Module:
        """Put the network into the fixture's mode and fill its weights."""
        net.train(self.meta.get("mode") == "train")
        net.load_state_dict(fill(net.state_dict(), self.meta["gain"], self.meta["keep"]))
        return net

    def call(self, net: nn.Module) -> list[Tensor]:
        """The network's outputs on the fixture's inputs, flat and cut like the stored ones."""
        device = next(net.parameters()).device
        inputs = [torch.from_numpy(uniform(one["shape"], one["seed"])).to(device) for one in self.meta["inputs"]]
        with torch.no_grad():
            outputs = list(flatten(net(*inputs, **self.meta.get("call_kwargs", {}))))
        if "output_slice" in self.meta:
            outputs = [output[parse_slice(self.meta["output_slice"])] for output in outputs]
        return outputs


def keys_of(name: str) -> list[tuple[str, str, str]]:
    """As `Fixture.keys`, also of a published size of which there is nothing but this list."""
    lines = (FOLDER / f"{name}.keys.tsv").read_text().splitlines()
    return [(key, shape, dtype) for key, shape, dtype in (line.split("\t") for line in lines)]


def entries(net: nn.Module) -> list[tuple[str, str, str]]:
    """A network's state dict in that form, sorted."""
    return sorted(
        (key, "x".join(map(str, value.shape)) or "scalar", str(value.dtype).removeprefix("torch."))
        for key, value in net.state_dict().items()
    )


def network_fixtures() -> list[str]:
    """Names of the fixtures of networks."""
    return sorted(path.stem for path in FOLDER.glob("*.npz") if (FOLDER / f"{path.stem}.keys.tsv").exists())


def load(name: str) -> Fixture:
    """A network's fixture."""
    with np.load(FOLDER / f"{name}.npz") as file:
        meta = json.loads(str(file["meta"]))
        outputs = tuple(file[f"output{i}"] for i in range(meta["num_outputs"]))
    return Fixture(name, meta, outputs)


def uniform(shape: Iterable[int], seed: int) -> NDArray[np.float32]:
    """An input: float32, uniform in [0, 1)."""
    return np.random.RandomState(seed).rand(*shape).astype(np.float32)


def fill(state: Mapping[str, Tensor], gain: float, keep: Iterable[str]) -> dict[str, Tensor]:
    """A state dict in which every floating value depends on its key, its shape and `gain` alone.

    Integers, and keys that end with one of `keep` (constants), stay as they are.
    """
    endings = tuple(keep)
    return {
        key: value.clone() if not value.is_floating_point() or key.endswith(endings) else _fill(key, value, gain)
        for key, value in state.items()
    }


def _fill(key: str, like: Tensor, gain: float) -> Tensor:
    shape = tuple(like.shape)
    rng = np.random.RandomState(zlib.crc32(key.encode()) % 2**31)
    kind = key.rpartition(".")[2]
    if kind == "running_var":
        values = rng.uniform(0.5, 1.5, shape)
    elif kind == "running_mean":
        values = rng.standard_normal(shape) * 0.1
    elif len(shape) < 2:  # scales around one, biases around zero
        values = rng.standard_normal(shape) * 0.1 + (kind == "weight")
    else:
        values = rng.standard_normal(shape) * gain / math.sqrt(max(1, math.prod(shape[1:])))
    return torch.tensor(np.asarray(values, np.float32), dtype=like.dtype).reshape(shape)


def flatten(outputs: Any) -> Iterable[Tensor]:
    """The tensors in nested lists and tuples, in order; None is left out."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif outputs is not None:
        for output in outputs:
            yield from flatten(output)


def parse_slice(text: str) -> tuple[Any, ...]:
    """An index such as `[..., ::3, ::3]`."""

    def number(node: ast.expr | None) -> Any:
        return None if node is None else ast.literal_eval(node)

    index = ast.parse(f"x{text}", mode="eval").body
    assert isinstance(index, ast.Subscript)
    parts = index.slice.elts if isinstance(index.slice, ast.Tuple) else [index.slice]
    return tuple(
        slice(number(p.lower), number(p.upper), number(p.step)) if isinstance(p, ast.Slice) else number(p)
        for p in parts
    )
