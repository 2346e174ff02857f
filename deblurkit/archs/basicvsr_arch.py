"""BasicVSR: features walk through a clip backward and forward, warped by optical flow, and are merged for each frame.

Chan, Wang, Yu, Dong, Loy: BasicVSR: The Search for Essential Components in Video Super-Resolution and Beyond, CVPR
2021, arXiv 2012.02181. The form is BasicSR's.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.archs.spynet_arch import SpyNet
from deblurkit.archs.video_blocks import Trunk, activated, by_frame, conv3x3, enlarged, tail_bytes
from deblurkit.contract import Capabilities, FrameContract
from deblurkit.network import Maps, Network, State, Sweep
from deblurkit.ops.flow_warp import flow_warp
from deblurkit.registry import ARCH_REGISTRY


@dataclass(frozen=True)
class Propagation:
    """BasicVSR itself, whatever its parts are called (RealBasicVSR's checkpoints have other names for them).

    Attributes:
        spynet: the flow. backward, forward: the trunks. fusion, upconv1, upconv2, conv_hr, conv_last: convolutions.
    """

    spynet: SpyNet
    backward: nn.Module
    forward: nn.Module
    fusion: nn.Conv2d
    upconv1: nn.Module
    upconv2: nn.Module
    conv_hr: nn.Module
    conv_last: nn.Module

    def restore(self, x: Tensor) -> Tensor:
        """A clip `(B, T, 3, H, W)` to `(B, T, 3, 4 H, 4 W)`."""
        frames = x.unbind(1)
        to_next, to_last = self.spynet.between_neighbours(x)
        backward: list[Tensor] = []
        for i in reversed(range(len(frames))):
            backward.append(self._walk(self.backward, frames[i], backward[-1:], to_next[i : i + 1]))
        forward: list[Tensor] = []
        for i in range(len(frames)):
            forward.append(self._walk(self.forward, frames[i], forward[-1:], to_last[max(i - 1, 0) : i]))
        restored = by_frame(self._merge, [frames, backward[::-1], forward], tail_bytes(frames[0]))
        return torch.stack(restored, dim=1)

    def _walk(self, trunk: nn.Module, frame: Tensor, before: list[Tensor], flow: list[Tensor]) -> Tensor:
        """The features of a frame from the frame and, but for the first of the walk, those of the one before."""
        if not before:
            return trunk(F.pad(frame, (0, 0, 0, 0, 0, self.fusion.out_channels)))  # zero channels
        return trunk(torch.cat([frame, flow_warp(before[0], flow[0])], dim=1))

    def _merge(self, frame: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
        features = activated(self.fusion(torch.cat([backward, forward], dim=1)))
        base = F.interpolate(frame, scale_factor=4, mode="bilinear", align_corners=False)
        return enlarged(features, self.upconv1, self.upconv2, self.conv_hr, self.conv_last) + base

    def sweeps(self, source: str) -> Generator[Sweep, State, None]:
        """See `Network.sweeps`; `source` is the name of the frames."""
        yield Sweep("backward", "backward", {source: (0, 1)})
        yield Sweep("forward", "forward", {source: (0, -1), "backward": (0,)})

    def sweep_step(self, source: str, sweep: str, maps: Maps, state: State) -> tuple[State, State]:
        """See `Network.sweep_step`."""
        frame, other = maps[source, 0], maps.get((source, 1 if sweep == "backward" else -1))
        flow = [] if other is None else [self.spynet.between(frame, other)]
        trunk = self.backward if sweep == "backward" else self.forward
        hidden = self._walk(trunk, frame, list(state.values()), flow)
        written = hidden if sweep == "backward" else self._merge(frame, maps["backward", 0], hidden)
        return {"backward" if sweep == "backward" else "restored": written}, {"hidden": hidden}


@ARCH_REGISTRY.register()
class BasicVSR(Network):
    """BasicVSR: clips `(B, T, 3, H, W)` RGB in [0, 1] to `(B, T, 3, 4 H, 4 W)`, every frame; any size, any T.

    Every result depends on all frames of the clip. The published models have num_block 30 (6,291,311 parameters).

    Args:
        num_feat: channels of the features.
        num_block: residual blocks of each of the two trunks.
        spynet_path: file with weights of SpyNet, whose flow training starts from. Checkpoints of this network have them
            from then on, so that `config` does not ask for the file again.

    Raises:
        CheckpointError: spynet_path is missing or something else.
    """

    paper = (
        "BasicVSR: The Search for Essential Components in Video Super-Resolution and Beyond, CVPR 2021, "
        "arXiv 2012.02181"
    )
    year = 2021
    check_args: ClassVar = {"num_feat": 16, "num_block": 1}

    def __init__(self, num_feat: int = 64, num_block: int = 15, spynet_path: str | None = None) -> None:
        super().__init__(
            FrameContract(
                kind="clip",
                scale=4,
                halo="data",  # along the flow, and farther with every frame
                capabilities=Capabilities(bf16=True, fp16=True),
                licence="Apache-2.0 (BasicSR, MMagic)",
            )
        )
        self.num_feat = num_feat
        self.spynet = SpyNet(spynet_path)
        self.config["spynet_path"] = None
        self.backward_trunk = Trunk(num_feat + 3, num_feat, num_block)
        self.forward_trunk = Trunk(num_feat + 3, num_feat, num_block)
        self.fusion = nn.Conv2d(2 * num_feat, num_feat, 1)
        self.upconv1 = conv3x3(num_feat, 4 * num_feat)
        self.upconv2 = conv3x3(num_feat, 256)
        self.conv_hr = conv3x3(64, 64)
        self.conv_last = conv3x3(64, 3)

    @property
    def _propagation(self) -> Propagation:
        return Propagation(
            self.spynet,
            self.backward_trunk,
            self.forward_trunk,
            self.fusion,
            self.upconv1,
            self.upconv2,
            self.conv_hr,
            self.conv_last,
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, 3, H, W)` to `(B, T, 3, 4 H, 4 W)`; not clamped."""
        return self._propagation.restore(x)

    def sweeps(self) -> Generator[Sweep, State, None]:
        """See `Network.sweeps`."""
        yield from self._propagation.sweeps("frame")

    def sweep_step(self, sweep: str, maps: Maps, state: State) -> tuple[State, State]:
        """See `Network.sweep_step`."""
        return self._propagation.sweep_step("frame", sweep, maps, state)
