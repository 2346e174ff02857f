"""ESTRNN: a recurrent network of dense blocks whose features of neighbouring frames are fused by global attention.

Zhong, Gao, Zheng, Zheng: Efficient Spatio-Temporal Recurrent Neural Network for Video Deblurring, ECCV 2020; extended
in Real-world Video Deblurring: A Benchmark Dataset and An Efficient Recurrent Neural Network, IJCV 131(1), 2023,
arXiv 2106.16028. The form is that of zzh-tech/ESTRNN (MIT).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from deblurkit.contract import Capabilities, FrameContract
from deblurkit.network import Network, State
from deblurkit.registry import ARCH_REGISTRY

Activation = Literal["relu", "relu6", "leakyrelu", "prelu", "rrelu", "selu", "celu", "elu", "gelu", "tanh"]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leakyrelu": lambda: nn.LeakyReLU(0.1),
    "prelu": nn.PReLU,
    "rrelu": lambda: nn.RReLU(0.1, 0.3),
    "selu": nn.SELU,
    "celu": nn.CELU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)


class _DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int, activation: str) -> None:
        super().__init__()
        self.conv = _conv(inputs, growth)
        self.act = _ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.act(self.conv(x))), dim=1)


class _DenseBlock(nn.Module):
    """RDB: three dense layers and a residual connection."""

    def __init__(self, channels: int, growth: int, activation: str) -> None:
        super().__init__()
        self.dense_layers = nn.Sequential(*(_DenseLayer(channels + i * growth, growth, activation) for i in range(3)))
        self.conv1x1 = _conv(channels + 3 * growth, channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1x1(self.dense_layers(x)) + x


class _DownBlock(nn.Module):
    """A dense block and half the size."""

    def __init__(self, channels: int, growth: int, activation: str) -> None:
        super().__init__()
        self.rdb = _DenseBlock(channels, growth, activation)
        self.down_sampling = _conv(channels, 2 * channels, kernel=5, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_sampling(self.rdb(x))


class _DenseChain(nn.Module):
    """Dense blocks in a row, the outputs of all of them merged."""

    def __init__(self, channels: int, growth: int, blocks: int, activation: str) -> None:
        super().__init__()
        self.RDBs = nn.ModuleList(_DenseBlock(channels, growth, activation) for _ in range(blocks))
        self.conv1x1 = _conv(blocks * channels, channels, kernel=1)
        self.conv3x3 = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for block in self.RDBs:
            x = block(x)
            outputs.append(x)
        return self.conv3x3(self.conv1x1(torch.cat(outputs, dim=1)))


class _Cell(nn.Module):
    """A frame and the hidden state to the frame's features at a quarter of the size, and the next state."""

    def __init__(self, features: int, blocks: int, activation: str) -> None:
        super().__init__()
        n = features
        self.F_B0 = _conv(3, n, kernel=5)
        self.F_B1 = _DownBlock(n, n, activation)
        self.F_B2 = _DownBlock(2 * n, int(1.5 * n), activation)
        self.F_R = _DenseChain(5 * n, 2 * n, blocks, activation)
        self.F_h = nn.Sequential(_conv(5 * n, n), _DenseBlock(n, n, activation), _conv(n, n))

    def forward(self, frame: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        read = self.F_B2(self.F_B1(self.F_B0(frame)))
        features = self.F_R(torch.cat((read, hidden), dim=1))
        return features, self.F_h(features)


def _as_matrix(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a 1x1 convolution."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    return conv.weight.flatten(1), conv.bias


class _Fusion(nn.Module):
    """GSA: features of neighbouring frames are weighted by what the whole image says and merged.

    All but the weights (one per image and channel) is linear and pixel-wise, so the four layers are multiplied out to
    one matrix per neighbour: a quarter of the operations, and no intermediate maps.
    """

    def __init__(self, channels: int, frames: int, reference: int, activation: str) -> None:
        super().__init__()
        c = channels
        self.reference = reference
        self.F_f = nn.Sequential(
            nn.Linear(2 * c, 4 * c), _ACTIVATIONS[activation](), nn.Linear(4 * c, 2 * c), nn.Sigmoid()
        )
        self.F_p = nn.Sequential(_conv(2 * c, 4 * c, kernel=1), _conv(4 * c, 2 * c, kernel=1))
        self.condense = _conv(2 * c, c, kernel=1)
        self.fusion = _conv(frames * c, frames * c, kernel=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """`frames` maps `(B, C, h, w)` in time order to `(B, frames * C, h, w)`."""
        wide, wide_bias = _as_matrix(self.F_p[0])
        narrow, narrow_bias = _as_matrix(self.F_p[1])
        pair, pair_bias = narrow @ wide, narrow @ wide_bias + narrow_bias
        condense, condense_bias = _as_matrix(self.condense)
        fusion, bias = _as_matrix(self.fusion)
        c = condense.shape[0]
        *columns, reference_matrix = fusion.split(c, dim=1)

        means = [one.mean((2, 3)) for one in maps]
        others = [i for i in range(len(maps)) if i != self.reference]
        matrices: list[tuple[Tensor, Tensor]] = []
        for i, column in zip(others, columns, strict=True):
            weights = self.F_f(torch.cat((means[self.reference], means[i]), dim=1))
            weighted = condense * weights.unsqueeze(1)
            on_reference, on_other = (column @ (weighted @ pair)).split(c, dim=2)
            matrices.append((on_other, maps[i]))
            reference_matrix = reference_matrix + on_reference
            bias = bias + (weighted @ pair_bias + condense_bias) @ column.T
        matrices.append((reference_matrix, maps[self.reference]))

        batch, _, height, width = maps[0].shape
        total = bias.expand(batch, -1).unsqueeze(2)
        for matrix, one in matrices:
            total = torch.baddbmm(total, matrix.expand(batch, -1, -1), one.flatten(2))
        return total.unflatten(2, (height, width))


class _Reconstructor(nn.Module):
    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        n = features
        self.model = nn.Sequential(
            nn.ConvTranspose2d(inputs, 2 * n, 3, stride=2, padding=1, output_padding=1),
            nn.ConvTranspose2d(2 * n, n, 3, stride=2, padding=1, output_padding=1),
            _conv(n, 3, kernel=5),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


@ARCH_REGISTRY.register()
class ESTRNN(Network):
    """ESTRNN: clips `(B, T, 3, H, W)` to `(B, T - past_frames - future_frames, 3, H, W)`.

    Output i restores frame i + past_frames. H and W must be multiples of 4. Official weights were trained on centred
    BGR: `io: {order: bgr, mean: [0.5, 0.5, 0.5]}`.

    Args:
        n_features: width at full size; "C80" in upstream's checkpoint names is 5 * n_features.
        n_blocks: dense blocks of the recurrent cell; "B15". The default has 2,467,931 parameters.
        future_frames, past_frames: neighbours that are fused.
        activation: of the dense layers and the attention.

    Raises:
        ValueError: a number is below its minimum, or there is no such activation.
    """

    paper = "Efficient Spatio-Temporal Recurrent Neural Network for Video Deblurring, ECCV 2020, arXiv 2106.16028"
    year = 2020
    check_args = {"n_features": 4, "n_blocks": 2}  # noqa: RUF012

    def __init__(
        self,
        n_features: int = 16,
        n_blocks: int = 15,
        future_frames: int = 2,
        past_frames: int = 2,
        activation: Activation = "gelu",
    ) -> None:
        if min(n_features, n_blocks) < 1 or min(future_frames, past_frames) < 0:
            raise ValueError("ESTRNN: n_features and n_blocks start at 1, future_frames and past_frames at 0")
        if activation not in _ACTIVATIONS:
            raise ValueError(f"ESTRNN: activation {activation!r} is none of {', '.join(_ACTIVATIONS)}")
        super().__init__(
            FrameContract(
                kind="stream",
                past=past_frames,
                future=future_frames,
                multiple=4,
                halo="global",  # the fusion weighs neighbours by the mean of their features
                capabilities=Capabilities(bf16=True, fp16=True),
                licence="MIT (zzh-tech/ESTRNN)",
            )
        )
        self.n_features = n_features
        channels, frames = 5 * n_features, past_frames + 1 + future_frames
        self.cell = _Cell(n_features, n_blocks, activation)
        self.recons = _Reconstructor(frames * channels, n_features)
        self.fusion = _Fusion(channels, frames, past_frames, activation)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, 3, H, W)` to `(B, T - past_frames - future_frames, 3, H, W)`; not clamped."""
        return self.run(x)["restored"]

    def init_state(self, x: Tensor) -> State:
        """The hidden state, and the features of all frames of the first window but the newest one."""
        batch, frames, _, height, width = x.shape
        hidden = x.new_zeros((batch, self.n_features, height // 4, width // 4))
        state = {}
        for i in range(frames - 1):
            state[f"features{i}"], hidden = self.cell(x[:, i], hidden)
        return {"hidden": hidden, **state}

    def step(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Restore frame `past_frames` of a window `(B, past_frames + 1 + future_frames, 3, H, W)`."""
        newest, hidden = self.cell(x[:, -1], state["hidden"])
        features = [*(state[f"features{i}"] for i in range(x.shape[1] - 1)), newest]
        restored = self.recons(self.fusion(features))
        return {"restored": restored}, {"hidden": hidden, **{f"features{i}": f for i, f in enumerate(features[1:])}}
