"""CDVD-TSP: neighbours are warped to the centre by optical flow and restored together, twice in cascade.

Pan, Bai, Tang: Cascaded Deep Video Deblurring Using Temporal Sharpness Prior, CVPR 2020, arXiv 2004.02501. The form is
that of csbhr/CDVD-TSP (MIT), with the pixel grid that it was written for (PyTorch 0.4.1: align_corners).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deblurkit.archs.pwcnet_arch import PWCNet
from deblurkit.contract import Capabilities, FrameContract, Output
from deblurkit.errors import CheckpointError
from deblurkit.network import Network, State
from deblurkit.ops.flow_warp import masked_warp_cdvd
from deblurkit.ops.sharpness_prior import temporal_sharpness_prior
from deblurkit.registry import ARCH_REGISTRY
from deblurkit.sharing import Shared

_BOX = 5  # of the filter before frames are compared


class _ResBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 5, padding=2)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.relu(self.conv1(x)))


def _down(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = nn.Sequential(nn.Conv2d(inputs, outputs, 5, stride, padding=2), nn.ReLU(inplace=True))
    return nn.Sequential(first, *(_ResBlock(outputs) for _ in range(blocks)))


def _up(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    last = nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1), nn.ReLU(inplace=True)
    )
    return nn.Sequential(*(_ResBlock(inputs) for _ in range(blocks)), last)


class _Reconstructor(nn.Module):
    """Three aligned frames and their sharpness prior to the restored centre; no residual over all."""

    def __init__(self, inputs: int, outputs: int, channels: int, blocks: int) -> None:
        super().__init__()
        c = channels
        self.inBlock = _down(inputs, c, blocks, stride=1)
        self.encoder_first = _down(c, 2 * c, blocks, stride=2)
        self.encoder_second = _down(2 * c, 4 * c, blocks, stride=2)
        self.decoder_second = _up(4 * c, 2 * c, blocks)
        self.decoder_first = _up(2 * c, c, blocks)
        self.outBlock = nn.Sequential(*(_ResBlock(c) for _ in range(blocks)), nn.Conv2d(c, outputs, 5, padding=2))

    def forward(self, x: Tensor) -> Tensor:
        full = self.inBlock(x)
        half = self.encoder_first(full)
        up = self.decoder_second(self.encoder_second(half))
        up = self.decoder_first(up + half)
        return self.outBlock(up + full)


class _FlowNet(nn.Module):
    """A shell around PWC-Net that state dicts know."""

    def __init__(self, n_feat: int) -> None:
        super().__init__()
        self.moduleNetwork = PWCNet(n_feat)

    def pyramid(self, frame: Tensor) -> State:
        return {f"level{level}": value for level, value in enumerate(self.moduleNetwork.pyramid(frame), start=2)}

    def forward(self, first: State, second: State) -> Tensor:
        """The flow in pixels from one frame to another; both with their pyramids."""
        one, other = ([state[f"level{level}"] for level in range(2, 7)] for state in (first, second))
        return self.moduleNetwork.flow_of_pyramids(one, other, first["frame"].shape[-2:])


@ARCH_REGISTRY.register()
class CDVD_TSP(Network):  # noqa: N801 (the paper's name)
    """CDVD-TSP: `(B, 5, 3, H, W)` RGB in [0, 1] to the restored middle frame, by two stages of three frames each.

    H and W must be multiples of 4. Windows that overlap share the first stage's results and the pyramids of features
    that flows are found with: half of the operations.

    Args:
        in_channels, out_channels: of a frame; 3.
        n_sequence: length of the window; 5.
        n_resblock, n_feat: blocks of each level and width of the first; published: 3 and 32 (16,187,045 parameters).
        load_flow_net, flow_pretrain_fn: start from a file of PWC-Net's weights.
        load_recons_net, recons_pretrain_fn: start from a file of the reconstruction's weights.
        is_mask_filter: smooth frames before they are compared for the sharpness prior; the published weights have it.
        device: not looked at; upstream's configurations name one.
        n_flow_feat: width of PWC-Net; published: 16.

    Raises:
        ValueError: another number of frames or channels. CheckpointError: a weights file is missing or does not fit.
    """

    paper = "Cascaded Deep Video Deblurring Using Temporal Sharpness Prior, CVPR 2020, arXiv 2004.02501"
    year = 2020
    check_args = {"n_resblock": 1, "n_feat": 4, "n_flow_feat": 2}  # noqa: RUF012

    def __init__(
        self,
        in_channels: int = 3,
        n_sequence: int = 5,
        out_channels: int = 3,
        n_resblock: int = 3,
        n_feat: int = 32,
        load_flow_net: bool = False,
        load_recons_net: bool = False,
        flow_pretrain_fn: str = "",
        recons_pretrain_fn: str = "",
        is_mask_filter: bool = False,
        device: str = "cuda",
        n_flow_feat: int = 16,
    ) -> None:
        if n_sequence != 5 or in_channels != 3 or out_channels != 3:
            raise ValueError(
                f"CDVD_TSP takes 5 frames of 3 channels, not n_sequence={n_sequence}, in_channels={in_channels}, "
                f"out_channels={out_channels}"
            )
        super().__init__(
            FrameContract(
                kind="window",
                frames=5,
                target=2,
                multiple=4,
                outputs=(Output("restored"), Output("stage1", "clip", context=(1, 1))),
                halo="data",  # flow
                capabilities=Capabilities(bf16=True, fp16=False),
                licence="MIT (csbhr/CDVD-TSP)",
            )
        )
        self.box = _BOX if is_mask_filter else 1
        self.flow_net = _FlowNet(n_flow_feat)
        self.recons_net = _Reconstructor(3 * in_channels + 1, out_channels, n_feat, n_resblock)
        if load_flow_net:
            _load(self.flow_net.moduleNetwork, flow_pretrain_fn)
            self.config["load_flow_net"] = False  # a checkpoint of this network has them
        if load_recons_net:
            _load(self.recons_net, recons_pretrain_fn)
            self.config["load_recons_net"] = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        """`(B, 5, 3, H, W)` to frames 1, 2, 3 of the first stage, the restored frame 2, and None; none is clamped."""
        outputs = self.run(x)
        first, second, third = outputs["stage1"].unbind(1)
        return first, second, third, outputs["restored"], None

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """See `Network.run`; "stage1" are frames 1 to 3 as the first stage restores them, `(B, 3, 3, H, W)`."""
        return self.run_shared(x)

    def features(self, frame: Tensor) -> State:
        """See `Network.features`: the frame `(B, 3, H, W)` and its pyramid for flows."""
        return {"frame": frame, **self.flow_net.pyramid(frame)}

    def fuse(self, features: Sequence[State], shared: Shared) -> dict[str, Tensor]:
        """See `Network.fuse`."""

        def first_stage(i: int) -> State:
            return self.features(self._restore(*features[i - 1 : i + 2]))

        stage1 = [shared("stage1", (i - 1, i, i + 1), lambda i=i: first_stage(i)) for i in (1, 2, 3)]  # type: ignore[misc]
        return {
            "restored": self._restore(*stage1),
            "stage1": torch.stack([one["frame"] for one in stage1], dim=1),
        }

    def _restore(self, previous: State, current: State, following: State) -> Tensor:
        """One stage: three successive frames to the restored middle one."""
        frame = current["frame"]
        (before, before_mask), (after, after_mask) = (
            masked_warp_cdvd(other["frame"], self.flow_net(current, other)) for other in (previous, following)
        )
        prior = temporal_sharpness_prior(
            (before, frame, after), (before_mask, torch.ones_like(frame), after_mask), self.box
        )
        return self.recons_net(torch.cat((before, frame, after, prior), dim=1))


def _load(net: nn.Module, path: str) -> None:
    """Put the weights of a file into a part of the network.

    Raises:
        CheckpointError: the file is missing, damaged, or holds something else.
    """
    from deblurkit.engine.checkpoint import load_weights, read_checkpoint

    if not path:
        raise CheckpointError(f"{type(net).__name__.strip('_')}: its weights are asked for, but no file is named")
    load_weights(net, read_checkpoint(path))
