"""PVDNet: a recurrent network that looks for each pixel's partners in the frame that it restored before.

Son, Lee, Lee, Cho, Lee: Recurrent Video Deblurring with Blur-Invariant Motion Estimation and Pixel Volumes, ACM TOG
2021, arXiv 2108.09982. The form is that of codeslake/PVDNet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.archs.bimnet_arch import BIMNet
from deblurkit.contract import Capabilities, FrameContract
from deblurkit.network import Network, State
from deblurkit.ops.pixel_volume import pixel_volume
from deblurkit.registry import ARCH_REGISTRY

if TYPE_CHECKING:
    from deblurkit.archs.bimnet_arch import Pyramid

_FLOW_MULTIPLE = 32


def _conv(inputs: int, outputs: int, kernel: int = 5, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)


def _pair(inputs: int, outputs: int) -> nn.Sequential:
    """Two small convolutions."""
    return nn.Sequential(
        _conv(inputs, outputs, 3), nn.ReLU(inplace=True), _conv(outputs, outputs, 3), nn.ReLU(inplace=True)
    )


class _Restorer(nn.Module):
    """The pixel volume and three blurred frames to what is added to the current one."""

    def __init__(self, volume: int, channels: int, width: int, blocks: int) -> None:
        super().__init__()
        c = channels
        self.PV_dec = _pair(volume, c)
        self.img_dec = _pair(9, c // 2)
        self.d0 = _conv(c + c // 2, c)
        self.d1 = nn.Sequential(_conv(c, c, stride=2), nn.ReLU(inplace=True), _conv(c, c))
        self.temp = nn.Sequential(
            _conv(c, 2 * c, stride=2), nn.ReLU(inplace=True), _conv(2 * c, width), nn.ReLU(inplace=True)
        )
        self.RBs = nn.ModuleList(
            nn.Sequential(_conv(width, width, 3), nn.ReLU(inplace=True), _conv(width, width, 3), nn.ReLU(inplace=True))
            for _ in range(blocks)
        )
        self.RB_end = nn.Sequential(_conv(width, width, 3), nn.ReLU(inplace=True))
        self.dconv1 = nn.ConvTranspose2d(width, c, 4, stride=2, padding=1)
        self.dconv1_end = nn.Sequential(nn.ReLU(inplace=True), _conv(c, c), nn.ReLU(inplace=True))
        self.dconv2 = nn.ConvTranspose2d(c, c, 4, stride=2, padding=1)
        self.dconv2_end = nn.Sequential(nn.ReLU(inplace=True), _conv(c, c), nn.ReLU(inplace=True))
        self.end = _conv(c, 3)

    def forward(self, volume: Tensor, frames: Tensor) -> Tensor:
        """`(B, k^2, H, W)` and current, previous and following frame `(B, 9, H, W)` to `(B, 3, H, W)`."""
        full = self.d0(torch.cat((self.PV_dec(volume), self.img_dec(frames)), dim=1))
        half = self.d1(full)
        quarter = self.temp(half)
        n = quarter
        for block in self.RBs:
            n = n + block(n)
        n = self.RB_end(n) + quarter
        n = self.dconv1_end(self.dconv1(n) + half)
        n = self.dconv2_end(self.dconv2(n) + full)
        return self.end(n)


@ARCH_REGISTRY.register()
class PVDNet(Network):
    """PVDNet: clips `(B, T, 3, H, W)` RGB in [0, 1] to `(B, T - 2, 3, H, W)`; output i restores frame i + 1.

    H and W must be multiples of 4, at least 32. The first frame of a clip stands for itself restored; a video is
    restored from its first frame to its last by repeating both ends, as its authors do (`padding: replicate`).
    In training a step takes the restored frame over without its gradient, as upstream.

    Args:
        PV_ksize: side of the neighbourhood that candidates for a pixel come from. Odd.
        fix_BIMNet: the motion estimator does not learn. It would need a loss on its flows; that of restored
            frames does not reach it.
        wi: gain of the uniform Xavier start.
        large_model: 192 in place of 128 channels and 24 in place of 12 residual blocks: 23,361,780 in place of
            10,514,548 parameters.
        bimnet_ckpt_path: file with weights of BIMNet to start from.
        n_feat: width at full size, which the others follow; published: 64. n_flow_feat: of BIMNet; published: 32.

    Raises:
        ValueError: PV_ksize is even, or a width too small. CheckpointError: the weights file is missing or unfit.
    """

    paper = (
        "Recurrent Video Deblurring with Blur-Invariant Motion Estimation and Pixel Volumes, ACM TOG 2021, "
        "arXiv 2108.09982"
    )
    year = 2021
    check_args = {"n_feat": 8, "n_flow_feat": 4}  # noqa: RUF012

    def __init__(
        self,
        PV_ksize: int = 5,  # noqa: N803 (upstream's name)
        fix_BIMNet: bool = True,  # noqa: N803
        wi: float = 1.0,
        large_model: bool = False,
        bimnet_ckpt_path: str | None = None,
        n_feat: int = 64,
        n_flow_feat: int = 32,
    ) -> None:
        if PV_ksize < 1 or PV_ksize % 2 == 0:
            raise ValueError(f"PVDNet: PV_ksize must be odd, not {PV_ksize}")
        if n_feat < 2:
            raise ValueError(f"PVDNet: n_feat starts at 2, not {n_feat}")
        super().__init__(
            FrameContract(
                kind="stream",
                past=1,
                future=1,
                multiple=4,
                min_size=_FLOW_MULTIPLE,
                time_padding="replicate",
                halo="data",  # flow, and the state spreads farther with every frame
                capabilities=Capabilities(bf16=True, fp16=False),
                licence="AGPL-3.0 (codeslake/PVDNet)",
            )
        )
        self.PV_ksize = PV_ksize
        self.BIMNet = BIMNet(n_flow_feat)
        self.PVDNet = _Restorer(PV_ksize**2, n_feat, *((3 * n_feat, 24) if large_model else (2 * n_feat, 12)))
        for module in self.PVDNet.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight, gain=wi)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        if bimnet_ckpt_path is not None:
            from deblurkit.engine.checkpoint import load_weights, read_checkpoint

            load_weights(self.BIMNet, read_checkpoint(bimnet_ckpt_path))
            self.config["bimnet_ckpt_path"] = None  # a checkpoint of this network has them
        self.BIMNet.requires_grad_(not fix_BIMNet)
        if not fix_BIMNet:
            self.dead_parameters = {  # type: ignore[misc]
                f"BIMNet.{name}": "the pixel volume passes no gradient on to the flow; a loss on flows would train it"
                for name, _ in self.BIMNet.named_parameters()
            }

    def forward(
        self,
        I_prev: Tensor,  # noqa: N803 (upstream's names)
        I_curr: Tensor,  # noqa: N803
        I_next: Tensor,  # noqa: N803
        I_prev_deblurred: Tensor,  # noqa: N803
    ) -> tuple[Tensor, Tensor]:
        """Restore one frame.

        Args:
            I_prev, I_curr, I_next: three blurred frames, `(B, 3, H, W)` RGB in [-1, 1].
            I_prev_deblurred: the first of them restored.

        Returns:
            the middle one restored, not clamped, and its pixel volume `(B, PV_ksize^2, H, W)`.
        """
        pyramids = self._pyramid(I_curr), self._pyramid(I_prev)
        return self._restore(I_prev, I_curr, I_next, I_prev_deblurred, *pyramids)

    def init_state(self, x: Tensor) -> State:
        """The first frame as if it were restored, and its pyramid."""
        first = x[:, 0] * 2 - 1
        return {"restored": first, **_as_state(self._pyramid(first))}

    def step(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Restore the middle of three frames, `(B, 3, 3, H, W)`."""
        previous, current, following = (x * 2 - 1).unbind(1)
        pyramid = self._pyramid(current)
        restored, _ = self._restore(previous, current, following, state["restored"], pyramid, _as_pyramid(state))
        fed_back = restored.detach() if self.training else restored
        return {"restored": (restored + 1) / 2}, {"restored": fed_back, **_as_state(pyramid)}

    def _pyramid(self, frame: Tensor) -> Pyramid:
        """BIMNet's pyramid of the largest part, from the top left, that it takes; of a frame in [-1, 1]."""
        height, width = (side // _FLOW_MULTIPLE * _FLOW_MULTIPLE for side in frame.shape[-2:])
        return self.BIMNet.pyramid((frame[..., :height, :width] + 1) / 2)

    def _restore(
        self,
        previous: Tensor,
        current: Tensor,
        following: Tensor,
        restored: Tensor,
        of_current: Pyramid,
        of_previous: Pyramid,
    ) -> tuple[Tensor, Tensor]:
        flow = self.BIMNet.match(of_current, of_previous)  # at half the size, in whole pixels
        flow = F.interpolate(flow, scale_factor=2.0, mode="bilinear", align_corners=False)
        right, bottom = current.shape[-1] - flow.shape[-1], current.shape[-2] - flow.shape[-2]
        flow = F.pad(flow, (0, right, 0, bottom))
        volume = pixel_volume(restored, flow, current, self.PV_ksize)
        residual = self.PVDNet(volume, torch.cat((current, previous, following), dim=1))
        return current + residual, volume


def _as_state(pyramid: Pyramid) -> State:
    images, features = pyramid
    named = {"image": images, "features": features}
    return {f"{name}{level}": value for name, values in named.items() for level, value in enumerate(values, start=2)}


def _as_pyramid(state: State) -> Pyramid:
    count = sum(name.startswith("features") for name in state)
    images, features = ([state[f"{name}{2 + i}"] for i in range(count)] for name in ("image", "features"))
    return images, features
