"""NAFNet's dialect (`megvii-research/NAFNet@2b4af71`, a fork of BasicSR 1.2)."""

from __future__ import annotations

from deblurkit.compat.basicsr import SCHEDULERS
from deblurkit.compat.dialect import PICTURES, Dialect

NAFNET = Dialect(
    name="NAFNet",
    models={"ImageRestorationModel": "RestorationModel"},
    datasets={"PairedImageDataset": PICTURES, "SingleImageDataset": PICTURES},
    losses={"L1Loss": "L1Loss", "MSELoss": "MSELoss", "PSNRLoss": "PSNRLoss"},
    schedulers={**SCHEDULERS, **{name: name for name in ("TrueCosineAnnealingLR", "LinearLR", "VibrateLR")}},
    # the window of its calculate_ssim extends over the colours
    metrics={"calculate_psnr": "PSNR", "calculate_ssim": "VolumeSSIM"},
    protocol="nafnet-rgb/1",
    grids=True,
    grad_clip=True,
    resumes=True,
    param_keys={"g": ("param_key",)},
    val_ignored={
        "suffix": "",
        "pbar": "",
        "rgb2bgr": "pixels are RGB everywhere",
        "use_image": "figures are of quantised pixels",
        "max_minibatch": "crops are restored one by one",
    },
)
