from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from deblurkit import registry
from deblurkit.archs.dbn_arch import DBN
from deblurkit.engine.checkpoint import save_network

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


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DBN that returns the middle frame of its window: its last batch norm is zero."""
    path = tmp_path_factory.mktemp("weights") / "net_g_latest.pth"
    save_network(path, DBN(inner_channels=4, zero_init_residual=True))
    return path
