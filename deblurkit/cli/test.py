"""`deblurkit test`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from deblurkit.cli.app import app
from deblurkit.cli.train import (
    Device,
    Forced,
    Gpus,
    Launcher,
    LocalRank,
    OptionsFile,
    Overrides,
    Plugins,
    Procs,
    device_of,
    join,
)


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
    gpus: Gpus = None,
    procs: Procs = None,
    launcher: Launcher = "none",
    local_rank: LocalRank = 0,
) -> None:
    """Score a network on the test sets of an options file; writes results/NAME."""
    from deblurkit.engine import launch
    from deblurkit.options import load_options

    options = load_options(opt, "test", overrides, plugins, forced)
    join(launcher)
    count = launch.number_of_processes(0, gpus, procs, device)  # one, unless the command line asks for more
    if count > 1 and not launch.inside_launcher():
        raise typer.Exit(launch.start_processes(count, sys.argv[1:]))
    with launch.process_group(device_of(options.num_gpu, gpus, procs, device)) as place:
        from deblurkit.engine.evaluate import run_test

        folder = run_test(options, str(weights) if weights else None, place)
        if place.is_main:
            typer.echo(str(folder / "metrics.json"))
