"""What tells the option dialects of the BasicSR family apart. One name means different things in different forks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class DatasetKind:
    """What a foreign data set class is here.

    Attributes:
        fixed: arguments that the class implies. moved: foreign key to argument. native: the data set that it is.
    """

    fixed: Mapping[str, Any]
    moved: Mapping[str, str] = field(default_factory=dict)
    native: str = "VideoDataset"


@dataclass(frozen=True)
class Dialect:
    """Alias tables and habits of one tool.

    Attributes:
        name: for messages. models, datasets, losses, schedulers, metrics: foreign name to native one.
        grad_clip: what `train.use_grad_clip` is when it is absent; None: the tool has no clipping.
        resumes: goes on with an earlier run of the same name without being asked.
        progressive: knows progressive schedules, `geometric_augs` and `mixing_augs`.
        param_keys: for each network the keys of `path` that name the entry of a weights file.
        val_ignored: keys of `val` without meaning here, with the reason.
        protocol: the native protocol that its figures `psnr` and `ssim` of whole RGB frames belong to.
        grids: `val.grids` restores frames in overlapping crops.
        enlarged_sampler: an epoch's order depends on its number alone (`compat.sampler`).
    """

    name: str
    models: Mapping[str, str]
    datasets: Mapping[str, DatasetKind]
    losses: Mapping[str, str]
    schedulers: Mapping[str, str]
    metrics: Mapping[str, str]
    progressive: bool = False
    grad_clip: bool | None = None
    resumes: bool = False
    param_keys: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {"g": ("param_key_g",), "d": ("param_key_d",)}
    )
    val_ignored: Mapping[str, str] = field(default_factory=dict)
    protocol: str = "basicsr-rgb/1"
    grids: bool = False
    enlarged_sampler: bool = True


PICTURES = DatasetKind({"split": "all", "sampling": "n_c", "num_frame": 1})
