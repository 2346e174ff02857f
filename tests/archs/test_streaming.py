"""Streaming a clip frame by frame gives what the whole-clip call gives, for every stream network, on random clips.

All in float64, where two ways to the same result differ by rounding only.
"""

from __future__ import annotations

import io
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from deblurkit.models.recurrence import run_frame_by_frame
from deblurkit.network import Network, State
from deblurkit.registry import ARCH_REGISTRY
from deblurkit.testing import stir

#: Arguments that change what a stream looks like, beside each network's `check_args`.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "STRCNN": [{"num_frames_encoded": 1}, {"num_frames_encoded": 4, "inner_channels": 6}],
    "IFIRNN": [{"dual_cell": False, "intra_iters": 2}, {"intra_iters": 1}, {"dual_cell": False, "intra_iters": 0}],
    "ESTRNN": [{"past_frames": 0, "future_frames": 0}, {"past_frames": 1, "future_frames": 3}, {"past_frames": 3}],
    "STFAN": [{"clamp_feedback": False}],
    "PVDNet": [{"PV_ksize": 3, "large_model": True}],
    "BasicVSRPlusPlus": [{"is_low_res_input": True}],
    "RealBasicVSRNet": [{"dynamic_refine_thres": 1e-6, "is_sequential_cleaning": True}],
}


def _streams(kind: str = "stream") -> list[Any]:
    """The networks of a kind; of clip networks those that can walk through a clip."""
    found = []
    for name in ARCH_REGISTRY.names():
        cls = ARCH_REGISTRY.get(name)
        if issubclass(cls, Network):
            with torch.device("meta"):
                net = cls(**cls.check_args)
            if net.contract.kind == kind and (kind == "stream" or net.has_sweeps):
                for i, arguments in enumerate([{}, *VARIANTS.get(name, [])]):
                    found.append(pytest.param(name, {**cls.check_args, **arguments}, id=f"{name}-{i}"))
    return found


@pytest.fixture(params=range(2))
def clip_of(request: pytest.FixtureRequest) -> Any:
    """A function that draws a network and a clip of random batch, length and size for it."""

    def draw(name: str, arguments: dict[str, Any]) -> tuple[Network, Tensor]:
        rng = random.Random(f"{name} {request.param}")
        torch.manual_seed(request.param)
        net = ARCH_REGISTRY.get(name)(**arguments)
        stir(net.double().eval())
        contract = net.contract
        height, width = (unit * rng.randint(1, 6) for unit in contract.sizes)
        length = contract.past + contract.future + rng.randint(2, 7)
        x = net.example_input(height, width, batch=rng.randint(1, 2), length=length)
        return net, torch.rand_like(x)

    return draw


def _windows(net: Network, x: Tensor) -> list[Tensor]:
    length = net.contract.past + 1 + net.contract.future
    return [x[:, t : t + length].clone() for t in range(x.shape[1] - length + 1)]


def _saved_and_loaded(state: State) -> State:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def _assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize(("name", "arguments"), _streams())
def test_stepping_gives_what_the_whole_clip_gives(name, arguments, clip_of):
    """Also with a state that is written to a file between two frames, as a tiled or interrupted restoration does."""
    net, x = clip_of(name, arguments)
    whole = net.run(x)
    windows = _windows(net, x)
    state = net.init_state(windows[0])
    for t, window in enumerate(windows):
        outputs, state = net.step(window, _saved_and_loaded(state))
        assert outputs.keys() == whole.keys()
        for key, value in outputs.items():
            _assert_same(value, whole[key][:, t])


@torch.no_grad()
@pytest.mark.parametrize(("name", "arguments"), _streams())
def test_later_frames_do_not_matter(name, arguments, clip_of):
    """A prefix of the clip gives a prefix of the result: nothing looks farther ahead than `future` frames."""
    net, x = clip_of(name, arguments)
    unit = net.contract.time_multiple
    shorter = (x.shape[1] - 1) // unit * unit
    whole = net.run(x)
    for key, value in net.run(x[:, :shorter]).items():
        _assert_same(value, whole[key][:, : value.shape[1]])


@torch.no_grad()
@pytest.mark.parametrize(("name", "arguments"), _streams())
def test_steps_are_pure_and_their_state_does_not_grow(name, arguments, clip_of):
    """A step may be repeated: it changes neither its window nor the state that it was given."""
    net, x = clip_of(name, arguments)
    windows = _windows(net, x)
    state = net.init_state(windows[0])
    shapes = {key: value.shape for key, value in state.items()}
    for window in windows:
        before, frames = _saved_and_loaded(state), window.clone()
        outputs, following = net.step(window, state)
        assert torch.equal(window, frames)
        assert all(torch.equal(value, before[key]) for key, value in state.items())
        again, _ = net.step(window, before)
        assert all(torch.equal(value, again[key]) for key, value in outputs.items())
        state = following
        assert {key: value.shape for key, value in state.items()} == shapes


@pytest.mark.parametrize(("name", "arguments"), _streams())
def test_too_short_clips_are_refused(name, arguments, clip_of):
    net, x = clip_of(name, arguments)
    with pytest.raises(ValueError, match="needs at least"):
        net.run(x[:, : net.contract.past + net.contract.future])


@torch.no_grad()
@pytest.mark.parametrize(("name", "arguments"), _streams("clip"))
def test_walking_gives_what_the_whole_clip_gives(name, arguments, clip_of):
    """Networks that look at all frames, one frame at a time (`Network.sweeps`)."""
    net, x = clip_of(name, arguments)
    found, _ = run_frame_by_frame(net, x)
    for key, value in net.run(x).items():
        _assert_same(found[key], value)
