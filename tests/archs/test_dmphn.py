from __future__ import annotations

from typing import Any

import pytest
import torch

import deblurkit
from deblurkit.network import count_macs


@pytest.mark.parametrize(
    ("arguments", "parameters", "giga_macs"),
    [
        ({"levels": [1, 2, 4]}, 5_424_393, 48.9),
        ({}, 7_232_524, 65.1),
        ({"levels": [1, 2, 4], "num_stacks": 2}, 10_848_786, 97.7),
        ({"levels": [1, 2, 4], "num_stacks": 3}, 16_273_179, 146.6),
        ({"levels": [1, 2, 4], "num_stacks": 4}, 21_697_572, 195.4),
    ],
)
def test_published_size_and_cost(arguments: dict[str, Any], parameters: int, giga_macs: float) -> None:
    with torch.device("meta"):
        net = deblurkit.build_network({"type": "DMPHN", **arguments})
    assert net.num_parameters == parameters
    assert count_macs(net, 256, 256) / 1e9 == pytest.approx(giga_macs, abs=0.06)


@pytest.mark.parametrize(
    ("levels", "multiple"), [([1], (4, 4)), ([1, 2], (8, 4)), ([1, 2, 4], (8, 8)), ([1, 2, 4, 8], (16, 8))]
)
@torch.no_grad()
def test_every_level_works_from_its_smallest_size_on(levels: list[int], multiple: tuple[int, int]) -> None:
    net = deblurkit.build_network({"type": "DMPHN", "levels": levels}).eval()
    assert net.contract.multiple == multiple
    for times in (1, 3):
        size = (times * multiple[0], times * multiple[1])
        assert net.run(torch.rand(2, 3, *size))["restored"].shape == (2, 3, *size)


@torch.no_grad()
def test_two_levels_as_the_paper_describes_them() -> None:
    net = deblurkit.build_network({"type": "DMPHN", "levels": [1, 2]}).eval()
    x = torch.rand(2, 3, 24, 20)
    part = net.get_submodule
    centred = x - 0.5
    upper, lower = centred.chunk(2, dim=2)
    features = torch.cat([part("encoder_lv2")(upper), part("encoder_lv2")(lower)], dim=2)
    residual = part("decoder_lv2")(features)
    expected = part("decoder_lv1")(part("encoder_lv1")(centred + residual) + features) + 0.5
    torch.testing.assert_close(net(x), expected)


@torch.no_grad()
def test_a_stack_gives_all_its_stages() -> None:
    net = deblurkit.build_network({"type": "DMPHN", "levels": [1, 2, 4], "num_stacks": 3}).eval()
    x = torch.rand(1, 3, 16, 8)
    first, second, last = net(x)
    outputs = net.run(x)
    assert [output.name for output in net.contract.outputs] == ["restored", "stage1", "stage2"]
    assert torch.equal(outputs["restored"], last)
    assert torch.equal(outputs["stage1"], first)
    assert torch.equal(outputs["stage2"], second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": [1, 4]}, r"not \[1, 4\]"),
        ({"levels": []}, r"not \[\]"),
        ({"levels": [1, 2, 4], "num_stacks": 5}, "1 to 4, not 5"),
        ({"num_stacks": 2}, r"has levels \[1, 2, 4\], not \[1, 2, 4, 8\]"),
    ],
)
def test_other_forms_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(deblurkit.DeblurkitError, match=message):
        deblurkit.build_network({"type": "DMPHN", **arguments})
