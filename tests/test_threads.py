from __future__ import annotations

import threading

import torch

from deblurkit.threads import start_beside


def test_a_thread_beside_computes_alone_and_changes_nothing_elsewhere() -> None:
    seen: dict[str, int] = {}

    def note(name: str) -> None:
        seen[name] = torch.get_num_threads()

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        started = threading.Event()

        def work() -> None:
            started.wait()
            note("beside")

        beside = start_beside(work, "beside")
        started.set()
        beside.join()
        later = threading.Thread(target=lambda: note("later"))
        later.start()
        later.join()
        assert seen == {"beside": 1, "later": 2}
        assert torch.get_num_threads() == 2
        assert beside.name == "beside"
    finally:
        torch.set_num_threads(before)
