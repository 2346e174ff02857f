"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import nn

from deblurkit.build import build, build_dataset, build_discriminator, build_network
from deblurkit.data.base import FrameDataset
from deblurkit.data.batch_plan import plan_batches
from deblurkit.data.loader import build_loader
from deblurkit.data.prefetcher import prefetch
from deblurkit.engine.checkpoint import load_weights
from deblurkit.engine.evaluate import Evaluation, EvaluationStoppedError, evaluate
from deblurkit.engine.experiment import ResumePoint, find_resume_point, newest_finite, prepare_folder
from deblurkit.engine.launch import Place, broadcast_buffers, gather_objects
from deblurkit.engine.log import close_log, open_log
from deblurkit.engine.memory import keep_freed_memory
from deblurkit.engine.record import Stopwatch, device_name, write_record
from deblurkit.engine.reproducibility import allow_tf32, restore_random_states, seed_everything
from deblurkit.engine.start_weights import build_without_missing, load_start_weights
from deblurkit.engine.stop import StopRequest
from deblurkit.errors import DataError, NotFiniteError
from deblurkit.hooks.base import Hook
from deblurkit.hooks.checkpoint_hook import CheckpointHook
from deblurkit.hooks.log_hook import LogHook
from deblurkit.hooks.non_finite_hook import NonFiniteHook
from deblurkit.hooks.tensorboard_hook import TensorBoardHook
from deblurkit.hooks.validation_hook import ValidationHook
from deblurkit.models.base import Model
from deblurkit.network import Network
from deblurkit.options import Options
from deblurkit.registry import HOOK_REGISTRY, MODEL_REGISTRY


class Training:
    """A run: what hooks see.

    Args:
        options: checked for phase "train". place: this process among those that train together. resume: see
            `find_resume_point`; None: `path.resume`.

    Attributes:
        iteration: steps done. epoch: the current pass over the data, from 1.
        current_batch: what the last step was given. finished: set by a hook to end training after this step.
        validation_due: a validation at this iteration was stopped, and is made up for when the run goes on.
        data_wait: seconds that this process has waited for batches so far. validation_seconds: that validation took.
        seconds: of training in all sessions so far. devices: names of all processes' devices.
        folder: `experiments/NAME`. log: writes to `train.log` and the console.

    Raises:
        DeblurkitError: data, weights or options that do not fit; nothing is written then.
    """

    def __init__(self, options: Options, place: Place, resume: str | None = None) -> None:
        self.options, self.place = options, place
        self.folder = Path(options.path.experiments_root) / options.name
        train = options.training()
        seed_everything(options.manual_seed + place.rank)
        point = find_resume_point(self.folder, resume or options.path.resume)

        allow_tf32(train.tf32)
        networks = self._make_networks(point)
        self.model: Model = MODEL_REGISTRY.get(options.model_type)(options, networks, place)

        entry = options.sets("train")["train"]
        self.dataset = build_dataset(entry.mapping(), options.manual_seed)
        self.val_sets: dict[str, FrameDataset] = {
            name: build_dataset(val.mapping(), options.manual_seed) for name, val in options.sets("val").items()
        }
        self.plan = plan_batches(entry, len(self.dataset), place.world_size, train.accumulate)
        if self.plan.largest_crop:
            self.dataset.check_crop(self.plan.largest_crop)
        self.unit_length = self.plan.stages[0].iterations_per_epoch if train.unit == "epoch" else 1
        self.total_iterations = (train.total_epoch or train.total_iter or 0) * self.unit_length
        self.iteration = point.iteration if point else 0
        self.protocol = options.val.find_protocol()
        self.hooks = self._make_hooks()
        if point:
            self._load_state(point)
        self.batches: Any = None
        self._entered_epoch = 0
        self.current_batch: Mapping[str, Any] = {}
        self.finished = False
        self.validation_due = bool(point and point.state.get("validation_due"))
        self.stop = StopRequest()
        self.validation_seconds = 0.0
        self.earlier_seconds = float(point.state.get("seconds", 0.0)) if point else 0.0
        self.watch = Stopwatch(self)

        if place.is_main:
            self._lock = prepare_folder(self.folder, options, point)
        self.devices = gather_objects(place, device_name(place.device))  # nobody goes on before the folder is there
        self.log = open_log(self.folder / "train.log", place)

    def _make_networks(self, point: ResumePoint | None) -> dict[str, nn.Module]:
        """The networks by role, with the weights to go on from or to start from."""
        options = self.options
        assert options.network_g is not None
        make: dict[str, tuple[Callable[[Mapping[str, Any]], nn.Module], Mapping[str, Any]]] = {
            "g": (build_network, options.network_g.mapping())
        }
        if options.network_d is not None:
            gan = options.training().gan
            make["d"] = partial(build_discriminator, crops=gan.crops if gan else None), options.network_d.mapping()
        networks = {
            role: build_without_missing(mapping, builder) if point and role in point.weights else builder(mapping)
            for role, (builder, mapping) in make.items()
        }
        for role, network in networks.items():
            if point and role in point.weights:
                load_weights(network, point.weights[role])
            elif not load_start_weights(options, role, network, quiet=not self.place.is_main) and role == "g":
                cast(Network, network).io = options.path.convention() or cast(Network, network).io
        return networks

    def _make_hooks(self) -> list[Hook]:
        logger, train = self.options.logger, self.options.training()
        hooks: list[Hook] = [LogHook(logger.print_freq)]
        if logger.use_tb_logger:
            hooks.append(TensorBoardHook(logger.print_freq))
        if self.options.val.val_freq and self.val_sets:
            hooks.append(ValidationHook(self.options.val.val_freq))
        hooks += [cast(Hook, build(HOOK_REGISTRY, component.mapping())) for component in train.hooks]
        if not any(isinstance(hook, NonFiniteHook) for hook in hooks):
            hooks.append(NonFiniteHook())
        # last: a checkpoint holds what the other hooks have done in this iteration
        hooks.append(CheckpointHook(logger.save_checkpoint_freq, logger.keep_last))
        return hooks

    def _load_state(self, point: ResumePoint) -> None:
        self.model.load_state(point.state["model"])
        for average in self.model.averages.values():
            load_weights(average, point.average)
        states: Sequence[dict[str, Any]] = point.state["random"]
        if self.place.rank < len(states):
            restore_random_states(states[self.place.rank])
        for name, hook in self._named_hooks():
            if name in point.state["hooks"]:
                hook.load_state(point.state["hooks"][name])

    def _named_hooks(self) -> list[tuple[str, Hook]]:
        return [(f"{i}.{type(hook).__name__}", hook) for i, hook in enumerate(self.hooks)]

    def finished_before(self) -> str | None:
        """Why there is nothing left to do in a run that was started again; None: there is."""
        if self.validation_due:
            return None
        at = f"iter {self.iteration:,}"
        if self.iteration >= self.total_iterations:
            return at
        return next((f"{at}: {why}" for why in (hook.ended() for hook in self.hooks) if why), None)

    def hook_states(self) -> dict[str, Any]:
        """The hooks' states, for a checkpoint."""
        return {name: hook.state() for name, hook in self._named_hooks()}

    @property
    def epoch(self) -> int:
        """The pass over the data that the last step belonged to, from 1."""
        return self.plan.at(max(self.iteration - 1, 0)).epoch + 1

    @property
    def data_wait(self) -> float:
        """Seconds waited for batches."""
        return float(self.batches.wait_seconds) if self.batches is not None else 0.0

    @property
    def seconds(self) -> float:
        """Wall time of all sessions; of one that was killed, up to its last checkpoint."""
        return self.earlier_seconds + self.watch.seconds

    def due(self, every: int | None) -> bool:
        """True when a frequency, counted in the schedule's unit, falls on the last step."""
        return every is not None and self.iteration % (every * self.unit_length) == 0

    def run(self) -> int:
        """Train to the end, or until the process is asked to stop.

        Returns:
            the exit code: 0, or 130, 143, 75 after SIGINT, SIGTERM, SIGUSR1 (the state is saved then).

        Raises:
            DataError: a worker process of the loader was killed.
        """
        self._announce()
        write_record(self, self.watch, finished=False)  # for a run that is killed
        self.batches = self._batches()
        try:
            with self.stop:
                for hook in self.hooks:
                    hook.before_train(self)
                if self.validation_due:
                    self.validate()
                while not self._ends() and self.iteration < self.total_iterations:
                    self._iterate(next(self.batches))
                for hook in self.hooks:
                    hook.after_train(self)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            raise DataError(
                f"{self.options.name}: a worker process that loads data was killed after iter {self.iteration:,}; the "
                "kernel does that when memory runs out. Lower num_worker_per_gpu or give the machine (a container: its "
                f"limit) more memory; --resume auto goes on from the last checkpoint. Torch says: {error}"
            ) from error
        finally:
            self.batches.close()
            for hook in self.hooks:
                hook.close()
        self.finished |= self.iteration >= self.total_iterations and not self.validation_due
        code = 0 if self.finished else self.stop.code
        write_record(self, self.watch, finished=code == 0)
        if code:
            self.log.info(f"stopped at iter {self.iteration:,}; all is saved, the same command goes on from here")
        else:
            self.log.info(f"done: {self.folder / 'models' / 'net_g_latest.pth'}")
        close_log(self.log)
        return code

    def _ends(self) -> bool:
        """True where a hook, or a signal to any of the processes, has ended training."""
        return self.finished or bool(self.stop.agreed(self.place, self.iteration, at_once=self.validation_due))

    def _iterate(self, batch: Mapping[str, Any]) -> None:
        """One step, and the hooks' moments around it."""
        epoch = self.plan.at(self.iteration).epoch + 1
        if epoch != self._entered_epoch:
            self._entered_epoch = epoch
            for hook in self.hooks:
                hook.before_epoch(self, epoch)
        self.current_batch = batch
        for hook in self.hooks:
            hook.before_iter(self, batch)
        self.model.start_iteration(self.iteration + 1, self.iteration // self.unit_length)
        losses = self.model.train_step(batch)
        self.model.finish_iteration()
        self.iteration += 1
        if self.plan.at(self.iteration).epoch + 1 != epoch:
            for hook in self.hooks:
                hook.after_epoch(self, epoch)
        for hook in self.hooks:
            hook.after_iter(self, losses)

    def validate(self) -> None:
        """Evaluate on every validation set and tell the hooks; a run that is asked to stop leaves it for later."""
        started = time.perf_counter()
        for hook in self.hooks:
            hook.before_val(self)
        broadcast_buffers(self.place, self.model.best_net)
        results: dict[str, Evaluation] = {}
        try:
            for name, dataset in self.val_sets.items():
                results[name] = evaluate(
                    self.model.best_net, dataset, self.protocol, self.place, f"validating {name}", examples=2,
                    asked_to_stop=lambda: self.stop.code,
                )  # fmt: skip
        except EvaluationStoppedError:
            self.validation_due = True
            self.log.info(f"validation at iter {self.iteration:,}: stopped; it comes first when the run goes on")
            return
        except NotFiniteError as error:
            good = newest_finite(self.folder)
            hint = f"; {good} is the newest checkpoint whose weights are numbers: --resume {good}" if good else ""
            raise NotFiniteError(
                f"{self.options.name}: iter {self.iteration:,}: {error}. Lower the learning rate or set "
                f"train.grad_clip{hint}"
            ) from error
        self.validation_due = False
        self.validation_seconds += time.perf_counter() - started
        for hook in self.hooks:
            hook.after_val(self, results)

    def _batches(self) -> Any:
        entry = self.options.sets("train")["train"]
        loader = build_loader(
            self.dataset,
            entry,
            seed=self.options.manual_seed,
            rank=self.place.rank,
            world_size=self.place.world_size,
            first_iter=self.iteration,
            total_iter=self.total_iterations,
            pin_memory=self.place.device.type == "cuda",
            parts=self.options.training().accumulate,
        )
        return prefetch(loader, self.place.device, entry.prefetch_mode)

    def _announce(self) -> None:
        net = self.model.net
        self.log.info(
            f"{self.options.name}: {type(net).__name__} with {net.num_parameters:,} parameters on {self.place.device}"
            + (f", {self.place.world_size} processes" if self.place.world_size > 1 else "")
        )
        self.log.info(
            f"{len(self.dataset):,} samples, {self.plan}, {self.total_iterations:,} in all"
            + (f"; going on after iter {self.iteration:,}" if self.iteration else "")
        )


def train(options: Options, place: Place, resume: str | None = None) -> int:
    """Train as the options say; see `Training`. Returns the exit code."""
    if place.device.type == "cpu":
        keep_freed_memory()
    run = Training(options, place, resume)
    reason = run.finished_before()
    if reason is None:
        return run.run()
    run.log.info(f"{run.folder}: is finished already ({reason}); --resume none starts anew")
    close_log(run.log)
    return 0
