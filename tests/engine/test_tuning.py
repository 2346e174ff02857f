"""The fastest way of calling a network is measured; one that fails or gives another result is not taken."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from deblurkit.contract import Capabilities
from deblurkit.engine.restore import Restorer
from deblurkit.engine.tuning import Tuned
from tests.support.networks import ConvWindow, CopyImage, RunningMean
from tests.support.videos import pictures

Compiler = Callable[..., Callable[..., Any]]


class Slow(CopyImage):
    """Takes 20 ms, unless it is told to hurry."""

    hurry = False

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0 if self.hurry else 0.02)
        return x


def compiler(change: Callable[[Tensor], Tensor], net: Slow | None = None) -> Compiler:
    """A stand-in for `torch.compile` that makes the network fast, and changes its result."""

    def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
        def compiled(x: Tensor) -> Any:
            assert net is not None
            net.hurry = True
            try:
                return {"restored": change(function(x)["restored"])}
            finally:
                net.hurry = False

        return compiled

    return compile_


def test_a_faster_way_is_taken_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    net = Slow()
    run = Tuned(net, "run", compiler(lambda x: x + 1e-5, net))
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(run(x)["restored"], x + 1e-5)
    assert "Slow: torch.compile, " in capsys.readouterr().err
    run(x)
    assert capsys.readouterr().err == ""  # measured once
    run(torch.rand(1, 3, 8, 12))
    assert "times as fast" in capsys.readouterr().err  # another size


def test_another_result_is_not_taken(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (lambda x: x + 0.1, lambda x: x * float("nan")):
        net = Slow(capabilities=Capabilities(channels_last=False))
        x = torch.rand(1, 3, 8, 8)
        assert torch.equal(Tuned(net, "run", compiler(wrong, net))(x)["restored"], x)
        said = capsys.readouterr().err
        assert "torch.compile gives another result, and is not used" in said
        assert "nothing is faster than the plain way" in said


def test_a_compiler_that_fails_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(function: Any) -> Any:
        def compiled(*arguments: Any) -> Any:
            raise RuntimeError("no C++ compiler found\nand more")

        return compiled

    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(Tuned(CopyImage(), "run", broken)(x)["restored"], x)
    assert "warning: torch.compile does not work here: no C++ compiler found\n" in capsys.readouterr().err


def test_what_a_network_does_not_declare_is_not_tried() -> None:
    def never(function: Any) -> Any:
        raise AssertionError("compiled all the same")

    net = CopyImage(capabilities=Capabilities(channels_last=False, compile=False))
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(Tuned(net, "run", never)(x)["restored"], x)


@pytest.mark.parametrize("make", [CopyImage, ConvWindow, lambda: RunningMean(1, 1)], ids=["image", "window", "stream"])
def test_a_tuned_restorer_gives_the_same(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from deblurkit.engine import runner

    torch.manual_seed(0)
    net, frames = make().eval(), pictures(5, (16, 20))
    expected = [tensor for _, tensor in Restorer(net, device="cpu").restore_tensors(frames)]
    monkeypatch.setattr(runner, "Tuned", lambda net, name: Tuned(net, name, lambda function: function))
    found = [tensor for _, tensor in Restorer(net, device="cpu", tune=True).restore_tensors(frames)]
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_real_compiler() -> None:
    torch.manual_seed(0)
    net, frames = ConvWindow().eval(), pictures(4, (32, 40))
    expected = [tensor for _, tensor in Restorer(net, device="cpu").restore_tensors(frames)]
    found = [tensor for _, tensor in Restorer(net, device="cpu", tune=True).restore_tensors(frames)]
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=0, atol=1e-4)
