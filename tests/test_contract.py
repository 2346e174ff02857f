from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from deblurkit.contract import FrameContract, Output, PixelConvention


def test_defaults_of_each_kind() -> None:
    image = FrameContract(kind="image")
    assert (image.outputs, image.reach, image.context) == ((Output("restored", "target", 1.0),), 1, (0, 0))
    window = FrameContract(kind="window", frames=5, target=1)
    assert (window.restored.frames, window.reach, window.context) == ("target", 5, (1, 3))
    clip = FrameContract(kind="clip", past=1, future=2)
    assert (clip.restored.frames, clip.reach, clip.context) == ("clip", "clip", (1, 2))
    stream = FrameContract(kind="stream", future=2, scale=4, reach=7)
    assert (stream.restored, stream.reach, stream.context) == (Output("restored", "clip", 4.0), 7, (0, 2))


@pytest.mark.parametrize(
    ("contract", "given", "padded"),
    [
        ({"multiple": 8}, (1, 1), (8, 8)),
        ({"multiple": 8}, (720, 1281), (720, 1288)),
        ({"multiple": (4, 32)}, (5, 33), (8, 64)),
        ({"min_size": 11}, (3, 20), (11, 20)),
        ({"min_size": 11, "multiple": 4}, (3, 20), (12, 20)),
        ({"square": True, "multiple": 16}, (17, 40), (48, 48)),
        ({}, (7, 9), (7, 9)),
    ],
)
def test_padded_size(contract: dict[str, Any], given: tuple[int, int], padded: tuple[int, int]) -> None:
    made = FrameContract(kind="image", **contract)
    assert made.padded_size(*given) == padded
    assert made.padded_size(*padded) == padded


def test_a_square_with_unequal_multiples_cannot_be_padded() -> None:
    with pytest.raises(ValueError, match="same multiple"):
        FrameContract(kind="image", square=True, multiple=(4, 6)).padded_size(13, 13)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "film"}, "'film' is none of image, window, clip, stream"),
        ({"kind": "window", "frames": 5, "target": 5}, "5 is not in a window of 5 frames"),
        ({"kind": "window", "frames": 0}, "not in a window"),
        ({"kind": "clip", "frames": 5}, "frames and target are for kind 'window'"),
        ({"kind": "image", "past": 1}, "past and future are for kinds"),
        ({"kind": "stream", "past": -1}, "past and future start at 0"),
        ({"kind": "image", "multiple": 0}, "multiples, min_size, scale and channels at 1"),
        ({"kind": "image", "multiple": (4, 0)}, "multiples, min_size, scale and channels at 1"),
        ({"kind": "image", "channels": 0}, "multiples, min_size, scale and channels at 1"),
        ({"kind": "image", "time_multiple": 0}, "multiples, min_size, scale and channels at 1"),
        ({"kind": "image", "outputs": (Output("stage1"),)}, "one must be 'restored'"),
        ({"kind": "image", "outputs": (Output("restored"), Output("a"), Output("a"))}, "names must differ"),
        ({"kind": "image", "scale": 2, "outputs": (Output("restored"),)}, "scale 2 but 'restored' has scale 1.0"),
        ({"kind": "image", "halo": -1}, "neither a number of pixels nor global or data"),
        ({"kind": "image", "halo": "locl"}, "neither a number of pixels nor global or data"),
        ({"kind": "image", "pad": "mirror"}, "'mirror' is none of reflect"),
        ({"kind": "clip", "time_padding": "reflect"}, "'reflect' is none of replicate, reflection"),
    ],
)
def test_contradictions_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrameContract(**values)


def test_a_contract_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FrameContract(kind="image").halo = 3  # type: ignore[misc]


IMAGENET = PixelConvention("bgr", (103.5, 116.3, 123.7), (57.4, 57.1, 58.4), 255.0)


def test_pixel_conventions_go_there_and_back() -> None:
    for x in (torch.rand(2, 3, 4, 5), torch.rand(2, 6, 3, 4, 5)):
        assert torch.allclose(IMAGENET.decode(IMAGENET.encode(x)), x, atol=1e-6)
        assert PixelConvention().encode(x) is x
        assert PixelConvention().decode(x) is x


def test_the_network_sees_its_own_order_and_units() -> None:
    orange = torch.tensor([1.0, 0.5, 0.0]).view(3, 1, 1)
    seen = IMAGENET.encode(orange).flatten()
    expected = [(0 - 103.5) / 57.4, (127.5 - 116.3) / 57.1, (255 - 123.7) / 58.4]
    assert seen.tolist() == pytest.approx(expected, rel=1e-5)
    centred = PixelConvention(mean=(0.5,) * 3)
    assert centred.encode(orange).flatten().tolist() == [0.5, 0.0, -0.5]


def test_pixel_conventions_survive_a_checkpoint() -> None:
    for convention in (IMAGENET, PixelConvention()):
        assert PixelConvention.from_mapping(convention.to_mapping()) == convention
    assert PixelConvention.from_mapping(None).is_default
    assert PixelConvention.from_mapping({"range": 255}) == PixelConvention(range=255.0)


@pytest.mark.parametrize(
    "mapping",
    [{"order": "rbg"}, {"gamma": 2.2}, {"mean": 0.5}, {"std": ["x", 1, 1]}, {"range": None}, {"std": [1, 0, 1]}],
)
def test_odd_conventions_are_refused(mapping: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"io|could not convert"):
        PixelConvention.from_mapping(mapping)
