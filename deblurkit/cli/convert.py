"""`deblurkit convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deblurkit.cli.app import app
from deblurkit.cli.train import Plugins


@app.command("convert")
def convert(
    file: Annotated[Path, typer.Argument(help="Weights of this or another tool: .pth, .pt, .safetensors, ...")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write: .pth or .safetensors.")],
    arch: Annotated[
        str | None, typer.Option("--arch", help="The network, where the file does not say it: NAFNet.")
    ] = None,
    arguments: Annotated[
        list[str], typer.Option("--set", help="An argument of the network, in YAML: --set width=64 (may be repeated).")
    ] = [],  # noqa: B006
    io: Annotated[
        str | None,
        typer.Option("--io", help='Pixels that the weights take, if not RGB in [0, 1]: "{order: bgr, mean: [...]}".'),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Take the weights themselves, not their moving average.")] = False,
    plugins: Plugins = [],  # noqa: B006
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write weights with the name and arguments of their network, ready for `infer` and `test`."""
    from deblurkit.engine.checkpoint import spell
    from deblurkit.engine.convert import convert_weights
    from deblurkit.errors import OptionsError
    from deblurkit.registry import load_plugins
    from deblurkit.yaml_source import Source, override

    load_plugins(plugins)
    if output.exists() and not force:
        raise OptionsError(f"{output}: is there already; give another name or --force")
    if arguments and arch is None:
        raise OptionsError("--set gives arguments of the network that --arch names: give both")
    network, pixels = Source({"type": arch}), Source()
    for text in arguments:
        override(network, text)
    if io is not None:
        override(pixels, f"io={io}")
    convention = pixels.values.get("io")
    if convention is not None and not isinstance(convention, dict):
        raise OptionsError(f'--io: is a mapping such as "{{order: bgr}}", not {io!r}')
    net = convert_weights(file, output, network.values if arch else None, convention, averaged=not raw)
    typer.echo(f"{output}: {spell(net.config)}")
    if not net.io.is_default:
        typer.echo(f"pixels: {net.io.to_mapping()}")
