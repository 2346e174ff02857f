"""How much memory a network needs for a frame, found without computing anything, how much there is, and keeping it."""

from __future__ import annotations

import bisect
import ctypes
import math
import os
import platform
import re
import sys
import weakref
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deblurkit.engine.meta_cache import MetaCache
from deblurkit.network import Network, build_twin_on_meta
from deblurkit.sharing import Shared

#: Share of the free memory that a network may take. Workspaces of convolutions and fragmentation are not counted;
#: measured on the CPU, a process grew 1.75 times as much as the tensors.
MARGIN = 0.5


#: glibc's mallopt: numbers of its parameters, and what they are set to. Larger blocks than 32 MiB it always returns.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _KEPT_BLOCK = 2**30, 2**25


def keep_freed_memory(block: int = _KEPT_BLOCK) -> None:
    """Let this process keep up to 1 GiB of what it frees, for its next tensors on the CPU.

    By default the C library returns large blocks to the system at once, and the next tensor gets its memory page by
    page, each with a fault: up to half the time of a small network (`scripts/bench_allocator.py`). Nothing is changed
    where the C library is not glibc, or where the environment sets MALLOC_MMAP_THRESHOLD_ or MALLOC_TRIM_THRESHOLD_.

    Args:
        block: bytes; blocks that are larger are returned all the same. The smaller, the fewer gaps, and the steadier
            the peak of networks that hold many maps at a time.
    """
    if "MALLOC_MMAP_THRESHOLD_" in os.environ or "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return
    library = _glibc()
    if library is not None:
        library.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        library.mallopt(_MMAP_THRESHOLD, block)


def give_back_freed_memory() -> None:
    """Return to the system what the C library keeps, the gaps between what is in use included.

    Between long pieces of work, so that each begins with the same room: blocks of many sizes that live for different
    times leave gaps that the next ones do not fit, and the process grows. Takes milliseconds.
    """
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc."""
    is_glibc = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
    return ctypes.CDLL(None) if is_glibc else None


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that live at one time inside the block, on any device, torch's meta included.

    Args:
        cache: for torch's meta device.

    Attributes:
        peak: the most bytes at one time. live: bytes now.
    """

    def __init__(self, cache: MetaCache | None = None) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._cache = cache
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Collection[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator and count what it returns."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs) if self._cache is None else self._cache(func, args, kwargs)
        for leaf in (result,) if isinstance(result, Tensor) else tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.count(leaf)
        return result

    def count(self, tensor: Tensor) -> None:
        """Count a tensor's storage until it is freed; storages that were counted before count once."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen:
            return
        size = storage.nbytes()
        self._seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def peak_bytes(net: Network, height: int, width: int, length: int | None = None) -> int:
    """Bytes that restoring one sample of `height` x `width` takes at its peak in fp32, weights not included.

    The network runs on torch's meta device, where tensors have no content. One whose operators depend on content
    cannot; it runs once on small black frames on its own device, and the figure is scaled by the number of pixels.

    Args:
        length: frames of a clip; None: a short one. Kinds "image" and "window" ignore it.
    """
    try:
        return _peak_of_run(build_twin_on_meta(net), height, width, length)
    except (NotImplementedError, RuntimeError):
        small = net.contract.padded_size(min(height, 64), min(width, 64))
        return int(_peak_of_run(net, *small, length) * (height * width) / (small[0] * small[1]))


def _peak_of_run(net: Network, height: int, width: int, length: int | None) -> int:
    x = net.example_input(height, width, length=length)
    with torch.inference_mode(), PeakMemory(MetaCache() if x.is_meta else None) as memory:
        memory.count(x)
        # windows that share their work hold on to what the next one needs: all of it in `shared`
        if net.splits:
            net.run_shared(x, Shared(range(x.shape[1])))
        else:
            net.run(x)
    return memory.peak


def free_bytes(device: torch.device) -> int:
    """Memory that may still be taken on a device; on the CPU, what the system has available."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        available = _facts("/proc/meminfo", ":")["MemAvailable"] * 1024
    except (OSError, KeyError):
        pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
        available = os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    return min(available, _room_in_container())


def peak_host_bytes() -> int:
    """The most memory that this process has held, in bytes; 0 where the system does not say (Windows)."""
    if sys.platform == "win32":
        return 0
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    if found:
        return int(found[1]) * 1024
    import resource

    # on Linux a process that another one has started begins with the peak of that one here
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _room_in_container() -> int:
    """What the memory limit of a container leaves; a very large number without one."""
    root = Path("/sys/fs/cgroup")
    try:
        limit = (root / "memory.max").read_text().strip()
        used = int((root / "memory.current").read_text())
        used -= _facts(str(root / "memory.stat"), " ").get("inactive_file", 0)  # file cache makes way
    except OSError:
        return 1 << 62
    return max(int(limit) - used, 0) if limit != "max" else 1 << 62


def _facts(path: str, separator: str) -> dict[str, int]:
    rows = (line.split(separator, 1) for line in Path(path).read_text().splitlines())
    return {name: int(value.split()[0]) for name, value in rows}


def largest_tile(needs: Callable[[int], int], sides: list[int], room: int) -> int | None:
    """The largest of `sides` (ascending) whose need fits the margin of `room`; None when not even the first does.

    Few sides are looked at, because each takes about a second for networks that see clips: the next one is where the
    need would fit if it went with the area, as it does but for parts that are worked off in pieces.

    Args:
        needs: bytes for a tile of that side; grows with it. room: free bytes.
    """
    low, high, most = 0, len(sides), room * MARGIN  # those before `low` fit, those from `high` on do not
    middle = high // 2
    while low < high:
        side, need = sides[middle], needs(sides[middle])
        if need <= most:
            low = middle + 1
        else:
            high = middle
        reached = side * math.sqrt(most / max(need, 1))
        middle = min(max(bisect.bisect_right(sides, reached) - (need > most), low), high - 1)
    return sides[low - 1] if low else None
