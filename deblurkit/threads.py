"""Threads beside the one that computes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch


def start_beside(work: Callable[[], None], name: str, *, daemon: bool = False) -> threading.Thread:
    """Start a thread whose torch operators use no core but its own.

    Every thread has helpers of its own for parallel loops. Those of a thread that fetches or encodes frames would fight
    for the cores with those of the thread that computes: a training on two cores ran no faster than on one.
    """
    count = torch.get_num_threads()
    set_up = threading.Event()

    def run() -> None:
        torch.get_num_threads()  # a thread's first look sets what is set for all: not after the next line
        torch.set_num_threads(1)  # of this thread, and of threads that are still to come
        set_up.set()
        work()

    thread = threading.Thread(target=run, name=name, daemon=daemon)
    thread.start()
    set_up.wait()
    torch.set_num_threads(count)
    return thread
