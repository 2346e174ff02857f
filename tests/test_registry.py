from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deblurkit import registry
from deblurkit.errors import RegistryError
from deblurkit.registry import ARCH_REGISTRY, LOSS_REGISTRY, REGISTRIES, load_plugins, plugin_failures

LOSS = """
from deblurkit.losses.base import Loss
from deblurkit.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register()
class {name}(Loss):
    def forward(self, restored, gt):
        return (restored - gt).abs().max()
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_built_in_classes_are_found() -> None:
    assert list(REGISTRIES) == ["archs", "models", "datasets", "losses", "metrics", "hooks"]
    assert "DBN" in ARCH_REGISTRY.names()
    assert ARCH_REGISTRY.get("DBN").__name__ == "DBN"
    assert ARCH_REGISTRY.name_of(ARCH_REGISTRY.get("DBN")) == "DBN"
    assert ARCH_REGISTRY.name_of(int) is None


@pytest.mark.parametrize(("wrong", "right"), [("dbn", "DBN"), ("DBNN", "DBN")])
def test_an_unknown_name_gives_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(RegistryError, match=f"^there is no '{wrong}' among the archs; did you mean '{right}'"):
        ARCH_REGISTRY.get(wrong)


def test_a_far_off_name_points_to_the_list() -> None:
    with pytest.raises(RegistryError, match="`deblurkit list archs` shows what there is"):
        ARCH_REGISTRY.get("Quux_42")


@pytest.mark.usefixtures("own_registries")
def test_another_name_may_be_given() -> None:
    @LOSS_REGISTRY.register("SomethingElse")
    class Inner:
        pass

    assert LOSS_REGISTRY.get("SomethingElse") is Inner
    assert LOSS_REGISTRY.name_of(Inner) == "SomethingElse"


@pytest.mark.usefixtures("own_registries")
def test_two_classes_of_one_file_may_not_share_a_name() -> None:
    @LOSS_REGISTRY.register("Twice")
    class First:
        pass

    with pytest.raises(RegistryError, match="'Twice' is registered twice"):

        @LOSS_REGISTRY.register("Twice")
        class Second:
            pass

    assert LOSS_REGISTRY.get("Twice") is First


@pytest.mark.usefixtures("own_registries")
def test_a_folder_of_plugins_is_loaded_by_file_name(tmp_path: Path) -> None:
    write(tmp_path / "peak_loss.py", LOSS.format(name="PeakLoss"))
    write(tmp_path / "notes.py", "raise RuntimeError('not a plugin by its name')")
    load_plugins([tmp_path])
    cls = LOSS_REGISTRY.get("PeakLoss")
    load_plugins([str(tmp_path), tmp_path / ".." / tmp_path.name])  # again, spelled in other ways: no clash
    assert LOSS_REGISTRY.get("PeakLoss") is cls


@pytest.mark.usefixtures("own_registries")
def test_files_of_one_name_in_two_folders_do_not_clash(tmp_path: Path) -> None:
    write(tmp_path / "a" / "my_loss.py", LOSS.format(name="LossA"))
    write(tmp_path / "b" / "my_loss.py", LOSS.format(name="LossB"))
    load_plugins([tmp_path / "a", tmp_path / "b"])
    assert {"LossA", "LossB"} <= set(LOSS_REGISTRY.names())


@pytest.mark.usefixtures("own_registries")
def test_a_name_registered_twice_names_both_files(tmp_path: Path) -> None:
    first = write(tmp_path / "a" / "my_loss.py", LOSS.format(name="SameLoss"))
    second = write(tmp_path / "b" / "my_loss.py", LOSS.format(name="Other") + LOSS.format(name="SameLoss"))
    load_plugins([first.parent])
    for _ in range(2):  # not only the first time
        with pytest.raises(RegistryError) as caught:
            load_plugins([second.parent])
        assert all(text in str(caught.value) for text in (str(first), str(second), "'SameLoss'", "twice"))
        assert "Other" not in LOSS_REGISTRY.names()  # nothing of the file that was not loaded whole


@pytest.mark.usefixtures("own_registries")
def test_a_broken_file_is_named_and_the_others_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = write(tmp_path / "a_loss.py", LOSS.format(name="HalfLoss") + "\nimport not_installed_anywhere\n")
    leaves = write(tmp_path / "b_loss.py", "import sys\nsys.exit(3)\n")
    typo = write(tmp_path / "c_loss.py", "def :\n")
    write(tmp_path / "d_loss.py", LOSS.format(name="GoodLoss"))
    load_plugins([tmp_path])
    shown = capsys.readouterr().err
    for path, reason in ((broken, "not_installed_anywhere"), (leaves, "SystemExit"), (typo, "SyntaxError")):
        assert shown.count(str(path)) >= 1
        assert any(f.source == str(path) and reason in f.reason for f in plugin_failures())
    assert "GoodLoss" in LOSS_REGISTRY.names()
    assert "HalfLoss" not in LOSS_REGISTRY.names()
    with pytest.raises(RegistryError, match=r"a_loss.py failed to import: ModuleNotFoundError: .*not_installed"):
        LOSS_REGISTRY.get("HalfLoss")
    load_plugins([tmp_path])
    assert "failed" not in capsys.readouterr().err  # said once


@pytest.mark.usefixtures("own_registries")
def test_a_mended_file_is_loaded(tmp_path: Path) -> None:
    path = write(tmp_path / "a_loss.py", "1 / 0")
    load_plugins([tmp_path])
    assert any(f.source == str(path) for f in plugin_failures())
    write(path, LOSS.format(name="MendedLoss"))
    load_plugins([tmp_path])
    assert "MendedLoss" in LOSS_REGISTRY.names()
    assert not any(f.source == str(path) for f in plugin_failures())


def test_folders_that_are_none_or_hold_nothing_are_told(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="nowhere is not a folder"):
        load_plugins([tmp_path / "nowhere"])
    with pytest.raises(RegistryError, match=r"holds no plugin file \(\*_arch.py, \*_model.py"):
        load_plugins([tmp_path])


def install(site: Path, package: str, entry_points: str, code: str) -> None:
    """What pip leaves behind for a package with entry points."""
    write(site / package / "__init__.py", code)
    write(site / f"{package}-1.0.dist-info" / "METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    write(site / f"{package}-1.0.dist-info" / "entry_points.txt", f"[{registry.ENTRY_POINT_GROUP}]\n{entry_points}\n")


def run(site: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, because discovery happens once a process."""
    script = f"import sys; sys.path.insert(0, {str(site)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_installed_packages_are_discovered(tmp_path: Path) -> None:
    install(tmp_path, "good_package", "good = good_package", LOSS.format(name="InstalledLoss"))
    install(tmp_path, "bad_package", "bad = bad_package", "raise RuntimeError('broken upstream')")
    done = run(
        tmp_path,
        "from deblurkit.registry import LOSS_REGISTRY, plugin_failures\n"
        "print(LOSS_REGISTRY.get('InstalledLoss').__module__, [f.source for f in plugin_failures()])",
    )
    assert done.stdout.strip() == "good_package ['entry point bad = bad_package']", done.stderr
    assert "entry point bad = bad_package failed to import (RuntimeError: broken upstream)" in done.stderr


def test_an_installed_package_may_not_take_a_built_in_name(tmp_path: Path) -> None:
    install(tmp_path, "greedy_package", "greedy = greedy_package", LOSS.format(name="L1Loss"))
    done = run(
        tmp_path,
        "from deblurkit.registry import LOSS_REGISTRY\nfrom deblurkit.errors import RegistryError\n"
        "for _ in range(2):\n    try:\n        LOSS_REGISTRY.names()\n"
        "    except RegistryError as error:\n        print(error)",
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr  # the second question is answered like the first
    for line in lines:
        assert "'L1Loss' is registered twice" in line
        assert "pixel_loss.py" in line
        assert str(tmp_path / "greedy_package") in line


def test_only_the_kind_that_is_asked_for_is_imported(weights: Path, tmp_path: Path) -> None:
    install(tmp_path, "good_package", "good = good_package", LOSS.format(name="InstalledLoss"))
    done = run(
        tmp_path,
        "import deblurkit\n"
        f"deblurkit.load_network({str(weights)!r})\n"
        "endings = ('_arch', '_model', '_dataset', '_loss', '_metric', '_hook')\n"
        "def found(): return {e for e in endings for m in sys.modules if m.startswith('deblurkit') and m.endswith(e)}\n"
        "print(*found())\n"
        "from deblurkit.registry import DATASET_REGISTRY, LOSS_REGISTRY\n"
        "print(LOSS_REGISTRY.get('InstalledLoss').__module__, LOSS_REGISTRY.get('L1Loss').__module__)\n"
        "print(*sorted(found()))\n"
        "print('VideoDataset' in DATASET_REGISTRY.names())",
    )
    assert done.stdout.splitlines() == [
        "_arch", "good_package deblurkit.losses.pixel_loss", "_arch _loss", "True",
    ], done.stderr  # fmt: skip


def test_a_name_that_is_taken_is_told_whichever_kind_was_asked_for_first(tmp_path: Path) -> None:
    taken = write(tmp_path / "plugins" / "my_arch.py", LOSS.format(name="L1Loss"))  # a loss in a file of networks
    done = run(
        tmp_path,
        "from deblurkit.registry import ARCH_REGISTRY, LOSS_REGISTRY, load_plugins\n"
        "from deblurkit.errors import RegistryError\n"
        f"load_plugins([{str(taken.parent)!r}])\nprint('DBN' in ARCH_REGISTRY.names())\n"
        "for _ in range(2):\n    try:\n        LOSS_REGISTRY.get('L1Loss')\n"
        "    except RegistryError as error:\n        print(error)",
    )
    first, *lines = done.stdout.splitlines()
    assert (first, len(lines)) == ("True", 2), done.stderr
    for line in lines:
        assert "'L1Loss' is registered twice" in line
        assert "pixel_loss.py" in line
        assert str(taken) in line
