"""EDVR: a window's frames aligned by deformable convolution at three scales, fused by attention over time and space.

Wang, Chan, Yu, Dong, Loy: EDVR: Video Restoration with Enhanced Deformable Convolutional Networks, CVPR Workshops 2019,
arXiv 1905.02716. The form is BasicSR's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.archs.video_blocks import SLOPE, ResidualBlock, activated, conv3x3, enlarged
from deblurkit.contract import Capabilities, FrameContract
from deblurkit.network import Network, State
from deblurkit.ops.deform_conv_modules import DeformConvPack
from deblurkit.registry import ARCH_REGISTRY
from deblurkit.sharing import Shared

_LEVELS = ("l1", "l2", "l3")  # full, half and a quarter of the features' size


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _of_first(conv: nn.Module, x: Tensor) -> Tensor:
    """What the first half of its input adds to a 3x3 convolution of two concatenated maps; without the bias."""
    assert isinstance(conv, nn.Conv2d)
    return F.conv2d(x, conv.weight[:, : x.shape[1]], padding=1)


def _of_second(conv: nn.Module, x: Tensor) -> Tensor:
    """What the second half adds, and the bias."""
    assert isinstance(conv, nn.Conv2d)
    return F.conv2d(x, conv.weight[:, -x.shape[1] :], conv.bias, padding=1)


class _Predeblur(nn.Module):
    """The front end for blurry frames: `(N, 3, H, W)` to features, at a quarter of the size with hr_in."""

    def __init__(self, channels: int, hr_in: bool) -> None:
        super().__init__()
        c = channels
        self.hr_in = hr_in
        self.conv_first = conv3x3(3, c)
        if hr_in:
            self.stride_conv_hr1 = conv3x3(c, c, stride=2)
            self.stride_conv_hr2 = conv3x3(c, c, stride=2)
        self.stride_conv_l2 = conv3x3(c, c, stride=2)
        self.stride_conv_l3 = conv3x3(c, c, stride=2)
        self.resblock_l3 = ResidualBlock(c)
        self.resblock_l2_1 = ResidualBlock(c)
        self.resblock_l2_2 = ResidualBlock(c)
        self.resblock_l1 = nn.ModuleList(ResidualBlock(c) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        first = activated(self.conv_first(x))
        if self.hr_in:
            first = activated(self.stride_conv_hr2(activated(self.stride_conv_hr1(first))))
        second = activated(self.stride_conv_l2(first))
        third = activated(self.stride_conv_l3(second))
        second = self.resblock_l2_1(second) + _doubled(self.resblock_l3(third))
        second = _doubled(self.resblock_l2_2(second))
        for i, block in enumerate(self.resblock_l1):
            first = block(first + second if i == 2 else first)
        return first


class _Alignment(nn.Module):
    """PCD: neighbours aligned to the target from the coarsest level to the finest, and once more (the cascade).

    The first convolution of each level sees neighbour and target together. It is linear: the neighbour's part belongs
    to one frame and is shared by windows, the target's part by the neighbours of a window.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        c = channels

        def pack() -> DeformConvPack:
            return DeformConvPack(c, c, padding=1, deformable_groups=groups)

        self.offset_conv1 = nn.ModuleDict({level: conv3x3(2 * c, c) for level in _LEVELS})
        self.offset_conv2 = nn.ModuleDict({level: conv3x3(c if level == "l3" else 2 * c, c) for level in _LEVELS})
        self.offset_conv3 = nn.ModuleDict({level: conv3x3(c, c) for level in _LEVELS[:2]})
        self.dcn_pack = nn.ModuleDict({level: pack() for level in _LEVELS})
        self.feat_conv = nn.ModuleDict({level: conv3x3(2 * c, c) for level in _LEVELS[:2]})
        self.cas_offset_conv1 = conv3x3(2 * c, c)
        self.cas_offset_conv2 = conv3x3(c, c)
        self.cas_dcnpack = pack()

    def of_neighbour(self, level: str, features: Tensor) -> Tensor:
        """The neighbour's part of a level's first convolution, `(N, C, h, w)` to the same shape."""
        return _of_first(self.offset_conv1[level], features)

    def forward(self, neighbours: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> Tensor:
        """Align.

        Args:
            neighbours: by level, the features `(B, n, C, h, w)` of n frames, and under `nbr_LEVEL` their part of the
                first convolution. target: by level, the features `(B, C, h, w)` of the frame to align to.

        Returns:
            `(B, n, C, h, w)` at the finest level.
        """
        batch = neighbours["l1"].shape[:2]

        def for_all(one: Tensor) -> Tensor:
            """Something of the target, for each neighbour."""
            return one[:, None].expand(-1, batch[1], -1, -1, -1)

        offset = aligned = torch.empty(0)
        for level in reversed(_LEVELS):
            features = neighbours[level].flatten(0, 1)
            joint = neighbours[f"nbr_{level}"] + for_all(_of_second(self.offset_conv1[level], target[level]))
            found = activated(joint.flatten(0, 1))
            if level == "l3":
                offset = activated(self.offset_conv2[level](found))
                aligned = F.leaky_relu(self.dcn_pack[level](features, offset), SLOPE)
                continue
            found = activated(self.offset_conv2[level](torch.cat([found, 2 * _doubled(offset)], dim=1)))
            offset = activated(self.offset_conv3[level](found))
            moved = self.dcn_pack[level](features, offset)
            aligned = self.feat_conv[level](torch.cat([moved, _doubled(aligned)], dim=1))
            aligned = activated(aligned) if level == "l2" else aligned
        joint = _of_first(self.cas_offset_conv1, aligned).unflatten(0, batch)
        joint = joint + for_all(_of_second(self.cas_offset_conv1, target["l1"]))
        offset = activated(self.cas_offset_conv2(activated(joint.flatten(0, 1))))
        return F.leaky_relu(self.cas_dcnpack(aligned, offset), SLOPE).unflatten(0, batch)


class _Fusion(nn.Module):
    """TSA: frames weighted by how much they resemble the target, merged, then weighted again in space."""

    def __init__(self, channels: int, frames: int, target: int) -> None:
        super().__init__()
        c = channels
        self.target = target
        self.temporal_attn1 = conv3x3(c, c)
        self.temporal_attn2 = conv3x3(c, c)
        self.feat_fusion = nn.Conv2d(frames * c, c, 1)
        self.spatial_attn1 = nn.Conv2d(frames * c, c, 1)
        self.spatial_attn2 = nn.Conv2d(2 * c, c, 1)
        self.spatial_attn3 = conv3x3(c, c)
        self.spatial_attn4 = nn.Conv2d(c, c, 1)
        self.spatial_attn5 = conv3x3(c, c)
        self.spatial_attn_l1 = nn.Conv2d(c, c, 1)
        self.spatial_attn_l2 = conv3x3(2 * c, c)
        self.spatial_attn_l3 = conv3x3(c, c)
        self.spatial_attn_add1 = nn.Conv2d(c, c, 1)
        self.spatial_attn_add2 = nn.Conv2d(c, c, 1)

    def forward(self, aligned: Tensor) -> Tensor:
        """`(B, T, C, h, w)` to `(B, C, h, w)`."""
        reference = self.temporal_attn1(aligned[:, self.target])
        embedded = self.temporal_attn2(aligned.flatten(0, 1)).unflatten(0, aligned.shape[:2])
        likeness = (embedded * reference[:, None]).sum(2, keepdim=True).sigmoid()
        frames = (aligned * likeness).flatten(1, 2)

        def pooled(x: Tensor) -> Tensor:
            return torch.cat([F.max_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 3, 2, 1)], dim=1)

        fused = activated(self.feat_fusion(frames))
        attention = activated(self.spatial_attn1(frames))
        attention = activated(self.spatial_attn2(pooled(attention)))
        coarse = activated(self.spatial_attn_l1(attention))
        coarse = activated(self.spatial_attn_l2(pooled(coarse)))
        coarse = _doubled(activated(self.spatial_attn_l3(coarse)))
        attention = activated(self.spatial_attn3(attention)) + coarse
        attention = _doubled(activated(self.spatial_attn4(attention)))
        attention = self.spatial_attn5(attention)
        added = self.spatial_attn_add2(activated(self.spatial_attn_add1(attention)))
        return fused * attention.sigmoid() * 2 + added


@ARCH_REGISTRY.register()
class EDVR(Network):
    """EDVR: windows `(B, num_frame, 3, H, W)` RGB in [0, 1] to one frame `(B, 3, 4 H, 4 W)`, with hr_in `(B, 3, H, W)`.

    H and W must be multiples of 4, with hr_in of 16. Published for deblurring: num_feat 128, num_reconstruct_block 40,
    hr_in and with_predeblur ("L", 23,602,019 parameters); "M" has 64 and 10.

    Overlapping windows share the features of each frame, and the part that each has as a neighbour in the first
    convolutions of the alignment: of a frame at the size (h, w) of its features, 2.625 num_feat h w values are kept.

    Args:
        num_in_ch, num_out_ch: channels of the frames: 3.
        num_feat: channels of the features; a multiple of deformable_groups.
        num_frame: length of the window.
        deformable_groups: blocks of channels that move together.
        num_extract_block, num_reconstruct_block: residual blocks for each frame, and after the fusion.
        center_frame_idx: the frame to restore; None: the middle one.
        hr_in: the input has the size of the output (deblurring); features are at a quarter of it. With with_predeblur.
        with_predeblur: a front end for blurry frames.
        with_tsa: attention in the fusion; False: one convolution (stage one of the training).

    Raises:
        ValueError: arguments that do not go together.
    """

    paper = "EDVR: Video Restoration with Enhanced Deformable Convolutional Networks, CVPRW 2019, arXiv 1905.02716"
    year = 2019
    check_args: ClassVar = {
        "num_feat": 32,
        "deformable_groups": 4,
        "num_extract_block": 1,
        "num_reconstruct_block": 1,
        "hr_in": True,
        "with_predeblur": True,
    }

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_frame: int = 5,
        deformable_groups: int = 8,
        num_extract_block: int = 5,
        num_reconstruct_block: int = 10,
        center_frame_idx: int | None = None,
        hr_in: bool = False,
        with_predeblur: bool = False,
        with_tsa: bool = True,
    ) -> None:
        if (num_in_ch, num_out_ch) != (3, 3):
            raise ValueError(f"EDVR restores RGB: num_in_ch and num_out_ch must be 3, not {num_in_ch} and {num_out_ch}")
        if hr_in and not with_predeblur:
            raise ValueError("EDVR: hr_in needs with_predeblur, whose front end reduces the frames")
        target = num_frame // 2 if center_frame_idx is None else center_frame_idx
        super().__init__(
            FrameContract(
                kind="window",
                frames=num_frame,
                target=target,
                multiple=16 if hr_in else 4,
                scale=1 if hr_in else 4,
                time_padding="replicate" if hr_in else "reflection_circle",  # as the published tests have it
                halo="data",  # offsets are not bounded
                capabilities=Capabilities(bf16=True, fp16=True),
                licence="Apache-2.0 (BasicSR)",
            )
        )
        c = num_feat
        self.hr_in, self.with_predeblur, self.with_tsa = hr_in, with_predeblur, with_tsa
        if with_predeblur:
            self.predeblur = _Predeblur(c, hr_in)
            self.conv_1x1 = nn.Conv2d(c, c, 1)
        else:
            self.conv_first = conv3x3(3, c)
        self.feature_extraction = nn.Sequential(*(ResidualBlock(c) for _ in range(num_extract_block)))
        self.conv_l2_1 = conv3x3(c, c, stride=2)
        self.conv_l2_2 = conv3x3(c, c)
        self.conv_l3_1 = conv3x3(c, c, stride=2)
        self.conv_l3_2 = conv3x3(c, c)
        self.pcd_align = _Alignment(c, deformable_groups)
        self.fusion: nn.Module = _Fusion(c, num_frame, target) if with_tsa else nn.Conv2d(num_frame * c, c, 1)
        self.reconstruction = nn.Sequential(*(ResidualBlock(c) for _ in range(num_reconstruct_block)))
        self.upconv1 = conv3x3(c, 4 * c)
        self.upconv2 = conv3x3(c, 256)
        self.conv_hr = conv3x3(64, 64)
        self.conv_last = conv3x3(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, num_frame, 3, H, W)` to `(B, 3, H, W)`, or `(B, 3, 4 H, 4 W)` without hr_in; not clamped."""
        if x.ndim != 5 or x.shape[1] != self.contract.frames:
            raise ValueError(
                f"EDVR takes (B, {self.contract.frames}, 3, H, W), got {tuple(x.shape)}: "
                "does num_frame fit the sampling of the data?"
            )
        features = {name: one.unflatten(0, x.shape[:2]) for name, one in self.features(x.flatten(0, 1)).items()}
        target = {name: one[:, self.contract.target] for name, one in features.items()}
        return self._restore(self.pcd_align(features, target), target)

    def features(self, frame: Tensor) -> State:
        """See `Network.features`: the frame, its features at three sizes (`l1`, `l2`, `l3`), and what these give to the
        alignment of the frame as a neighbour (`nbr_l1`, ...)."""
        if self.with_predeblur:
            first = self.conv_1x1(self.predeblur(frame))
        else:
            first = activated(self.conv_first(frame))
        first = self.feature_extraction(first)
        second = activated(self.conv_l2_2(activated(self.conv_l2_1(first))))
        third = activated(self.conv_l3_2(activated(self.conv_l3_1(second))))
        levels = dict(zip(_LEVELS, (first, second, third), strict=True))
        parts = {f"nbr_{level}": self.pcd_align.of_neighbour(level, one) for level, one in levels.items()}
        return {"frame": frame, **levels, **parts}

    def fuse(self, features: Sequence[State], shared: Shared) -> dict[str, Tensor]:
        """See `Network.fuse`. A frame that stands in several slots (at the ends of a sequence) is aligned once."""
        different = dict(zip(shared.positions, features, strict=True))
        maps = {
            name: torch.stack([one[name] for one in different.values()], dim=1)
            for name in features[0]
            if name != "frame"
        }
        target = features[self.contract.target]
        aligned = self.pcd_align(maps, target)
        if len(different) < len(features):
            places = list(different)
            aligned = aligned[:, [places.index(position) for position in shared.positions]]
        return {"restored": self._restore(aligned, target)}

    def _restore(self, aligned: Tensor, target: State) -> Tensor:
        """The restored frame from the aligned features `(B, num_frame, C, h, w)` and what is known of the target."""
        fused = self.fusion(aligned if self.with_tsa else aligned.flatten(1, 2))
        restored = enlarged(self.reconstruction(fused), self.upconv1, self.upconv2, self.conv_hr, self.conv_last)
        base = target["frame"]
        if not self.hr_in:
            base = F.interpolate(base, scale_factor=4, mode="bilinear", align_corners=False)
        return restored + base
