"""`deblurkit test`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from deblurkit.cli.app import app
from deblurkit.cli.train import Device, Forced, Launcher, LocalRank, OptionsFile, Overrides, Plugins


@app.command("test")
def evaluate(
    opt: OptionsFile,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="Weights file; by default path.pretrain_network_g.")
    ] = None,
    overrides: Overrides = [],  # noqa: B006
    device: Device = "auto",
    plugins: Plugins = [],  # noqa: B006
    forced: Forced = [],  # noqa: B006
    launcher: Launcher = "none",
    local_rank: LocalRank = 0,
) -> None:
    """Score a network on the test sets of an options file; writes results/NAME."""
    from deblurkit.engine import launch
    from deblurkit.options import load_options

    options = load_options(opt, "test", overrides, plugins, forced)
    if launcher == "slurm":
        os.environ.update(launch.slurm_variables(os.environ))
    with launch.process_group(device) as place:
        from deblurkit.engine.evaluate import run_test

        folder = run_test(options, str(weights) if weights else None, place)
        if place.is_main:
            typer.echo(str(folder / "metrics.json"))
