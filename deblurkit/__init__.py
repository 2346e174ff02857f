"""Video and image deblurring: networks, training, evaluation and restoration on one road.

Importing this package is cheap: what needs torch is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from deblurkit.build import build_dataset, build_loss, build_network
    from deblurkit.contract import Capabilities, FrameContract, Output
    from deblurkit.data.request import SampleRequest
    from deblurkit.engine.checkpoint import load_network, save_network
    from deblurkit.engine.restore import Restorer
    from deblurkit.errors import DeblurkitError
    from deblurkit.network import Network
    from deblurkit.options import load_options
    from deblurkit.registry import load_plugins

_WHERE = {
    "build_dataset": "deblurkit.build",
    "build_loss": "deblurkit.build",
    "build_network": "deblurkit.build",
    "Capabilities": "deblurkit.contract",
    "FrameContract": "deblurkit.contract",
    "Output": "deblurkit.contract",
    "SampleRequest": "deblurkit.data.request",
    "load_network": "deblurkit.engine.checkpoint",
    "save_network": "deblurkit.engine.checkpoint",
    "Restorer": "deblurkit.engine.restore",
    "DeblurkitError": "deblurkit.errors",
    "Network": "deblurkit.network",
    "load_options": "deblurkit.options",
    "load_plugins": "deblurkit.registry",
}

__all__ = [
    "Capabilities",
    "DeblurkitError",
    "FrameContract",
    "Network",
    "Output",
    "Restorer",
    "SampleRequest",
    "__version__",
    "build_dataset",
    "build_loss",
    "build_network",
    "load_network",
    "load_options",
    "load_plugins",
    "save_network",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'deblurkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
