"""STFAN: a recurrent network that aligns and deblurs features with predicted per-pixel filters.

Zhou, Zhang, Pan, Xie, Zuo, Ren: Spatio-Temporal Filter Adaptive Network for Video Deblurring, ICCV 2019,
arXiv 1904.12257. The form of one step is that of sczhou/STFAN (MIT).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deblurkit.contract import Capabilities, FrameContract
from deblurkit.network import Network, State
from deblurkit.ops.fac import predicted_filter_conv
from deblurkit.registry import ARCH_REGISTRY

_SLOPE = 0.1
_KERNEL = 5


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2), nn.LeakyReLU(_SLOPE, inplace=True)
    )


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(_SLOPE, inplace=True)
    )


class _ResBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(_SLOPE, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.stem(x)


def _predictor(inputs: int, channels: int) -> nn.Sequential:
    """Kernels for `channels` feature maps; the last layer is pixel-wise."""
    return nn.Sequential(
        _conv(inputs, 128), _ResBlock(128), _ResBlock(128), _conv(128, channels * _KERNEL**2, kernel=1)
    )


def _through(x: Tensor, *layers: nn.Module) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


@ARCH_REGISTRY.register()
class STFAN(Network):
    """STFAN: clips `(B, T, 3, H, W)` RGB in [0, 1] to `(B, T, 3, H, W)`, every frame restored.

    H and W must be multiples of 4. It looks at no future frame. Official weights (5,372,547 values) expect BGR.
    In training the frame and the features that a step takes over from the one before carry no gradient, as upstream.

    Args:
        clamp_feedback: limit a restored frame to [0, 1] before the next step sees it, as the official code does;
            False for weights that SimDeblur trained.
    """

    paper = "Spatio-Temporal Filter Adaptive Network for Video Deblurring, ICCV 2019, arXiv 1904.12257"
    year = 2019

    def __init__(self, clamp_feedback: bool = True) -> None:
        super().__init__(
            FrameContract(
                kind="stream",
                multiple=4,
                halo="data",  # the state spreads farther with every frame
                capabilities=Capabilities(bf16=True, fp16=True),
                extra_macs_per_pixel=2 * 128 * _KERNEL**2 / 16,  # two FAC layers at a quarter of the size
                licence="MIT (sczhou/STFAN)",
            )
        )
        self.clamp_feedback = clamp_feedback
        self.fea = _conv(256, 128)
        self.conv1_1 = _conv(3, 32)
        self.conv1_2 = _ResBlock(32)
        self.conv1_3 = _ResBlock(32)
        self.conv2_1 = _conv(32, 64, stride=2)
        self.conv2_2 = _ResBlock(64)
        self.conv2_3 = _ResBlock(64)
        self.conv3_1 = _conv(64, 128, stride=2)
        self.conv3_2 = _ResBlock(128)
        self.conv3_3 = _ResBlock(128)
        self.upconv2_u = _up(256, 64)
        self.upconv2_2 = _ResBlock(64)
        self.upconv2_1 = _ResBlock(64)
        self.upconv1_u = _up(64, 32)
        self.upconv1_2 = _ResBlock(32)
        self.upconv1_1 = _ResBlock(32)
        self.img_prd = _conv(32, 3)
        self.kconv1_1 = _conv(9, 32)
        self.kconv1_2 = _ResBlock(32)
        self.kconv1_3 = _ResBlock(32)
        self.kconv2_1 = _conv(32, 64, stride=2)
        self.kconv2_2 = _ResBlock(64)
        self.kconv2_3 = _ResBlock(64)
        self.kconv3_1 = _conv(64, 128, stride=2)
        self.kconv3_2 = _ResBlock(128)
        self.kconv3_3 = _ResBlock(128)
        self.fac_warp = _predictor(128, 128)
        self.kconv4 = _conv(128 * _KERNEL**2, 128, kernel=1)
        self.fac_deblur = _predictor(256, 128)
        for module in self.modules():  # as upstream; torch's own start learns much more slowly
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, 3, H, W)` to `(B, T, 3, H, W)`; not clamped."""
        return self.run(x)["restored"]

    def init_state(self, x: Tensor) -> State:
        """What the first step sees of a past: the first frame, twice, and its features, twice."""
        frame = x[:, 0]
        features = self._encode(frame)
        return {"frame": frame, "restored": frame, "features": torch.cat((features, features), dim=1)}

    def step(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Restore one frame, `(B, 1, 3, H, W)`."""
        frame = x[:, 0]
        guide = torch.cat((frame, state["frame"], state["restored"]), dim=1)
        guide = _through(guide, self.kconv1_1, self.kconv1_2, self.kconv1_3)
        guide = _through(guide, self.kconv2_1, self.kconv2_2, self.kconv2_3)
        guide = _through(guide, self.kconv3_1, self.kconv3_2, self.kconv3_3)

        *shared, kernels = self.fac_warp
        aligned, digest = predicted_filter_conv(
            self.fea(state["features"]), _through(guide, *shared), kernels, self.kconv4, kernel_size=_KERNEL
        )
        assert digest is not None
        *shared, kernels = self.fac_deblur
        deblurred, _ = predicted_filter_conv(
            self._encode(frame), _through(torch.cat((guide, digest), dim=1), *shared), kernels, kernel_size=_KERNEL
        )
        features = torch.cat((deblurred, aligned), dim=1)
        image = _through(features, self.upconv2_u, self.upconv2_2, self.upconv2_1)
        image = _through(image, self.upconv1_u, self.upconv1_2, self.upconv1_1, self.img_prd)
        restored = image + frame

        fed_back = restored.clamp(0, 1) if self.clamp_feedback else restored
        if self.training:
            fed_back, features = fed_back.detach(), features.detach()
        return {"restored": restored}, {"frame": frame, "restored": fed_back, "features": features}

    def _encode(self, frame: Tensor) -> Tensor:
        """`(B, 3, H, W)` to `(B, 128, H/4, W/4)`."""
        level1 = _through(frame, self.conv1_1, self.conv1_2, self.conv1_3)
        level2 = _through(level1, self.conv2_1, self.conv2_2, self.conv2_3)
        return _through(level2, self.conv3_1, self.conv3_2, self.conv3_3)
