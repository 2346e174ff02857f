"""Restormer's dialect (`swz30/Restormer@df766d5`, a fork of BasicSR 1.2)."""

from __future__ import annotations

from deblurkit.compat.basicsr import SCHEDULERS
from deblurkit.compat.dialect import PICTURES, DatasetKind, Dialect

RESTORMER = Dialect(
    name="Restormer",
    models={"ImageCleanModel": "RestorationModel"},
    datasets={
        "Dataset_PairedImage": PICTURES,
        "Dataset_DefocusDeblur_DualPixel_16bit": DatasetKind({}, native="DualPixelDataset"),
        "Dataset_GaussianDenoising": DatasetKind({}, native="GaussianNoiseDataset"),
    },
    # its CharbonnierLoss squares eps
    losses={
        "L1Loss": "L1Loss",
        "MSELoss": "MSELoss",
        "PSNRLoss": "PSNRLoss",
        "CharbonnierLoss": "MPRNetCharbonnierLoss",
    },
    schedulers={
        **SCHEDULERS,
        "TrueCosineAnnealingLR": "TrueCosineAnnealingLR",
        "LinearLR": "LinearLR",
        "VibrateLR": "VibrateLR",
        "CosineAnnealingRestartCyclicLR": "CosineAnnealingRestartCyclicLR",
    },
    # the window of its calculate_ssim extends over the colours
    metrics={"calculate_psnr": "PSNR", "calculate_ssim": "VolumeSSIM"},
    protocol="nafnet-rgb/1",
    progressive=True,
    grad_clip=False,
    resumes=True,
    param_keys={"g": ("param_key", "param_key_g")},
    val_ignored={
        "suffix": "",
        "pbar": "",
        "window_size": "networks pad as much as they need",
        "rgb2bgr": "pixels are RGB everywhere",
        "use_image": "figures are of quantised pixels",
        "max_minibatch": "",
    },
)
