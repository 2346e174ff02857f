"""RealBasicVSR: BasicVSR after a network that cleans the frames, applied until it changes little.

Chan, Zhou, Xu, Loy: Investigating Tradeoffs in Real-World Video Super-Resolution, CVPR 2022, arXiv 2111.12704. The form
and the names are MMagic's.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import ClassVar

import torch
from torch import Tensor, nn

from deblurkit.archs.basicvsr_arch import Propagation
from deblurkit.archs.spynet_arch import WrappedSpyNet
from deblurkit.archs.video_blocks import Trunk, by_frame, conv3x3
from deblurkit.contract import Capabilities, FrameContract, Output
from deblurkit.network import Maps, Network, State, Sweep
from deblurkit.registry import ARCH_REGISTRY

_PASSES = 3  # of the cleaning network, at most
_TRAINING_THRESHOLD = 255.0


class _Upsample(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.upsample_conv = conv3x3(inputs, outputs)


class _BasicVSR(nn.Module):
    """BasicVSR's parts under MMagic's names."""

    def __init__(self, channels: int, blocks: int, spynet_path: str | None) -> None:
        super().__init__()
        c = channels
        self.spynet = WrappedSpyNet(spynet_path)
        self.backward_resblocks = Trunk(c + 3, c, blocks)
        self.forward_resblocks = Trunk(c + 3, c, blocks)
        self.fusion = nn.Conv2d(2 * c, c, 1)
        self.upsample1 = _Upsample(c, 4 * c)
        self.upsample2 = _Upsample(c, 256)
        self.conv_hr = conv3x3(64, 64)
        self.conv_last = conv3x3(64, 3)

    @property
    def propagation(self) -> Propagation:
        return Propagation(
            self.spynet,
            self.backward_resblocks,
            self.forward_resblocks,
            self.fusion,
            self.upsample1.upsample_conv,
            self.upsample2.upsample_conv,
            self.conv_hr,
            self.conv_last,
        )


@ARCH_REGISTRY.register()
class RealBasicVSRNet(Network):
    """RealBasicVSR: clips `(B, T, 3, H, W)` RGB in [0, 1] to "restored" `(B, T, 3, 4 H, 4 W)`; any size, any T.

    `run` returns the "cleaned" clip `(B, T, 3, H, W)` too, for the cleaning loss. SpyNet does not learn. The defaults
    are the published size (6,294,834 parameters) and the threshold of training; for testing, dynamic_refine_thres is 5
    (weights of stage two) or 1.5 (stage one).

    Args:
        mid_channels: channels of the features.
        num_propagation_blocks: residual blocks of each of the two trunks.
        num_cleaning_blocks: residual blocks of the cleaning network.
        dynamic_refine_thres: cleaning is repeated, three times at most, until it changes the whole batch by less than
            this on average, in units of 1/255. 255: once, for all images that occur. With smaller values a clip's
            result depends on the other clips of its batch.
        spynet_pretrained: file with weights of SpyNet. Checkpoints of this network have them from then on, so that
            `config` does not ask for the file again.
        is_fix_cleaning: the cleaning network does not learn.
        is_sequential_cleaning: clean frame by frame, which takes less memory; the result is the same. (Upstream
            changes the caller's frames then. This does not.)

    Raises:
        CheckpointError: spynet_pretrained is missing or something else.
    """

    paper = "Investigating Tradeoffs in Real-World Video Super-Resolution, CVPR 2022, arXiv 2111.12704"
    year = 2022
    check_args: ClassVar = {"mid_channels": 16, "num_propagation_blocks": 1, "num_cleaning_blocks": 1}

    def __init__(
        self,
        mid_channels: int = 64,
        num_propagation_blocks: int = 20,
        num_cleaning_blocks: int = 20,
        dynamic_refine_thres: float = 255,
        spynet_pretrained: str | None = None,
        is_fix_cleaning: bool = False,
        is_sequential_cleaning: bool = False,
    ) -> None:
        super().__init__(
            FrameContract(
                kind="clip",
                scale=4,
                outputs=(Output("restored", "clip", 4.0), Output("cleaned", "clip")),
                halo="data",  # along the flow, and farther with every frame
                capabilities=Capabilities(
                    bf16=True,
                    fp16=True,
                    compile=False,  # how often frames are cleaned depends on them
                    export=False,
                    batch=dynamic_refine_thres >= _TRAINING_THRESHOLD,
                ),
                licence="Apache-2.0 (MMagic)",
            )
        )
        self.dynamic_refine_thres, self.is_sequential_cleaning = dynamic_refine_thres / 255, is_sequential_cleaning
        self.image_cleaning = nn.Sequential(
            Trunk(3, mid_channels, num_cleaning_blocks), conv3x3(mid_channels, 3)
        ).requires_grad_(not is_fix_cleaning)
        self.basicvsr = _BasicVSR(mid_channels, num_propagation_blocks, spynet_pretrained)
        self.basicvsr.spynet.requires_grad_(False)
        self.config["spynet_pretrained"] = None

    def forward(self, lqs: Tensor, return_lqs: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """`(B, T, 3, H, W)` to `(B, T, 3, 4 H, 4 W)` and, with return_lqs, the cleaned clip; not clamped."""
        for _ in range(_PASSES):
            residues = self._residues(lqs)
            lqs = lqs + residues
            if self._is_clean(residues.detach().abs().mean()):
                break
        restored = self.basicvsr.propagation.restore(lqs)
        return (restored, lqs) if return_lqs else restored

    def _residues(self, clip: Tensor) -> Tensor:
        """What cleaning adds to the frames of a clip."""
        if self.is_sequential_cleaning:
            return torch.stack([self.image_cleaning(frame) for frame in clip.unbind(1)], dim=1)
        item_bytes = clip.shape[-2] * clip.shape[-1] * clip.element_size() * self.basicvsr.fusion.out_channels * 2
        return torch.stack(by_frame(self.image_cleaning, [clip.unbind(1)], item_bytes), dim=1)

    def _is_clean(self, change: Tensor) -> bool:
        """Whether the mean change of a pass is small enough. Tensors without content (meta) are."""
        return change.is_meta or bool(change < self.dynamic_refine_thres)

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """See `Network.run`."""
        restored, cleaned = self.forward(x, return_lqs=True)
        return {"restored": restored, "cleaned": cleaned}

    def sweeps(self) -> Generator[Sweep, State, None]:
        """See `Network.sweeps`: whether another cleaning pass comes depends on the changes to all frames."""
        source = "frame"
        for _ in range(_PASSES):
            total = yield Sweep("clean", "forward", {source: (0,)}, drops=("frame",) if source == "frame" else ())
            source = "cleaned"
            if self._is_clean(total["change"] / total["values"]):
                break
        yield from self.basicvsr.propagation.sweeps("cleaned")

    def sweep_step(self, sweep: str, maps: Maps, state: State) -> tuple[State, State]:
        """See `Network.sweep_step`."""
        if sweep != "clean":
            return self.basicvsr.propagation.sweep_step("cleaned", sweep, maps, state)
        frame = next(iter(maps.values()))
        residue = self.image_cleaning(frame)
        change = residue.detach().abs().sum(dtype=torch.float64)
        values = torch.full_like(change, residue.numel())
        if state:
            change, values = change + state["change"], values + state["values"]
        return {"cleaned": frame + residue}, {"change": change, "values": values}
