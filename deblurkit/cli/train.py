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
Gpus = Annotated[int | None, typer.Option("--gpus", help="Number of GPUs; one process each.")]
Procs = Annotated[int | None, typer.Option("--procs", help="Number of processes on the CPU.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]


def join(launcher: str) -> None:
    """See to the environment that `--launcher` promises.

    Raises:
        DeviceError: nothing of that kind has started this process.
    """
    from deblurkit.engine import launch
    from deblurkit.errors import DeviceError

    if launcher in ("torchrun", "pytorch") and not launch.inside_launcher():
        raise DeviceError(
            f"--launcher {launcher}: start it as `torchrun --nproc-per-node N -m deblurkit ... --launcher {launcher}`"
        )
    if launcher == "slurm":
        os.environ.update(launch.slurm_variables(os.environ))


def device_of(num_gpu: int | str, gpus: int | None, procs: int | None, device: str) -> str:
    """The device's name, "auto" less what the options file or the number of processes says about it."""
    on_cpu = device == "auto" and (num_gpu == 0 or procs is not None or gpus == 0)
    return "cpu" if on_cpu else device


@app.command()
def train(
    opt: OptionsFile,
    overrides: Overrides = [],  # noqa: B006
    gpus: Gpus = None,
    procs: Procs = None,
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
    from deblurkit.engine.stop import queue_again_until_training
    from deblurkit.options import load_options

    queue_again_until_training()
    options = load_options(opt, "train", overrides, plugins, forced, debug)
    if dry_run:
        from deblurkit.engine.plan import planned_processes, print_plan

        print_plan(options, planned_processes(options.num_gpu, gpus, procs))
        return
    join(launcher)
    count = 1 if launch.inside_launcher() else launch.number_of_processes(options.num_gpu, gpus, procs, device)
    if count > 1:
        raise typer.Exit(launch.start_processes(count, sys.argv[1:]))
    with launch.process_group(device_of(options.num_gpu, gpus, procs, device)) as place:
        from deblurkit.engine.train import train as run

        code = run(options, place, resume or ("auto" if auto_resume else None))
    raise typer.Exit(code)
