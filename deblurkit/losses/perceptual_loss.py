"""Perceptual and style loss on VGG19 features (Johnson et al., ECCV 2016).

Source of formulas and layer names: `XPixelGroup/BasicSR@8d56e3a`. What other repositories do, in these arguments:

| recipe | layer_weights | criterion | input_norm |
|---|---|---|---|
| ESRGAN | conv5_4: 1 | l1 | imagenet |
| Real-ESRGAN, RealBasicVSR | conv1_2: .1, conv2_2: .1, conv3_4: 1, conv4_4: 1, conv5_4: 1 | l1 | imagenet |
| SimDeblur | conv1_2: 1, conv2_2: .2, conv3_3: .04 | l2_sum | none |
| STFAN (weight 0.01) | conv1_2: 1, conv2_2: .2, conv3_3: .04 | l2 | symmetric |
| DeblurGAN (weight 100) | conv3_3: 1 | l2 | symmetric |
| DeblurGAN-v2 | image: .5, conv3_3: .006 | l2 | imagenet |
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.errors import CheckpointError, MissingWeightsError
from deblurkit.losses.base import Loss, as_images, check_shapes, chosen
from deblurkit.registry import LOSS_REGISTRY

Criterion = Literal["l1", "l2", "l2_sum", "fro"]
InputNorm = Literal["imagenet", "symmetric", "none"]

WEIGHTS_FILE = "vgg19-dcbb9e9d.pth"

#: How many convolutions come before each pooling, and what all of them return.
_BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
#: Layer names in order; the number of a layer in torchvision's `features` is its place here.
VGG19_LAYERS = tuple(
    name
    for i, (convolutions, _) in enumerate(_BLOCKS, 1)
    for name in (*(f"{kind}{i}_{j}" for j in range(1, convolutions + 1) for kind in ("conv", "relu")), f"pool{i}")
)
_CHANNELS = {f"conv{i}_{j}": channels for i, (n, channels) in enumerate(_BLOCKS, 1) for j in range(1, n + 1)}


class VGG19Features(nn.Module):
    """The convolutional part of VGG19 (Simonyan and Zisserman, ICLR 2015) as far as it is needed, never trained.

    Its weights are buffers that are not saved: checkpoints of a training do not hold them.

    Args:
        layers: names out of `VGG19_LAYERS` ("conv3_3", "relu3_3", "pool3") of the features that are returned.
        weights: file with torchvision's weights, or None: `vgg19-dcbb9e9d.pth` in torch's cache.

    Raises:
        CheckpointError: there is no such file, or it holds other weights.
    """

    def __init__(self, layers: tuple[str, ...], weights: str | Path | None = None) -> None:
        super().__init__()
        self.wanted = set(layers)
        last = max((VGG19_LAYERS.index(name) for name in layers), default=-1)
        self.layers = VGG19_LAYERS[: last + 1]
        for name, parameter in _read_weights(self.layers, weights).items():
            self.register_buffer(name, parameter, persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Features by layer name of pictures `(N, 3, H, W)`; those of "convA_B" are taken before the ReLU."""
        found = {}
        for name in self.layers:
            if name.startswith("conv"):
                x = F.conv2d(x, self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_bias"), padding=1)
            else:
                x = F.relu(x) if name.startswith("relu") else F.max_pool2d(x, 2)
            if name in self.wanted:
                found[name] = x
        return found


@LOSS_REGISTRY.register()
class PerceptualLoss(Loss):
    """Distance c of VGG19's features, and of their Gram matrices (style), summed over layers.

        perceptual_weight * sum_k w_k c(F_k(restored), F_k(gt)) + style_weight * sum_k w_k c(G_k(restored), G_k(gt))

    F_k are the features of layer k, G_k the Gram matrix F F^T / (C H W) of a picture's features as C x (H W). Every
    frame of a clip counts as a picture. The weights of VGG19 are never downloaded.

    Args:
        layer_weights: w_k by layer: "convA_B" (before the ReLU), "reluA_B", "poolA", or "image" (what goes into VGG).
        criterion: "l1", "l2" (means), "l2_sum" (sum of squares) or "fro" (root of that) over the whole batch.
        input_norm: "imagenet" (mean and deviation of ImageNet), "symmetric" ([0, 1] to [-1, 1]) or "none".
        range_norm: the frames are in [-1, 1]: take them to [0, 1] first.
        perceptual_weight, style_weight: of the two parts; 0: the part is left out.
        vgg_weights: file with torchvision's weights; None: `vgg19-dcbb9e9d.pth` in torch's cache.

    Raises:
        ValueError: an unknown layer, none at all, or both parts left out.
        CheckpointError: the weights of VGG19 are not there.
    """

    def __init__(
        self,
        layer_weights: Mapping[str, float],
        criterion: Criterion = "l1",
        input_norm: InputNorm = "imagenet",
        range_norm: bool = False,
        perceptual_weight: float = 1.0,
        style_weight: float = 0.0,
        vgg_weights: str | None = None,
    ) -> None:
        super().__init__()
        if not layer_weights:
            raise ValueError("layer_weights: name at least one layer, such as {conv5_4: 1.0}")
        for name in layer_weights:
            if name not in (*VGG19_LAYERS, "image"):
                raise ValueError(
                    f"layer_weights: VGG19 has no layer {name!r}: conv1_1 ... conv5_4, relu1_1 ... relu5_4, "
                    "pool1 ... pool5, image"
                )
        if perceptual_weight <= 0 and style_weight <= 0:
            raise ValueError("perceptual_weight and style_weight: one of them should be above 0")
        self.layer_weights = dict(layer_weights)
        self.criterion: Criterion = chosen("criterion", criterion, get_args(Criterion))
        self.input_norm: InputNorm = chosen("input_norm", input_norm, get_args(InputNorm))
        self.range_norm = range_norm
        self.perceptual_weight, self.style_weight = perceptual_weight, style_weight
        self.vgg = VGG19Features(tuple(name for name in layer_weights if name != "image"), vgg_weights)

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """See `Loss.forward`; the frames have three channels. No gradient reaches `gt`."""
        check_shapes(restored, gt)
        if restored.shape[-3] != 3:
            raise ValueError(f"PerceptualLoss takes RGB frames, got {tuple(restored.shape)}")
        found = self._features(restored)
        with torch.no_grad():
            targets = self._features(gt)
        total = restored.new_zeros(())
        for name, weight in self.layer_weights.items():
            if self.perceptual_weight > 0:
                total = total + self.perceptual_weight * weight * self._distance(found[name], targets[name])
            if self.style_weight > 0:
                total = total + self.style_weight * weight * self._distance(_gram(found[name]), _gram(targets[name]))
        return total

    def _features(self, frames: Tensor) -> dict[str, Tensor]:
        x = as_images(frames)
        if self.range_norm:
            x = (x + 1) / 2
        if self.input_norm == "imagenet":
            mean, deviation = x.new_tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
            x = (x - mean) / deviation
        elif self.input_norm == "symmetric":
            x = x * 2 - 1
        return {"image": x, **self.vgg(x)}

    def _distance(self, x: Tensor, target: Tensor) -> Tensor:
        delta = x - target
        if self.criterion == "l1":
            return delta.abs().mean()
        if self.criterion == "l2":
            return (delta**2).mean()
        return (delta**2).sum() if self.criterion == "l2_sum" else torch.linalg.vector_norm(delta)


def _gram(features: Tensor) -> Tensor:
    flat = features.flatten(2)
    return flat @ flat.mT / (flat.shape[1] * flat.shape[2])


def _read_weights(layers: tuple[str, ...], path: str | Path | None) -> dict[str, Tensor]:
    """`{conv1_1_weight: ..., conv1_1_bias: ...}` for those of the layers that have weights, in float32."""
    from deblurkit.engine.checkpoint import read_checkpoint

    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}  # own name: name in the file, shape
    channels = 3
    for number, name in enumerate(layers):
        if name.startswith("conv"):
            shapes[f"{name}_weight"] = (f"features.{number}.weight", (_CHANNELS[name], channels, 3, 3))
            shapes[f"{name}_bias"] = (f"features.{number}.bias", (_CHANNELS[name],))
            channels = _CHANNELS[name]
    if not shapes:
        return {}
    file = Path(path) if path is not None else Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILE
    if not file.is_file():
        raise MissingWeightsError(
            file,
            ", and a perceptual loss needs VGG19. Put torchvision's weights "
            f"(https://download.pytorch.org/models/{WEIGHTS_FILE}) there, or say where you have it in vgg_weights",
        )
    state = read_checkpoint(file).state
    for key, shape in shapes.values():
        if key not in state or tuple(state[key].shape) != shape:
            found = f"has {tuple(state[key].shape)}" if key in state else "has none"
            raise CheckpointError(
                f"{file}: does not hold torchvision's VGG19: {key} should be {shape}, the file {found}"
            )
    return {name: state[key].float() for name, (key, _) in shapes.items()}
