"""The command line as a user meets it: help, exit codes, and the commands that only look."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

import deblurkit
from deblurkit.cli.app import app
from deblurkit.engine import doctor
from deblurkit.engine.doctor import Finding, examine
from deblurkit.errors import DeblurkitError

PLUGIN = '''
import time
from torch import nn
from deblurkit.contract import FrameContract
from deblurkit.network import Network
from deblurkit.registry import ARCH_REGISTRY


@ARCH_REGISTRY.register()
class OneByOne(Network):
    """A pointwise network. It does little.

    Args:
        width: channels inside.
    """

    year = 2031

    def __init__(self, width: int, mode: str | None = None) -> None:
        super().__init__(FrameContract(kind="clip", past=1, multiple=(4, 8), min_size=16, square=False, scale=2))
        self.inner = nn.Conv2d(3, width, 1)


@ARCH_REGISTRY.register()
class CannotBeBuilt(OneByOne):
    """Its constructor fails."""

    def __init__(self) -> None:
        raise RuntimeError("no")
'''


@pytest.fixture
def run(own_registries: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "mine_arch.py").write_text(PLUGIN)
    return folder


def python(code: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **more)


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["doctor", "--help"], ["list", "--help"], ["show", "-h"]])
def test_help_is_cheap(arguments: list[str]) -> None:
    done = python(
        f"import sys; sys.argv = ['deblurkit', *{arguments!r}]\n"
        "from deblurkit.cli import main\n"
        "try:\n    main()\nfinally:\n"
        "    print([m for m in ('torch', 'cv2', 'numpy', 'av', 'lmdb', 'yaml') if m in sys.modules])"
    )
    assert done.returncode == 0, done.stderr
    assert "Usage: deblurkit" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_importing_the_package_is_cheap() -> None:
    done = python("import deblurkit, sys; print(deblurkit.__version__, 'torch' in sys.modules)")
    assert done.stdout.split() == [deblurkit.__version__, "False"]


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def examine() -> list[Finding]:
        raise error

    monkeypatch.setattr(doctor, "examine", examine)


def test_errors_a_user_can_mend_are_one_message(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, DeblurkitError("a.yml:3: [x] is wrong"))
    result = run("doctor")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", "error: a.yml:3: [x] is wrong\n")


def test_an_error_may_have_an_exit_code_of_its_own(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    error = DeblurkitError("not comparable")
    error.exit_code = 3
    fail_with(monkeypatch, error)
    assert run("doctor").exit_code == 3


def test_an_interrupt_is_one_line(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    result = run("doctor")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "interrupted\n")


def test_bugs_keep_their_traceback() -> None:
    done = python(
        "import sys; sys.argv = ['deblurkit', 'doctor']\n"
        "from deblurkit.engine import doctor\ndoctor.examine = lambda: 1 / 0\n"
        "from deblurkit.cli import main\nmain()"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_real_interrupt(tmp_path: Path) -> None:
    started = tmp_path / "started"
    code = (
        "import sys, time, pathlib; sys.argv = ['deblurkit', 'doctor']\n"
        "from deblurkit.engine import doctor\n"
        f"doctor.examine = lambda: (pathlib.Path({str(started)!r}).touch(), time.sleep(30))\n"
        "from deblurkit.cli import main\nmain()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout, stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("arguments", [["nonsense"], ["list"], ["list", "nets"], ["doctor", "--nope"], ["show"]])
def test_wrong_usage_exits_with_2(run: Any, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("kind", ["archs", "models", "datasets", "losses", "metrics", "hooks"])
def test_list_names_everything(run: Any, kind: str) -> None:
    result = run("list", kind)
    assert result.exit_code == 0, result.output
    for name in deblurkit.registry.REGISTRIES[kind].names():  # type: ignore[attr-defined]
        assert f" {name} " in result.stdout
    assert result.stderr == ""


def test_list_archs_has_the_facts(run: Any, plugins: Path) -> None:
    stdout = run("list", "archs", "--plugins", plugins).stdout
    lines = {line.split()[0]: line for line in stdout.splitlines() if line.strip()}
    assert lines["DBN"].split()[1:4] == ["2017", "window", "15,305,291"]
    assert "2031" in lines["OneByOne"]
    assert "needs arguments" in lines["OneByOne"]
    assert "A pointwise network. It does little." in lines["OneByOne"]
    assert "fails: RuntimeError" in lines["CannotBeBuilt"]


def facts(stdout: str) -> dict[str, str]:
    return {line[:12].strip(): line[13:] for line in stdout.splitlines() if len(line) > 13 and line[12] == " "}


def test_show_a_network(run: Any) -> None:
    result = run("show", "DBN")
    assert result.exit_code == 0, result.output
    found = facts(result.stdout)
    assert found["paper"].startswith("Deep Video Deblurring for Hand-held Cameras")
    assert found["year"] == "2017"
    assert found["parameters"] == "15,305,291"
    assert found["cost"] == "556.11 GMACs for one restored frame of 1280x720"
    assert found["frames"] == "a window of 5 frames, of which frame 3 is restored"
    assert found["size"] == "multiples of 8 (others are completed: reflect)"
    assert found["tiles"] == "exact with 81 pixels of context"
    assert "MIT" in found["weights"]
    assert found["file"].endswith("deblurkit/archs/dbn_arch.py")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["num_frames", "int", "5"] in rows
    assert ["zero_init_residual", "bool", "False"] in rows


def test_show_with_other_arguments_and_size(run: Any) -> None:
    result = run("show", "DBN", "--set", "inner_channels=16", "--set", "num_frames=3", "--size", "256x128")
    found = facts(result.stdout)
    assert found["built with"] == "inner_channels=16, num_frames=3"
    assert (
        found["parameters"]
        == f"{deblurkit.build_network({'type': 'DBN', 'num_frames': 3, 'inner_channels': 16}).num_parameters:,}"
    )
    assert found["cost"].endswith("of 256x128")


def test_show_a_plugin(run: Any, plugins: Path) -> None:
    result = run("show", "OneByOne", "--plugins", plugins)
    assert result.exit_code == 0, result.output
    assert "give width with --set width=VALUE" in facts(result.stdout)["built with"]
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["width", "int", "must", "be", "given"] in rows
    assert ["mode", "str", "|", "None", "None"] in rows


def test_show_other_kinds(run: Any) -> None:
    result = run("show", "SSIM")
    assert result.stdout.startswith("SSIM (metrics)\n\nStructural similarity")
    assert facts(result.stdout)["file"].endswith("psnr_ssim_metric.py")
    assert ["reduction", "'mean'", "|", "'sum'", "'mean'"] in [
        line.split() for line in run("show", "L1Loss").stdout.splitlines()
    ]


def test_show_a_weights_file(run: Any, tmp_path: Path) -> None:
    net = deblurkit.build_network({"type": "DBN", "inner_channels": 4, "num_frames": 3})
    deblurkit.save_network(tmp_path / "net_g_7.pth", net, iteration=1234)
    result = run("show", tmp_path / "net_g_7.pth")
    assert result.exit_code == 0, result.output
    found = facts(result.stdout)
    assert found["network"].startswith("DBN(num_frames=3, in_channels=3, inner_channels=4")
    assert found["iter"] == "1,234"
    assert found["io"].startswith("order rgb")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "dbm"], "nothing is registered as 'dbm', and there is no such file; did you mean 'DBN'?"),
        (["show", "gone.pth"], "gone.pth: there is no such file"),
        (["show", "DBN", "--set", "inner_chanels=8"], "inner_chanels: unknown argument of DBN; did you mean 'inner_ch"),
        (
            ["show", "DBN", "--set", "num_frames=4"],
            "DBN: DBN restores the middle frame of a window: num_frames must be",
        ),
        (["show", "DBN", "--set", "num_frames"], "--set num_frames: write it as --set a.b.c=value"),
        (["show", "DBN", "--plugins", "/nowhere"], "plugins: /nowhere is not a folder"),
    ],
)
def test_show_explains_what_it_cannot(run: Any, arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {message}")
    assert result.stdout == ""


def test_show_checks_its_usage(run: Any) -> None:
    assert "'1280' is not WIDTHxHEIGHT" in run("show", "DBN", "--size", "1280").stderr
    result = run("show", "PSNR", "--set", "crop_border=4")
    assert result.exit_code == 2
    assert "PSNR is no network" in result.stderr


def test_doctor_is_content_here(run: Any) -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].startswith("All ")
    for subject in ("Python", "torch", "OpenCV", "libx264", "libx265", "ffv1", "LMDB", "memory", "disk", "registered"):
        assert subject in result.stdout


def test_doctor_reports_what_fails(run: Any, plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (plugins / "broken_loss.py").write_text("import not_installed_anywhere")
    deblurkit.load_plugins([plugins])

    def no_opencv() -> Any:
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr(doctor, "_CHECKS", (*doctor._CHECKS, ("thing", no_opencv)))
    findings = examine()
    assert [finding.subject for finding in findings if not finding.ok] == ["registered", "thing"]
    result = run("doctor")
    assert result.exit_code == 2
    assert "broken_loss.py failed to import: ModuleNotFoundError" in result.stdout
    assert "FAIL  thing          ImportError: libGL.so.1" in result.stdout
    assert result.stdout.splitlines()[-1] == f"2 of {len(findings)} checks failed."


def test_doctor_tries_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = SimpleNamespace(name="A GPU", total_memory=8 * 2**30, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: facts)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (6 * 2**30, 8 * 2**30))
    ones, asked = torch.ones, []

    def on_cpu(*size: int, device: str) -> torch.Tensor:
        asked.append(device)
        return ones(*size) * (2 if device == "cuda:1" else 1)  # the second one calculates wrongly

    monkeypatch.setattr(torch, "ones", on_cpu)
    found = list(doctor._devices())
    assert asked == ["cuda:0", "cuda:1"]
    assert [ok for ok, _ in found] == [True, False]
    assert found[0][1].startswith("cuda:0 A GPU, 6.0 of 8.0 GiB free, compute capability 9.0")


def test_doctor_names_the_fix_for_libgl(monkeypatch: pytest.MonkeyPatch) -> None:
    real = __import__

    def without_libgl(name: str, *more: Any, **others: Any) -> Any:
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")
        return real(name, *more, **others)

    monkeypatch.setattr("builtins.__import__", without_libgl)
    (finding,) = [finding for finding in examine() if finding.subject == "OpenCV"]
    assert not finding.ok
    assert "apt-get install libgl1" in finding.text
