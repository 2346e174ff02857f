"""Small networks of every kind, for tests of what runs networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deblurkit.contract import Capabilities, FrameContract
from deblurkit.network import Network, State
from deblurkit.sharing import Shared


class CopyImage(Network):
    """Returns its input."""

    def __init__(self, **contract: Any) -> None:
        super().__init__(FrameContract(kind="image", **{"halo": 0, **contract}))

    def forward(self, x: Tensor) -> Tensor:
        return x


class CopyWindow(Network):
    """Returns the target of its window."""

    def __init__(self, frames: int = 5, target: int = 2, **contract: Any) -> None:
        super().__init__(FrameContract(kind="window", frames=frames, target=target, **{"halo": 0, **contract}))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.contract.target]


class ConvWindow(Network):
    """Two convolutions, one of them strided, over a window; sees 9 pixels around, in phase with multiples of 4."""

    def __init__(self, frames: int = 3, target: int = 1, **contract: Any) -> None:
        super().__init__(
            FrameContract(kind="window", frames=frames, target=target, **{"multiple": 4, "halo": 10, **contract})
        )
        self.down = nn.Conv2d(3 * frames, 8, 6, stride=4, padding=1)
        self.up = nn.ConvTranspose2d(8, 3, 8, stride=4, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.contract.target] + self.up(torch.tanh(self.down(x.flatten(1, 2))))


class RunningMean(Network):
    """A stream: half the current frame's mean with its context, half the state; the state is what came out last."""

    def __init__(self, past: int = 0, future: int = 0, **contract: Any) -> None:
        super().__init__(FrameContract(kind="stream", past=past, future=future, **{"halo": 0, **contract}))

    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("no consumer calls forward")

    def init_state(self, x: Tensor) -> State:
        return {"mean": x[:, self.contract.past] * 0.25, "count": torch.zeros((), dtype=torch.int64, device=x.device)}

    def step(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        weights = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)
        restored = 0.5 * (x * (weights / weights.sum()).view(1, -1, 1, 1, 1)).sum(1) + 0.5 * state["mean"]
        return {"restored": restored}, {"mean": restored, "count": state["count"] + 1}


class NeighbourClip(Network):
    """A clip: every frame mixed with those up to `reach` before and after it, inside the clip."""

    def __init__(self, reach: int = 2, past: int = 0, future: int = 0, **contract: Any) -> None:
        super().__init__(FrameContract(kind="clip", past=past, future=future, **{"halo": 0, **contract}))
        self.reach = reach

    def forward(self, x: Tensor) -> Tensor:
        past, future = self.contract.context
        length = x.shape[1]
        out = []
        for t in range(past, length - future):
            near = x[:, max(t - self.reach, 0) : t + self.reach + 1]
            out.append(0.5 * x[:, t] + 0.5 * near.mean(1))
        return torch.stack(out, 1)


class Enlarge(Network):
    """Twice the size, every pixel four times."""

    def __init__(self, **contract: Any) -> None:
        super().__init__(FrameContract(kind="image", scale=2, **{"halo": 0, "multiple": 4, **contract}))

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


class Overflow(Network):
    """Returns its input, but infinity in reduced precision."""

    def __init__(self) -> None:
        super().__init__(FrameContract(kind="image", halo=0, capabilities=Capabilities(bf16=True, fp16=False)))

    def forward(self, x: Tensor) -> Tensor:
        reduced = torch.is_autocast_enabled(x.device.type)
        return x * float("inf") if reduced else x


class SharedWindow(Network):
    """A window of 5 in two stages, as heavy per frame as in its fusion; counts what it computes.

    Features belong to a frame, the first stage to three neighbours in their order, the second to the window.
    """

    def __init__(self, width: int = 8, **contract: Any) -> None:
        super().__init__(FrameContract(kind="window", frames=5, target=2, **{"halo": 4, **contract}))
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.middle = nn.Conv2d(3 * width, width, 3, padding=1)
        self.last = nn.Conv2d(3 * width, 3, 3, padding=1)
        self.calls = {"features": 0, "middle": 0, "fuse": 0}

    def forward(self, x: Tensor) -> Tensor:
        return self.run_shared(x)["restored"]

    def features(self, frame: Tensor) -> State:
        self.calls["features"] += 1
        return {"frame": frame, "deep": torch.tanh(self.first(frame))}

    def fuse(self, features: Sequence[State], shared: Shared) -> dict[str, Tensor]:
        self.calls["fuse"] += 1

        def stage(slots: tuple[int, ...]) -> Tensor:
            self.calls["middle"] += 1
            return torch.tanh(self.middle(torch.cat([features[i]["deep"] for i in slots], 1)))

        triples = [(i - 1, i, i + 1) for i in (1, 2, 3)]
        inner = [shared("middle", triple, lambda triple=triple: stage(triple)) for triple in triples]
        return {"restored": features[2]["frame"] + self.last(torch.cat(inner, 1))}
