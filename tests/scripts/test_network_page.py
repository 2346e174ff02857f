"""docs/networks.md says what the registry, docs/networks.yml and options/ say, of every network."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import make_network_page

    return make_network_page


def test_the_page_is_up_to_date(script: ModuleType) -> None:
    """If not: python scripts/make_network_page.py."""
    assert script.PAGE.read_text(encoding="utf-8") == script.page()


def test_every_network_has_recipes(script: ModuleType) -> None:
    recipes = script.recipes_by_network()
    groups = script.read_source(script.ROOT / "docs" / "networks.yml").values["networks"]
    for group in groups:
        files = [file for name in group["names"] for file in recipes[name]]
        assert any(file.startswith("train_") for file in files), group["names"]
        assert any(file.startswith("test_") for file in files), group["names"]


def test_a_network_that_is_left_out_is_named(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    names = script.restoring()
    monkeypatch.setattr(script, "restoring", lambda: [*names, "Newcomer"])
    with pytest.raises(script.OptionsError, match="Newcomer is registered, but has no entry"):
        script.page()
