"""Writes docs/networks.md, a page about every restoring network, from the registry, docs/networks.yml and options/.

    python scripts/make_network_page.py

A test compares the page with what this would write.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deblurkit.engine.catalogue import NetworkFacts, contract_in_words, network_facts
from deblurkit.errors import DeblurkitError, OptionsError
from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY
from deblurkit.yaml_source import read_source

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "networks.md"
SIZE = (720, 1280)  # of the frame whose cost is counted

HEAD = """\
# Networks

*Made by `scripts/make_network_page.py` from the registry, `docs/networks.yml` and `options/`; change those.*

Parameters and GMACs are counted here. GMACs are multiply-accumulates (in 10^9) for one restored frame of 1280x720:
convolutions, matrix products and attention, as `deblurkit show` counts them. They can be lower than a paper's: nothing
is computed here that does not reach the result, and papers count differently.

Figures are PSNR in dB and SSIM as they were read in the source that is named; none is from memory. Networks were
trained on the training part of the same data set, unless something else is said. Where no protocol stands the source
names none. Compare figures within one source only: SSIM differs by 0.03 between its usual definitions, and frames at
the ends of a sequence may or may not be scored.
"""


def main() -> int:
    """Write the page."""
    try:
        PAGE.write_text(page(), encoding="utf-8")
    except DeblurkitError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{PAGE}: written")
    return 0


def page() -> str:
    """The whole page.

    Raises:
        OptionsError: docs/networks.yml leaves a network out, has one that is not registered, or names no known source.
    """
    facts = read_source(ROOT / "docs" / "networks.yml").values
    _check(facts)
    recipes = recipes_by_network()
    costs = {
        (group["names"][0], label): network_facts(group["names"][0], arguments, SIZE)
        for group in facts["networks"]
        for label, arguments in group["configurations"].items()
    }
    lines = [HEAD, *_overview(facts["networks"], costs)]
    for group in facts["networks"]:
        lines += ["", *_section(group, facts, costs, [file for name in group["names"] for file in recipes[name]])]
    lines += ["", "## Sources", "", *(f"- **{key}**: {text}" for key, text in sorted(facts["sources"].items()))]
    return "\n".join(lines) + "\n"


def restoring() -> list[str]:
    """Names of the registered networks that restore (not the discriminators)."""
    return [name for name in ARCH_REGISTRY.names() if issubclass(ARCH_REGISTRY.get(name), Network)]


def recipes_by_network() -> dict[str, list[str]]:
    """Files in options/ by the network that they train or test."""
    found: dict[str, list[str]] = {name: [] for name in restoring()}
    files = [*(ROOT / "options").glob("train_*.yml"), *(ROOT / "options").glob("test_*.yml")]
    for path in sorted(files, key=lambda path: (path.name.partition("_")[2], path.name.startswith("test"))):
        found.setdefault(read_source(path).values["network_g"]["type"], []).append(path.name)
    return found


def _check(facts: Mapping[str, Any]) -> None:
    described = [name for group in facts["networks"] for name in group["names"]]
    for name in {*described} ^ {*restoring()}:
        there = "is not registered" if name in described else "is registered, but has no entry"
        raise OptionsError(f"docs/networks.yml: {name} {there}")
    for group in facts["networks"]:
        for figure in group["figures"]:
            for key, table in (("source", "sources"), ("protocol", "protocols")):
                if figure.get(key, "") and figure[key] not in facts[table]:
                    raise OptionsError(f"docs/networks.yml: {group['names'][0]}: unknown {key} {figure[key]!r}")


def _overview(groups: list[dict[str, Any]], costs: Mapping[tuple[str, str], NetworkFacts]) -> Iterator[str]:
    yield "| network | year | takes | parameters | GMACs |"
    yield "|---|---|---|---:|---:|"
    for group in groups:
        name = group["names"][0]
        for label in group["configurations"]:
            cost = costs[name, label]
            assert cost.contract is not None
            assert cost.macs is not None
            shown = f"[{name}](#{_anchor(group)})" + (f", {label}" if label != "published" else "")
            takes = cost.contract.kind + (f" of {cost.contract.frames}" if cost.contract.kind == "window" else "")
            year = ARCH_REGISTRY.get(name).year  # type: ignore[attr-defined]
            yield f"| {shown} | {year} | {takes} | {cost.parameters:,} | {cost.macs / 1e9:,.1f} |"


def _anchor(group: Mapping[str, Any]) -> str:
    """The link to a group's section, as it is made of the heading."""
    return "-".join(group["names"]).lower()


def _figure(value: float | None, decimals: int) -> str:
    """A figure with all the digits that it was written with, the zeros at its end too."""
    return "" if value is None else max(str(value), f"{value:.{decimals}f}", key=len)


def _section(
    group: dict[str, Any],
    facts: Mapping[str, Any],
    costs: Mapping[tuple[str, str], NetworkFacts],
    recipes: list[str],
) -> Iterator[str]:
    """What is said about one group of networks; its contract is that of the first configuration."""
    name, first = group["names"][0], next(iter(group["configurations"]))
    cost = costs[name, first]
    assert cost.contract is not None
    yield f"## {', '.join(group['names'])}"
    yield ""
    yield f"{ARCH_REGISTRY.get(name).paper}."  # type: ignore[attr-defined]
    yield ""
    for topic, text in contract_in_words(cost.contract).items():
        yield f"- {topic}: {text}"
    yield f"- licence of the published weights: {cost.contract.licence or 'not known'}"
    yield f"- recipes: {', '.join(f'[{file}](../options/{file})' for file in recipes)}"
    if "notes" in group:
        yield f"- {group['notes']}"
    yield ""
    if not group["figures"]:
        yield "No deblurring figure of it was found."
        return
    yield "| data | PSNR | SSIM | of | protocol | source |"
    yield "|---|---:|---:|---|---|---|"
    for figure in group["figures"]:
        protocol = facts["protocols"].get(figure.get("protocol"), "")
        psnr, ssim = _figure(figure["psnr"], 2), _figure(figure.get("ssim"), 3)
        cells = (figure["data"], psnr, ssim, figure.get("of", ""), protocol, figure["source"])
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
