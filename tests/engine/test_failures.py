"""What can go wrong under a run: processes that die, full disks, folders that cannot be written, ports in use."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from deblurkit.engine.experiment import prepare_folder
from deblurkit.engine.log import close_log, open_log
from deblurkit.errors import DeblurkitError
from deblurkit.options import load_options
from tests.support.runs import command, deblurkit, environment, start, weights_hash, write_options, write_plugins
from tests.support.trees import make_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "tree"
    make_tree(root, splits=("train", "test"), sequences=1, frames=6, size=(32, 40), seed=1)
    return root


def workers_of(pid: int, named: str = "") -> list[int]:
    """Child processes whose command line holds `named`."""
    children = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (OSError, ProcessLookupError):
                continue
            if parent == pid and named in words:
                children.append(int(entry.name))
    return children


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
def test_a_killed_process_ends_all_with_one_message(tree: Path, tmp_path: Path) -> None:
    """Through torch's launcher; SIGKILL is what the kernel sends when memory runs out."""
    options = write_options(
        tmp_path / "tiny.yml", tree, network_g={"type": "PlainNet"}, plugins=write_plugins(tmp_path / "plugins"),
        train__total_iter=10**6, val__val_freq=None,
    )  # fmt: skip
    folder = tmp_path / "experiments" / "tiny"
    run = subprocess.Popen(
        command("train", "-opt", options, "--procs", 2, "--device", "cpu"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(),
    )  # fmt: skip
    until = time.monotonic() + 120
    while not list((folder / "training_states").glob("*.state")):
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.02)
    ranks = workers_of(run.pid, "deblurkit")
    assert len(ranks) == 2
    killed = time.monotonic()
    os.kill(max(ranks), signal.SIGKILL)
    output, _ = run.communicate(timeout=60)
    assert time.monotonic() - killed < 10
    assert run.returncode == 128 + signal.SIGKILL, output
    assert f"(pid {max(ranks)}) was killed by SIGKILL; the kernel does that" in output
    assert "Traceback" not in output
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)


def test_an_error_of_all_processes_keeps_its_exit_code(tree: Path, tmp_path: Path) -> None:
    options = write_options(tmp_path / "tiny.yml", tree, datasets__train__gt_size=4096)
    run = subprocess.run(
        command("train", "-opt", options, "--procs", 2, "--device", "cpu"),
        capture_output=True, text=True, env=environment(), timeout=120,
    )  # fmt: skip
    assert run.returncode == 2, run.stderr
    assert "4096" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("mode", ["cpu", None])
def test_a_killed_worker_is_one_message(mode: str | None, tree: Path, tmp_path: Path) -> None:
    options = write_options(
        tmp_path / "tiny.yml", tree, train__total_iter=10**6, val__val_freq=None,
        datasets__train__num_worker_per_gpu=1, datasets__train__prefetch_mode=mode,
    )  # fmt: skip
    running = start("train", "-opt", options)
    running.wait_for(lambda: "iter 2," in running.stderr)
    assert running.process.pid is not None
    (worker,) = workers_of(running.process.pid)
    os.kill(worker, signal.SIGKILL)
    done = running.wait(60)
    assert done.returncode == 2, done.stderr
    assert "a worker process that loads data was killed after iter" in done.stderr
    assert "num_worker_per_gpu" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_said(tree: Path, tmp_path: Path) -> None:
    options = write_options(tmp_path / "tiny.yml", tree)
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = start(
            "train", "-opt", options, RANK=0, LOCAL_RANK=0, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=port
        ).wait()
    assert done.returncode == 2, done.stderr
    assert f"127.0.0.1:{port}" in done.stderr
    assert "set MASTER_PORT to a free one" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "experiments").exists()


def limit_file_size(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_keeps_the_checkpoint_before(tree: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: writing fails within the file just as well."""
    options = write_options(tmp_path / "tiny.yml", tree, val__val_freq=None)
    folder = tmp_path / "experiments" / "tiny"
    assert deblurkit("train", "-opt", options, "--set", "train.total_iter=4").returncode == 0
    weights = folder / "models" / "net_g_latest.pth"
    before = weights_hash(weights)
    names = sorted(str(path) for path in folder.rglob("*"))
    for share in (0.3, 1.2):  # within the weights; within the state, which is larger
        size = int(weights.stat().st_size * share)
        done = deblurkit("train", "-opt", options, before=partial(limit_file_size, size))
        assert done.returncode == 2, done.stderr
        assert "is the disk full?" in done.stderr
        assert "Traceback" not in done.stderr
        assert weights_hash(weights) == before
        (folder / "models" / "net_g_6.pth").unlink(missing_ok=True)  # weights without a state are no checkpoint
        assert sorted(str(path) for path in folder.rglob("*")) == names
    done = deblurkit("train", "-opt", options)
    assert done.returncode == 0, done.stderr
    assert "going on after iter 4" in done.stderr


def test_a_log_that_cannot_be_written_is_not_passed_over(tmp_path: Path) -> None:
    from deblurkit.engine.launch import Place

    log = open_log(tmp_path / "train.log", Place(torch.device("cpu")))
    handler = log.handlers[1]
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    handler.stream = full.open("w")  # type: ignore[attr-defined]
    with pytest.raises(DeblurkitError, match=r"train\.log: cannot be written: .*No space"):
        log.info("a line")
    handler.stream = None  # type: ignore[attr-defined]
    close_log(log)


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Root can write everywhere: be somebody else."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


@pytest.mark.parametrize("existing", [False, True])
def test_a_read_only_folder_is_said(existing: bool, tree: Path, tmp_path: Path) -> None:
    options = load_options(write_options(tmp_path / "tiny.yml", tree))
    # not in tmp_path, whose parents are closed to others
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        folder = Path(root) / "experiments" / "tiny"
        (folder if existing else folder.parent).mkdir(parents=True)
        if existing:
            (folder / "options.yml").write_text("name: tiny\n")
        folder.parent.chmod(0o555)
        with nobody(), pytest.raises(DeblurkitError, match=r"cannot be m(ade|oved aside)"):
            prepare_folder(folder, options, None)
        folder.parent.chmod(0o755)
        assert [path.name for path in folder.parent.iterdir()] == (["tiny"] if existing else [])


def test_a_file_where_the_folder_should_be(tree: Path, tmp_path: Path) -> None:
    options = write_options(tmp_path / "tiny.yml", tree)
    (tmp_path / "experiments").write_text("not a folder")
    done = deblurkit("train", "-opt", options)
    assert done.returncode == 2, done.stderr
    assert "experiments" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_runs_of_one_name_do_not_meet(tree: Path, tmp_path: Path) -> None:
    options = write_options(tmp_path / "tiny.yml", tree, train__total_iter=10**6, val__val_freq=None)
    running = start("train", "-opt", options)
    running.wait_for(lambda: "iter 2," in running.stderr)
    for resume in ("auto", "none"):
        done = deblurkit("train", "-opt", options, "--resume", resume)
        assert done.returncode == 2, done.stderr
        assert f"a run of this name is going on (process {running.process.pid} on " in done.stderr
        assert "Traceback" not in done.stderr
    assert not running.ended
    assert [path.name for path in (tmp_path / "experiments").iterdir()] == ["tiny"]
    running.send_signal(signal.SIGKILL)  # leaves no lock
    running.wait()
    done = deblurkit("train", "-opt", options, "--set", "train.total_iter=2")
    assert done.returncode == 0, done.stderr


def test_checkpoints_that_are_newer_than_the_named_one_are_kept(tree: Path, tmp_path: Path) -> None:
    options = write_options(tmp_path / "tiny.yml", tree, val__val_freq=None, logger__keep_last=2)
    assert deblurkit("train", "-opt", options).returncode == 0
    folder = tmp_path / "experiments" / "tiny"
    expected = weights_hash(folder / "models" / "net_g_8.pth")
    done = deblurkit("train", "-opt", options, "--resume", folder / "training_states" / "6.state")
    assert done.returncode == 0, done.stderr
    assert "newer checkpoints (8) were moved to" in done.stderr
    (aside,) = folder.glob("set_aside_*")
    assert weights_hash(aside / "models" / "net_g_8.pth") == expected
    assert (aside / "training_states" / "8.state").exists()
    assert weights_hash(folder / "models" / "net_g_8.pth") == expected


def test_a_state_of_another_run_does_not_overwrite_one_of_this_name(tree: Path, tmp_path: Path) -> None:
    options = write_options(tmp_path / "tiny.yml", tree, val__val_freq=None, train__total_iter=2)
    root = tmp_path / "experiments"
    for name in ("first", "tiny"):
        assert deblurkit("train", "-opt", options, "--set", f"name={name}").returncode == 0
    state = root / "first" / "training_states" / "2.state"
    more = ("--set", "train.total_iter=4")
    done = deblurkit("train", "-opt", options, "--resume", state, *more)
    assert done.returncode == 0, done.stderr
    (archive,) = root.glob("tiny_archived_*")
    assert sorted(path.name for path in (archive / "models").iterdir()) == ["net_g_2.pth", "net_g_latest.pth"]
    assert sorted(path.name for path in (root / "first" / "models").iterdir()) == ["net_g_2.pth", "net_g_latest.pth"]
    assert (root / "tiny" / "training_states" / "4.state").exists()
