from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from deblurkit import registry

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # must be known before anything imports triton
torch.set_num_threads(1)  # the nets in tests are small, and threads that wait for each other cost more


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """The same random numbers in every test, whatever ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers, and what it makes fail, is forgotten afterwards."""
    registry.discover()
    for one in registry.REGISTRIES.values():
        monkeypatch.setattr(one, "_classes", dict(one._classes))
    monkeypatch.setattr(registry, "_failures", {})
