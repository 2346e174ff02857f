"""DBN (DeBlurNet): an encoder-decoder over a stack of five consecutive frames.

Su, Delbracio, Wang, Sapiro, Heidrich, Wang: Deep Video Deblurring for Hand-held Cameras, CVPR 2017, arXiv 1611.08387.
The form is SimDeblur's (its checkpoints load as they are): there the up-sampled branch passes a ReLU before the skip is
added and another one after, and nothing limits the output; the authors' Torch7 model has one ReLU and a final sigmoid.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.contract import Capabilities, FrameContract
from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY

_BN_EPS = 1e-3


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2), nn.BatchNorm2d(outputs, eps=_BN_EPS)
    )


def _up(inputs: int, outputs: int) -> nn.Sequential:
    """Transposed convolution to twice the size."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.BatchNorm2d(outputs, eps=_BN_EPS)
    )


@ARCH_REGISTRY.register()
class DBN(Network):
    """DeBlurNet: `(B, num_frames, in_channels, H, W)` RGB in [0, 1] to the restored middle frame `(B, 3, H, W)`.

    H and W must be multiples of 8.

    Args:
        num_frames: length of the window; the middle frame is restored. Odd.
        in_channels: channels of a frame.
        inner_channels: width of the first level; the published configuration has 64 (15,305,291 parameters).
        zero_init_residual: start with the weight of the last batch norm at zero, so that the untrained network
            returns its input's middle frame plus a constant of zero. Upstream starts far below its input; a short
            training gains decibels from it. The architecture and the state-dict keys stay the same.

    Raises:
        ValueError: num_frames is even, or the input has another number of frames or channels.
    """

    paper = "Deep Video Deblurring for Hand-held Cameras, CVPR 2017, arXiv 1611.08387"
    year = 2017
    check_args = {"inner_channels": 8}  # noqa: RUF012

    def __init__(
        self, num_frames: int = 5, in_channels: int = 3, inner_channels: int = 64, zero_init_residual: bool = False
    ) -> None:
        if num_frames < 1 or num_frames % 2 == 0:
            raise ValueError(f"DBN restores the middle frame of a window: num_frames must be odd, not {num_frames}")
        super().__init__(
            FrameContract(
                kind="window",
                frames=num_frames,
                target=num_frames // 2,
                multiple=8,
                halo=81,  # measured by gradient: 81 pixels up and left, 74 down and right
                capabilities=Capabilities(bf16=True, fp16=False),
                licence="MIT (SimDeblur)",
            )
        )
        self.num_frames, self.in_channels = num_frames, in_channels
        c, stacked = inner_channels, num_frames * in_channels
        self.F0 = _conv(stacked, c, kernel=5)
        self.D1 = _conv(c, c, stride=2)
        self.F1_1 = _conv(c, 2 * c)
        self.F1_2 = _conv(2 * c, 2 * c)
        self.D2 = _conv(2 * c, 4 * c, stride=2)
        self.F2_1 = _conv(4 * c, 4 * c)
        self.F2_2 = _conv(4 * c, 4 * c)
        self.F2_3 = _conv(4 * c, 4 * c)
        self.D3 = _conv(4 * c, 8 * c, stride=2)
        self.F3_1 = _conv(8 * c, 8 * c)
        self.F3_2 = _conv(8 * c, 8 * c)
        self.F3_3 = _conv(8 * c, 8 * c)
        self.U1 = _up(8 * c, 4 * c)
        self.F4_1 = _conv(4 * c, 4 * c)
        self.F4_2 = _conv(4 * c, 4 * c)
        self.F4_3 = _conv(4 * c, 4 * c)
        self.U2 = _up(4 * c, 2 * c)
        self.F5_1 = _conv(2 * c, 2 * c)
        self.F5_2 = _conv(2 * c, c)
        self.U3 = _up(c, c)
        self.F6_1 = _conv(c, stacked)
        self.F6_2 = _conv(stacked, 3)
        if zero_init_residual:
            last_norm = self.F6_2[1]
            assert isinstance(last_norm, nn.BatchNorm2d)
            nn.init.zeros_(last_norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, num_frames, in_channels, H, W)` to `(B, 3, H, W)`; not clamped."""
        if x.ndim != 5 or x.shape[1:3] != (self.num_frames, self.in_channels):
            raise ValueError(
                f"DBN takes (B, {self.num_frames}, {self.in_channels}, H, W), got {tuple(x.shape)}: "
                "does num_frames fit the sampling of the data?"
            )

        def through(value: Tensor, *layers: nn.Module) -> Tensor:
            for layer in layers:
                value = F.relu(layer(value))
            return value

        skip0 = through(x.flatten(1, 2), self.F0)
        skip1 = through(skip0, self.D1, self.F1_1, self.F1_2)
        skip2 = through(skip1, self.D2, self.F2_1, self.F2_2, self.F2_3)
        deep = through(skip2, self.D3, self.F3_1, self.F3_2, self.F3_3)
        up = F.relu(through(deep, self.U1) + skip2)
        up = through(up, self.F4_1, self.F4_2, self.F4_3)
        up = F.relu(through(up, self.U2) + skip1)
        up = through(up, self.F5_1, self.F5_2)
        up = F.relu(through(up, self.U3) + skip0)
        residual = self.F6_2(through(up, self.F6_1))
        return residual + x[:, self.num_frames // 2]
