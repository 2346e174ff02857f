"""What is remembered on the meta device changes no estimate of memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from deblurkit.engine import memory
from deblurkit.engine.memory import PeakMemory, largest_tile
from deblurkit.engine.meta_cache import MetaCache
from deblurkit.network import Network, build_twin_on_meta
from deblurkit.registry import ARCH_REGISTRY


def networks(*kinds: str) -> list[str]:
    """Names of those that can be built for tests."""
    found = []
    for name in ARCH_REGISTRY.names():
        cls = ARCH_REGISTRY.get(name)
        if isinstance(cls, type) and issubclass(cls, Network) and cls(**cls.check_args).contract.kind in kinds:
            found.append(name)
    return found


def peak_on_meta(name: str, height: int, width: int, length: int | None, cache: MetaCache | None) -> int:
    """Of the simulation that asks for every shape (no cache), or of the one that remembers them."""
    cls: type[Network] = ARCH_REGISTRY.get(name)
    twin = build_twin_on_meta(cls(**cls.check_args))
    x = twin.example_input(height, width, length=length)
    with torch.inference_mode(), PeakMemory(cache) as tracker:
        tracker.count(x)
        twin.run(x)
    return tracker.peak


@pytest.mark.parametrize("name", networks("clip"))
def test_the_need_of_clips_is_that_of_the_full_simulation(name: str) -> None:
    full = peak_on_meta(name, 64, 96, 4, None)
    assert peak_on_meta(name, 64, 96, 4, MetaCache()) == full > 64 * 96 * 4 * 3 * 4


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 64), (136, 200)])
@pytest.mark.parametrize("length", [5, 32])
@pytest.mark.parametrize("name", networks("clip"))
def test_the_need_of_long_clips(name: str, length: int, size: tuple[int, int]) -> None:
    assert peak_on_meta(name, *size, length, MetaCache()) == peak_on_meta(name, *size, length, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", networks("image", "window", "stream"))
def test_the_need_of_other_networks(name: str) -> None:
    assert peak_on_meta(name, 64, 96, None, MetaCache()) == peak_on_meta(name, 64, 96, None, None)


def remembered(function: Any, *shape: int) -> tuple[Any, Any, int]:
    """A function of a tensor on the meta device twice, and how many operators ran the second time."""
    x = torch.empty(*shape, device="meta")
    cache = MetaCache()
    with torch.inference_mode(), PeakMemory(cache):
        first = function(x)
        known = len(cache._known)
        second = function(x)
    return first, second, len(cache._known) - known


def test_results_look_as_they_did() -> None:
    def work(x: torch.Tensor) -> list[torch.Tensor]:
        channels_last = x.to(memory_format=torch.channels_last)
        folded = F.unfold(x, 3).to(torch.float16)
        values, places = x.max(1)
        return [channels_last, folded, values, places, x.transpose(1, 2) + 1, *torch.split(x, 2, 1), x.add_(1)]

    first, second, new = remembered(work, 2, 4, 6, 8)
    assert new == 0
    for a, b in zip(first, second, strict=True):
        assert (a.shape, a.stride(), a.dtype, a.storage_offset()) == (b.shape, b.stride(), b.dtype, b.storage_offset())
    assert second[-1].untyped_storage()._cdata == first[-1].untyped_storage()._cdata  # still in place
    assert second[-2].untyped_storage()._cdata == first[-2].untyped_storage()._cdata  # still a view


def test_what_looks_alike_is_told_apart() -> None:
    x = torch.empty(4, device="meta", dtype=torch.int64)
    cache = MetaCache()
    with torch.inference_mode(), PeakMemory(cache):
        assert (x + 1).dtype == torch.int64
        assert (x + 1.0).dtype == torch.float32
        assert (x.float() + 1).dtype == torch.float32
    on_host = torch.ones(3)
    with PeakMemory(cache):
        assert (on_host + 1).tolist() == (on_host + 1).tolist() == [2, 2, 2]


@pytest.mark.parametrize("constant", [0, 5_000_000])
@pytest.mark.parametrize("context", [0, 128])
def test_few_sides_are_looked_at(constant: int, context: int) -> None:
    sides = list(range(64, 1920, 64))
    for room in (1 << 20, 1 << 25, 1 << 28, 1 << 31, 1 << 40):
        looked: list[int] = []

        def needs(side: int) -> int:
            looked.append(side)  # noqa: B023
            return constant + 400 * (side + context) ** 2

        found = largest_tile(needs, sides, room)
        looks = len(looked)
        assert found == max((side for side in sides if needs(side) <= room * memory.MARGIN), default=None)
        assert looks <= 5
