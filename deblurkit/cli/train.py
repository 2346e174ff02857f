"""`deblurkit train`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from deblurkit.cli.app import app

OptionsFile = Annotated[Path, typer.Option("-opt", "--opt", help="Options file (YAML).", show_default=False)]
Overrides = Annotated[
    list[str],
    typer.Option("--set", help="Change an option: a.b.c=value. May be given several times.", metavar="KEY=VALUE"),
]
Plugins = Annotated[
    list[Path],
    typer.Option("--plugins", help="Folder with your own *_arch.py, *_dataset.py, ... files.", metavar="DIR"),
]
Forced = Annotated[
    list[str],
    typer.Option("--force_yml", help="BasicSR's spelling of --set: A:B:c=value ...", metavar="A:B:c=VALUE"),
]
Debug = Annotated[bool, typer.Option("--debug", help="As BasicSR: validate and save every 8, log each iteration.")]
LocalRank = Annotated[int, typer.Option("--local_rank", "--local-rank", hidden=True)]
Launcher = Annotated[
    Literal["none", "torchrun", "pytorch", "slurm"],
    typer.Option(
        "--launcher",
        help="torchrun (BasicSR: pytorch), slurm: this process was started by torchrun or by Slurm's srun.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]


@app.command()
def train(
    opt: OptionsFile,
    overrides: Overrides = [],  # noqa: B006
    gpus: Annotated[int | None, typer.Option("--gpus", help="Number of GPUs; one process each.")] = None,
    procs: Annotated[int | None, typer.Option("--procs", help="Number of processes on the CPU.")] = None,
    device: Device = "auto",
    launcher: Launcher = "none",
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            help="auto: go on where the run of this name stopped; none: start anew; or a .state file. By default "
            "auto, for BasicSR's options none.",
        ),
    ] = None,
    auto_resume: Annotated[bool, typer.Option("--auto_resume", help="The same as --resume auto.")] = False,
    forced: Forced = [],  # noqa: B006
    debug: Debug = False,
    local_rank: LocalRank = 0,
    plugins: Plugins = [],  # noqa: B006
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the options, build everything, print the plan, train nothing.")
    ] = False,
) -> None:
    """Train a network as an options file says."""
    from deblurkit.engine import launch
    from deblurkit.errors import DeviceError
    from deblurkit.options import load_options

    options = load_options(opt, "train", overrides, plugins, forced, debug)
    if launcher in ("torchrun", "pytorch") and not dry_run and not launch.inside_launcher():
        raise DeviceError(f"--launcher {launcher}: start it as `torchrun --nproc-per-node N -m deblurkit train ...`")
    if launcher == "slurm" and not dry_run:
        os.environ.update(launch.slurm_variables(os.environ))
    if dry_run:
        from deblurkit.engine.plan import planned_processes, print_plan

        print_plan(options, planned_processes(options.num_gpu, gpus, procs))
        return
    count = 1 if launch.inside_launcher() else launch.number_of_processes(options.num_gpu, gpus, procs, device)
    if count > 1:
        raise typer.Exit(launch.start_processes(count, sys.argv[1:]))
    on_cpu = device == "auto" and (options.num_gpu == 0 or procs is not None or gpus == 0)
    with launch.process_group("cpu" if on_cpu else device) as place:
        from deblurkit.engine.train import train as run

        code = run(options, place, resume or ("auto" if auto_resume else None))
    raise typer.Exit(code)
