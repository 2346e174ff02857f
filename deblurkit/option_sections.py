"""The sections of an options file: typed, strict, documented; `deblurkit.options` has the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from deblurkit.contract import PixelConvention

if TYPE_CHECKING:
    from deblurkit.metrics import Protocol

TWO_UNITS = "give either total_epoch or total_iter (milestones and frequencies count in the one that is given)"


class Section(BaseModel):
    """Keys that are not in it are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)  # strict: `batch_size_per_gpu: "8"` or `true` is an error


class Component(BaseModel):
    """`type` and the constructor arguments of a registered class (checked against its signature)."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())
    type: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor arguments."""
        return dict(self.__pydantic_extra__ or {})

    def mapping(self) -> dict[str, Any]:
        """`{"type": ..., **arguments}`."""
        return {"type": self.type, **self.arguments}


class DiscriminatorOptions(Component):
    """A discriminator (`type` and its arguments), or several by name: `{full: {type: ...}, patch: {type: ...}}`."""

    type: str = ""

    @model_validator(mode="after")
    def _one_or_several(self) -> DiscriminatorOptions:
        several = self.arguments.values()
        if not self.type and not (several and all(isinstance(one, dict) and one.get("type") for one in several)):
            raise ValueError("has a `type`, or several discriminators by name, each with a `type`")
        return self

    def mapping(self) -> dict[str, Any]:
        """`{"type": ..., **arguments}`, or such a mapping by name."""
        return super().mapping() if self.type else self.arguments


class MixupOptions(Section):
    """Blending of samples: ratios from Beta(`beta`, `beta`); `use_identity`: half of the batches stay as they are."""

    beta: float = Field(1.2, gt=0)
    use_identity: bool = True


class DatasetOptions(Component):
    """A data set (`type` and its arguments) and how it is sampled and loaded.

    Attributes:
        gt_size: side of the square training crop of the ground truth in pixels; None: whole frames.
        batch_size_per_gpu, num_worker_per_gpu: per process.
        iters, gt_sizes, mini_batch_sizes: a progressive schedule (Restormer): so many iterations each with that crop
            and that batch per process, the last stage until the end. They replace `gt_size` and `batch_size_per_gpu`.
        mixup: blend the samples of a batch; None: no.
        prefetch_mode: "auto" (cuda on a GPU, else cpu), "cuda" (side stream), "cpu" (thread), None (none).
        dataset_enlarge_ratio: an epoch visits every sample this many times, each time with another crop.
        sampler: "seeded": an epoch's order depends on `manual_seed` and the epoch. "enlarged": that of BasicSR's
            EnlargedSampler, on the epoch alone.
    """

    gt_size: int | None = Field(None, gt=0)
    batch_size_per_gpu: int = Field(1, gt=0)
    iters: list[Annotated[int, Field(gt=0)]] = []
    gt_sizes: list[Annotated[int, Field(gt=0)]] = []
    mini_batch_sizes: list[Annotated[int, Field(gt=0)]] = []
    mixup: MixupOptions | None = None
    num_worker_per_gpu: int = Field(0, ge=0)
    prefetch_mode: Literal["auto", "cuda", "cpu"] | None = "auto"
    dataset_enlarge_ratio: int = Field(1, gt=0)
    sampler: Literal["seeded", "enlarged"] = "seeded"

    @model_validator(mode="after")
    def _whole_schedule(self) -> DatasetOptions:
        if not len(self.iters) == len(self.gt_sizes) == len(self.mini_batch_sizes):
            raise ValueError(
                "a progressive schedule is three lists of one length: "
                f"iters has {len(self.iters)}, gt_sizes {len(self.gt_sizes)}, mini_batch_sizes "
                f"{len(self.mini_batch_sizes)} items"
            )
        if self.iters and (self.gt_size is not None or self.batch_size_per_gpu != 1):
            raise ValueError(
                "gt_sizes and mini_batch_sizes (a progressive schedule) replace gt_size and batch_size_per_gpu; leave "
                "these out"
            )
        return self


class LooksAt(Component):
    """What a loss looks at, and its `weight` in the sum.

    Attributes:
        output: of the network, or several of one size, whose frames are then compared together, as one clip.
        target: entry of the sample to compare with (Real-ESRGAN: a sharpened ground truth for pixels, the plain one
            for the discriminator).
    """

    weight: float = 1.0
    output: str | Annotated[list[str], Field(min_length=1)] = "restored"
    target: str = "gt"

    @property
    def outputs(self) -> list[str]:
        """`output` as a list."""
        return [self.output] if isinstance(self.output, str) else self.output


class LossOptions(LooksAt):
    """A loss of restored frames."""


class PenaltyOptions(Component):
    """A term on the discriminator's gradient, and its `weight`."""

    weight: float = 1.0


class GANOptions(LooksAt):
    """The adversarial loss of a `GANModel`; `weight` is that of the generator's term.

    Attributes:
        discriminator_weight: factor of the discriminator's own loss. penalties: terms added to it.
        net_d_iters: the generator is stepped at every so many-th iteration, the discriminator at each.
        net_d_init_iters: iterations at the start in which the discriminator alone is trained.
        step_first: which of the two is stepped first in an iteration. The other one then meets its new weights:
            "generator" as in BasicSR, "discriminator" as in DeblurGAN.
        input_range: what the discriminators take black and white as: [0, 1], or [-1, 1].
        crops: where there are several: side of the random square of a frame that some of them see, by name.
    """

    discriminator_weight: float = 1.0
    penalties: dict[str, PenaltyOptions] = {}
    net_d_iters: int = Field(1, gt=0)
    net_d_init_iters: int = Field(0, ge=0)
    step_first: Literal["generator", "discriminator"] = "generator"
    input_range: list[float] = Field([0.0, 1.0], min_length=2, max_length=2)
    crops: dict[str, Annotated[int, Field(gt=0)]] = {}


class ContrastiveOptions(LooksAt):
    """The contrastive loss of an `AirNetModel`; `weight` is that of its term beside `train.losses`.

    Attributes:
        encoder_only: units of the schedule at the start in which the encoder alone is trained, on this loss alone.
    """

    output: str | Annotated[list[str], Field(min_length=1)] = "logits"
    encoder_only: int = Field(0, ge=0)


class ParamGroup(Section):
    """Parameters whose names match a pattern (`spynet.*`): rate times `lr_mul`, frozen for some iterations.

    `optional`: the network may have none.
    """

    match: list[str] = Field(min_length=1)
    lr_mul: float = Field(1.0, gt=0)
    frozen_until: int = Field(0, ge=0)
    optional: bool = False


class PathOptions(Section):
    """Weights to start from, and where runs and results go.

    Attributes:
        pretrain_network_g: weights file. strict_load_g: names and sizes must all fit.
        param_key_g: which weights to take from a file that holds averaged ones (`params_ema`) too.
        io_g: the pixels that weights of another tool take, where the file does not say: `{order: bgr, mean: [...],
            std: [...], range: 255}`, see `contract.PixelConvention`. A network without weights is trained on them.
        resume: what `--resume` is when it is not given.
    """

    pretrain_network_g: str | None = None
    strict_load_g: bool = True
    param_key_g: Literal["params", "params_ema"] = "params_ema"
    io_g: dict[str, Any] | None = None
    pretrain_network_d: str | None = None
    strict_load_d: bool = True
    param_key_d: Literal["params", "params_ema"] = "params_ema"
    resume: str = "auto"
    experiments_root: str = "experiments"
    results_root: str = "results"

    @field_validator("io_g")
    @classmethod
    def _convention(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        PixelConvention.from_mapping(value)
        return value

    def convention(self) -> PixelConvention | None:
        """`io_g` as an object."""
        return None if self.io_g is None else PixelConvention.from_mapping(self.io_g)


class TrainOptions(Section):
    """How long and how to train.

    Attributes:
        total_epoch, total_iter: one of them; milestones, `val_freq` and `save_checkpoint_freq` count in that unit.
        gan, optim_d: for a `GANModel`, beside `network_d`. contrastive: for an `AirNetModel`.
        warmup_iter: iterations in which the rate rises linearly from zero.
        param_groups: parameters with a rate of their own, or frozen at first.
        ema_decay: of the moving average of the weights that is validated and saved as `params_ema`; 0: none.
        grad_clip: largest norm of the gradient over all parameters.
        accumulate: parts of `batch_size_per_gpu` samples whose gradients make one step.
        precision: of the forward pass (autocast). tf32: let GPUs multiply fp32 matrices with 10 bits of mantissa.
        checkpoint_modules: name patterns of modules that compute their activations again instead of keeping them.
        checkpoint_frames: recurrent networks do so for the whole step of each frame.
        truncate: recurrent networks: no gradient passes between groups of so many frames (truncated back-propagation
            through time); a step of the optimiser still follows the whole clip.
        sync_bn: batch norm over all processes. find_unused_parameters, static_graph: for DDP.
    """

    total_epoch: int | None = Field(None, gt=0)
    total_iter: int | None = Field(None, gt=0)
    optim_g: Component
    optim_d: Component | None = None
    gan: GANOptions | None = None
    contrastive: ContrastiveOptions | None = None
    scheduler: Component | None = None
    warmup_iter: int = Field(0, ge=0)
    losses: dict[str, LossOptions] = Field(min_length=1)
    param_groups: list[ParamGroup] = []
    ema_decay: float = Field(0.0, ge=0, lt=1)
    grad_clip: float | None = Field(None, gt=0)
    accumulate: int = Field(1, gt=0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    tf32: bool = False
    channels_last: bool = False
    compile: bool = False
    checkpoint_modules: list[str] = []
    checkpoint_frames: bool = False
    truncate: int | None = Field(None, gt=0)
    sync_bn: bool = False
    find_unused_parameters: bool = False
    static_graph: bool = False
    hooks: list[Component] = []

    @model_validator(mode="after")
    def _one_unit(self) -> TrainOptions:
        if (self.total_epoch is None) == (self.total_iter is None):
            raise ValueError(TWO_UNITS)
        return self

    @property
    def unit(self) -> Literal["epoch", "iter"]:
        """What milestones and frequencies count."""
        return "epoch" if self.total_epoch is not None else "iter"


class CropOptions(Section):
    """Sides of the overlapping crops that frames are restored in: pixels of the degraded frame, or shares of its sides.

    Attributes:
        height, width: in pixels. height_ratio, width_ratio: instead of them.
    """

    height: int | None = Field(None, gt=0)
    width: int | None = Field(None, gt=0)
    height_ratio: float | None = Field(None, gt=0, le=1)
    width_ratio: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="after")
    def _one_of_each(self) -> CropOptions:
        pairs = ((self.height, self.height_ratio), (self.width, self.width_ratio))
        if any((pixels is None) == (ratio is None) for pixels, ratio in pairs):
            raise ValueError("give height or height_ratio, and width or width_ratio")
        return self


class ProtocolOptions(Section):
    """A protocol of one's own. It has no published name, so its figures carry what it is.

    Attributes:
        metrics: figure name to metric. crops: restore frames in overlapping crops and average them (NAFNet's `grids`).
    """

    metrics: dict[str, Component] = Field(min_length=1)
    crops: CropOptions | None = None


class ValOptions(Section):
    """Validation and test. `val_freq` None: no validation during training. `protocol`: a name, or its metrics."""

    val_freq: int | None = Field(None, gt=0)
    protocol: str | ProtocolOptions = "basicsr-rgb/1"
    save_img: bool = False

    def find_protocol(self) -> Protocol:
        """The protocol to score by."""
        from deblurkit.metrics import PROTOCOLS, own_protocol

        if isinstance(self.protocol, str):
            return PROTOCOLS.get(self.protocol)
        metrics = {name: metric.mapping() for name, metric in self.protocol.metrics.items()}
        crops = self.protocol.crops
        return own_protocol(metrics, crops.model_dump(exclude_none=True) if crops else None)


class LoggerOptions(Section):
    """Log, TensorBoard and checkpoints. `print_freq` counts iterations; `save_checkpoint_freq` the schedule's unit."""

    print_freq: int = Field(100, gt=0)
    save_checkpoint_freq: int | None = Field(None, gt=0)
    keep_last: int = Field(3, gt=0)
    use_tb_logger: bool = True
