"""What `deblurkit infer` makes of its arguments: results, their places, and what protects files."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deblurkit.build import build_network
from deblurkit.cli import main
from deblurkit.engine.checkpoint import save_network
from deblurkit.engine.restore import Restorer
from deblurkit.engine.weights import own_folder
from deblurkit.image_io import read_image, write_image
from deblurkit.registry import ARCH_REGISTRY
from deblurkit.testing import stir
from deblurkit.video.reader import VideoReader
from tests.cli.conftest import Infer
from tests.support.videos import copied_packets, decoded, pictures, seconds, write_video


def test_a_video_with_sound(tmp_path: Path, infer: Infer) -> None:
    source = write_video(tmp_path / "clip.mp4", pictures(12), audio="aac")
    code, said = infer(source, "--crf", 4)
    result = tmp_path / "clip_deblurred.mp4"
    assert code == 0
    assert "clip.mp4: 12 frames in" in said
    assert str(result) in said
    assert seconds(result) == seconds(source)
    assert copied_packets(result) == copied_packets(source)
    for before, after in zip(VideoReader(source), VideoReader(result), strict=True):
        assert np.abs(before.astype(int) - after).mean() < 3


def test_pictures_keep_their_kind(tmp_path: Path, infer: Infer) -> None:
    deep, plain = pictures(1, dtype=np.uint16)[0], pictures(1)[0]
    write_image(tmp_path / "deep.png", deep)
    write_image(tmp_path / "plain.tif", plain)
    code, said = infer(tmp_path / "deep.png", tmp_path / "plain.tif")
    assert code == 0
    assert "give their folder" in said  # DBN is a video network
    np.testing.assert_array_equal(read_image(tmp_path / "deep_deblurred.png"), deep)
    np.testing.assert_array_equal(read_image(tmp_path / "plain_deblurred.tif"), plain)


def test_a_folder_of_frames_gives_a_folder(tmp_path: Path, infer: Infer) -> None:
    frames = pictures(7)
    for index, frame in enumerate(frames):
        write_image(tmp_path / "shot" / f"{index}.png", frame)
    assert infer(tmp_path / "shot")[0] == 0
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(read_image(tmp_path / "shot_deblurred" / f"{index}.png"), frame)
    assert infer(tmp_path / "shot", "-o", tmp_path / "mine")[0] == 0
    assert len(list((tmp_path / "mine").iterdir())) == 7


def test_lossless(tmp_path: Path, infer: Infer) -> None:
    source = write_video(tmp_path / "clip.mp4", pictures(6))
    code, said = infer(source, "--lossless")
    assert code == 0
    assert "the result is a .mkv file; .mp4 cannot hold it" in said
    np.testing.assert_array_equal(list(VideoReader(source)), list(VideoReader(tmp_path / "clip_deblurred.mkv")))


def test_existing_results_and_the_input_are_safe(tmp_path: Path, infer: Infer) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(3))
    content = source.read_bytes()
    (tmp_path / "a_deblurred.mp4").write_bytes(b"old")
    code, said = infer(source)
    assert (code, (tmp_path / "a_deblurred.mp4").read_bytes()) == (2, b"old")
    assert "--overwrite" in said
    assert infer(source, "--overwrite")[0] == 0
    assert len(decoded(tmp_path / "a_deblurred.mp4")) == 3
    (tmp_path / "link.mp4").symlink_to(source)
    for output in (source, tmp_path / "link.mp4"):
        code, said = infer(source, "-o", output, "--overwrite")
        assert (code, source.read_bytes()) == (2, content)
        assert "is the input itself" in said


def test_the_others_go_on_when_one_fails(tmp_path: Path, infer: Infer) -> None:
    (tmp_path / "b.mp4").write_text("no video")
    sources = [write_video(tmp_path / name, pictures(2)) for name in ("a.mp4", "c.mp4")]
    code, said = infer(sources[0], tmp_path / "b.mp4", sources[1], tmp_path / "none.mp4", "-o", tmp_path / "out")
    assert code == 2
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_deblurred.mp4", "c_deblurred.mp4"]
    assert said.rstrip().endswith(f"2 of 4 inputs failed: {tmp_path / 'b.mp4'}, {tmp_path / 'none.mp4'}")


def test_wrong_settings_get_one_line_and_leave_nothing(tmp_path: Path, infer: Infer) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(2))
    cases = [
        (["--tile", "many"], "use auto, 0 or a number"),
        (["--codec", "libx26"], "did you mean 'libx26"),
        (["--crf", "90"], "takes 0 (best) to 51"),
        (["-o", tmp_path / "a.png"], "for the frames of a video give a folder"),
        (["--precision", "fp16"], "DBN is not safe in it"),
    ]
    for options, expected in cases:
        code, said = infer(source, *options)
        assert (code, said.count("\n")) == (2, 1)
        assert expected in said
    code, said = infer(source, weights=None)
    assert (code, said.count("\n")) == (2, 1)
    assert "no weights: name a file with --weights, or put one into" in said
    assert infer(source, weights=tmp_path / "none.pth")[0] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_weights_that_nobody_names(tmp_path: Path, infer: Infer, weights: Path) -> None:
    """Those in the person's own folder; here `HOME` is an empty one."""
    source = write_video(tmp_path / "a.mp4", pictures(2))
    own = own_folder()
    own.mkdir(parents=True)
    shutil.copy(weights, own / "mine.pth")
    code, said = infer(source, weights=None)
    assert (code, said.splitlines()[0]) == (0, f"weights: {own / 'mine.pth'}")
    code, said = infer(source, "-o", tmp_path / "b.mp4", weights=Path("mine"))
    assert (code, "weights:" in said) == (0, False)
    code, said = infer(source, weights=Path("mime"))
    assert (code, "did you mean 'mine'?" in said) == (2, True)


def test_listed_and_shown_weights(
    infer: Infer, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["deblurkit", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return capsys.readouterr().out

    assert "no weights have a name; those in" in command("list", "weights")
    own = own_folder()
    own.mkdir(parents=True)
    shutil.copy(weights, own / "mine.pth")
    assert f"mine (default) DBN, {own / 'mine.pth'}" in command("list", "weights")
    (own / "bad.pth").write_text("x")
    listed = command("list", "weights").splitlines()
    assert listed[0].split() == ["bad", "is", "not", "a", "weights", "file,", str(own / "bad.pth")]
    assert listed[1].split() == ["mine", "DBN,", str(own / "mine.pth")]
    assert "inner_channels=4" in command("show", "mine")


def test_results_of_an_earlier_run_are_no_inputs(tmp_path: Path, infer: Infer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, pictures(2))
    monkeypatch.chdir(tmp_path)
    assert infer("*.mp4")[0] == 0
    code, said = infer("*.mp4", "--resume")
    assert code == 0
    assert said.splitlines() == [
        "passed over, as results of other inputs: a_deblurred.mp4, b_deblurred.mp4",
        "a.mp4: a_deblurred.mp4 is there",
        "b.mp4: b_deblurred.mp4 is there",
    ]
    assert len(list(tmp_path.iterdir())) == 4
    assert infer("a_deblurred.mp4")[0] == 0  # by its own name it is one
    assert (tmp_path / "a_deblurred_deblurred.mp4").exists()


def test_patterns_pass_over_hidden_files(tmp_path: Path, infer: Infer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", ".a-12345678.png", ".hidden/b.png"):
        write_image(tmp_path / name, pictures(1)[0])
    monkeypatch.chdir(tmp_path)
    assert infer("**/*.png", "-o", "out")[0] == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_deblurred.png"]
    assert infer(".*.png", "-o", "out")[0] == 0


def test_several_inputs_need_a_folder(tmp_path: Path, infer: Infer) -> None:
    sources = [write_video(tmp_path / name, pictures(2)) for name in ("a.mp4", "b.mp4")]
    code, said = infer(*sources, "-o", tmp_path / "c.mp4")
    assert (code, said.strip().endswith("is the name of one file, and there are 2 inputs; name a folder")) == (2, True)
    assert len(list(tmp_path.iterdir())) == 2
    assert infer(*sources, "-o", f"{tmp_path}/c.mp4/")[0] == 0
    assert len(list((tmp_path / "c.mp4").iterdir())) == 2


def test_names_that_are_too_long(tmp_path: Path, infer: Infer) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(2))
    long = source.rename(tmp_path / ("x" * 246 + ".mp4"))
    code, said = infer(long)
    assert (code, said.count("\n")) == (2, 1)
    assert said.endswith("_deblurred.mp4: cannot be written: File name too long; give the result a name with -o\n")
    result = tmp_path / ("y" * 251 + ".mp4")  # as long as names may be
    assert infer(long, "-o", result)[0] == 0
    assert len(decoded(result)) == 2


def test_the_folder_one_is_in(tmp_path: Path, infer: Infer, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, picture in enumerate(pictures(3)):
        write_image(tmp_path / "shot" / f"{index}.png", picture)
    write_video(tmp_path / "shot" / "clip.mp4", pictures(2))
    monkeypatch.chdir(tmp_path / "shot")
    code, said = infer(".")
    assert code == 0
    assert said.splitlines()[0] == ".: its pictures are the frames; videos in it are passed over: clip.mp4"
    assert "restoring shot: 3 of 3 frames" in said
    assert len(list((tmp_path / "shot_deblurred").iterdir())) == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names")
def test_a_pipe_with_a_name(tmp_path: Path, infer: Infer) -> None:
    """As in `deblurkit infer <(program) -o result.mp4`."""
    source = write_video(tmp_path / "a.mp4", pictures(4), audio="aac")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def command(*arguments: Any) -> tuple[int, str]:
        feeding = threading.Thread(target=lambda: pipe.write_bytes(source.read_bytes()))
        feeding.start()
        result = infer(pipe, *arguments)
        feeding.join()
        return result

    assert command("-o", tmp_path / "b.mp4")[0] == 0
    assert seconds(tmp_path / "b.mp4") == seconds(source)
    assert copied_packets(tmp_path / "b.mp4") == copied_packets(source)
    code, said = command()
    assert (code, f"{pipe}: the result of a pipe needs a name" in said) == (2, True)


def test_segments_of_clips(tmp_path: Path, infer: Infer) -> None:
    torch.manual_seed(0)
    cls = ARCH_REGISTRY.get("BasicVSR")
    weights = tmp_path / "basicvsr.pth"
    net = build_network({"type": "BasicVSR", **cls.check_args})  # (the file says how it is built)
    stir(net)
    save_network(weights, net)
    frames = pictures(12, (64, 64))
    source = write_video(tmp_path / "clip.mkv", frames, codec="ffv1")
    given = list(VideoReader(source))
    results = {}
    for length, overlap in ((6, 1), (12, 5)):
        code, said = infer(
            source, "--lossless", "--overwrite", "--clip-length", length, "--clip-overlap", overlap, weights=weights
        )
        assert code == 0, said
        results[length] = np.stack(list(VideoReader(tmp_path / "clip_deblurred.mkv")))
        restorer = Restorer(net, "cpu", clip_length=length, clip_overlap=overlap)
        np.testing.assert_array_equal(results[length], list(restorer.restore(given)))
    assert (results[6] != results[12]).any()
    code, said = infer(source, "--clip-length", 8, "--clip-overlap", 4, weights=weights)
    assert code == 2
    assert "--clip-overlap 4: leaves nothing of a segment of 8 frames" in said
