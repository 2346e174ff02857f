"""Real-ESRGAN's keys (in BasicSR's dialect): degradations at the top level of a file, and what losses compare with.

What is here: `RealESRGANDataset` as `DegradedVideoDataset` of single pictures, and the models as `RestorationModel` and
`GANModel`. (Facts: DEGRADATIONS.md of the project's notes, section 2.)
"""

from __future__ import annotations

import json
from typing import Any

from deblurkit.compat.sections import Section

MODELS = ("RealESRNetModel", "RealESRGANModel")
_SIZES = list(range(7, 22, 2))
_INTERPOLATIONS = {"resize_opt": ["bilinear", "bicubic", "area"], "resize_prob": [1 / 3, 1 / 3, 1 / 3]}


def degraded_pictures(entry: Section, root: Section, to: tuple[str, ...]) -> None:
    """`RealESRGANDataset`: sharp pictures, degraded as the top level of the file says."""
    entry.move("dataroot_gt", *to, "dataroot", "lq")
    if not entry.get("dataroot_gt"):
        entry.translation.problem(entry.at("dataroot_gt"), "missing: it is required")
    entry.move("meta_info", *to, "dataroot", "names")
    entry.set({}, "type", *to, "unsharp")
    entry.ignore("blur_kernel_size", "blur_kernel_size2", why="sizes are 7 to 21, as upstream")
    sinc = {
        "type": "RandomBlur",
        "kernel_size": _SIZES,
        "kernel_list": ["sinc"],
        "kernel_prob": [1.0],
        "omega": [1.0472, 3.1416],
        "prob": float(entry.number("final_sinc_prob", 0.8)),
    }
    to_lq = {"type": "RandomResize", "target_size": "lq", **_INTERPOLATIONS}
    jpeg = {"type": "RandomJPEGCompression", "quality": _range(root, "jpeg_range2", [30, 95])}
    steps = [
        _blur(entry, "", 1.0),
        _resize(root, ""),
        _noise(root, ""),
        {"type": "RandomJPEGCompression", "quality": _range(root, "jpeg_range", [30, 95])},
        _blur(entry, "2", float(root.number("second_blur_prob", 0.8))),
        _resize(root, "2"),
        _noise(root, "2"),
        {"type": "DegradationsWithShuffle", "degradations": [[to_lq, sinc], jpeg]},
    ]
    entry.set(json.loads(json.dumps(steps)), "type", *to, "degradations")  # no part shared: YAML would say so
    if root.get("resize_range2") is not None:
        root.ignore("resize_range2", why="taken relative to the size after the first resize; upstream to that of lq")


def top_level(root: Section, model_type: str) -> dict[str, str]:
    """Take note of the keys that say which ground truth is looked at; the sample's entry by native loss."""
    root.get("gt_size")  # stands in the data set too
    root.ignore("queue_size", why="the samples of a batch are made independently of each other")
    if root.get("high_order_degradation", True) is False:
        root.translation.problem(root.at("high_order_degradation"), "for pairs of files use SRGANModel or SRModel")
    keys = {"pixel": "l1_gt_usm", "perceptual": "percep_gt_usm", "gan": "gan_gt_usm"}
    if model_type == "RealESRNetModel":
        root.ignore(*keys.values(), why="RealESRNetModel has gt_usm")
        keys = {"pixel": "gt_usm"}
    return {name: "gt_usm" for name, key in keys.items() if root.get(key, False) is True}


def _blur(entry: Section, order: str, prob: float) -> dict[str, Any]:
    kinds = entry.get(f"kernel_list{order}", ["iso", "aniso"])
    shares = entry.get(f"kernel_prob{order}", [0.5] * len(kinds) if isinstance(kinds, list) else [])
    sinc = float(entry.number(f"sinc_prob{order}", 0.0))
    if not isinstance(kinds, list) or not isinstance(shares, list) or len(kinds) != len(shares):
        entry.translation.problem(entry.at(f"kernel_prob{order}"), f"is a list with a number for each of {kinds!r}")
        kinds, shares = ["iso"], [1.0]
    sigma = _range(entry, f"blur_sigma{order}", [0.2, 3])
    total = sum(shares)
    return {
        "type": "RandomBlur",
        "kernel_size": _SIZES,
        "kernel_list": [*kinds, "sinc"],
        "kernel_prob": [*(share / total * (1 - sinc) for share in shares), sinc],
        "sigma_x": sigma,
        "sigma_y": sigma,
        "beta_gaussian": _range(entry, f"betag_range{order}", [0.5, 4]),
        "beta_plateau": _range(entry, f"betap_range{order}", [1, 2]),
        "prob": prob,
    }


def _resize(root: Section, order: str) -> dict[str, Any]:
    up_down_keep = root.get(f"resize_prob{order}", [0.2, 0.7, 0.1])
    scale = _range(root, f"resize_range{order}", [0.15, 1.5])
    return {"type": "RandomResize", "resize_mode_prob": up_down_keep, "resize_scale": scale, **_INTERPOLATIONS}


def _noise(root: Section, order: str) -> dict[str, Any]:
    gaussian = float(root.number(f"gaussian_noise_prob{order}", 0.5))
    grey = float(root.number(f"gray_noise_prob{order}", 0.4))
    return {
        "type": "RandomNoise",
        "noise_type": ["gaussian", "poisson"],
        "noise_prob": [gaussian, 1 - gaussian],
        "gaussian_sigma": _range(root, f"noise_range{order}", [1, 30]),
        "gaussian_gray_noise_prob": grey,
        "poisson_scale": _range(root, f"poisson_scale_range{order}", [0.05, 3]),
        "poisson_gray_noise_prob": grey,
    }


def _range(section: Section, key: str, default: list[float]) -> list[float]:
    value = section.get(key, default)
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(one, int | float) for one in value):
        section.translation.problem(section.at(key), f"should be a list of two numbers, got {value!r}")
        return default
    return value
