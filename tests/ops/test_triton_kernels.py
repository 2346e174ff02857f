"""Triton's kernels against the pure forms; without a GPU, Triton's interpreter runs them."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor

from deblurkit.ops import backend
from deblurkit.ops.correlation import correlation
from deblurkit.ops.deform_conv import deform_conv2d
from deblurkit.ops.fac import filter_adaptive_conv, kernel_prediction_conv

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def triton_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    for preference in backend._PREFERENCE.values():
        monkeypatch.setitem(preference, DEVICE, ("torch", "triton"))


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operators that asked for the kernels and got them."""
    names: list[str] = []
    real = backend.triton_kernels

    def noting(operator: str, *tensors: Tensor | None) -> object:
        module = real(operator, *tensors)
        names.extend([operator] if module is not None else [])
        return module

    monkeypatch.setattr(backend, "triton_kernels", noting)
    return names


def leaves(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(shape, device=DEVICE).requires_grad_() for shape in shapes]


def check_equal(run, inputs: list[Tensor], used: list[str], operator: str) -> None:
    """Results and gradients of both backends; the kernels did run, and only where they were asked for."""
    found = []
    for name in ("torch", "triton"):
        with backend.use_backend(name):
            out = run(*inputs)
            grad = torch.linspace(-1, 1, out.numel(), device=DEVICE).view_as(out)
            found.append([out.detach(), *torch.autograd.grad(out, inputs, grad)])
        assert (operator in used) == (name == "triton")
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("batch", "channels", "outputs", "groups", "deformable", "stride", "padding", "dilation", "extras"),
    [(2, 8, 12, 1, 2, 1, 1, 1, True), (1, 12, 6, 2, 3, 2, 1, 1, False), (1, 6, 70, 1, 1, 1, 2, 2, True)],
)
def test_deform_conv(batch, channels, outputs, groups, deformable, stride, padding, dilation, extras, used):
    size = [(n + 2 * padding - 2 * dilation - 1) // stride + 1 for n in (9, 11)]
    inputs = leaves(
        (batch, channels, 9, 11), (batch, deformable * 18, *size), (outputs, channels // groups, 3, 3)
    )  # fmt: skip
    with torch.no_grad():
        inputs[1] *= 3
    if extras:
        inputs += leaves((outputs,), (batch, deformable * 9, *size))

    def run(*tensors: Tensor) -> Tensor:
        return deform_conv2d(*tensors, stride=stride, padding=padding, dilation=dilation)

    check_equal(run, inputs, used, "deform_conv2d")


def test_deform_conv_far_outside():
    x, weight = torch.ones(1, 1, 5, 5, device=DEVICE), torch.ones(1, 1, 3, 3, device=DEVICE)
    offset = torch.full((1, 18, 5, 5), 1e30, device=DEVICE)
    with backend.use_backend("triton"):
        for far in (offset, -offset):
            assert deform_conv2d(x, far, weight, padding=1).eq(0).all()


@pytest.mark.parametrize("size", [3, 5])
def test_filter_adaptive_conv(size, used):
    inputs = leaves((2, 3, 6, 7), (2, 3 * size**2, 6, 7))
    check_equal(lambda *given: filter_adaptive_conv(*given, size), inputs, used, "filter_adaptive_conv")


@pytest.mark.parametrize("radius", [3, 4])
def test_correlation(radius, used):
    inputs = leaves((2, 5, 9, 37), (2, 5, 9, 37))
    check_equal(lambda *given: correlation(*given, radius), inputs, used, "correlation")


def test_only_wanted_gradients():
    first, second = leaves((1, 2, 4, 5), (1, 2, 4, 5))
    with backend.use_backend("triton"):
        correlation(first, second.detach(), 1).sum().backward()
    assert first.grad is not None


def test_what_the_kernels_do_not_know_stays_with_the_pure_form(used):
    with backend.use_backend("triton"):
        kernel_prediction_conv(*leaves((1, 3, 4, 4), (1, 25, 4, 4)))  # one kernel for all channels
        doubles = [one.double() for one in leaves((1, 2, 4, 5), (1, 2, 4, 5))]
        correlation(*doubles, 1)
    assert not used
