"""One process or many: devices, process groups, and starting N processes from one command."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from deblurkit.console import fail
from deblurkit.errors import DeviceError, TrainingError

T = TypeVar("T")

#: How long processes wait for each other. Validation shares whole sequences out, and some take much longer than others;
#: a process that died is noticed by the launcher, not by this.
_PATIENCE = timedelta(hours=1)
#: How long they wait for all to be there at the start. Under Slurm no launcher notices one that died before that.
MEETING = timedelta(minutes=10)

#: Exit codes of a run that saved its state and stopped: by hand, terminated, pre-empted by Slurm (to be queued again).
STOP_CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 75}


class PeerLostError(TrainingError):
    """Another process of this run died; that one says why."""

    exit_code = 76  # tells the command that started the processes that this one was not the first to fail


@dataclass(frozen=True)
class Place:
    """Where this process stands among those that train together."""

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """True for the process that writes files and talks to the user."""
        return self.rank == 0


def resolve_device(name: str = "auto") -> torch.device:
    """The device called `name`: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1".

    Raises:
        DeviceError: this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"--device {name}: is not the name of a device; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise DeviceError(f"--device {name}: this machine has {count} CUDA device(s); use --device cpu or auto")
    elif device.type not in ("cpu", "mps"):
        raise DeviceError(f"--device {name}: use auto, cpu, cuda or cuda:N")
    return device


def inside_launcher() -> bool:
    """True in a process that torchrun (or `start_processes`) started."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def slurm_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """torchrun's variables for a task that Slurm's `srun` started, one task per process.

    The meeting point is the first host of the job and port MASTER_PORT, 29500 without one.

    Raises:
        DeviceError: the environment is not that of a Slurm task.
    """
    needed = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_JOB_NODELIST")
    missing = [name for name in needed if name not in environment]
    if missing:
        raise DeviceError(
            f"--launcher slurm: {', '.join(missing)} not set; start it as `srun deblurkit train ... --launcher slurm` "
            "(scripts/train_slurm.sbatch is an example)"
        )
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_NTASKS"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "MASTER_ADDR": first_host(environment["SLURM_JOB_NODELIST"]),
        "MASTER_PORT": environment.get("MASTER_PORT", "29500"),
    }


def first_host(nodes: str) -> str:
    """The first host of a Slurm node list: "gpu03-ib" of "gpu[03-05,07]-ib,big1"."""
    first = re.sub(r"\[([^],-]*)[^]]*\]", r"\1", nodes)  # of each bracket the first item
    return first.split(",")[0].strip()


def number_of_processes(num_gpu: int | str, gpus: int | None, procs: int | None, device: str) -> int:
    """How many processes a command should run as.

    Args:
        num_gpu: of the options file ("auto": all GPUs). gpus, procs, device: the command line's words.

    Raises:
        DeviceError: more GPUs are asked for than there are, or the words contradict each other.
    """
    if procs is not None:
        if gpus is not None or device not in ("auto", "cpu"):
            raise DeviceError("--procs N starts N processes on the CPU: use it with --device cpu and without --gpus")
        if procs < 1:
            raise DeviceError(f"--procs {procs}: at least one process is needed")
        return procs
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus is not None:
        if not 0 <= gpus <= count:
            raise DeviceError(f"--gpus {gpus}: this machine has {count} CUDA device(s)")
        return max(gpus, 1)
    if device != "auto" or num_gpu == "auto":
        return max(count, 1) if device == "auto" else 1
    if int(num_gpu) > count:
        raise DeviceError(
            f"num_gpu: {num_gpu} in the options, but this machine has {count} CUDA device(s); use `num_gpu: auto`"
        )
    return max(int(num_gpu), 1)


def start_processes(count: int, arguments: Sequence[str], threads: int | None = None) -> int:
    """Run `deblurkit ARGUMENTS` in `count` processes under torch's elastic launcher.

    When one process dies, the others are ended within seconds. Each sees torchrun's variables (RANK, WORLD_SIZE, ...).

    Returns:
        the exit code for this command: 0, or that of the process that failed first (128 + N: signal N killed it).
    """
    from torch.distributed.elastic.multiprocessing import Std
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    cores = os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(threads or max(cores // count, 1)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.ERROR)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=f"deblurkit-{os.getpid()}",
        max_restarts=0,
        monitor_interval=0.1,
        logs_specs=DefaultLogsSpecs(redirects=Std.NONE),
    )
    if hasattr(signal, "SIGUSR1"):  # the launcher passes the other signals on by itself

        def pass_on(number: int, frame: FrameType | None) -> None:
            raise SignalException("asked to stop", signal.Signals(number))

        signal.signal(signal.SIGUSR1, pass_on)
    try:
        elastic_launch(config, sys.executable)("-m", "deblurkit", *arguments)
    except ChildFailedError as error:
        in_order = sorted(error.failures.items(), key=lambda item: item[1].timestamp)
        # the others notice only that the connection broke, or were ended for it
        own = [item for item in in_order if item[1].exitcode not in (PeerLostError.exit_code, -signal.SIGTERM)]
        rank, first = (own or in_order)[0]
        if first.exitcode >= 0:
            return int(first.exitcode)
        number = signal.Signals(-first.exitcode)
        reason = "; the kernel does that to a process when memory runs out" if number == signal.SIGKILL else ""
        fail(
            f"process {rank} of {count} (pid {first.pid}) was killed by {number.name}{reason}. All processes were "
            "ended; the same command goes on from the last checkpoint"
        )
        return 128 + int(number)
    except SignalException as error:
        return STOP_CODES.get(error.sigval.name, 128 + int(error.sigval))
    return 0


@contextlib.contextmanager
def process_group(device: str = "auto") -> Iterator[Place]:
    """Join the process group that the environment describes (torchrun's variables), or stand alone.

    Args:
        device: "auto": one GPU per process where there are GPUs; else as `resolve_device` reads it.

    Raises:
        TrainingError: the processes cannot meet: their port is in use, or one of them is not there in time.
        PeerLostError: another process of the group died meanwhile.
    """
    if not inside_launcher():
        yield Place(resolve_device(device))
        return
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local_rank = int(os.environ.get("LOCAL_RANK", rank))
    if device == "auto" and torch.cuda.is_available():
        device = f"cuda:{local_rank % torch.cuda.device_count()}"
    own = resolve_device(device)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    backend = "nccl" if own.type == "cuda" else "gloo"
    try:
        store, _, _ = next(rendezvous("env://", rank, world_size, timeout=MEETING))
        store.set_timeout(_PATIENCE)
        # the prefix keeps the group's keys apart from those of torch's own launcher, whose store this may be
        store = PrefixStore("deblurkit", store)
        dist.init_process_group(backend, store=store, timeout=_PATIENCE, rank=rank, world_size=world_size)
    except RuntimeError as error:  # torch's own, or gloo's, which has none
        reason = str(error).splitlines()[0]
        raise TrainingError(
            f"process {rank} of {world_size} cannot meet the others at MASTER_ADDR:MASTER_PORT = "
            f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}: {reason}. If another process of this "
            "run ended early, its own message says why; if another program uses that port, set MASTER_PORT to a free "
            "one, the same for all processes"
        ) from error
    try:
        yield Place(own, rank, world_size)
    except RuntimeError as error:
        # gloo has no error class of its own
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        message = f"process {rank} of {world_size} lost touch with another process, which has ended early"
        raise PeerLostError(message) from error
    finally:
        # what wraps networks holds on to the group: were it freed at the interpreter's end only, gloo's threads could
        # still be running then, which aborts the process
        gc.collect()
        dist.destroy_process_group()


def gather_objects(place: Place, value: T) -> list[T]:
    """`value` of every process, in rank order, on every process."""
    if place.world_size == 1:
        return [value]
    gathered: list[Any] = [None] * place.world_size
    dist.all_gather_object(gathered, value)
    return gathered


def broadcast_buffers(place: Place, module: torch.nn.Module) -> None:
    """Give every process rank 0's buffers (batch-norm statistics are each process's own between steps)."""
    if place.world_size > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def average(place: Place, tensors: Sequence[torch.Tensor]) -> None:
    """Give every process the mean of each tensor over all processes, in place; all have the same, in the same order."""
    if place.world_size == 1 or not tensors:
        return
    for dtype in sorted({tensor.dtype for tensor in tensors}, key=str):
        own = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.flatten() for tensor in own])
        dist.all_reduce(flat)
        flat /= place.world_size
        parts = flat.split([tensor.numel() for tensor in own])
        torch._foreach_copy_(own, [part.view_as(tensor) for part, tensor in zip(parts, own, strict=True)])


def largest(place: Place, value: int) -> int:
    """The largest `value` of all processes."""
    if place.world_size == 1:
        return value
    tensor = torch.tensor(value, device=place.device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return int(tensor.item())
