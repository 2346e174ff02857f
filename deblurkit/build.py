"""From a mapping (`{"type": ..., arguments}`) to an object, with the same checks that options files get."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from deblurkit.errors import OptionsError, RegistryError
from deblurkit.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, Registry

if TYPE_CHECKING:
    from torch import nn

    from deblurkit.data.base import FrameDataset
    from deblurkit.losses.base import Loss
    from deblurkit.network import Network


def build(registry: Registry, mapping: Mapping[str, Any], ignore: Iterable[str] = ()) -> Any:
    """Construct what `mapping` describes.

    Args:
        registry: where its `type` is registered. mapping: `type` and constructor arguments.
        ignore: keys that are meant for somebody else.

    Raises:
        RegistryError: unknown type, or arguments that do not fit the signature; all of them in one message.
    """
    from deblurkit.arguments import check_arguments

    if not isinstance(mapping.get("type"), str):
        raise RegistryError(f"{registry.kind}: the mapping {dict(mapping)} has no `type`")
    cls = registry.get(mapping["type"])
    beside = list(ignore)
    arguments = {key: value for key, value in mapping.items() if key != "type" and key not in beside}
    problems = check_arguments(cls, arguments, beside=beside)
    if problems:
        raise RegistryError("\n".join(f"{'.'.join(path)}: {text}" for path, text in problems))
    try:
        return cls(**arguments)
    except ValueError as error:  # a value that the class itself refuses
        raise RegistryError(f"{mapping['type']}: {error}") from error


def build_network(mapping: Mapping[str, Any]) -> Network:
    """An untrained network from the mapping that stands under `network_g` in an options file."""
    return cast("Network", build(ARCH_REGISTRY, mapping))


def build_discriminator(mapping: Mapping[str, Any], crops: Mapping[str, int] | None = None) -> nn.Module:
    """An untrained discriminator from the mapping that stands under `network_d`; its checkpoints carry the mapping.

    Args:
        mapping: `{"type": ..., arguments}`, or several of them by name. crops: `train.gan.crops`.

    Raises:
        OptionsError: `crops` names a discriminator that is not there, or there is only one.
    """
    from deblurkit.models.discriminators import Discriminators

    if "type" not in mapping:
        discriminator: Any = Discriminators(
            {key: build(ARCH_REGISTRY, one) for key, one in mapping.items()}, crops or {}
        )
    elif crops:
        raise OptionsError("train.gan.crops: is for several discriminators; network_d is one")
    else:
        discriminator = build(ARCH_REGISTRY, mapping)
    discriminator.config = dict(mapping)
    return cast("nn.Module", discriminator)


def build_dataset(mapping: Mapping[str, Any], seed: int = 0) -> FrameDataset:
    """A data set from the mapping that stands under `datasets.NAME`; keys that concern loading only are ignored.

    Args:
        seed: `manual_seed`; what is random about a sample depends on it.
    """
    from deblurkit.options import DatasetOptions

    loading = [key for key in DatasetOptions.model_fields if key != "type"]
    dataset = cast("FrameDataset", build(DATASET_REGISTRY, mapping, ignore=loading))
    dataset.seed = seed
    return dataset


def build_loss(mapping: Mapping[str, Any]) -> Loss:
    """A loss from the mapping that stands under `train.losses.NAME`; what is not its own argument is ignored."""
    from deblurkit.options import GANOptions

    return cast("Loss", build(LOSS_REGISTRY, mapping, ignore=[key for key in GANOptions.model_fields if key != "type"]))
