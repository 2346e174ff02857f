"""STRCNN: a recurrent network for online video deblurring that blends its hidden features over time.

Kim, Lee, Schoelkopf, Hirsch: Online Video Deblurring via Dynamic Temporal Blending Network, ICCV 2017,
arXiv 1704.03285. The form is SimDeblur's (MIT), whose checkpoints load as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.archs.blocks import conv_norm
from deblurkit.contract import Capabilities, FrameContract
from deblurkit.network import Network, State
from deblurkit.registry import ARCH_REGISTRY


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)


class _ResBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(_conv(channels, channels), nn.BatchNorm2d(channels))
        self.conv2 = nn.Sequential(_conv(channels, channels), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + conv_norm(F.relu(conv_norm(x, *self.conv1)), *self.conv2))


def _fuse(channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(_ResBlock(channels) for _ in range(blocks)), _conv(channels, channels))


class _Encoder(nn.Module):
    """A window and the last output's features to the features of this step."""

    def __init__(self, inputs: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.feature_extract = nn.Sequential(
            _conv(inputs, channels, kernel=5), nn.ReLU(), _conv(channels, channels // 2, stride=2), nn.ReLU()
        )
        self.feature_fuse = _fuse(channels, blocks)

    def forward(self, frames: Tensor, last: Tensor) -> Tensor:
        return self.feature_fuse(torch.cat((self.feature_extract(frames), last), dim=1))


class _DynamicTemporalBlending(nn.Module):
    """Blend the hidden features of this step with those of the past."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.zeros(1))
        self.conv = _conv(2 * channels, channels, kernel=5)

    def forward(self, new: Tensor, past: Tensor) -> Tensor:
        weight = (self.conv(torch.cat((new, past), dim=1)).tanh().abs() + self.beta).clamp(0, 1)
        return past + weight * (new - past)


class _Decoder(nn.Module):
    """Hidden features to the restored frame and to what the next step sees of it."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.feature_fuse = _fuse(channels, blocks)
        self.feature_extract = nn.Sequential(_conv(channels, channels // 2), nn.ReLU())
        self.reconstruct = nn.Sequential(
            nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1), nn.ReLU(), _conv(channels, 3)
        )

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        fused = self.feature_fuse(hidden)
        return self.reconstruct(fused), self.feature_extract(fused)


class _Cell(nn.Module):
    def __init__(self, inputs: int, channels: int, encoder_blocks: int, decoder_blocks: int) -> None:
        super().__init__()
        self.encoder = _Encoder(inputs, channels, encoder_blocks)
        self.dtb = _DynamicTemporalBlending(channels)
        self.decoder = _Decoder(channels, decoder_blocks)

    def forward(self, frames: Tensor, features: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.dtb(self.encoder(frames, features), hidden)
        return *self.decoder(hidden), hidden


@ARCH_REGISTRY.register()
class STRCNN(Network):
    """OVD: clips `(B, T, in_channels, H, W)` RGB in [0, 1] to `(B, T - num_frames_encoded + 1, 3, H, W)`.

    Output i restores frame i + num_frames_encoded // 2. H and W must be even, T at least num_frames_encoded.

    Args:
        num_frames_encoded: length of the window that a step sees.
        in_channels: channels of a frame.
        inner_channels: width, even. SimDeblur's configuration has 32 (257,284 parameters), the paper's is 64.
        encoder_blocks, decoder_blocks: residual blocks before and after the blending.
        is_dtb: has no effect, as upstream: the blending layer is always there.

    Raises:
        ValueError: inner_channels is odd, another number is below its minimum, or the input has the wrong shape.
    """

    paper = "Online Video Deblurring via Dynamic Temporal Blending Network, ICCV 2017, arXiv 1704.03285"
    year = 2017
    check_args = {"inner_channels": 8, "encoder_blocks": 1, "decoder_blocks": 1}  # noqa: RUF012

    def __init__(
        self,
        num_frames_encoded: int = 5,
        in_channels: int = 3,
        inner_channels: int = 32,
        encoder_blocks: int = 4,
        decoder_blocks: int = 4,
        is_dtb: bool = True,
    ) -> None:
        if num_frames_encoded < 1:
            raise ValueError(f"STRCNN: num_frames_encoded must be at least 1, not {num_frames_encoded}")
        if inner_channels < 2 or inner_channels % 2:
            raise ValueError(f"STRCNN gives half of inner_channels to its state: it must be even, not {inner_channels}")
        if min(encoder_blocks, decoder_blocks) < 0:
            raise ValueError("STRCNN: encoder_blocks and decoder_blocks must not be negative")
        past = num_frames_encoded // 2
        super().__init__(
            FrameContract(
                kind="stream",
                past=past,
                future=num_frames_encoded - 1 - past,
                multiple=2,
                halo="data",  # the state spreads farther with every frame
                capabilities=Capabilities(bf16=True, fp16=True),
                licence="MIT (SimDeblur)",
            )
        )
        self.num_frames_encoded, self.in_channels, self.inner_channels = num_frames_encoded, in_channels, inner_channels
        self.is_dtb = is_dtb
        self.strcnn_cell = _Cell(num_frames_encoded * in_channels, inner_channels, encoder_blocks, decoder_blocks)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, in_channels, H, W)` to `(B, T - num_frames_encoded + 1, 3, H, W)`; not clamped."""
        return self.run(x)["restored"]

    def init_state(self, x: Tensor) -> State:
        """Zeros: the features of the last output and the blended hidden features, both at half the size."""
        batch, frames, channels, height, width = x.shape
        if (frames, channels) != (self.num_frames_encoded, self.in_channels):
            raise ValueError(
                f"STRCNN steps over windows (B, {self.num_frames_encoded}, {self.in_channels}, H, W), "
                f"got {tuple(x.shape)}"
            )
        size = (height // 2, width // 2)
        return {
            "features": x.new_zeros((batch, self.inner_channels // 2, *size)),
            "hidden": x.new_zeros((batch, self.inner_channels, *size)),
        }

    def step(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Restore the middle frame of a window `(B, num_frames_encoded, in_channels, H, W)`."""
        restored, features, hidden = self.strcnn_cell(x.flatten(1, 2), state["features"], state["hidden"])
        return {"restored": restored}, {"features": features, "hidden": hidden}
