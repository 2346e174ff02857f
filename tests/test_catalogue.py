from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from deblurkit.contract import Capabilities, FrameContract, Output
from deblurkit.engine.catalogue import _spell, contract_in_words, entries, find_entries, network_facts
from deblurkit.errors import RegistryError


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "int"),
        (int | None, "int | None"),
        (Literal["a", 2], "'a' | 2"),
        (dict[Literal["a"], float] | None, "dict['a', float] | None"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Mapping[str, list[int]], "Mapping[str, list[int]]"),
        (Callable[[int], str], "Callable"),
        (str | Path, "str | Path"),
        (Any, "any"),
    ],
)
def test_annotations_are_spelled_as_one_would_write_them(annotation: Any, text: str) -> None:
    assert _spell(annotation) == text


def test_contracts_in_words() -> None:
    contract = FrameContract(
        kind="clip",
        past=2,
        future=1,
        time_multiple=4,
        multiple=(8, 16),
        min_size=32,
        scale=4,
        outputs=(Output("restored", "clip", 4.0), Output("half", "clip", 0.5)),
        halo="data",
        capabilities=Capabilities(bf16=False, export=False),
    )
    assert contract_in_words(contract) == {
        "frames": "a clip whose length is a multiple of 4, all frames restored at once, "
        "seeing 2 past and 1 future frames",
        "size": "height a multiple of 8, width of 16, at least 32 (others are completed: reflect)",
        "result": "4 times the size of the input",
        "outputs": "restored (x4), half (x0.5)",
        "tiles": "are blended: how far the network looks depends on the picture",
        "capable of": "channels_last, compile, batch, deterministic",
    }
    plain = contract_in_words(FrameContract(kind="image"))
    assert (plain["frames"], plain["size"]) == ("one picture, restored by itself", "any size")
    assert plain["tiles"] == "differ from the whole picture: the network pools over it"


def test_entries_and_facts() -> None:
    (dbn,) = find_entries("DBN")
    assert dbn in entries("archs")
    assert dbn.summary == dbn.description.splitlines()[0]
    first = dbn.arguments[0]
    assert (first.name, first.type, first.default) == ("num_frames", "int", "5")
    facts = network_facts("DBN", {"inner_channels": 8}, (64, 96))
    assert facts.contract is not None
    assert facts.macs is not None
    assert facts.macs == pytest.approx(network_facts("DBN", {"inner_channels": 8}, (64, 192)).macs / 2)  # type: ignore[operator]
    assert network_facts("DBN").macs is None
    with pytest.raises(RegistryError, match=r"nothing is registered as 'PSRN'.*did you mean .*'PSNR'"):
        find_entries("PSRN")
