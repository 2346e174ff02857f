"""What a training would do, without doing it: `deblurkit train --dry-run`."""

from __future__ import annotations

from itertools import accumulate

import torch
import typer
from torch import Tensor, nn

from deblurkit.build import build_dataset, build_discriminator, build_loss, build_network
from deblurkit.console import warn
from deblurkit.data.batch_plan import plan_batches
from deblurkit.engine.launch import Place, number_of_processes, resolve_device
from deblurkit.engine.start_weights import build_without_missing, load_start_weights
from deblurkit.errors import DataError, MissingWeightsError
from deblurkit.models.base import Model
from deblurkit.models.discriminators import Discriminators
from deblurkit.network import count_macs
from deblurkit.options import DatasetOptions, Options
from deblurkit.registry import MODEL_REGISTRY


def print_plan(options: Options, processes: int) -> None:
    """Build network, losses, optimiser and schedule, and print what they are.

    Data and weights that are missing are warnings here.
    """
    assert options.network_g is not None
    train, entry = options.training(), options.sets("train")["train"]
    net = build_without_missing(
        options.network_g.mapping(), build_network, lambda name, error: warn(f"network_g.{name}: {error}")
    )
    size = max(entry.gt_sizes, default=entry.gt_size or 256)
    macs = count_macs(net, size // options.scale, size // options.scale)
    networks: dict[str, nn.Module] = {"g": net}
    if options.network_d is not None:
        networks["d"] = build_discriminator(options.network_d.mapping(), train.gan.crops if train.gan else None)
    start = [_start_weights(options, role, network) for role, network in networks.items()]
    buildable = _buildable(options)
    model = MODEL_REGISTRY.get(options.model_type)(buildable, networks, Place(resolve_device("cpu")))
    typer.echo(f"{options.name}: {options.model_type}, {processes} process(es)")
    typer.echo(
        f"network    {type(net).__name__}, {net.num_parameters:,} parameters, "
        f"{macs / 1e9:.2f} GMACs for a frame of {size}x{size}"
    )
    if options.network_d is not None:
        judge = networks["d"]
        names = (
            ", ".join(type(one).__name__ for one in judge.critics.values()) if isinstance(judge, Discriminators) else ""
        )
        size = sum(p.numel() for p in judge.parameters())
        typer.echo(f"network_d  {names or type(judge).__name__}, {size:,} parameters")
    for line in filter(None, start):
        typer.echo(line)
    typer.echo(f"memory     {_memory(model, entry, options.scale)}")
    for name, loss in train.losses.items():
        typer.echo(f"loss       {name}: {loss.weight:g} x {loss.type} on {', '.join(loss.outputs)}")
    if train.gan is not None:
        typer.echo(f"loss       gan: {train.gan.weight:g} x {train.gan.type} on {', '.join(train.gan.outputs)}")
        for name, penalty in train.gan.penalties.items():
            typer.echo(f"penalty    {name}: {penalty.weight:g} x {penalty.type}, for network_d")
    typer.echo(f"optimiser  {train.optim_g.type} {train.optim_g.arguments}")
    if train.optim_d is not None:
        typer.echo(f"           {train.optim_d.type} {train.optim_d.arguments} for network_d")
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
            typer.echo(f"           {plan}, {iterations:,} in all ({plan.epochs_before(iterations):.1f} epochs)")


def _start_weights(options: Options, role: str, network: nn.Module) -> str:
    """A line about the weights that training starts from; "" without any."""
    try:
        file = load_start_weights(options, role, network)
    except MissingWeightsError as error:
        warn(f"path.pretrain_network_{role}: {error}")
        return ""
    return f"weights    network_{role}: {file}" if file else ""


def _buildable(options: Options) -> Options:
    """The options without losses whose own weights are not there yet; each is named in a warning."""
    train, losses = options.training(), {}
    for name, loss in train.losses.items():
        try:
            build_loss(loss.mapping())
            losses[name] = loss
        except MissingWeightsError as error:
            warn(f"train.losses.{name}: {error}")
    return options.model_copy(update={"train": train.model_copy(update={"losses": losses})})


def planned_processes(num_gpu: int | str, gpus: int | None, procs: int | None) -> int:
    """How many processes a training is meant to have, wherever the plan is made; "auto": those of this machine."""
    if gpus is None and procs is None and num_gpu == "auto":
        return number_of_processes("auto", None, None, "auto")
    wanted = procs if procs is not None else gpus if gpus is not None else int(num_gpu)
    return max(wanted, 1)


def _memory(model: Model, entry: DatasetOptions, scale: int) -> str:
    """An estimate for one process in fp32: weights with what the optimisers keep, and the activations of a batch.

    Activations are what one training pass over small frames keeps for its backward pass, times the number of pixels.
    """
    parameters = [p for net in model.networks.values() for p in net.parameters()]
    # weight and gradient, two moments (as Adam has them), and the average
    copies = 4 + bool(model.averages)
    weights = copies * sum(p.numel() * p.element_size() for p in parameters)
    net = model.net
    stages = list(zip(entry.mini_batch_sizes, entry.gt_sizes, strict=True))
    stages = stages or [(entry.batch_size_per_gpu, entry.gt_size or 256)]
    height, width = net.contract.padded_size(64, 64)
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    own = {p.untyped_storage().data_ptr() for p in parameters}
    frames = net.example_input(height, width)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = net.run(frames)
    length = frames.shape[1] if net.contract.kind in ("clip", "stream") else 1
    wanted = int((entry.model_extra or {}).get("num_frame", length)) if length > 1 else 1
    del outputs
    per_pixel = sum(size for address, size in kept.items() if address not in own) / (height * width) / length * wanted
    activations = max(batch * (size // scale) ** 2 * per_pixel for batch, size in stages)
    return (
        f"about {(weights + activations) / 2**30:.1f} GiB a process in fp32: {weights / 2**30:.1f} for weights, "
        f"gradients and optimiser, {activations / 2**30:.1f} for activations (without checkpointing)"
    )


def _changes(schedule: object, total: int) -> list[int]:
    """Where the learning rate jumps, at most eight places; for smooth schedules quarters of the way too."""
    milestones = [m for m in getattr(schedule, "milestones", []) if m < total]
    restarts = [start for start, _ in getattr(schedule, "restarts", [])]
    cycles = [end + 1 for end in accumulate(getattr(schedule, "periods", []))]  # a boundary belongs to the earlier one
    quarters = [] if hasattr(schedule, "milestones") else [total // 4, total // 2, 3 * total // 4]
    jumps = sorted({0, *milestones, *restarts, *(end for end in cycles if end < total)})
    return sorted({*jumps[:8], *quarters[: max(8 - len(jumps), 0)], *([total] if quarters else [])})
