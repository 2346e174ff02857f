"""Freed memory is kept for the next tensors."""

from __future__ import annotations

import platform
import subprocess
import sys

import numpy as np
import pytest

from deblurkit.engine.memory import peak_host_bytes
from tests.support.runs import environment

FAULTS = """
import resource, torch
from deblurkit.engine.memory import keep_freed_memory
keep_freed_memory()
for _ in range(3):
    torch.ones(4_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(4_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**variables: str) -> int:
    """Page faults of twenty tensors of 16 MB, of 4096 bytes (or a huge page) each."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env={**environment(), **variables}, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_the_next_tensor_has_no_page_faults() -> None:
    # what a user sets in the environment stays
    returned = faults(MALLOC_MMAP_THRESHOLD_="1000000", MALLOC_TRIM_THRESHOLD_="1000000")
    assert returned > 20 * 2
    assert faults() < returned / 3  # small blocks between them make now and then one begin at another place


GIVEN_BACK = """
import torch
from deblurkit.engine.memory import give_back_freed_memory, keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

keep_freed_memory()
torch.ones(1).sum()
before = resident()
blocks = [torch.ones(100_000) for _ in range(500)]
kept = blocks[::20]  # what lives longer lies between what does not
del blocks
freed = resident() - before
give_back_freed_memory()
print(freed, resident() - before, int(sum(one.sum() for one in kept)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_gaps_are_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GIVEN_BACK], env=environment(), capture_output=True, text=True, check=True
    )
    kept, left, total = (int(word) for word in done.stdout.split())
    assert kept > 180e6
    assert left < 30e6  # 25 blocks of 400 kB, and what torch loads
    assert total == 25 * 100_000


def test_the_peak_of_a_process_is_its_own() -> None:
    """Not that of the one that started it."""
    ballast = np.ones(2**30, np.uint8)
    assert peak_host_bytes() > len(ballast)
    code = "from deblurkit.engine.memory import peak_host_bytes as p; a = p(); b = bytes(2**26 + 1)[1:]; print(a, p())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before < len(ballast)
    assert after > before + 2**25
