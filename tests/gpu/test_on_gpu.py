"""What a GPU must give: what the CPU gives. Run with `pytest -m gpu`.

DEBLURKIT_TEST_DEVICE=cpu runs the same on the CPU, to see that the tests themselves work.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from deblurkit.data.prefetcher import prefetch
from deblurkit.network import Network
from deblurkit.ops.backend import available, use_backend
from deblurkit.ops.deform_conv import deform_conv2d
from deblurkit.registry import ARCH_REGISTRY
from tests.support import parity
from tests.support.runs import deblurkit, write_options
from tests.support.trees import make_tree

pytestmark = pytest.mark.gpu
DEVICE = torch.device(os.environ.get("DEBLURKIT_TEST_DEVICE", "cuda"))
RESTORING = [name for name in ARCH_REGISTRY.names() if issubclass(ARCH_REGISTRY.get(name), Network)]
FIXTURES = [name for name in parity.network_fixtures() if parity.load(name).arch in ARCH_REGISTRY.names()]


@pytest.fixture(autouse=True)
def _plain_fp32() -> Iterator[None]:
    """Products without TF32, so that they can be compared."""
    if DEVICE.type == "cuda" and not torch.cuda.is_available():
        pytest.fail("there is no GPU here")
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("name", FIXTURES)
def test_reference_figures(name: str) -> None:
    fixture = parity.load(name)
    net = fixture.prepare(ARCH_REGISTRY.get(fixture.arch)(**fixture.meta["kwargs"])).to(DEVICE)
    for output, expected in zip(fixture.call(net), fixture.outputs, strict=True):
        # another order of summation: ten times the CPU's tolerance
        np.testing.assert_allclose(
            output.cpu().numpy(), expected, rtol=10 * fixture.meta["rtol"], atol=10 * fixture.meta["atol"]
        )


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", RESTORING)
def test_declared_precisions(name: str, precision: str) -> None:
    cls = ARCH_REGISTRY.get(name)
    net = cls(**cls.check_args).eval().to(DEVICE)
    if not getattr(net.contract.capabilities, precision):
        pytest.skip(f"not declared safe in {precision}")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    rows, columns = net.contract.sizes
    x = torch.rand_like(net.example_input(4 * rows, 4 * columns))
    with torch.no_grad():
        plain = net.run(x)["restored"]
        with torch.autocast(DEVICE.type, dtype):
            low = net.run(x)["restored"].float()
    assert low.isfinite().all()
    assert float((low - plain).norm() / plain.norm()) < 0.05


def test_every_backend_of_deformable_convolution() -> None:
    torch.manual_seed(0)
    shapes = (1, 16, 20, 24), (1, 4 * 18, 20, 24), (8, 16, 3, 3), (8,), (1, 4 * 9, 20, 24)
    inputs = [torch.randn(shape) for shape in shapes]
    expected = deform_conv2d(*inputs, padding=1)
    for name in available("deform_conv2d", DEVICE.type):
        with use_backend(name):
            found = deform_conv2d(*(one.to(DEVICE) for one in inputs), padding=1)
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_the_prefetcher_brings_the_same_batches() -> None:
    generator = np.random.default_rng(0)
    batches = [
        {"lq": torch.from_numpy(generator.integers(0, 256, (2, 3, 64, 48, 3), dtype=np.uint8)), "key": ["a/1", "b/2"]}
        for _ in range(12)
    ]
    expected = [batch["lq"] for batch in prefetch(batches, "cpu", None)]
    stream = prefetch(batches, DEVICE, "auto")
    with contextlib.closing(stream):
        for batch, right in zip(stream, expected, strict=True):
            busy = torch.randn(512, 512, device=DEVICE)
            for _ in range(20):  # the device is behind while the next batch is copied
                busy = busy @ busy * 1e-3
            assert batch["lq"].device.type == DEVICE.type
            assert torch.equal(batch["lq"].cpu(), right)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_training_and_resuming(precision: str, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", splits=("train", "test"), sequences=2, frames=6, size=(32, 40), seed=1)
    if precision == "fp16" and DEVICE.type == "cpu":
        pytest.skip("fp16 is for GPUs")
    options = write_options(
        tmp_path / "tiny.yml", tmp_path / "tree", num_gpu=0 if DEVICE.type == "cpu" else 1,
        train__precision=precision, train__total_iter=4, train__ema_decay=0.9,
        datasets__train__num_worker_per_gpu=2,
    )  # fmt: skip
    for total in (4, 8):
        done = deblurkit("train", "-opt", options, "--set", f"train.total_iter={total}")
        assert done.returncode == 0, done.stderr
    weights = torch.load(tmp_path / "experiments" / "tiny" / "models" / "net_g_latest.pth", weights_only=True)
    assert all(value.isfinite().all() for value in weights["params"].values())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", splits=("train", "test"), sequences=2, frames=6, size=(32, 40), seed=1)
    options = write_options(tmp_path / "tiny.yml", tmp_path / "tree", num_gpu=2)
    done = deblurkit("train", "-opt", options, "--gpus", 2)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("tile", [0, 64, "auto"])
@pytest.mark.parametrize("name", ["DBN", "NAFNet", "ESTRNN"])
def test_restoring(name: str, tile: int | str) -> None:
    from deblurkit.engine.restore import Restorer

    cls = ARCH_REGISTRY.get(name)
    torch.manual_seed(0)
    net = cls(**cls.check_args)
    frames = list(np.random.default_rng(0).integers(0, 256, (6, 90, 110, 3), dtype=np.uint8))
    expected = list(Restorer(net, "cpu", "fp32", 64 if tile == 64 else 0).restore(frames))
    found = list(Restorer(net, str(DEVICE), "fp32", tile).restore(frames))
    assert len(found) == len(expected)
    for ours, right in zip(found, expected, strict=True):
        assert np.abs(ours.astype(int) - right).max() <= 1


@pytest.mark.parametrize("name", ["DBN", "NAFNet", "ESTRNN", "BasicVSR"])
def test_streams_beside_give_what_one_stream_gives(name: str) -> None:
    """Frames arrive and results leave on streams of their own."""
    from deblurkit.engine.pipeline import restore_into
    from deblurkit.engine.restore import Restorer

    frames = list(np.random.default_rng(0).integers(0, 256, (40, 90, 110, 3), dtype=np.uint8))
    written = []

    class Clip:
        def stamped(self) -> Iterator[tuple[np.ndarray, None]]:
            yield from ((frame, None) for frame in frames)

        def write(self, pixels: np.ndarray, stamp: None) -> None:
            written.append(pixels)

    cls = ARCH_REGISTRY.get(name)
    torch.manual_seed(0)
    restorer = Restorer(cls(**cls.check_args), str(DEVICE), "fp32", clip_length=12, clip_overlap=2)
    expected = list(restorer.restore(frames))
    for _ in range(3):
        written.clear()
        assert restore_into(restorer, Clip(), Clip()) == len(frames)
        assert all(np.array_equal(a, b) for a, b in zip(written, expected, strict=True))
