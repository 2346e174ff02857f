"""The Python interface of the restorer: weights by file or name, arrays and tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deblurkit.archs.basicvsr_arch import BasicVSR
from deblurkit.archs.dbn_arch import DBN
from deblurkit.engine import weights as weights_module
from deblurkit.engine.checkpoint import save_network
from deblurkit.engine.restore import Restorer
from deblurkit.engine.weights import find_weights
from deblurkit.errors import CheckpointError, DataError, DeblurkitError
from tests.support.networks import ConvWindow, CopyImage, CopyWindow, Enlarge, NeighbourClip
from tests.support.videos import pictures


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.pth"
    save_network(path, DBN(inner_channels=4, zero_init_residual=True))
    return path


def test_a_restorer_from_a_file(file: Path) -> None:
    restorer = Restorer.from_weights(file, device="cpu")
    assert type(restorer.net).__name__ == "DBN"
    assert not restorer.net.training
    frames = pictures(4, (32, 40))
    for before, after in zip(frames, restorer.restore(iter(frames)), strict=True):
        np.testing.assert_array_equal(before, after)
    assert Restorer.from_weights(str(file), device="cpu", precision="fp32", tile=64, time_padding="replicate")


def test_weights_by_name(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(weights_module.VARIABLE, raising=False)
    monkeypatch.setattr(weights_module, "own_folder", lambda: tmp_path / "own")
    with pytest.raises(CheckpointError, match=r"weights 'dbn': no such file, and .*; name a \.pth or \.safetensors"):
        Restorer.from_weights("dbn", device="cpu")
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    for name in ("dbn-gopro.pth", "nafnet.safetensors", "CARD.md"):
        (shipped / name).write_bytes(file.read_bytes())
    monkeypatch.setattr(weights_module, "SHIPPED", shipped)
    assert find_weights("dbn-gopro") == shipped / "dbn-gopro.pth"
    assert Restorer.from_weights("dbn-gopro", device="cpu").net.num_parameters > 0
    with pytest.raises(CheckpointError, match=r"by name are dbn-gopro, nafnet; did you mean 'dbn-gopro'\?"):
        find_weights("dbn-gorpo")
    assert find_weights("none/net") == Path("none/net")  # a path; what is wrong with it is said by what reads it
    assert find_weights(tmp_path / "none.pth") == tmp_path / "none.pth"
    monkeypatch.setattr(weights_module, "SHIPPED", tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"no such file, and no weights are in .*own; name a \.pth"):
        find_weights("dbn")


@pytest.mark.parametrize("net", [CopyImage(), CopyWindow(), Enlarge()], ids=["image", "window", "scale"])
def test_tensors_give_tensors(net: Any) -> None:
    frames = pictures(4, (13, 18))
    restorer = Restorer(net, device="cpu")
    arrays = list(restorer.restore(iter(frames)))
    whole = [torch.from_numpy(frame).permute(2, 0, 1) for frame in frames]
    for before, after in zip(arrays, restorer.restore(iter(whole)), strict=True):
        assert after.dtype == torch.uint8
        np.testing.assert_array_equal(before, after.permute(1, 2, 0).numpy())
    fine = [tensor.double() / 255 + 1e-4 for tensor in whole]
    for before, after in zip(fine, restorer.restore(fine), strict=True):
        assert after.dtype == torch.float32
        expected = before.float()
        if net.contract.scale == 2:
            expected = expected.repeat_interleave(2, 1).repeat_interleave(2, 2)
        torch.testing.assert_close(after, expected.clamp(0, 1), rtol=0, atol=1e-6)
    assert torch.equal(restorer.restore_image(whole[0]), next(restorer.restore([whole[0]])))


def test_float_tensors_are_what_pixels_give() -> None:
    torch.manual_seed(0)
    frames = pictures(6, (24, 32))
    restorer = Restorer(ConvWindow(), device="cpu")
    floats = [torch.from_numpy(frame).permute(2, 0, 1) / 255 for frame in frames]
    for (_, expected), found in zip(restorer.restore_tensors(frames), restorer.restore(floats), strict=True):
        torch.testing.assert_close(found, expected.clamp(0, 1), rtol=0, atol=1e-6)


def test_frames_of_another_kind_are_named() -> None:
    restorer = Restorer(CopyWindow(), device="cpu")
    good = torch.rand(3, 8, 8)
    for wrong in (torch.rand(8, 8, 3), torch.rand(1, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.int32)):
        with pytest.raises(DataError, match=r"frame 1 is a tensor of .*, not \(3, H, W\), uint8 or float"):
            list(restorer.restore([good, wrong]))
    with pytest.raises(DataError, match="frame 1 is float32"):
        list(restorer.restore([pictures(1)[0], np.zeros((32, 48, 3), np.float32)]))
    with pytest.raises(DataError, match="frame 1 is 9x8, the first is 8x8"):
        list(restorer.restore([good, torch.rand(3, 8, 9)]))
    with pytest.raises(DeblurkitError, match="not numbers"):
        list(restorer.restore([torch.full((3, 8, 8), float("nan"))]))


def test_exact_can_be_asked_for_some_frames_only() -> None:
    """That it equals the whole clip is tested in test_exact.py."""
    torch.manual_seed(0)
    exact = Restorer(BasicVSR(num_feat=4, num_block=1), device="cpu", exact=True)
    frames = pictures(4, (64, 64))
    found = dict(exact.restore_tensors(iter(frames)))
    assert list(found) == [0, 1, 2, 3]
    part = dict(exact.restore_part(frames, 1, 3))
    assert list(part) == [1, 2]
    assert all(torch.equal(part[position], found[position]) for position in part)
    with pytest.raises(DeblurkitError, match="exact: NeighbourClip has no form for long videos"):
        Restorer(NeighbourClip(), device="cpu", exact=True)
    assert Restorer(ConvWindow(), device="cpu", exact=True)  # sees all that it looks at anyway
