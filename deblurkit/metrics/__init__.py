"""Metrics (`*_metric.py`), and the protocols that say completely how a published figure was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from deblurkit.errors import RegistryError, did_you_mean

if TYPE_CHECKING:
    from deblurkit.metrics.base import Metric


@dataclass(frozen=True)
class Protocol:
    """How restored frames are scored; figures are comparable only under the same protocol.

    A protocol never changes once figures were published under its name: another number after the slash is another one.

    Attributes:
        name: as it stands beside every figure. description: one sentence.
        metrics: figure name to `{"type": registered metric, **arguments}`.
        quantisation: what happens to the network's output before it is scored.
        border: pixels cut at all four sides. colour: what is compared.
        averaging: how the figures of frames become one.
        crops: None: whole frames; else the frames are restored in overlapping crops (`engine.crops.CroppedNetwork`).
    """

    name: str
    description: str
    metrics: Mapping[str, Mapping[str, Any]]
    quantisation: str
    border: int
    colour: str
    averaging: str
    crops: Mapping[str, Any] | None = None

    def build(self) -> dict[str, Metric]:
        """The metrics, ready to be called, by figure name."""
        from deblurkit.build import build
        from deblurkit.registry import METRIC_REGISTRY

        return {figure: build(METRIC_REGISTRY, mapping) for figure, mapping in self.metrics.items()}

    def record(self) -> dict[str, Any]:
        """Everything above as plain values, for `metrics.json`."""
        return asdict(self)


class Protocols:
    """The protocols by name."""

    def __init__(self, *protocols: Protocol) -> None:
        self._protocols = {protocol.name: protocol for protocol in protocols}

    def get(self, name: str) -> Protocol:
        """The protocol called `name`.

        Raises:
            RegistryError: there is none; the message has the nearest names.
        """
        if name not in self._protocols:
            hint = did_you_mean(name, self._protocols) or f"; there are {', '.join(self.names())}"
            raise RegistryError(f"there is no {name!r} among the protocols{hint}")
        return self._protocols[name]

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._protocols)


PROTOCOLS = Protocols(
    Protocol(
        name="basicsr-rgb/1",
        description="PSNR and SSIM of BasicSR on quantised RGB, whole frames, mean over all scored frames.",
        metrics={
            "psnr": {"type": "PSNR", "crop_border": 0, "test_y_channel": False},
            "ssim": {"type": "SSIM", "crop_border": 0, "test_y_channel": False},
        },
        quantisation="clamped to [0, 1], rounded half to even to the sharp frames' uint8 (uint16 where they have that)",
        border=0,
        colour="RGB",
        averaging="mean over all scored frames; the mean of each sequence is reported beside it",
    ),
    Protocol(
        name="nafnet-rgb/1",
        description="PSNR, and the SSIM of NAFNet, Restormer and MATLAB (its window extends over the colours), on RGB.",
        metrics={
            "psnr": {"type": "PSNR", "crop_border": 0, "test_y_channel": False},
            "ssim": {"type": "VolumeSSIM", "crop_border": 0, "test_y_channel": False},
        },
        quantisation="clamped to [0, 1], rounded half to even to the sharp frames' uint8 (uint16 where they have that)",
        border=0,
        colour="RGB",
        averaging="mean over all scored frames; the mean of each sequence is reported beside it",
    ),
)


def own_protocol(metrics: Mapping[str, Mapping[str, Any]], crops: Mapping[str, Any] | None = None) -> Protocol:
    """A protocol that an options file describes. Its name says what is measured, so equal names are comparable.

    Args:
        metrics: figure name to `{"type": registered metric, **arguments}`. crops: see `Protocol`.
    """

    def text(name: str, mapping: Mapping[str, Any]) -> str:
        arguments = ",".join(f"{key}={value}" for key, value in sorted(mapping.items()) if key != "type")
        return f"{name}={mapping['type']}({arguments})"

    parts = [text("crops", {"type": "", **crops})] if crops else []
    whole = "frames in overlapping crops" if crops else "whole frames"
    borders = {int(mapping.get("crop_border", 0)) for mapping in metrics.values()}
    colours = {"Y" if mapping.get("test_y_channel") else "RGB" for mapping in metrics.values()}
    return replace(
        PROTOCOLS.get("basicsr-rgb/1"),
        name="own:" + ";".join([*(text(*item) for item in sorted(metrics.items())), *parts]),
        description=f"Described by the options file; {whole} but for the border, mean over all scored frames.",
        metrics=metrics,
        crops=crops,
        border=max(borders),
        colour=" and ".join(sorted(colours)),
    )
