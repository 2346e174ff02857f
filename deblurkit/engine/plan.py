"""What a training would do, without doing it: `deblurkit train --dry-run`."""

from __future__ import annotations

import typer

from deblurkit.build import build_dataset, build_network
from deblurkit.console import warn
from deblurkit.data.batch_plan import plan_batches
from deblurkit.engine.launch import Place, resolve_device
from deblurkit.errors import DataError
from deblurkit.network import count_macs
from deblurkit.options import Options
from deblurkit.registry import MODEL_REGISTRY


def print_plan(options: Options, processes: int) -> None:
    """Build network, losses, optimiser and schedule, and print what they are. Missing data is a warning here."""
    assert options.network_g is not None
    train, entry = options.training(), options.sets("train")["train"]
    net = build_network(options.network_g.mapping())
    size = max(entry.gt_sizes, default=entry.gt_size or 256)
    macs = count_macs(net, size // options.scale, size // options.scale)
    model = MODEL_REGISTRY.get(options.model_type)(options, {"g": net}, Place(resolve_device("cpu")))
    typer.echo(f"{options.name}: {options.model_type}, {processes} process(es)")
    typer.echo(
        f"network    {type(net).__name__}, {net.num_parameters:,} parameters, "
        f"{macs / 1e9:.2f} GMACs for a frame of {size}x{size}"
    )
    for name, loss in train.losses.items():
        typer.echo(f"loss       {name}: {loss.weight:g} x {loss.type} on {loss.output!r}")
    typer.echo(f"optimiser  {train.optim_g.type} {train.optim_g.arguments}")
    total = train.total_epoch or train.total_iter or 0
    typer.echo(f"schedule   {total:,} {train.unit}s")
    for done in _changes(model.schedule, total):
        model.start_iteration(train.warmup_iter + 1, done)
        typer.echo(f"           from {train.unit} {done:,}: lr {', '.join(f'{rate:.3e}' for rate in model.rates())}")
    for name, options_of_set in options.datasets.items():
        try:
            samples = len(build_dataset(options_of_set.mapping(), options.manual_seed))
        except DataError as error:
            warn(f"datasets.{name}: {error}")
            continue
        typer.echo(f"data       {name}: {samples:,} samples")
        if name == "train":
            plan = plan_batches(entry, samples, processes, train.accumulate)
            iterations = total * plan.stages[0].iterations_per_epoch if train.unit == "epoch" else total
            epochs = plan.samples_before(iterations) / plan.visits
            typer.echo(f"           {plan}, {iterations:,} in all ({epochs:.1f} epochs)")


def _changes(schedule: object, total: int) -> list[int]:
    """Where the learning rate jumps, at most eight places; for smooth schedules quarters of the way."""
    milestones = [m for m in getattr(schedule, "milestones", []) if m < total]
    restarts = [start for start, _ in getattr(schedule, "restarts", [])]
    quarters = [] if hasattr(schedule, "milestones") else [total // 4, total // 2, 3 * total // 4, total]
    return sorted({0, *milestones, *restarts, *quarters})[:8]
