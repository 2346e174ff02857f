"""Every registered network keeps its promises and agrees with the reference figures that there are of it."""

from __future__ import annotations

import numpy as np
import pytest

from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY
from deblurkit.testing import check_network
from tests.support import parity

REGISTERED = ARCH_REGISTRY.names()
RESTORING = [name for name in REGISTERED if issubclass(ARCH_REGISTRY.get(name), Network)]  # not the discriminators
FIXTURES = [name for name in parity.network_fixtures() if parity.load(name).arch in REGISTERED]


def test_the_skeleton_has_its_first_network() -> None:
    assert "DBN" in REGISTERED
    assert "DBN" in FIXTURES


@pytest.mark.parametrize("name", RESTORING)
def test_keeps_its_promises(name: str) -> None:
    check_network(ARCH_REGISTRY.get(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", RESTORING)
def test_compiles_and_exports_where_it_says_so(name: str) -> None:
    check_network(ARCH_REGISTRY.get(name), slow=True)


@pytest.mark.parametrize("name", FIXTURES)
def test_agrees_with_the_reference(name: str) -> None:
    fixture = parity.load(name)
    net = ARCH_REGISTRY.get(fixture.arch)(**fixture.meta["kwargs"])
    assert parity.entries(net) == sorted(fixture.keys())
    assert sum(p.numel() for p in net.parameters()) == fixture.meta["param_count"]
    outputs = fixture.call(fixture.prepare(net))
    assert len(outputs) == len(fixture.outputs)
    for output, expected in zip(outputs, fixture.outputs, strict=True):
        np.testing.assert_allclose(output.numpy(), expected, rtol=fixture.meta["rtol"], atol=fixture.meta["atol"])
