"""BasicSR's dialect (`XPixelGroup/BasicSR@8d56e3a`)."""

from __future__ import annotations

from deblurkit.compat.dialect import PICTURES, DatasetKind, Dialect

_CENTRE = {"split": "all", "sampling": "n_c"}
_CLIP = {"split": "all", "sampling": "n_n"}
#: A whole clip in one go, with all of its frames restored.
_WHOLE = {"split": "all", "sampling": "n_n", "num_frame": 1, "chunk": "whole"}
_MIDDLE = {"split": "all", "sampling": "n_c", "anchors": "middle"}

SCHEDULERS = {
    "MultiStepLR": "MultiStepRestartLR",
    "MultiStepRestartLR": "MultiStepRestartLR",
    "CosineAnnealingRestartLR": "CosineAnnealingRestartLR",
}

BASICSR = Dialect(
    name="BasicSR",
    models={
        "SRModel": "RestorationModel",
        "SwinIRModel": "RestorationModel",
        "VideoBaseModel": "RestorationModel",
        "EDVRModel": "RestorationModel",
        "VideoRecurrentModel": "RestorationModel",
        "SRGANModel": "GANModel",
        "ESRGANModel": "GANModel",
        "RealESRNetModel": "RestorationModel",
        "RealESRGANModel": "GANModel",
        "VideoGANModel": "GANModel",
        "VideoRecurrentGANModel": "GANModel",
    },
    datasets={
        "PairedImageDataset": PICTURES,
        "SingleImageDataset": PICTURES,
        "RealESRGANDataset": DatasetKind(
            {"split": "all", "sampling": "n_n", "num_frame": 1}, native="DegradedVideoDataset"
        ),
        "REDSDataset": DatasetKind(_CENTRE, {"num_frame": "num_frame", "interval_list": "interval_list"}),
        "REDSRecurrentDataset": DatasetKind(_CLIP, {"num_frame": "num_frame", "interval_list": "interval_list"}),
        "Vimeo90KDataset": DatasetKind(_MIDDLE, {"num_frame": "num_frame"}),
        "Vimeo90KRecurrentDataset": DatasetKind({**_CLIP, "num_frame": 7}, {"flip_sequence": "mirror_sequence"}),
        "VideoTestDataset": DatasetKind(_CENTRE, {"num_frame": "num_frame", "padding": "padding"}),
        "VideoTestVimeo90KDataset": DatasetKind(_MIDDLE, {"num_frame": "num_frame", "padding": "padding"}),
        "VideoRecurrentTestDataset": DatasetKind(_WHOLE),
    },
    losses={
        "L1Loss": "L1Loss",
        "MSELoss": "MSELoss",
        "CharbonnierLoss": "CharbonnierLoss",
        "WeightedTVLoss": "WeightedTVLoss",
    },
    schedulers=SCHEDULERS,
    metrics={"calculate_psnr": "PSNR", "calculate_ssim": "SSIM"},
    val_ignored={
        "suffix": "",
        "pbar": "",
        "flip_seq": "no averaging with the reversed clip",
        "center_frame_only": "data sets say which frames are scored",
    },
)
