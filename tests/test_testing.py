"""`check_network` passes networks that keep their promises and names the promise that one breaks."""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deblurkit.contract import Capabilities, FrameContract, Output
from deblurkit.network import Maps, Network, State, Sweep
from deblurkit.registry import ARCH_REGISTRY
from deblurkit.sharing import Shared
from deblurkit.testing import check_network


class Plain(Network):
    """Two convolutions at half resolution; `changes` go into its contract."""

    changes: Any = {}  # noqa: RUF012

    def __init__(self, width: int = 4) -> None:
        contract = {"kind": "image", "multiple": 2, "halo": 3, **self.changes}
        super().__init__(FrameContract(**contract))
        self.down = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.up = nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(torch.relu(self.norm(self.down(x))))


class Pyramid(Plain):
    """Two outputs."""

    changes = {"outputs": (Output("restored"), Output("half", scale=0.5))}  # noqa: RUF012

    def run(self, x: Tensor) -> dict[str, Tensor]:
        restored = self.forward(x)
        return {"restored": restored, "half": restored[..., ::2, ::2]}


class Window(Network):
    """Three frames, features shared between windows."""

    def __init__(self) -> None:
        super().__init__(FrameContract(kind="window", frames=3, target=1, halo=2))
        self.encode = nn.Conv2d(3, 4, 3, padding=1)
        self.decode = nn.Conv2d(12, 3, 3, padding=1)

    def features(self, frame: Tensor) -> State:
        return {"deep": torch.relu(self.encode(frame))}

    def fuse(self, features: Sequence[State], shared: Shared) -> dict[str, Tensor]:
        return {"restored": self.decode(torch.cat([f["deep"] for f in features], 1))}

    def forward(self, x: Tensor) -> Tensor:
        return self.run_shared(x)["restored"]


class Walker(Network):
    """A clip network that mixes every frame with all later ones, walking backward, then a forward walk."""

    def __init__(self) -> None:
        super().__init__(FrameContract(kind="clip", halo="data"))
        self.mix = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        state, found = torch.zeros_like(x[:, 0]), []
        for frame in reversed(x.unbind(1)):
            state = self.mix(torch.cat([frame, state], 1))
            found.append(frame + state)
        return torch.stack(found[::-1], 1)

    def sweeps(self) -> Generator[Sweep, State, None]:
        yield Sweep("later", "backward", {"frame": (0,)})
        yield Sweep("last", "forward", {"frame": (0,), "later": (0,)}, drops=("later",))

    def sweep_step(self, sweep: str, maps: Maps, state: State) -> tuple[State, State]:
        if sweep == "last":
            return {"restored": maps["frame", 0] + maps["later", 0]}, {}
        frame = maps["frame", 0]
        later = self.mix(torch.cat([frame, state.get("later", torch.zeros_like(frame))], 1))
        return {"later": later}, {"later": later}


class Stream(Network):
    """A recurrent network that looks one frame ahead."""

    def __init__(self) -> None:
        super().__init__(FrameContract(kind="stream", future=1, multiple=(2, 4), halo="global"))
        self.cell = nn.Conv2d(10, 4, 3, padding=1)
        self.out = nn.Conv2d(4, 3, 3, padding=1)

    def init_state(self, x: Tensor) -> State:
        return {"hidden": x.new_zeros(x.shape[0], 4, *x.shape[-2:])}

    def step(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        hidden = torch.tanh(self.cell(torch.cat([x.flatten(1, 2), state["hidden"]], 1)))
        return {"restored": x[:, 0] + self.out(hidden)}, {"hidden": hidden}


class Clip(Network):
    """A convolution over time."""

    def __init__(self, reach: int = 3) -> None:
        able = Capabilities(channels_last=False)  # torch has it for four dimensions only
        contract = FrameContract(kind="clip", reach=reach, halo=0, time_multiple=2, square=True, capabilities=able)
        super().__init__(contract)
        self.conv = nn.Conv3d(3, 3, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x.transpose(1, 2)).transpose(1, 2)


class DoubleSize(Network):
    """Twice the size."""

    def __init__(self, halo: int = 1) -> None:
        super().__init__(FrameContract(kind="image", scale=2, halo=halo))
        self.conv = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.conv(x), 2)


class WrongShape(Plain):
    """Cuts a pixel off."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[..., 1:]


class UndeclaredOutput(Plain):
    """Returns more than it declares."""

    def run(self, x: Tensor) -> dict[str, Tensor]:
        return {"restored": self.forward(x), "extra": x}


class SizeNotTaken(Plain):
    """Needs more than its contract says."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(x, (4, 4, 4, 4), mode="reflect"))[..., 4:-4, 4:-4]


class NotFinite(Plain):
    """Divides by zero."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / (x - x)


class Unused(Plain):
    """Has a layer that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Conv2d(3, 3, 1)


class UnusedButListed(Unused):
    """Says so."""

    dead_parameters = {"spare.weight": "kept for its checkpoints", "spare.bias": "the same"}  # noqa: RUF012


class ListedButUsed(Plain):
    """Lists a parameter that learns."""

    dead_parameters = {"down.weight": "not true"}  # noqa: RUF012


class HiddenState(Plain):
    """Its result depends on what is in no state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("secret", torch.rand(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.secret


class NotPickled(Plain):
    """Holds a function without a name."""

    def __init__(self) -> None:
        super().__init__()
        self.act = lambda x: x


class Random(Plain):
    """Adds noise."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1e-6 * torch.rand_like(x)


class RandomButSaysSo(Random):
    """Says so."""

    changes = {"capabilities": Capabilities(deterministic=False, batch=False), "halo": "global"}  # noqa: RUF012


class MixesSamples(Plain):
    """Batch statistics in evaluation too."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - x.mean(0, keepdim=True) * 0.01


class Overflows(Plain):
    """Leaves the range of fp16."""

    changes = {"capabilities": Capabilities(fp16=True)}  # noqa: RUF012

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(torch.relu(self.norm(self.down(x * 1e6)))) * 1e-6


class SmallHalo(Plain):
    """Declares a pixel too few."""

    changes = {"halo": 2}  # noqa: RUF012


class Pools(Plain):
    """A global mean behind an integer halo."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 + x.mean((-2, -1), keepdim=True))


class KnowsWhereItIs(Plain):
    """Adds a ramp over the picture, so tiles differ."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.linspace(0, 1, x.shape[-1], dtype=x.dtype, device=x.device)


class OtherSplit(Window):
    """fuse does not give what run gives."""

    def fuse(self, features: Sequence[State], shared: Shared) -> dict[str, Tensor]:
        return {"restored": super().fuse(features, shared)["restored"] * 2}

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


class SharesTooMuch(Window):
    """What it keeps for its first frame depends on the others."""

    def fuse(self, features: Sequence[State], shared: Shared) -> dict[str, Tensor]:
        kept = shared("all", (0,), lambda: torch.cat([f["deep"] for f in features], 1))
        return {"restored": self.decode(kept)}


class ForgetsWhereItWas(Walker):
    """Its walk begins anew at every frame."""

    def sweep_step(self, sweep: str, maps: Maps, state: State) -> tuple[State, State]:
        return super().sweep_step(sweep, maps, {})


class NestedState(Stream):
    """Its state is no flat dict of tensors."""

    def init_state(self, x: Tensor) -> State:
        return {"hidden": super().init_state(x)["hidden"], "frame": 0}  # type: ignore[dict-item]


class OtherSteps(Stream):
    """run has its own way."""

    def run(self, x: Tensor) -> dict[str, Tensor]:
        return {"restored": super().run(x)["restored"] + x[:, :1]}


class TooFar(Clip):
    """Declares two frames, sees three."""

    def __init__(self) -> None:
        super().__init__(reach=2)


class NeedsRealWeights(Plain):
    """Looks at a weight while it is being built."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.down.weight.flatten()[0].item()


class ForgetsItsArguments(Plain):
    """Its config is not what it was built with."""

    def __init__(self, width: int = 4) -> None:
        super().__init__(width)
        self.config["width"] = width + 1


GOOD = [Plain, Pyramid, Window, Stream, Walker, Clip, DoubleSize, UnusedButListed, RandomButSaysSo]
BAD: dict[type[Network], str] = {
    WrongShape: "`run` returns what the contract declares.*'restored' is .* declared is",
    UndeclaredOutput: "`run` returns what the contract declares.*it returns .'extra', 'restored'",
    SizeNotTaken: "`run` returns what the contract declares.*RuntimeError",
    NotFinite: "`run` returns what the contract declares.*not finite",
    Unused: "gradient.*none reaches spare.bias, spare.weight",
    ListedButUsed: "gradient.*dead_parameters lists down.weight",
    HiddenState: "a state dict survives.*the outputs differ",
    NotPickled: "it can be copied and pickled.*lambda",
    Random: "capability deterministic: .*two runs differ",
    MixesSamples: "capability batch",
    Overflows: "capabilities bf16, fp16.*torch.float16",
    SmallHalo: "halo.*height",
    Pools: "halo: .*pixels more than 3 away in height change the result",
    KnowsWhereItIs: "halo: .*a tile with 4 pixels .* in width differs",
    OtherSplit: "split: .*'restored' of the window .* differs",
    ForgetsWhereItWas: "sweeps: .*'restored' of 3 frames differs",
    SharesTooMuch: "split: .*'restored' of the window .* differs",
    NestedState: "stream: .*no flat dict of tensors",
    OtherSteps: "stream: .*frame 0 of 'restored' differs",
    TooFar: "reach: .*declared are 2 frames, a result depends on 3",
    NeedsRealWeights: "without memory for its weights",
    ForgetsItsArguments: "`config` builds it again.*builds another one",
}


@pytest.fixture(autouse=True)
def _registered(own_registries: None) -> None:
    for cls in (*GOOD, *BAD):
        ARCH_REGISTRY.register()(cls)


@pytest.mark.parametrize("cls", GOOD)
def test_good_networks_pass(cls: type[Network]) -> None:
    check_network(cls)


@pytest.mark.parametrize("cls", [Plain, Window])
def test_good_networks_compile_and_export(cls: type[Network]) -> None:
    check_network(cls, slow=True)


@pytest.mark.parametrize("cls", BAD)
def test_a_broken_promise_is_named(cls: type[Network]) -> None:
    with pytest.raises(AssertionError, match=f"^{cls.__name__}: .*{BAD[cls]}"):
        check_network(cls)


def test_an_instance_is_checked_and_left_alone() -> None:
    net = Plain(width=6).train()
    before = copy.deepcopy(net.state_dict())
    check_network(net)
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_arguments_can_be_given() -> None:
    check_network(DoubleSize, {"halo": 3})
    with pytest.raises(AssertionError, match="DoubleSize: halo"):
        check_network(DoubleSize, {"halo": 0})


def test_unregistered_networks_are_told() -> None:
    del ARCH_REGISTRY._classes["Plain"]
    with pytest.raises(AssertionError, match=r"Plain: it is registered.*lacks the decorator"):
        check_network(Plain)


def test_the_measured_halo_is_exact() -> None:
    """DBN declares 81: one less must be refused with the measured figure."""
    from deblurkit.archs.dbn_arch import DBN

    net = DBN(inner_channels=4)
    object.__setattr__(net.contract, "halo", 80)
    with pytest.raises(AssertionError, match=r"DBN: halo: .* in height"):
        check_network(net)


def test_a_registered_name_will_do() -> None:
    check_network("DBN")
