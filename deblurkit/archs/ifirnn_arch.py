"""IFIRNN: recurrent networks that look at every frame several times before they restore it.

Nah, Son, Lee: Recurrent Neural Networks with Intra-Frame Iterations for Video Deblurring, CVPR 2019. There is no
official code. `IFIRNN` is SimDeblur's form (MIT), `IFIRNNC2H3` the smaller one of zzh-tech/ESTRNN (MIT).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.contract import Capabilities, FrameContract
from deblurkit.network import Network, State
from deblurkit.registry import ARCH_REGISTRY

_REFINING_BLOCKS = 6


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)


class _Cell(nn.Module):
    """A recurrent cell, called several times per frame.

    Its parts: F_B reads a frame, F_R refines what was read together with the hidden state, F_L (in the last cell only)
    makes an image of the refined features and F_H a new hidden state.
    """

    F_B: nn.Sequential
    F_R: nn.Sequential
    F_L: nn.Sequential

    def update(self, refined: Tensor) -> Tensor:
        """The new hidden state."""
        raise NotImplementedError


class _IntraFrameNetwork(Network):
    """What both forms share: the schedule of one frame.

    A cell reads a frame once, however often it is called: the features do not depend on the hidden state.
    """

    def schedule(self) -> Sequence[_Cell]:
        """The cells in the order of their calls for one frame; the last one restores."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, 3, H, W)` to `(B, T, 3, H, W)`; not clamped."""
        return self.run(x)["restored"]

    def step(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Restore one frame, `(B, 1, 3, H, W)`."""
        frame, hidden = x[:, 0], state["hidden"]
        previous = None
        for cell in self.schedule():
            if cell is not previous:
                features, previous = cell.F_B(frame), cell
            refined = cell.F_R(torch.cat((features, hidden), dim=1))
            hidden = cell.update(refined)
        return {"restored": cell.F_L(refined)}, {"hidden": hidden}


class _ResBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels)
        self.conv2 = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x), inplace=True))


class _SimDeblurCell(_Cell):
    def __init__(self, inputs: int, channels: int, *, restores: bool) -> None:
        super().__init__()
        c = channels
        self.F_B = nn.Sequential(_conv(inputs, c), _conv(c, 2 * c, stride=2), _conv(2 * c, 4 * c, stride=2))
        self.F_R = nn.Sequential(*(_ResBlock(8 * c) for _ in range(_REFINING_BLOCKS)))
        if restores:
            self.F_L = nn.Sequential(
                nn.ConvTranspose2d(8 * c, 4 * c, 4, stride=2, padding=1),
                nn.ConvTranspose2d(4 * c, c, 4, stride=2, padding=1),
                _conv(c, 3),
            )
        self.F_H = nn.Sequential(_conv(8 * c, 4 * c), _ResBlock(4 * c), _conv(4 * c, 4 * c))

    def update(self, refined: Tensor) -> Tensor:
        return self.F_H(refined)


@ARCH_REGISTRY.register()
class IFIRNN(_IntraFrameNetwork):
    """IFI-RNN: clips `(B, T, in_channels, H, W)` RGB in [0, 1] to `(B, T, 3, H, W)`, every frame restored.

    H and W must be multiples of 4. It looks at no future frame.

    Args:
        in_channels: channels of a frame.
        inner_channels: width at full size; the published configuration has 16 (4,106,307 parameters with two cells,
            2,127,139 with one).
        dual_cell: use a cell of its own for the first call of each frame (C2Hn); False: one cell (C1Hn).
        intra_iters: calls per frame after the first.

    Raises:
        ValueError: intra_iters is too small: only the second of two cells restores.
    """

    paper = "Recurrent Neural Networks with Intra-Frame Iterations for Video Deblurring, CVPR 2019"
    year = 2019
    check_args = {"inner_channels": 4}  # noqa: RUF012

    def __init__(
        self, in_channels: int = 3, inner_channels: int = 16, dual_cell: bool = True, intra_iters: int = 3
    ) -> None:
        if intra_iters < int(dual_cell):
            raise ValueError(
                f"IFIRNN: intra_iters must be at least {int(dual_cell)} with dual_cell={dual_cell}, not {intra_iters}"
            )
        super().__init__(
            FrameContract(
                kind="stream",
                multiple=4,
                halo="data",  # the state spreads farther with every frame
                capabilities=Capabilities(bf16=True, fp16=True),
                licence="MIT (SimDeblur)",
            )
        )
        self.intra_iters = intra_iters
        restores = (False, True) if dual_cell else (True,)
        self.rnncells = nn.ModuleList(_SimDeblurCell(in_channels, inner_channels, restores=last) for last in restores)

    def schedule(self) -> Sequence[_Cell]:
        """The first cell once, then the last one `intra_iters` times."""
        first, last = self.rnncells[0], self.rnncells[-1]
        assert isinstance(first, _Cell)
        assert isinstance(last, _Cell)
        return [first, *[last] * self.intra_iters]

    def init_state(self, x: Tensor) -> State:
        """The features of the first frame: without a state upstream's first call sees them twice."""
        first = self.schedule()[0]
        return {"hidden": first.F_B(x[:, 0])}


class _BranchBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main_branch = nn.Sequential(_conv(channels, channels), nn.ReLU(inplace=True), _conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main_branch(x)


class _SmallCell(_Cell):
    HIDDEN = 20

    def __init__(self, *, restores: bool) -> None:
        super().__init__()
        self.F_B = nn.Sequential(_conv(3, 20, 5), _conv(20, 40, 5, stride=2), _conv(40, 60, 5, stride=2))
        self.F_R = nn.Sequential(*(_BranchBlock(80) for _ in range(_REFINING_BLOCKS)))
        if restores:
            self.F_L = nn.Sequential(
                nn.ConvTranspose2d(80, 40, 3, stride=2, padding=1, output_padding=1),
                nn.ConvTranspose2d(40, 20, 3, stride=2, padding=1, output_padding=1),
                _conv(20, 3, 5),
            )
        self.F_h = nn.Sequential(_conv(80, 20), _BranchBlock(20), _conv(20, self.HIDDEN))

    def update(self, refined: Tensor) -> Tensor:
        return self.F_h(refined)


@ARCH_REGISTRY.register()
class IFIRNNC2H3(_IntraFrameNetwork):
    """IFI-RNN with two cells and three updates per frame, as zzh-tech/ESTRNN has it: `(B, T, 3, H, W)` to the same.

    H and W must be multiples of 4. It looks at no future frame. Upstream's weights (1,635,683 values) were trained on
    centred BGR: `io: {order: bgr, mean: [0.5, 0.5, 0.5]}`.
    """

    paper = IFIRNN.paper
    year = 2019

    def __init__(self) -> None:
        super().__init__(
            FrameContract(
                kind="stream",
                multiple=4,
                halo="data",  # the state spreads farther with every frame
                capabilities=Capabilities(bf16=True, fp16=True),
                licence="MIT (zzh-tech/ESTRNN)",
            )
        )
        self.rnncell0 = _SmallCell(restores=False)
        self.rnncell1 = _SmallCell(restores=True)

    def schedule(self) -> Sequence[_Cell]:
        """The first cell once, then the second one three times."""
        return [self.rnncell0, *[self.rnncell1] * 3]

    def init_state(self, x: Tensor) -> State:
        """Zeros at a quarter of the size."""
        batch, _, _, height, width = x.shape
        return {"hidden": x.new_zeros((batch, _SmallCell.HIDDEN, height // 4, width // 4))}
