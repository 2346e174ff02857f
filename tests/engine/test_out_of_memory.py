"""Too little memory: tiles are halved, the work goes on, and the result is what it would have been."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deblurkit.contract import FrameContract
from deblurkit.engine.restore import Restorer
from deblurkit.engine.states import StateLayout, retile
from deblurkit.engine.tiling import Grid
from deblurkit.errors import DeviceError
from deblurkit.network import Network, State
from tests.support.networks import ConvWindow, CopyImage, NeighbourClip, RunningMean, SharedWindow
from tests.support.videos import pictures


class Scarce:
    """Memory for inputs of at most `pixels` a frame, from call `after` on."""

    def __init__(self, pixels: int, after: int = 0) -> None:
        self.pixels, self.after, self.calls, self.refused = pixels, after, 0, 0

    def check(self, x: Tensor) -> None:
        if x.is_meta:
            return
        self.calls += 1
        if self.calls > self.after and x.shape[-1] * x.shape[-2] > self.pixels:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def scarce(net: Network, memory: Scarce) -> Network:
    """The network with that memory."""
    cls = type(net)

    def guarded(name: str) -> Any:
        def call(self: Network, x: Tensor, *more: Any) -> Any:
            memory.check(x)
            return getattr(cls, name)(self, x, *more)

        return call

    net.__class__ = type(cls.__name__, (cls,), {name: guarded(name) for name in ("run", "run_shared", "step")})
    net.weight = nn.Parameter(torch.zeros(1))  # so that it has a device, and costs nothing on meta
    return net


def restored(net: Network, frames: Any, **settings: Any) -> Tensor:
    torch.manual_seed(0)
    return torch.stack([t for _, t in Restorer(net, device="cpu", **settings).restore_tensors(iter(frames))])


class Ripple(RunningMean):
    """A stream whose state is a quarter of the size and spreads by a pixel of its own with every frame."""

    def __init__(self) -> None:
        Network.__init__(self, FrameContract(kind="stream", multiple=4, halo="data"))
        self.down, self.up = nn.Conv2d(3, 4, 4, stride=4), nn.ConvTranspose2d(4, 3, 4, stride=4)
        self.mix = nn.Conv2d(8, 4, 3, padding=1)

    def init_state(self, x: Tensor) -> State:
        rows, columns = (side // 4 for side in x.shape[-2:])
        return {"hidden": x.new_zeros(x.shape[0], 4, rows, columns), "count": torch.zeros((), dtype=torch.int64)}

    def step(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        hidden = torch.tanh(self.mix(torch.cat([self.down(x[:, 0]), state["hidden"]], 1)))
        return {"restored": x[:, 0] + self.up(hidden)}, {"hidden": hidden, "count": state["count"] + 1}


@pytest.mark.parametrize("after", [0, 3, 9])
@pytest.mark.parametrize(
    "make",
    [CopyImage, ConvWindow, SharedWindow, lambda: RunningMean(1, 1, multiple=4), NeighbourClip],
    ids=["image", "window", "shared", "stream", "clip"],
)
def test_tiles_are_halved_until_they_fit(make: Any, after: int, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    net = make()
    frames = pictures(12, (70, 300))
    settings = {"clip_length": 5, "clip_overlap": 2} if net.contract.kind == "clip" else {}
    expected = restored(net, frames, **settings)
    capsys.readouterr()
    memory = Scarce(96 * 100, after)
    restorer = Restorer(scarce(net, memory), device="cpu", tile="auto", **settings)
    found = torch.stack([tensor for _, tensor in restorer.restore_tensors(iter(frames))])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    if memory.calls > after:
        side = restorer._runner._largest
        assert f"out of memory; going on with tiles of {side} pixels" in capsys.readouterr().err
        assert memory.refused == {128: 1, 64: 2}[side]


def test_a_frame_that_fails_in_its_third_tile_is_begun_again_with_the_old_states() -> None:
    net, frames = RunningMean(multiple=4), pictures(6, (70, 300))
    expected = restored(net, frames)
    memory = Scarce(300 * 72)
    memory.check = lambda x: None  # type: ignore[method-assign]
    restorer = Restorer(scarce(net, memory), device="cpu", tile="auto")
    restorer._runner._largest = 128
    calls = 0

    def third_of_frame_two(x: Tensor) -> None:
        nonlocal calls
        calls += not x.is_meta
        if calls == 2 * 3 + 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99999 bytes")

    memory.check = third_of_frame_two  # type: ignore[method-assign]
    found = torch.stack([t for _, t in restorer.restore_tensors(frames)])
    assert restorer._runner._largest == 64
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_state_of_another_size_is_cut_with_its_frame() -> None:
    """Where tiles see all that the state has spread, the result is that of whole frames; states of whole frames do."""
    torch.manual_seed(2)
    net = Ripple().eval()
    layout = StateLayout.of(net)
    assert layout.axes["count"] is None
    hidden = layout.axes["hidden"]
    assert hidden is not None
    assert (hidden.rows, hidden.columns, hidden.scale) == (2, 3, (0.25, 0.25))
    whole, tiles, finer = (Grid(net.contract, 70, 300, tile) for tile in (0, 128, 64))
    state = {"hidden": torch.randn(1, 4, 18, 75), "count": torch.tensor(5)}
    cut = retile({None: state}, layout, whole, tiles)
    for number, tile in enumerate(tiles.tiles):
        rows, columns = (slice(s.start // 4, s.stop // 4) for s in (tile.rows, tile.columns))
        assert torch.equal(cut[number]["hidden"], state["hidden"][..., rows, columns])
        assert cut[number]["count"] == 5
    again = retile(cut, layout, tiles, finer)
    direct = retile({None: state}, layout, whole, finer)
    assert all(torch.equal(again[n]["hidden"], direct[n]["hidden"]) for n in range(len(finer.tiles)))
    assert torch.equal(retile(cut, layout, tiles, whole)[None]["hidden"], state["hidden"])


def test_a_stream_goes_on_with_smaller_tiles_in_mid_stream() -> None:
    net = Ripple()
    frames = pictures(8, (70, 300))
    expected = restored(net, frames)
    memory = Scarce(72 * 260, 4)
    found = restored(scarce(net, memory), frames, tile="auto")
    assert memory.refused == 1
    torch.testing.assert_close(found[:4], expected[:4])
    assert (found - expected).abs().max() < 0.01  # blended from here on
    torch.testing.assert_close(found[4], expected[4], rtol=0, atol=1e-5)  # the first after it has the whole state


def test_a_state_that_cannot_be_cut_says_so() -> None:
    class Flat(Ripple):
        def init_state(self, x: Tensor) -> State:
            return {
                name: value.flatten(2) if value.ndim == 4 else value for name, value in super().init_state(x).items()
            }

        def step(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
            shape = (1, 4, x.shape[-2] // 4, x.shape[-1] // 4)
            outputs, after = super().step(x, {**state, "hidden": state["hidden"].reshape(shape)})
            return outputs, {**after, "hidden": after["hidden"].flatten(2)}

    frames = pictures(8, (70, 300))
    restored(scarce(Flat(), Scarce(96 * 200)), frames, tile="auto")  # nothing to cut before the first frame
    with pytest.raises(DeviceError, match="Flat cannot go on with smaller tiles: 'hidden' in its state"):
        restored(scarce(Flat(), Scarce(96 * 200, 4)), frames, tile="auto")


def test_the_end_of_halving_and_tiles_that_were_asked_for() -> None:
    frames = pictures(1, (200, 300))
    with pytest.raises(DeviceError, match="out of memory even for tiles of 64 x 64 pixels"):
        restored(scarce(CopyImage(), Scarce(100)), frames, tile="auto")
    with pytest.raises(DeviceError, match="use a smaller --tile N"):
        restored(scarce(CopyImage(), Scarce(100)), frames, tile=64)
    with pytest.raises(DeviceError, match="use --tile auto or --tile N"):
        restored(scarce(CopyImage(), Scarce(100)), frames)

    class Broken(CopyImage):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape"):
        restored(Broken(), frames, tile="auto")


def test_pictures_of_other_sizes_keep_to_what_fits() -> None:
    memory = Scarce(96 * 96)
    frames = [pictures(1, size)[0] for size in ((70, 300), (300, 70), (32, 32))]
    out = list(Restorer(scarce(CopyImage(), memory), device="cpu", tile="auto").restore(frames))
    assert [frame.shape for frame in out] == [frame.shape for frame in frames]
    assert memory.refused == 1  # 300 wide; 128 fit, also for the others
