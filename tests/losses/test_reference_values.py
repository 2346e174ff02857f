"""Every value of the reference that the losses' upstreams returned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import deblurkit
from deblurkit.losses.base import AdversarialLoss
from deblurkit.losses.edge_loss import laplacian
from deblurkit.losses.ldl_loss import LDLLoss, artifact_map
from tests.support.losses import MAPS, META, VALUES, element_weight, logits, pair, write_vgg19

PLAIN: dict[str, dict[str, Any]] = {
    "l1_mean": {"type": "L1Loss"},
    "l1_sum": {"type": "L1Loss", "reduction": "sum"},
    "mse_mean": {"type": "MSELoss"},
    "charbonnier_basicsr_mean": {"type": "CharbonnierLoss"},
    "charbonnier_basicsr_sum": {"type": "CharbonnierLoss", "reduction": "sum"},
    "charbonnier_basicsr_eps1e-6": {"type": "CharbonnierLoss", "eps": 1e-6},
    "charbonnier_kair": {"type": "KAIRCharbonnierLoss"},
    "charbonnier_mprnet": {"type": "MPRNetCharbonnierLoss"},
    "charbonnier_estrnn": {"type": "MPRNetCharbonnierLoss", "eps": 1e-3},
    "charbonnier_color_estrnn": {"type": "ColorCharbonnierLoss"},
    "charbonnier_simdeblur": {"type": "SimDeblurCharbonnierLoss"},
    "psnr_loss": {"type": "PSNRLoss"},
    "psnr_loss_toY": {"type": "PSNRLoss", "to_y": True},
    "fft_l1_full": {"type": "FFTLoss"},
    "fft_l1_onesided_variant": {"type": "OneSidedFFTLoss"},
    "fft_abs_complex_mean": {"type": "FFTModulusLoss"},
    "edge_mprnet": {"type": "EdgeLoss"},
    "gradient_l1_estrnn": {"type": "GradientL1Loss"},
    "hem_p05_r0": {"type": "HEMLoss", "random_share": 0.0},
    "hem_p02_r0": {"type": "HEMLoss", "hard_share": 0.2, "random_share": 0.0},
    "weighted_tv_mean": {"type": "WeightedTVLoss"},
    "weighted_tv_sum": {"type": "WeightedTVLoss", "reduction": "sum"},
    "tv_kair": {"type": "KAIRTVLoss"},
}
REAL_ESRGAN = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
PERCEPTUAL: dict[str, dict[str, Any]] = {
    "perceptual_vgg19_l1": {"layer_weights": REAL_ESRGAN},
    "style_vgg19_l1": {"layer_weights": REAL_ESRGAN, "perceptual_weight": 0.0, "style_weight": 1.0},
    "perceptual_fro": {"layer_weights": {"conv2_2": 1.0}, "criterion": "fro"},
    "perceptual_relu3_3_mse": {"layer_weights": {"relu3_3": 1.0}, "criterion": "l2", "input_norm": "none"},
    "perceptual_conv5_4_range_norm_no_input_norm": {
        "layer_weights": {"conv5_4": 1.0},
        "range_norm": True,
        "input_norm": "none",
    },
}
WEIGHTED = {
    "l1_weighted_1ch": (1, "mean"),
    "l1_weighted_3ch": (3, "mean"),
    "l1_weighted_sum": (1, "sum"),
}
GAN_TYPES = ["vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"]


def assert_value(key: str, found: Tensor) -> None:
    assert found.shape == ()
    assert found.item() == pytest.approx(VALUES[key], rel=META["rtol"], abs=META["atol"])


def adversarial(**mapping: Any) -> AdversarialLoss:
    loss: Any = deblurkit.build_loss(mapping)
    assert isinstance(loss, AdversarialLoss)
    return loss


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vgg19(tmp_path_factory.mktemp("vgg") / "vgg19.pth")


@pytest.mark.parametrize("key", PLAIN)
def test_plain_losses(key: str) -> None:
    assert_value(key, deblurkit.build_loss(PLAIN[key])(*pair()))


@pytest.mark.parametrize("key", WEIGHTED)
def test_element_weights(key: str) -> None:
    channels, reduction = WEIGHTED[key]
    loss = deblurkit.build_loss({"type": "L1Loss", "reduction": reduction})
    assert_value(key, loss(*pair(), weight=element_weight(channels)))


def test_mimo_unet() -> None:
    scales = [
        [F.interpolate(x, scale_factor=s, mode="bilinear") if s < 1 else x for x in pair()] for s in (1, 0.5, 0.25)
    ]
    l1, fft = (deblurkit.build_loss({"type": name}) for name in ("L1Loss", "FFTLoss"))
    content = torch.stack([l1(*scale) for scale in scales]).sum()
    spectral = torch.stack([fft(*scale) for scale in scales]).sum()
    assert_value("mimo_content", content)
    assert_value("mimo_fft", spectral)
    assert_value("mimo_total", content + 0.1 * spectral)


def test_laplacian() -> None:
    torch.testing.assert_close(laplacian(pair()[0])[:1], torch.from_numpy(MAPS["edge_laplacian_pred"]))


def test_artifact_map() -> None:
    restored, gt = pair()
    between = (restored + gt) / 2
    found = artifact_map(restored, gt, between)
    torch.testing.assert_close(found[:1], torch.from_numpy(MAPS["ldl_map"]), rtol=META["rtol"], atol=META["atol"])
    assert_value("ldl_map_mean", found.mean())
    assert_value("ldl_map_mean_sr_better", artifact_map(between, gt, restored).mean())
    assert LDLLoss()(restored, gt, averaged=between).item() == pytest.approx(
        (found * (restored - gt)).abs().mean().item()
    )


@pytest.mark.parametrize("key", PERCEPTUAL)
def test_perceptual_losses(key: str, vgg_file: Path) -> None:
    loss = deblurkit.build_loss({"type": "PerceptualLoss", "vgg_weights": str(vgg_file), **PERCEPTUAL[key]})
    restored, gt = pair()
    if PERCEPTUAL[key].get("range_norm"):
        restored, gt = restored * 2 - 1, gt * 2 - 1
    assert_value(key, loss(restored, gt))


@pytest.mark.parametrize("gan_type", GAN_TYPES)
def test_gan_losses(gan_type: str) -> None:
    loss, x = adversarial(type="GANLoss", gan_type=gan_type), logits()
    assert_value(f"gan_{gan_type}_g", 0.05 * loss.generator(x))
    # a judgement that leaves nothing to wish for gives the terms one by one
    both = VALUES[f"gan_{gan_type}_d_real"] + VALUES[f"gan_{gan_type}_d_fake"]
    assert loss.discriminator(x, x).item() == pytest.approx(both, rel=META["rtol"], abs=META["atol"])
    right = {"lsgan": (1.0, 0.0), "wgan": (0.0, 0.0)}.get(gan_type, (50.0, -50.0))
    assert_value(f"gan_{gan_type}_d_real", loss.discriminator(x, torch.full_like(x, right[1])))
    assert_value(f"gan_{gan_type}_d_fake", loss.discriminator(torch.full_like(x, right[0]), x))


def test_relativistic_gan() -> None:
    loss, x = adversarial(type="RelativisticGANLoss", pool_size=2), logits()
    loss.load_state_dict({"fake_pool": torch.full((1, 2), 0.3), "real_pool": torch.full((1, 2), 0.2)})
    assert_value("ragan_ls_g", loss.generator(0.5 * x, x))
    # the reference's pools are constants, so its discriminator's term is the generator's with the roles exchanged
    loss.load_state_dict({"fake_pool": torch.full((1, 2), 0.2), "real_pool": torch.full((1, 2), 0.3)})
    assert_value("ragan_ls_d", loss.generator(x, 0.5 * x))


def test_nothing_of_the_reference_is_left_out() -> None:
    gan = {f"gan_{kind}_{term}" for kind in GAN_TYPES for term in ("g", "d_real", "d_fake")}
    others = {"mimo_content", "mimo_fft", "mimo_total", "ldl_map_mean", "ldl_map_mean_sr_better"}
    assert {*PLAIN, *WEIGHTED, *PERCEPTUAL, *gan, *others, "ragan_ls_g", "ragan_ls_d"} == set(VALUES)
    assert set(MAPS) == {"edge_laplacian_pred", "ldl_map"}
