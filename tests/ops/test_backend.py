"""Choosing between backends."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from deblurkit.ops import backend


def test_the_pure_form_is_always_there():
    for operator in ("deform_conv2d", "another"):
        for device in ("cpu", "cuda", "mps"):
            assert "torch" in backend.available(operator, device)
    assert backend.choose("another", "mps") == "torch"


def test_missing_or_broken_torchvision_is_no_error(monkeypatch):
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(torch.ops, "torchvision", object())
    assert not backend.has_torchvision()
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: object())

    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(backend.importlib, "import_module", broken)
    assert not backend.has_torchvision()
    assert backend.choose("deform_conv2d", "cuda") == "torch"


def test_a_preference_is_for_a_while(monkeypatch):
    monkeypatch.setitem(backend._RUNS, "torchvision", lambda: True)
    best = backend.choose("deform_conv2d", "cpu")
    with backend.use_backend("torchvision"):
        assert backend.choose("deform_conv2d", "cpu") == "torchvision"
        assert backend.choose("another", "cpu") == "torch"
    assert backend.choose("deform_conv2d", "cpu") == best == "torch"
    assert backend.choose("deform_conv2d", "cuda") == "torchvision"
    monkeypatch.setitem(backend._RUNS, "torchvision", lambda: False)
    with pytest.raises(ValueError, match="cannot run here"), backend.use_backend("torchvision"):
        pass


def test_budgets():
    assert backend.budget_of("cpu") == backend.BUDGETS["cpu"] == backend.budget_of("mps")
    assert backend.budget_of("cuda", 5) == 5


def test_torchvision_is_looked_for_where_it_is_installed():
    if importlib.util.find_spec("torchvision") is None:
        assert not backend.has_torchvision()
