"""What every network must fulfil, as one call: our tests make it, and authors of plugins can.

In a test of one's own network:

    from deblurkit.testing import check_network

    def test_my_network():
        check_network(BlurFree)
"""

from __future__ import annotations

import copy
import math
import pickle
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deblurkit.data.frame_sampling import window_indices
from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY
from deblurkit.sharing import SharedStore

#: How far a result in half precision, or in another memory format, may be from fp32's, relative to its size (RMS).
_TOLERANCE = {torch.bfloat16: 0.05, torch.float16: 0.01, torch.float32: 1e-4}
#: The same for float64, where two ways to the same result differ by rounding only.
_EXACT = 1e-9
#: The same for windows that share their work, in float32.
_SHARED = 1e-5
#: With how many different weights a gradient is sought before a parameter counts as dead.
_ATTEMPTS = 12


def check_network(
    network: type[Network] | Network | str, args: Mapping[str, Any] | None = None, *, slow: bool = False
) -> None:
    """Check that a network keeps every promise that trainer, evaluator and restorer rely on. Takes seconds.

    Args:
        network: a registered name, its class, or an instance (which is not changed).
        args: constructor arguments for a class; by default its `check_args`.
        slow: check `compile` and `export` too, where they are declared (minutes for a large network).

    Raises:
        AssertionError: a promise is broken; the message names the network, the promise and what was found instead.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if isinstance(network, Network):
            net = copy.deepcopy(network)
        else:
            cls: type[Network] = ARCH_REGISTRY.get(network) if isinstance(network, str) else network
            net = cls(**(cls.check_args if args is None else args))
        name = type(net).__name__
        stir(net.eval())
        for promise, check in [*_PROMISES, *(_SLOW_PROMISES if slow else [])]:
            try:
                check(net)
            except Exception as error:
                found = str(error) if isinstance(error, _BrokenPromiseError) else f"{type(error).__name__}: {error}"
                raise AssertionError(f"{name}: {promise}: {found}") from error


class _BrokenPromiseError(Exception):
    """A promise that is not kept; the text says what was found instead."""


def _must(kept: bool, found: str) -> None:
    if not kept:
        raise _BrokenPromiseError(found)


@torch.no_grad()
def stir(net: nn.Module, amount: float = 0.1) -> None:
    """Move all weights, in place, so that no branch that begins at zero (scales, last layers) stays silent.

    Args:
        amount: how far, relative to the spread of each parameter's values.
    """
    for parameter in net.parameters():
        if parameter.is_floating_point():
            spread = parameter.std().item() if parameter.numel() > 1 else 0.0
            parameter.add_(torch.randn_like(parameter) * amount * (spread or 1.0))
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            buffer.add_(0.1 * torch.randn_like(buffer))
        elif name.endswith("running_var"):
            buffer.mul_(0.5 + torch.rand_like(buffer))


def _input(net: Network, height: int = 1, width: int = 1, batch: int = 1, length: int | None = None) -> Tensor:
    return torch.rand_like(net.example_input(height, width, batch, length))


def _comfortable(net: Network, batch: int = 1) -> Tensor:
    """An input that is larger than the smallest, so that deep levels are more than a pixel."""
    rows, columns = net.contract.sizes
    return _input(net, 4 * rows, 4 * columns, batch)


def _run(net: Network, x: Tensor) -> Tensor:
    """The result; where a network draws random numbers, the same ones each time."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return net.run(x)["restored"]


def _distance(a: Tensor, b: Tensor) -> float:
    """RMS of a - b relative to b's."""
    a, b = a.double(), b.double()
    return float((a - b).norm() / b.norm().clamp_min(1e-30)) if a.shape == b.shape else math.inf


def _check_registered(net: Network) -> None:
    from deblurkit.build import build_network
    from deblurkit.yaml_source import Source, dump_yaml, override

    _must(ARCH_REGISTRY.name_of(type(net)) is not None, "it lacks the decorator @ARCH_REGISTRY.register()")
    source = Source()
    override(source, "network_g=" + dump_yaml(net.config))
    again = build_network(source.values["network_g"])
    shapes = {key: value.shape for key, value in net.state_dict().items()}
    _must({key: value.shape for key, value in again.state_dict().items()} == shapes, f"{net.config} builds another one")


def _check_weightless(net: Network) -> None:
    from deblurkit.build import build_network
    from deblurkit.network import count_macs

    with torch.device("meta"):
        twin = build_network(net.config)
    _must(twin.num_parameters == net.num_parameters, "the number of parameters differs")
    macs = count_macs(twin, 1, 1)
    _must(macs >= 0 and math.isfinite(macs), f"its cost is counted as {macs}")


def _check_outputs(net: Network) -> None:
    contract = net.contract
    smallest = contract.padded_size(1, 1)
    larger = contract.padded_size(smallest[0] + 1, smallest[1] + 2 * contract.sizes[1])
    for (height, width), more in ((smallest, 0), (larger, contract.time_multiple)):
        x = _input(net, height, width)
        if contract.kind in ("clip", "stream") and more:
            x = _input(net, height, width, length=x.shape[1] + more)
        for mode in ("eval", "train"):
            if mode == "train" and (height, width) == smallest:
                continue  # batch norm cannot learn from a single pixel
            with torch.no_grad():
                outputs = copy.deepcopy(net).train(mode == "train").run(x)
            _check_shapes(net, x, outputs, f"for {tuple(x.shape)} in {mode} mode")


def _check_shapes(net: Network, x: Tensor, outputs: Mapping[str, Tensor], case: str) -> None:
    contract = net.contract
    declared = {output.name: output for output in contract.outputs}
    _must(set(outputs) == set(declared), f"{case} it returns {sorted(outputs)}, declared are {sorted(declared)}")
    for name, value in outputs.items():
        frames: tuple[int, ...] = ()
        if declared[name].frames == "clip":
            context = declared[name].context or (contract.past, contract.future)
            frames = (x.shape[1] - sum(context),)
        size = tuple(round(side * declared[name].scale) for side in x.shape[-2:])
        channels = 3 if name == "restored" else value.shape[-3]
        expected = (x.shape[0], *frames, channels, *size)
        _must(tuple(value.shape) == expected, f"{case} {name!r} is {tuple(value.shape)}, declared is {expected}")
        _must(bool(value.isfinite().all()), f"{case} {name!r} has values that are not finite")


def _check_gradients(net: Network) -> None:
    learning = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    declared = set(net.dead_parameters)
    dead = learning
    for attempt in range(_ATTEMPTS):
        twin = copy.deepcopy(net).train()
        if attempt:  # a small network may have a layer whose few units all happen to be off
            stir(twin, amount=1.0)
        x = _comfortable(net, batch=2 if net.contract.capabilities.batch else 1)
        torch.stack([(value * torch.randn_like(value)).sum() for value in twin.run(x).values()]).sum().backward()
        gradients = {name: p.grad for name, p in twin.named_parameters() if p.grad is not None}
        broken = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
        _must(not broken, f"it is not finite for {', '.join(broken)}")
        dead = dead - {name for name, gradient in gradients.items() if gradient.any()}
        if dead <= declared:
            break
    _must(dead <= declared, f"none reaches {', '.join(sorted(dead - declared))}; if so, list them in dead_parameters")
    _must(
        declared <= dead,
        f"dead_parameters lists {', '.join(sorted(declared - dead))}, which it reaches or does not have",
    )


def _check_files(net: Network) -> None:
    from safetensors.torch import load_file, save_file

    from deblurkit.build import build_network

    x = _comfortable(net)
    expected = _run(net, x)
    with tempfile.TemporaryDirectory() as folder:
        for ending in (".pth", ".safetensors"):
            path = Path(folder) / f"weights{ending}"
            if ending == ".pth":
                torch.save({"params": net.state_dict(), "network": net.config}, path)
                state = torch.load(path, weights_only=True)["params"]
            else:
                save_file({key: value.clone().contiguous() for key, value in net.state_dict().items()}, path)
                state = load_file(path)
            twin = build_network(net.config).eval()
            twin.load_state_dict(state)
            _must(torch.equal(_run(twin, x), expected), f"after {ending} the outputs differ")


def _check_copies(net: Network) -> None:
    x = _comfortable(net)
    expected = _run(net, x)
    for way, twin in (("copy.deepcopy", copy.deepcopy(net)), ("pickle", pickle.loads(pickle.dumps(net)))):
        _must(torch.equal(_run(twin, x), expected), f"after {way} the outputs differ")
        _must((twin.config, twin.contract, twin.io) == (net.config, net.contract, net.io), f"{way} loses what it is")


def _check_deterministic(net: Network) -> None:
    if net.contract.capabilities.deterministic:
        x = _comfortable(net)
        with torch.no_grad():
            first, second = (net.run(x)["restored"] for _ in range(2))
        _must(torch.equal(first, second), "two runs differ")


def _check_batch(net: Network) -> None:
    if not net.contract.capabilities.batch:
        return
    pair = _comfortable(net, batch=2)
    together, single = _run(net, pair), torch.cat([_run(net, one) for one in pair.split(1)])
    distance = _distance(together, single)
    _must(distance <= _TOLERANCE[torch.float32], f"relative difference {distance:.1e}")


def _check_precisions(net: Network) -> None:
    able = net.contract.capabilities
    x = _comfortable(net)
    expected = _run(net, x)
    for dtype, declared in ((torch.bfloat16, able.bf16), (torch.float16, able.fp16)):
        if declared:
            with torch.autocast("cpu", dtype):
                found = _run(net, x)
            _must(bool(found.isfinite().all()), f"in {dtype} values are not finite")
            distance = _distance(found, expected)
            _must(distance <= _TOLERANCE[dtype], f"in {dtype} the result is {distance:.1e} (relative RMS) from fp32's")


def _check_channels_last(net: Network) -> None:
    if net.contract.capabilities.channels_last:
        x = _comfortable(net)
        twin = copy.deepcopy(net).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        found = _run(twin, x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x)
        distance = _distance(found, _run(net, x))
        _must(distance <= _TOLERANCE[torch.float32], f"relative difference {distance:.1e}")


def _check_halo(net: Network) -> None:
    halo = net.contract.halo
    if isinstance(halo, int):
        double = copy.deepcopy(net).double()
        for axis in (-2, -1):
            _check_halo_along(double, halo, axis)


def _check_halo_along(net: Network, halo: int, axis: int) -> None:
    """Look at one block of output pixels in the middle of a picture that is long in one direction.

    The block is `unit` pixels, so it has a pixel in every position relative to the network's own grid.
    """
    contract, direction = net.contract, "height" if axis == -2 else "width"
    unit = contract.sizes[axis]
    context = -(-halo // unit) * unit
    length = 2 * context + 3 * unit
    across = 4 * contract.sizes[-3 - axis]
    x = _input(net, *((length, across) if axis == -2 else (across, length)))
    first = context + unit  # of the block; at least one unit of the picture lies beyond the context on both sides

    def block(restored: Tensor, start: int, size: int = unit) -> Tensor:
        return restored.narrow(axis, start * contract.scale, size * contract.scale)

    whole = _run(net, x)
    far = torch.rand_like(x)
    near = x.narrow(axis, first - halo, unit + 2 * halo)
    far.narrow(axis, first - halo, unit + 2 * halo).copy_(near)
    distance = _distance(block(_run(net, far), first), block(whole, first))
    _must(distance <= _EXACT, f"pixels more than {halo} away in {direction} change the result by {distance:.1e}")

    if not contract.square and x.shape[axis] == length:
        tile = x.narrow(axis, unit, length - 2 * unit)
        if contract.padded_size(*tile.shape[-2:]) == tuple(tile.shape[-2:]):
            distance = _distance(block(_run(net, tile), first - unit), block(whole, first))
            _must(
                distance <= _EXACT, f"a tile with {context} pixels of context in {direction} differs by {distance:.1e}"
            )

    x.requires_grad_()
    restored = net.run(x)["restored"]
    reach = 0
    for offset in range(unit):
        pixels = block(restored, first + offset, 1)
        (gradient,) = torch.autograd.grad((pixels * torch.randn_like(pixels)).sum(), x, retain_graph=True)
        others = [i for i in range(x.ndim) if i != x.ndim + axis]
        touched = gradient.abs().sum(dim=others).nonzero().flatten()
        if touched.numel():
            reach = max(reach, int((touched - first - offset).abs().max()))
    _must(reach <= halo, f"declared are {halo} pixels, but in {direction} a result depends on pixels {reach} away")


def _check_reach(net: Network) -> None:
    contract = net.contract
    if contract.kind in ("clip", "stream") and isinstance(contract.reach, int):
        length = contract.past + contract.future + 2 * contract.reach + 1
        x = _input(net, length=length).double().requires_grad_()
        restored = copy.deepcopy(net).double().run(x)["restored"]
        frame = restored[:, restored.shape[1] // 2]
        (gradient,) = torch.autograd.grad((frame * torch.randn_like(frame)).sum(), x)
        reach = int(gradient.abs().sum(dim=(0, 2, 3, 4)).count_nonzero())
        _must(reach <= contract.reach, f"declared are {contract.reach} frames, a result depends on {reach}")


def _check_stream(net: Network) -> None:
    if net.contract.kind != "stream":
        return
    x = _comfortable(net)
    window = net.contract.past + 1 + net.contract.future
    with torch.no_grad():
        expected = net.run(x)
        state = net.init_state(x[:, :window])
        for t in range(x.shape[1] - window + 1):
            _must(
                isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values()),
                f"before frame {t} the state is no flat dict of tensors",
            )
            outputs, state = net.step(x[:, t : t + window], state)
            for name, value in outputs.items():
                distance = _distance(value, expected[name][:, t])
                _must(distance <= _TOLERANCE[torch.float32], f"frame {t} of {name!r} differs by {distance:.1e}")


def _check_split(net: Network) -> None:
    """Go through a short sequence with one store, windows that show frames twice at its start included."""
    if not net.splits:
        return
    frames, target = net.contract.frames, net.contract.target
    length = frames + 2
    clip = torch.cat([_comfortable(net), _comfortable(net)], dim=1)[:, :length]
    store = SharedStore()
    for center in range(length - frames + target + 1):
        positions = window_indices(center, target, frames - 1 - target, length, "replicate" if center else "reflection")
        x = clip[:, positions]
        store.forget_before(center - target)
        with torch.no_grad():
            expected = net.run(x)
            found = net.run_shared(x, store.window(positions))
        _must(set(found) == set(expected), f"fuse returns {sorted(found)}, run returns {sorted(expected)}")
        for name, value in found.items():
            distance = _distance(value, expected[name])
            _must(distance <= _SHARED, f"{name!r} of the window {positions} differs by {distance:.1e}")


def _check_sweeps(net: Network) -> None:
    if not net.has_sweeps:
        return
    from deblurkit.models.recurrence import run_frame_by_frame

    x = _comfortable(net)
    for clip in (x, x[:, :1]):
        with torch.no_grad():
            expected, (found, _) = net.run(clip), run_frame_by_frame(net, clip)
        for name, value in found.items():
            distance = _distance(value, expected[name])
            _must(distance <= _SHARED, f"{name!r} of {clip.shape[1]} frames differs by {distance:.1e}")


def _check_compile(net: Network) -> None:
    if net.contract.capabilities.compile:
        x = _comfortable(net)
        torch.compiler.reset()  # all networks share the code of `run`, and torch compiles one code only a few times
        compiled = torch.compile(copy.deepcopy(net).run, fullgraph=True, backend="aot_eager")
        with torch.no_grad():
            distance = _distance(compiled(x)["restored"], _run(net, x))
        _must(distance <= _TOLERANCE[torch.float32], f"relative difference {distance:.1e}")


def _check_export(net: Network) -> None:
    if net.contract.capabilities.export:
        x = _comfortable(net)
        with torch.no_grad():
            exported = torch.export.export(_Runner(net), (x,)).module()
            distance = _distance(exported(x)["restored"], _run(net, x))
        _must(distance <= _TOLERANCE[torch.float32], f"relative difference {distance:.1e}")


class _Runner(nn.Module):
    """`run` as a module's `forward`, which is what exporters take."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.net.run(x)


_PROMISES: list[tuple[str, Callable[[Network], None]]] = [
    ("`run` returns what the contract declares, at the smallest size and a larger one", _check_outputs),
    ("it is registered and `config` builds it again, through YAML too", _check_registered),
    ("it can be built and counted without memory for its weights (torch's meta device)", _check_weightless),
    ("in training the gradient reaches every parameter that is not listed as dead", _check_gradients),
    ("a state dict survives .pth (weights_only) and .safetensors", _check_files),
    ("it can be copied and pickled", _check_copies),
    ("capability deterministic: equal input gives equal bits", _check_deterministic),
    ("capability batch: two samples together give what each gives alone", _check_batch),
    ("capabilities bf16, fp16: finite and close to fp32 under autocast", _check_precisions),
    ("capability channels_last: the memory format does not change the result", _check_channels_last),
    ("halo: pixels farther away than that have no influence", _check_halo),
    ("reach: frames farther away than that have no influence", _check_reach),
    ("stream: stepping gives what `run` gives", _check_stream),
    ("split: windows that share their work give what `run` gives", _check_split),
    ("sweeps: walking through a clip frame by frame gives what `run` gives", _check_sweeps),
]
_SLOW_PROMISES: list[tuple[str, Callable[[Network], None]]] = [
    ("capability compile: torch.compile without graph breaks", _check_compile),
    ("capability export: torch.export", _check_export),
]
