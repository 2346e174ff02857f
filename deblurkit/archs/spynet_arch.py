"""SpyNet: optical flow from a pyramid of small networks, as the BasicVSR family and VRT use it.

Ranjan, Black: Optical Flow Estimation using a Spatial Pyramid Network, CVPR 2017, arXiv 1611.00850. The form is
BasicSR's (`spynet_sintel_final-3d2a1287.pth` loads as it is); files with MMagic's names load too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.archs.video_blocks import by_frame
from deblurkit.errors import CheckpointError
from deblurkit.ops.flow_warp import flow_warp, resize_flow
from deblurkit.registry import ARCH_REGISTRY

_LEVELS = 6
_UNIT = 2 ** (_LEVELS - 1)
_WIDTHS = (8, 32, 64, 32, 16, 2)
_WRAPPED = re.compile(r"(basic_module\.\d+\.basic_module\.)(\d+)\.conv\.")


class _ConvModule(nn.Module):
    """A convolution under MMagic's name."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class _Level(nn.Module):
    """Five convolutions that correct the flow at one level."""

    def __init__(self, wrapped: bool) -> None:
        super().__init__()
        convs = [nn.Conv2d(inputs, outputs, 7, padding=3) for inputs, outputs in pairwise(_WIDTHS)]
        if wrapped:
            self.basic_module = nn.Sequential(*(_ConvModule(conv) for conv in convs))
        else:  # the activations are there for the names
            self.basic_module = nn.Sequential(*[layer for conv in convs for layer in (conv, nn.ReLU())][:-1])

    def forward(self, x: Tensor) -> Tensor:
        *layers, last = (layer for layer in self.basic_module if not isinstance(layer, nn.ReLU))
        for layer in layers:
            x = F.relu(layer(x), inplace=True)
        return last(x)


@ARCH_REGISTRY.register()
class SpyNet(nn.Module):
    """SpyNet: two images `(N, 3, H, W)` RGB in [0, 1] to the flow `(N, 2, H, W)` from the first to the second.

    In pixels, channel 0 horizontal: warping the second image by it gives the first. Any size; images are resized to
    multiples of 32 inside. 1,440,300 parameters.

    Args:
        load_path: file with weights, under BasicSR's or MMagic's names.
        return_levels: levels of the pyramid to return; 5 is the finest, each one below has half the size. With several,
            `forward` returns a list, finest first (VRT, RVRT).

    Raises:
        CheckpointError: load_path is missing, or holds something else.
        ValueError: there is no such level.
    """

    _wrapped = False

    def __init__(self, load_path: str | None = None, return_levels: Sequence[int] = (5,)) -> None:
        super().__init__()
        if not return_levels or not set(return_levels) <= set(range(_LEVELS)):
            raise ValueError(f"SpyNet.return_levels: some of 0 to {_LEVELS - 1}, not {list(return_levels)}")
        self.return_levels = sorted(set(return_levels), reverse=True)
        self.basic_module = nn.ModuleList(_Level(self._wrapped) for _ in range(_LEVELS))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.mean: Tensor
        self.std: Tensor
        if load_path is not None and not self.mean.is_meta:
            self._load(load_path)

    def forward(self, ref: Tensor, supp: Tensor) -> Tensor | list[Tensor]:
        """The flow from `ref` to `supp`, each `(N, 3, H, W)`."""
        height, width = ref.shape[-2:]
        found = self._flows(self.pyramid(ref), self.pyramid(supp))
        flows = [
            resize_flow(found[level], (height >> (_LEVELS - 1 - level), width >> (_LEVELS - 1 - level)))
            for level in self.return_levels
        ]
        return flows[0] if len(flows) == 1 else flows

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """What a flow needs of an image `(N, 3, H, W)`: itself, normalised, at six sizes, the smallest first."""
        size = [-(-side // _UNIT) * _UNIT for side in x.shape[-2:]]
        if list(x.shape[-2:]) != size:
            x = F.interpolate(x, size, mode="bilinear", align_corners=False)
        levels = [(x - self.mean) / self.std]
        for _ in range(_LEVELS - 1):
            levels.insert(0, F.avg_pool2d(levels[0], 2))
        return levels

    def between(self, ref: Tensor, supp: Tensor) -> Tensor:
        """The flow `(N, 2, H, W)` from `ref` to `supp` at full size, whatever `return_levels` is."""
        return resize_flow(self._flows(self.pyramid(ref), self.pyramid(supp))[-1], (ref.shape[-2], ref.shape[-1]))

    def _flows(self, ref: Sequence[Tensor], supp: Sequence[Tensor]) -> list[Tensor]:
        """The flows at all levels, the coarsest first."""
        flows: list[Tensor] = []
        for level, network in enumerate(self.basic_module):
            if flows:
                start = 2 * F.interpolate(flows[-1], scale_factor=2, mode="bilinear", align_corners=True)
                warped = flow_warp(supp[level], start, padding="border")
            else:  # no flow yet
                start, warped = torch.zeros_like(ref[0][:, :2]), supp[0]
            flows.append(start + network(torch.cat([ref[level], warped, start], dim=1)))
        return flows

    def between_neighbours(self, frames: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The flows between the frames of a clip; every frame's pyramid is made once and serves four of them.

        Args:
            frames: `(B, T, 3, H, W)`.

        Returns:
            backward, forward: T - 1 flows `(B, 2, H, W)` each. backward[i] leads from frame i to i + 1 (and brings what
            is known of frame i + 1 to frame i), forward[i] from frame i + 1 to i.
        """
        batch, length, _, height, width = frames.shape
        if length < 2:
            return [], []
        levels = [level.unflatten(0, (batch, length)) for level in self.pyramid(frames.flatten(0, 1))]
        first = [[level[:, i] for i in range(length - 1)] for level in levels]
        second = [[level[:, i + 1] for i in range(length - 1)] for level in levels]

        def flow(*pyramids: Tensor) -> Tensor:
            return resize_flow(self._flows(pyramids[:_LEVELS], pyramids[_LEVELS:])[-1], (height, width))

        # both directions as one batch
        pairs = [[*a, *b] for a, b in [*zip(first, second, strict=True), *zip(second, first, strict=True)]]
        finest = levels[-1]
        item_bytes = 2 * max(_WIDTHS) * finest.shape[-2] * finest.shape[-1] * finest.element_size()
        flows = by_frame(flow, pairs, item_bytes)
        return flows[: length - 1], flows[length - 1 :]

    def _load(self, path: str) -> None:
        from deblurkit.compat.checkpoints import fit_names
        from deblurkit.engine.checkpoint import read_checkpoint

        names = {_plain(key): key for key in self.state_dict() if key not in ("mean", "std")}
        own, found = self.state_dict(), fit_names(read_checkpoint(path).state, names)
        lacking = [name for name, key in names.items() if name not in found or found[name].shape != own[key].shape]
        if lacking:
            raise CheckpointError(f"{path}: holds no weights of SpyNet: {lacking[0]} is missing or of another size")
        self.load_state_dict({**own, **{key: found[name] for name, key in names.items()}})


def _plain(key: str) -> str:
    """BasicSR's name of a parameter."""
    return _WRAPPED.sub(lambda found: f"{found[1]}{2 * int(found[2])}.", key)


class WrappedSpyNet(SpyNet):
    """SpyNet under MMagic's names, which RealBasicVSR's checkpoints have."""

    _wrapped = True
