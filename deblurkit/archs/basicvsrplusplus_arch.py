"""BasicVSR++: four walks through a clip, each aligning the two frames before by flow-guided deformable convolution.

Chan, Zhou, Xu, Loy: BasicVSR++: Improving Video Super-Resolution with Enhanced Propagation and Alignment, CVPR 2022,
arXiv 2104.13371; On the Generalization of BasicVSR++ to Video Deblurring and Denoising, arXiv 2204.05308. The form is
that of BasicSR and MMagic.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.archs.spynet_arch import SpyNet
from deblurkit.archs.video_blocks import SLOPE, Trunk, by_frame, conv3x3, enlarged, tail_bytes
from deblurkit.contract import Capabilities, FrameContract
from deblurkit.network import Maps, Network, State, Sweep
from deblurkit.ops.deform_conv_modules import FlowGuidedDeformConv
from deblurkit.ops.flow_warp import compose_flows, flow_warp
from deblurkit.registry import ARCH_REGISTRY

_BRANCHES = ("backward_1", "forward_1", "backward_2", "forward_2")
_GROUPS = 16  # deformable ones


@ARCH_REGISTRY.register()
class BasicVSRPlusPlus(Network):
    """BasicVSR++: clips `(B, T, 3, H, W)` RGB in [0, 1] to `(B, T, 3, 4 H, 4 W)`, or to the same size; any T.

    Every result depends on all frames of the clip. Published for deblurring: mid_channels 64, num_blocks 15,
    is_low_res_input false (9,760,175 parameters). Upstream refuses clips whose flow is smaller than 64x64 pixels.

    Args:
        mid_channels: channels of the features; a multiple of 8.
        num_blocks: residual blocks of each of the four trunks.
        max_residue_magnitude: bound, in pixels, of what the deformable convolutions add to the flow.
        is_low_res_input: True: super-resolution by 4; False: restore at the same size (multiples of 4), with features
            and flow at a quarter of it.
        spynet_path: file with weights of SpyNet, whose flow training starts from. Checkpoints of this network have them
            from then on, so that `config` does not ask for the file again.
        cpu_cache_length: of longer clips, maps wait in the host's memory between the walks (not in training).

    Raises:
        ValueError: mid_channels is no multiple of 8.
        CheckpointError: spynet_path is missing or something else.
    """

    paper = (
        "BasicVSR++: Improving Video Super-Resolution with Enhanced Propagation and Alignment, CVPR 2022, "
        "arXiv 2104.13371"
    )
    year = 2022
    check_args: ClassVar = {"mid_channels": 8, "num_blocks": 1, "is_low_res_input": False}

    def __init__(
        self,
        mid_channels: int = 64,
        num_blocks: int = 7,
        max_residue_magnitude: float = 10,
        is_low_res_input: bool = True,
        spynet_path: str | None = None,
        cpu_cache_length: int = 100,
    ) -> None:
        if mid_channels % 8:
            raise ValueError(f"BasicVSRPlusPlus.mid_channels must be a multiple of 8, not {mid_channels}")
        super().__init__(
            FrameContract(
                kind="clip",
                multiple=1 if is_low_res_input else 4,
                scale=4 if is_low_res_input else 1,
                halo="data",  # along the flow, and farther with every frame
                capabilities=Capabilities(bf16=True, fp16=True),
                licence="Apache-2.0 (BasicSR, MMagic)",
            )
        )
        c = mid_channels
        self.is_low_res_input, self.cpu_cache_length = is_low_res_input, cpu_cache_length
        self.spynet = SpyNet(spynet_path)
        self.config["spynet_path"] = None
        self.feat_extract: nn.Module = Trunk(3, c, 5)
        if not is_low_res_input:
            first, second = conv3x3(3, c, stride=2), conv3x3(c, c, stride=2)
            slopes = [nn.LeakyReLU(SLOPE, inplace=True) for _ in range(2)]
            self.feat_extract = nn.Sequential(first, slopes[0], second, slopes[1], Trunk(c, c, 5))
        self.deform_align = nn.ModuleDict(
            {
                branch: FlowGuidedDeformConv(
                    2 * c, c, 3 * c + 4, deformable_groups=_GROUPS, max_residue_magnitude=max_residue_magnitude
                )
                for branch in _BRANCHES
            }
        )
        self.backbone = nn.ModuleDict({branch: Trunk((2 + i) * c, c, num_blocks) for i, branch in enumerate(_BRANCHES)})
        self.reconstruction = Trunk(5 * c, c, 5)
        self.upconv1 = conv3x3(c, 4 * c)
        self.upconv2 = conv3x3(c, 256)
        self.conv_hr = conv3x3(64, 64)
        self.conv_last = conv3x3(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, 3, H, W)` to `(B, T, 3, 4 H, 4 W)` or, without is_low_res_input, `(B, T, 3, H, W)`; not clamped."""
        frames = list(x.unbind(1))
        waits = not torch.is_grad_enabled() and len(frames) > self.cpu_cache_length

        def kept(one: Tensor) -> Tensor:
            return one.cpu() if waits and not one.is_meta else one

        flow_images = self._flow_image(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        to_next, to_last = self.spynet.between_neighbours(flow_images)
        maps = [[kept(one) for one in by_frame(self.feat_extract, [frames], tail_bytes(flow_images))]]
        for branch in _BRANCHES:
            backward = branch.startswith("backward")
            walked: list[Tensor] = []
            state: State = {}
            for i in reversed(range(len(frames))) if backward else range(len(frames)):
                flow = (to_next[i] if backward else to_last[i - 1]) if state else None
                here = [one[i].to(x.device) for one in maps]
                features, state = self._walk(branch, here, flow, state)
                walked.append(kept(features))
            maps.append(walked[::-1] if backward else walked)

        def merge(*some: Tensor) -> Tensor:
            return self._merge(some[0], *(one.to(x.device) for one in some[1:]))

        return torch.stack(by_frame(merge, [frames, *maps], tail_bytes(flow_images)), dim=1)

    def _flow_image(self, frames: Tensor) -> Tensor:
        """What the flow is found in, `(N, 3, H, W)` at the size of the features."""
        if self.is_low_res_input:
            return frames
        return F.interpolate(frames, scale_factor=0.25, mode="bicubic", align_corners=False)

    def _walk(self, branch: str, maps: list[Tensor], flow: Tensor | None, state: State) -> tuple[Tensor, State]:
        """The features of a frame on one of the four walks.

        Args:
            maps: what is known of the frame: its own features, and those of the earlier walks in order.
            flow: from the frame to the one before it on the walk; None for the first.
            state: `first` and `second`: the features one and two frames before, and the `flow` between these.
        """
        own = maps[0]
        if flow is None:
            aligned = torch.zeros_like(own)
            state = {"first": aligned}
        else:
            first = state["first"]
            conditions = [flow_warp(first, flow), own, torch.zeros_like(own)]
            farther, second = torch.zeros_like(flow), torch.zeros_like(own)
            if "second" in state:
                second, farther = state["second"], compose_flows(flow, state["flow"])
                conditions[2] = flow_warp(second, farther)
            condition = torch.cat([*conditions, flow, farther], dim=1)
            aligned = self.deform_align[branch](torch.cat([first, second], dim=1), condition, [flow, farther])
            state = {"second": first, "flow": flow}
        features = aligned + self.backbone[branch](torch.cat([*maps, aligned], dim=1))
        return features, {**state, "first": features}

    def _merge(self, frame: Tensor, *maps: Tensor) -> Tensor:
        """The restored frame from the features of all walks."""
        features = self.reconstruction(torch.cat(maps, dim=1))
        base = frame
        if self.is_low_res_input:
            base = F.interpolate(frame, scale_factor=4, mode="bilinear", align_corners=False)
        return enlarged(features, self.upconv1, self.upconv2, self.conv_hr, self.conv_last) + base

    def sweeps(self) -> Generator[Sweep, State, None]:
        """See `Network.sweeps`: features and flow, then the four walks, the last of which restores."""
        yield Sweep("features", "forward", {"frame": (0, 1)})
        known = ["features"]
        for branch in _BRANCHES:
            direction: Literal["forward", "backward"] = "backward" if branch.startswith("backward") else "forward"
            flow = {"to_next": (0,)} if direction == "backward" else {"to_last": (-1,)}
            image = {"frame": (0,)} if branch == _BRANCHES[-1] else {}
            drops = ("to_next",) if branch == "backward_2" else ()
            yield Sweep(branch, direction, {**dict.fromkeys(known, (0,)), **flow, **image}, drops)
            known.append(branch)

    def sweep_step(self, sweep: str, maps: Maps, state: State) -> tuple[State, State]:
        """See `Network.sweep_step`."""
        if sweep == "features":
            frame = maps["frame", 0]
            written = {"features": self.feat_extract(frame)}
            if ("frame", 1) in maps:
                images = self._flow_image(torch.cat([frame, maps["frame", 1]]))
                both = self.spynet.between(images, torch.cat(images.chunk(2)[::-1]))
                written["to_next"], written["to_last"] = both.chunk(2)
            return written, {}
        known = [maps[name, 0] for name in ("features", *_BRANCHES[: _BRANCHES.index(sweep)])]
        flow = maps.get(("to_next", 0)) if sweep.startswith("backward") else maps.get(("to_last", -1))
        features, state = self._walk(sweep, known, flow, state)
        if sweep == _BRANCHES[-1]:
            return {"restored": self._merge(maps["frame", 0], *known, features)}, state
        return {sweep: features}, state
