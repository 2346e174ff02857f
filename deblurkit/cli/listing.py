"""`deblurkit list` and `deblurkit show`: what is registered, and everything about one entry or one weights file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deblurkit.cli.app import app
from deblurkit.cli.train import Plugins

if TYPE_CHECKING:
    from deblurkit.engine.catalogue import Entry


@app.command("list")
def list_kind(
    kind: Annotated[Literal["archs", "models", "datasets", "losses", "metrics", "hooks", "weights"], typer.Argument()],
    plugins: Plugins = [],  # noqa: B006
) -> None:
    """List what is registered (archs, models, datasets, losses, metrics or hooks), or the weights that have a name."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from deblurkit.engine.catalogue import entries
    from deblurkit.registry import load_plugins

    load_plugins(plugins)
    if kind == "weights":
        _list_weights()
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("name", style="bold", no_wrap=True)
    if kind == "archs":
        table.add_column("year", no_wrap=True)
        table.add_column("kind", no_wrap=True)
        table.add_column("parameters", no_wrap=True, justify="right")
    table.add_column("summary")
    for entry in entries(kind):
        facts = _arch_cells(entry) if kind == "archs" else []
        table.add_row(entry.name, *facts, escape(entry.summary))
    if not table.row_count:
        _print(f"no {kind} are registered")
        return
    _print(table)
    _print("`deblurkit show NAME` tells everything about one of them.")


def _list_weights() -> None:
    """Weights by name; those that `infer` takes by default are marked."""
    from deblurkit.engine.checkpoint import read_checkpoint
    from deblurkit.engine.weights import VARIABLE, default_weights, known_weights, own_folder
    from deblurkit.errors import CheckpointError

    known = known_weights()
    try:
        usual: Path | None = default_weights()
    except CheckpointError:
        usual = None
    for name, path in known.items():
        try:
            network = read_checkpoint(path).network
            kind = str(network["type"]) if network else "does not say its network; `deblurkit convert` adds it"
        except CheckpointError as error:
            kind = str(error).removeprefix(f"{path}: ")
        mark = " (default)" if path == usual else ""
        _print_facts({f"{name}{mark}": f"{kind}, {path}"})
    if not known:
        _print(f"no weights have a name; those in {own_folder()}, or in a folder that {VARIABLE} names, do")
        return
    _print("`deblurkit show NAME` tells everything about one of them; `deblurkit infer --weights NAME` uses it.")


def _arch_cells(entry: Entry) -> list[str]:
    """Year, kind and parameters of a network built with its default arguments."""
    from deblurkit.engine.catalogue import network_facts

    year = str(getattr(entry.cls, "year", None) or "")
    if any(argument.default is None for argument in entry.arguments):
        return [year, "", "needs arguments"]
    try:
        facts = network_facts(entry.name)
    except Exception as error:  # one network that cannot be built, somebody's plugin, must not hide the others
        return [year, "", f"fails: {type(error).__name__}"]
    return [year, facts.contract.kind if facts.contract else "-", f"{facts.parameters:,}"]


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A registered name, or weights by file or name.")],
    size: Annotated[
        str, typer.Option("--size", metavar="WIDTHxHEIGHT", help="Picture size for which the cost is counted.")
    ] = "1280x720",
    settings: Annotated[
        list[str], typer.Option("--set", metavar="ARGUMENT=VALUE", help="Constructor argument of the network.")
    ] = [],  # noqa: B006
    plugins: Plugins = [],  # noqa: B006
) -> None:
    """Show everything about a registered name or a weights file."""
    from deblurkit.engine.catalogue import find_entries
    from deblurkit.engine.weights import ENDINGS, known_weights
    from deblurkit.registry import REGISTRIES, load_plugins

    load_plugins(plugins)
    file = Path(name) if name.endswith(ENDINGS) or Path(name).is_file() else None
    if file is None and not any(name in registry.names() for registry in REGISTRIES.values()):
        file = known_weights().get(name)
    if file is not None:
        from deblurkit.engine.checkpoint import describe_checkpoint

        _print_facts({key: _spelled(value) for key, value in describe_checkpoint(file).items()})
        return

    from deblurkit.yaml_source import Source, override

    measures = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", size)
    if not measures:
        raise typer.BadParameter(f"{size!r} is not WIDTHxHEIGHT, such as 1280x720", param_hint="--size")
    width, height = (int(side) for side in measures.groups())
    source = Source()
    for text in settings:
        override(source, text)
    found = find_entries(name)
    if settings and all(entry.kind != "archs" for entry in found):
        raise typer.BadParameter(f"{name} is no network; only networks are built by `show`", param_hint="--set")
    for entry in found:
        _show_entry(entry, source.values, (height, width))


def _show_entry(entry: Entry, arguments: dict[str, Any], size: tuple[int, int]) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    facts = _network_lines(entry, arguments, size) if entry.kind == "archs" else {}
    _print(f"[bold]{escape(entry.name)}[/bold] ({entry.kind})\n\n{escape(entry.description)}\n")
    _print_facts({**facts, "file": str(entry.file)})
    if entry.arguments:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("argument", style="bold", no_wrap=True)
        table.add_column("type")
        table.add_column("default")
        for argument in entry.arguments:
            default = "must be given" if argument.default is None else escape(argument.default)
            table.add_row(argument.name, escape(argument.type), default)
        _print(table)


def _network_lines(entry: Entry, arguments: dict[str, Any], size: tuple[int, int]) -> dict[str, str]:
    """What `show` says of networks only."""
    from deblurkit.engine.catalogue import contract_in_words, network_facts

    lines = {"paper": getattr(entry.cls, "paper", ""), "year": str(getattr(entry.cls, "year", None) or "")}
    missing = [a.name for a in entry.arguments if a.default is None and a.name not in arguments]
    if missing:
        return {**lines, "built with": f"nothing yet: give {', '.join(missing)} with --set {missing[0]}=VALUE"}
    facts = network_facts(entry.name, arguments, size)
    lines["built with"] = ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or "the default arguments"
    lines["parameters"] = f"{facts.parameters:,}"
    if facts.contract is None or facts.macs is None:
        return lines
    licence = facts.contract.licence
    return {
        **lines,
        "cost": f"{facts.macs / 1e9:,.2f} GMACs for one restored frame of {size[1]}x{size[0]}",
        **contract_in_words(facts.contract),
        "weights": f"published by upstream under {licence}" if licence else "",
    }


def _spelled(value: Any) -> str:
    """A value of a weights file's description."""
    if isinstance(value, dict) and "type" in value:
        from deblurkit.engine.checkpoint import spell

        return spell(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return f"{value:,}" if isinstance(value, int) else "not said in the file" if value is None else str(value)


def _print_facts(facts: dict[str, str]) -> None:
    """A line for each fact that is known."""
    from rich.markup import escape

    for key, value in facts.items():
        if value:
            _print(f"[bold]{key:<12}[/bold] {escape(value)}")


def _print(content: Any) -> None:
    """To stdout: this is the command's result. Long lines stay whole where the output is no terminal."""
    from rich.console import Console

    Console(highlight=False, soft_wrap=isinstance(content, str)).print(content)
