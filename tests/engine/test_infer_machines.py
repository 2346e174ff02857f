"""`deblurkit infer` under torchrun with two agents, which stand for two machines that share a folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from deblurkit.archs.dbn_arch import DBN
from deblurkit.engine.checkpoint import save_network
from deblurkit.engine.parts import Parts
from deblurkit.engine.restore import Restorer
from deblurkit.image_io import read_image, write_image
from deblurkit.video.reader import VideoReader
from tests.support.runs import environment, free_port
from tests.support.videos import copied_packets, pictures, write_video


class Agents:
    """Two agents of torchrun on this machine."""

    def __init__(self, processes: int, weights: Path, *arguments: object) -> None:
        port = free_port()
        self.agents = [
            subprocess.Popen(
                [
                    sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(rank),
                    "--nproc-per-node", str(processes), "--rdzv-backend", "c10d", "--rdzv-id", "job",
                    "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-conf", "last_call_timeout=1",
                    "-m", "deblurkit", "infer", *map(str, arguments), "--weights", str(weights), "--device", "cpu",
                ],
                env={**environment(), "CUDA_VISIBLE_DEVICES": ""},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            )
            for rank in range(2)
        ]  # fmt: skip

    def wait(self) -> tuple[list[int], str]:
        """Exit codes, and what was said."""
        said = [agent.communicate(timeout=240)[0] for agent in self.agents]
        return [agent.returncode for agent in self.agents], "".join(said)

    def kill(self, number: int) -> None:
        """As when a machine loses power: the agent and its processes are gone at once."""
        workers = _descendants(self.agents[number].pid)
        for pid in (self.agents[number].pid, *workers):
            os.kill(pid, signal.SIGKILL)

    def __enter__(self) -> Agents:
        return self

    def __exit__(self, *error: object) -> None:
        for number, agent in enumerate(self.agents):
            if agent.poll() is None:
                self.kill(number)
            agent.wait()


def _descendants(pid: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(below for child in children for below in _descendants(child))]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "net.pth"
    torch.manual_seed(0)
    save_network(path, DBN(inner_channels=2))
    return path


def frames_of_one_process(weights: Path, source: Path, target: Path) -> Iterator[np.ndarray]:
    Restorer.from_weights(weights, device="cpu").restore_video(source, target, lossless=True)
    return iter(VideoReader(target))


def assert_equal(weights: Path, source: Path, result: Path, alone: Path) -> None:
    for a, b in zip(frames_of_one_process(weights, source, alone), VideoReader(result), strict=True):
        np.testing.assert_array_equal(a, b)
    assert copied_packets(alone) == copied_packets(result)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_one_video_on_two_machines(processes: int, weights: Path, tmp_path: Path) -> None:
    frames = pictures(410 if processes == 1 else 810, (32, 32))
    source = write_video(tmp_path / "a.mp4", frames, audio="aac", options={"g": "30"})
    with Agents(processes, weights, source, "-o", tmp_path / "two.mkv", "--lossless") as agents:
        codes, said = agents.wait()
    assert codes == [0, 0], said
    assert f"process {2 * processes} of {2 * processes}" in said
    assert_equal(weights, source, tmp_path / "two.mkv", tmp_path / "one.mkv")
    assert not Parts(tmp_path / "two.mkv").folder.exists()


@pytest.mark.slow
def test_several_inputs_on_two_machines_and_one_of_them_bad(weights: Path, tmp_path: Path) -> None:
    """The long video is still restored when the other machine has failed with the others."""
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "1.mp4").write_text("no video")
    sources = [write_video(clips / f"{name}.mp4", pictures(count, (32, 32))) for name, count in ((0, 400), (2, 9))]
    write_image(clips / "3.png", pictures(1)[0])
    with Agents(1, weights, tmp_path / "clips/*", "-o", tmp_path / "results", "--lossless") as agents:
        codes, said = agents.wait()
    assert sorted(codes) == [0, 1] or codes == [1, 1], said  # torchrun's own code for a process that failed
    assert "1.mp4: is not a video" in said
    for source in sources:
        assert_equal(weights, source, tmp_path / "results" / f"{source.stem}_deblurred.mkv", tmp_path / "one.mkv")
    assert read_image(tmp_path / "results" / "3_deblurred.png").shape == (32, 48, 3)


@pytest.mark.slow
def test_a_machine_is_lost_and_the_job_goes_on(weights: Path, tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(2400, (32, 32)), audio="aac", options={"g": "30"})
    parts = Parts(tmp_path / "two.mkv")
    arguments = (source, "-o", tmp_path / "two.mkv", "--lossless")
    with Agents(1, weights, *arguments) as agents:
        until = time.monotonic() + 120
        while not any(first >= 1200 for first in parts.segments()) and time.monotonic() < until:
            time.sleep(0.05)
        agents.kill(1)
        codes, said = agents.wait()
    assert all(codes), said
    assert not (tmp_path / "two.mkv").exists()
    done = parts.segments()
    assert any(first >= 1200 for first in done), said
    kept = {path: path.stat().st_mtime_ns for _, path in done.values()}
    with Agents(1, weights, *arguments) as agents:
        codes, said = agents.wait()
    assert codes == [0, 0], said
    # the machine that is left goes on to its end, unless the other one held torchrun's store
    assert said.count("goes on at frame") == len({first >= 1200 for first in done}), said
    assert kept  # their packets are in the result: the folder is gone with it
    assert not parts.folder.exists()
    assert_equal(weights, source, tmp_path / "two.mkv", tmp_path / "one.mkv")
