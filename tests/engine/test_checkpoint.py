"""Weights files: round trips, other tools' forms, and everything that can be wrong with one."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

import deblurkit
from deblurkit.engine.checkpoint import describe_checkpoint, load_network, read_checkpoint, save_network
from deblurkit.errors import CheckpointError
from deblurkit.network import Network

ARGUMENTS = {"type": "DBN", "num_frames": 3, "inner_channels": 4}


@pytest.fixture
def net() -> Network:
    torch.manual_seed(3)
    return deblurkit.build_network(ARGUMENTS).eval()


def same(a: Network, b: Network) -> bool:
    return all(torch.equal(x, b.state_dict()[key]) for key, x in a.state_dict().items())


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_round_trip_builds_the_same_network(net: Network, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"net{ending}"
    save_network(path, net, iteration=12)
    again = load_network(path)
    assert same(net, again)
    assert again.config == net.config
    assert not again.training
    assert read_checkpoint(path).iteration == 12
    facts = describe_checkpoint(path)
    assert facts["network"] == net.config
    assert facts["values"] > 0


@pytest.mark.parametrize("holder", ["params", "params_ema", "model", "state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_other_tools_forms_load(net: Network, tmp_path: Path, holder: str | None, prefix: str) -> None:
    state = {prefix + key: value for key, value in net.state_dict().items()}
    torch.save({holder: state, "epoch": 3} if holder else state, tmp_path / "other.pth")
    assert same(net, load_network(tmp_path / "other.pth", ARGUMENTS))
    with pytest.raises(CheckpointError, match="does not say which network"):
        load_network(tmp_path / "other.pth")


def test_averaged_weights_come_first(net: Network, tmp_path: Path) -> None:
    worse = {key: torch.zeros_like(value) for key, value in net.state_dict().items()}
    torch.save({"params": worse, "params_ema": net.state_dict()}, tmp_path / "ema.pth")
    assert same(net, load_network(tmp_path / "ema.pth", ARGUMENTS))


def test_a_file_cut_off_anywhere_is_refused(net: Network, tmp_path: Path) -> None:
    save_network(tmp_path / "whole.pth", net)
    data = (tmp_path / "whole.pth").read_bytes()
    cut = tmp_path / "cut.pth"
    for length in (0, 1, 100, len(data) // 2, len(data) - 1):
        cut.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"cut\.pth"):
            read_checkpoint(cut)


def test_a_flipped_byte_is_noticed(net: Network, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    save_network(path, net)
    data = bytearray(path.read_bytes())
    at = data.index(net.state_dict()["F3_2.0.weight"].numpy().tobytes()[:64])
    data[at] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="checksum"):
        read_checkpoint(path)


class _Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("code from a file ran",))


def test_a_pickle_payload_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"params": _Payload()}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(_Payload()))
    for name in ("evil.pth", "plain.pth"):
        with pytest.raises(CheckpointError, match="not loaded"):
            read_checkpoint(tmp_path / name)
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["notes.pth", "notes.safetensors"])
def test_a_text_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("these are no weights")
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(tmp_path / name)


def test_a_missing_file_and_a_file_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_checkpoint(tmp_path / "none.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(CheckpointError, match="no network weights"):
        read_checkpoint(tmp_path / "empty.pth")


def test_weights_of_another_network_name_both(net: Network, tmp_path: Path) -> None:
    save_network(tmp_path / "net.pth", net)
    with pytest.raises(CheckpointError, match=r"do not fit DBN\(.*inner_channels=8.*saved for DBN\(.*inner_channels=4"):
        load_network(tmp_path / "net.pth", {**ARGUMENTS, "inner_channels": 8})


def test_not_strict_takes_what_fits(net: Network, tmp_path: Path) -> None:
    state = net.state_dict()
    del state["F0.0.weight"]
    torch.save({"params": {**state, "surplus": torch.zeros(1)}}, tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match=r"1 missing \(F0.0.weight\), 1 unknown \(surplus\)"):
        load_network(tmp_path / "part.pth", ARGUMENTS)
    part = load_network(tmp_path / "part.pth", ARGUMENTS, strict=False)
    assert torch.equal(part.state_dict()["F6_2.0.weight"], state["F6_2.0.weight"])


def test_pixel_convention_travels_with_the_weights(net: Network, tmp_path: Path) -> None:
    from deblurkit.contract import PixelConvention

    net.io = PixelConvention(order="bgr", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), range=255.0)
    for ending in (".pth", ".safetensors"):
        save_network(tmp_path / f"net{ending}", net)
        assert load_network(tmp_path / f"net{ending}").io == net.io
