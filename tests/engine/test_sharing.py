"""Windows that share their work give what plain windows give, and compute it once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from deblurkit.data.frame_sampling import window_indices
from deblurkit.engine.calls import SharedCall
from deblurkit.engine.memory import peak_bytes
from deblurkit.engine.restore import Restorer
from deblurkit.network import count_macs, count_shared_macs
from deblurkit.sharing import Shared, SharedStore
from tests.support.networks import ConvWindow, SharedWindow
from tests.support.videos import pictures

PADDINGS = ["replicate", "reflection", "reflection_circle", "circle"]


def plain(net: SharedWindow, frames: list[Any], padding: Any) -> Tensor:
    """Every window computed anew."""
    clip = torch.stack([torch.from_numpy(frame).permute(2, 0, 1) / 255 for frame in frames])[None]
    with torch.no_grad():
        windows = [window_indices(i, 2, 2, len(frames), padding) for i in range(len(frames))]
        return torch.cat([net.run(clip[:, window])["restored"] for window in windows])


@pytest.mark.parametrize("tile", [0, 12])
@pytest.mark.parametrize("padding", PADDINGS)
def test_shared_windows_equal_plain_ones(padding: Any, tile: int) -> None:
    torch.manual_seed(0)
    net = SharedWindow().eval()
    for length in (1, 2, 3, 4, 5, 6, 11):
        frames = pictures(length, (24, 28))
        expected = plain(net, frames, padding)
        restorer = Restorer(net, device="cpu", tile=tile, time_padding=padding)
        found = torch.stack([tensor for _, tensor in restorer.restore_tensors(iter(frames))])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_targets_apart_from_each_other_are_right_too() -> None:
    net = SharedWindow().eval()
    frames = pictures(20, (8, 8))
    expected = plain(net, frames, "reflection")
    for targets in ([0, 19], [3, 4, 9], range(0, 20, 6)):
        for position, tensor in Restorer(net, device="cpu").restore_tensors(frames, targets):
            torch.testing.assert_close(tensor, expected[position], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("padding", "again"), [("replicate", 0), ("reflection", 0), ("circle", 3)])
def test_each_frame_and_each_triple_is_computed_once(padding: Any, again: int) -> None:
    """The last windows of `circle` go back to frames that no window in the middle would need any more."""
    for length in (12, 40):
        net = SharedWindow().eval()
        list(Restorer(net, device="cpu", time_padding=padding).restore_tensors(pictures(length, (8, 8))))
        windows = [window_indices(i, 2, 2, length, padding) for i in range(length)]
        triples = {tuple(window[i : i + 3]) for window in windows for i in range(3)}
        assert net.calls == {"features": length + again, "middle": len(triples) + again // 3, "fuse": length}


def test_what_is_kept_does_not_grow_with_length(monkeypatch: pytest.MonkeyPatch) -> None:
    most: list[int] = []
    forget = SharedCall.forget_before

    def watch(self: SharedCall, position: int) -> None:
        forget(self, position)
        most.append(max((len(store) for store in self._stores.values()), default=0))

    monkeypatch.setattr(SharedCall, "forget_before", watch)
    list(Restorer(SharedWindow(), device="cpu").restore_tensors(pictures(60, (8, 8))))
    assert max(most) <= 5 + 3
    assert most[20] == most[50]


def test_a_window_that_overflows_does_not_spoil_the_next_ones() -> None:
    class Fragile(SharedWindow):
        def features(self, frame: Tensor) -> Any:
            found = super().features(frame)
            return {name: value / 0 if torch.is_autocast_enabled("cpu") else value for name, value in found.items()}

    torch.manual_seed(0)
    net = Fragile()
    frames = pictures(7, (8, 8))
    restorer = Restorer(net, device="cpu", precision="bf16")
    found = torch.stack([tensor for _, tensor in restorer.restore_tensors(frames)])
    torch.testing.assert_close(found, plain(net, frames, "reflection"), rtol=0, atol=1e-5)


def test_the_cost_in_the_middle_of_a_sequence_is_counted() -> None:
    net, pixels = SharedWindow(width=8), 16 * 16
    features, middle, last = (9 * i * o * pixels for i, o in ((3, 8), (24, 8), (24, 3)))
    assert count_macs(net, 16, 16) == 5 * features + 3 * middle + last
    assert count_shared_macs(net, 16, 16) == features + middle + last


def test_memory_that_is_kept_for_the_next_window_is_counted() -> None:
    class Heavy(SharedWindow):
        def features(self, frame: Tensor) -> Any:
            return {**super().features(frame), "more": frame.repeat(1, 50, 1, 1)}

    assert peak_bytes(Heavy(), 16, 16) - peak_bytes(SharedWindow(), 16, 16) >= 5 * 50 * 3 * 16 * 16 * 4


def test_a_store_knows_results_by_positions_not_slots() -> None:
    store = SharedStore()
    made: list[str] = []

    def ask(shared: Shared, name: str, *slots: int) -> Tensor:
        return shared(name, slots, lambda: made.append(name) or torch.tensor(len(made)))  # type: ignore[func-returns-value]

    first = store.window([1, 0, 1, 2])
    assert ask(first, "a", 0) == ask(first, "a", 2) == 1
    assert ask(first, "a", 0, 1) == 2  # another set of frames
    assert ask(first, "b", 0) == 3
    second = store.window([2, 1, 0])
    assert ask(second, "a", 1) == 1
    assert ask(second, "a", 1, 2) == 2
    assert ask(second, "a", 2, 1) == 4  # another order
    store.forget_before(1)
    assert ask(store.window([1, 0]), "a", 0) == 1
    assert ask(store.window([1, 0]), "a", 0, 1) == 5
    assert len(store) == 3


def test_networks_without_a_split_are_called_as_a_whole() -> None:
    assert not ConvWindow().splits
    assert SharedWindow().splits
