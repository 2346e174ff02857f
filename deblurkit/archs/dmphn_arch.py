"""DMPHN and Stack(n)-DMPHN: encoders and decoders over an image cut into 1, 2, 4 and 8 patches.

Zhang, Dai, Li, Koniusz: Deep Stacked Hierarchical Multi-patch Network for Image Deblurring, CVPR 2019,
arXiv 1904.03468. Upstream: HongguangZhang/DMPHN-cvpr19-master, whose scripts wire the encoders and decoders; the class
is ours. A key is the name of upstream's file (`encoder_lv1`, `decoder_s2_lv3`, ...) and the key in that file.
"""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor, nn

from deblurkit.contract import Capabilities, FrameContract, Output
from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY

#: Patches of a level -> rows and columns of its grid.
_GRIDS = {1: (1, 1), 2: (2, 1), 4: (2, 2), 8: (4, 2)}


def _cut(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """`(B, C, H, W)` to patches `(B * rows * columns, C, H / rows, W / columns)`."""
    rows, columns = grid
    if rows == columns == 1:
        return x
    batch, channels, height, width = x.shape
    patches = x.reshape(batch, channels, rows, height // rows, columns, width // columns)
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def _join(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """The inverse of `_cut`."""
    rows, columns = grid
    if rows == columns == 1:
        return patches
    return patches.unflatten(0, (-1, rows, columns)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1)


class _Residual(nn.Sequential):
    """Two convolutions with a ReLU between them, plus the input."""

    def __init__(self, width: int) -> None:
        super().__init__(_conv(width, width), nn.ReLU(inplace=True), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x


class _Encoder(nn.Sequential):
    """An image to 128 features at a quarter of its size; upstream's numbering has holes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = _conv(3, 32)
        self.layer2 = _Residual(32)
        self.layer3 = _Residual(32)
        self.layer5 = _conv(32, 64, stride=2)
        self.layer6 = _Residual(64)
        self.layer7 = _Residual(64)
        self.layer9 = _conv(64, 128, stride=2)
        self.layer10 = _Residual(128)
        self.layer11 = _Residual(128)


class _Decoder(nn.Sequential):
    """128 features to an image of four times their size."""

    def __init__(self) -> None:
        super().__init__()
        self.layer13 = _Residual(128)
        self.layer14 = _Residual(128)
        self.layer16 = nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1)
        self.layer17 = _Residual(64)
        self.layer18 = _Residual(64)
        self.layer20 = nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1)
        self.layer21 = _Residual(32)
        self.layer22 = _Residual(32)
        self.layer24 = _conv(32, 3)


@ARCH_REGISTRY.register()
class DMPHN(Network):
    """DMPHN: images `(B, 3, H, W)` RGB in [0, 1]; patches are processed apart, as upstream does.

    H and W must be multiples of 16 and 8 for levels [1, 2, 4, 8], of 8 for [1, 2, 4]. `run` returns "restored" and, for
    a stack, the results of the earlier stages as "stage1", "stage2", ..., not clamped.

    Args:
        levels: patches of each level, the whole image first: [1, 2, 4, 8] and [1, 2, 4] are published (7,232,524 and
            5,424,393 parameters); [1, 2] and [1] follow the same rule.
        num_stacks: 2, 3 or 4 for Stack(n)-DMPHN (10,848,786, 16,273,179 and 21,697,572 parameters), which exists for
            levels [1, 2, 4] only.

    Raises:
        ValueError: levels or num_stacks are none of these.
    """

    paper = "Deep Stacked Hierarchical Multi-patch Network for Image Deblurring, CVPR 2019, arXiv 1904.03468"
    year = 2019
    check_args: ClassVar = {"levels": [1, 2]}

    def __init__(self, levels: list[int] = [1, 2, 4, 8], num_stacks: int = 1) -> None:  # noqa: B006 (not changed)
        if not levels or list(levels) != list(_GRIDS)[: len(levels)]:
            raise ValueError(f"DMPHN.levels: [1], [1, 2], [1, 2, 4] or [1, 2, 4, 8], not {levels}")
        if not 1 <= num_stacks <= 4:
            raise ValueError(f"DMPHN.num_stacks: 1 to 4, not {num_stacks}")
        if num_stacks > 1 and list(levels) != [1, 2, 4]:
            raise ValueError(f"DMPHN: a stack ({num_stacks} stages) has levels [1, 2, 4], not {levels}")
        grids = [_GRIDS[patches] for patches in levels]
        stages = tuple(Output(f"stage{stage}") for stage in range(1, num_stacks))
        super().__init__(
            FrameContract(
                kind="image",
                multiple=(4 * grids[-1][0], 4 * grids[-1][1]),
                outputs=(Output("restored"), *stages),
                halo="global",  # where the cuts lie depends on the size of the image
                capabilities=Capabilities(bf16=True, fp16=True),
                licence="none stated (HongguangZhang/DMPHN-cvpr19-master)",
            )
        )
        self.grids = grids
        self.prefixes = ["lv"] if num_stacks == 1 else [f"s{stage}_lv" for stage in range(1, num_stacks + 1)]
        for prefix in self.prefixes:
            for level in range(1, len(levels) + 1):
                self.add_module(f"encoder_{prefix}{level}", _Encoder())
                self.add_module(f"decoder_{prefix}{level}", _Decoder())
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):  # upstream's start
                fan_out = math.prod(module.kernel_size) * module.out_channels
                nn.init.normal_(module.weight, std=0.5 * math.sqrt(2 / fan_out))
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """`(B, 3, H, W)` to the result; for a stack a list of the results of all stages, the last one is the result."""
        results: list[Tensor] = []
        image, features = x - 0.5, None
        for prefix in self.prefixes:
            image, features = self._stage(prefix, image, features, results[0] if results else None)
            results.append(image)
        results = [result + 0.5 for result in results]
        return results[0] if len(results) == 1 else results

    def _stage(
        self, prefix: str, image: Tensor, before: list[Tensor] | None, first_result: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """One pass from the finest patches to the whole image.

        Args:
            prefix: of the names of the sub-networks. image: centred at 0, `(B, 3, H, W)`.
            before: the features of the stage before, whole image first; None for the first stage.
            first_result: the result of stage one, None for that stage itself; it is added to the residual of level 2,
                where one would expect the result of the stage before (so upstream).

        Returns:
            the result, centred at 0, and the features of all levels, each joined to `(B, 128, H / 4, W / 4)`.
        """
        features: list[Tensor] = []
        residual: Tensor | None = None
        for level in range(len(self.grids), 0, -1):
            grid = self.grids[level - 1]
            # a decoder works on the patches of the next level up
            joined = self.grids[max(level - 2, 0)]
            patches = _cut(image if residual is None else image + residual, grid)
            feature = _join(self.get_submodule(f"encoder_{prefix}{level}")(patches), grid)
            if features:
                feature = feature + features[-1]
            if before is not None:
                feature = feature + before[level - 1]
            features.append(feature)
            residual = _join(self.get_submodule(f"decoder_{prefix}{level}")(_cut(feature, joined)), joined)
            if level == 2 and first_result is not None:
                residual = residual + first_result
        assert residual is not None
        return residual, features[::-1]

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """See `Network.run`."""
        if x.ndim == 5:
            return super().run(x)
        results = self.forward(x)
        if isinstance(results, Tensor):
            return {"restored": results}
        stages = {f"stage{stage}": result for stage, result in enumerate(results[:-1], start=1)}
        return {"restored": results[-1], **stages}
