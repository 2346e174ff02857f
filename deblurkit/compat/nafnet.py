"""NAFNet's dialect (`megvii-research/NAFNet@2b4af71`, a fork of BasicSR 1.2)."""

from __future__ import annotations

from deblurkit.compat.basicsr import SCHEDULERS
from deblurkit.compat.dialect import PICTURES, Dialect

_TILES = "networks here take whole frames"

NAFNET = Dialect(
    name="NAFNet",
    models={"ImageRestorationModel": "RestorationModel"},
    datasets={"PairedImageDataset": PICTURES, "SingleImageDataset": PICTURES},
    losses={"L1Loss": "L1Loss", "MSELoss": "MSELoss", "PSNRLoss": "PSNRLoss"},
    schedulers={**SCHEDULERS, "TrueCosineAnnealingLR": "TrueCosineAnnealingLR", "LinearLR": "LinearLR"},
    # its calculate_ssim is another one (the window extends over the channels)
    metrics={"calculate_psnr": "PSNR"},
    flip_key="use_flip",
    grad_clip=True,
    resumes=True,
    param_keys={"g": ("param_key",)},
    val_ignored={
        "suffix": "",
        "pbar": "",
        "rgb2bgr": "pixels are RGB everywhere",
        "use_image": "figures are of quantised pixels",
        **dict.fromkeys(
            ("grids", "crop_size_h", "crop_size_w", "crop_size_h_ratio", "crop_size_w_ratio", "max_minibatch"), _TILES
        ),
    },
)
