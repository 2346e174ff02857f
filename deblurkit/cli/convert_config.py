"""`deblurkit convert-config`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deblurkit.cli.app import app


@app.command("convert-config")
def convert_config(
    file: Annotated[Path, typer.Argument(help="Options file of SimDeblur, BasicSR, NAFNet or Restormer.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write; by default the terminal.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Rewrite another tool's options as deblurkit's own."""
    from deblurkit.compat.convert import convert
    from deblurkit.errors import OptionsError
    from deblurkit.files import write_text

    text = convert(file)
    if output is None:
        typer.echo(text, nl=False)
        return
    if output.exists() and not force:
        raise OptionsError(f"{output}: is there already; give another name or --force")
    write_text(output, text)
    typer.echo(str(output))
