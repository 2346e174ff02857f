"""Small trees in the exact forms of published data sets, each with its known traps."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.trees import write_pairs


def frames(count: int, digits: int = 8, first: int = 0, ending: str = ".png") -> list[str]:
    return [f"{first + i:0{digits}d}{ending}" for i in range(count)]


def dvd(root: Path) -> Path:
    """JPEG, one upright video, one that does not begin at 0, .DS_Store, the split in no folder, videos without GT."""
    for video, first, size in (
        ("IMG_0001", 0, (24, 32)),
        ("IMG_0009", 30, (24, 32)),
        ("IMG_0030", 0, (32, 24)),
        ("720p_240fps_2", 0, (24, 32)),
    ):
        folder = root / "quantitative_datasets" / video
        write_pairs(folder / "input", folder / "GT", frames(3, 5, first, ".jpg"), size)
    (root / "quantitative_datasets" / "IMG_0001" / "GT" / ".DS_Store").touch()
    (root / "quantitative_datasets" / ".DS_Store").touch()
    write_pairs(root / "qualitative_datasets" / "alley" / "input", root / "unused", frames(2, 5, 0, ".jpg"))
    shutil.rmtree(root / "unused")
    return root


def dvd_by_hand(root: Path) -> Path:
    """As SimDeblur wants it: `quantitative_datasets` to train on, and a folder `test`."""
    dvd(root)
    (root / "test").mkdir()
    for video in ("IMG_0030", "720p_240fps_2"):
        (root / "quantitative_datasets" / video).rename(root / "test" / video)
    return root


def reds(root: Path) -> Path:
    """All kinds; train and val are both numbered from 000; JPEG beside PNG; test has no sharp frames."""
    for split, clips in (("train", ("000", "001", "011", "239")), ("val", ("000", "001"))):
        for clip in clips:
            kinds = {kind: root / split / f"{split}_{kind}" for kind in ("blur", "blur_comp", "sharp")}
            for kind in ("blur", "blur_comp"):
                write_pairs(kinds[kind] / clip, kinds["sharp"] / clip, frames(3))
            jpeg = root / split / f"{split}_blur_jpeg" / clip
            write_pairs(jpeg, kinds["sharp"] / clip, frames(3), lq_names=frames(3, ending=".jpg"))
            for kind in ("sharp_bicubic", "blur_bicubic"):
                small = root / split / f"{split}_{kind}" / "X4" / clip
                write_pairs(small, kinds["sharp"] / clip, frames(3), scale=4)
    write_pairs(root / "test" / "test_blur" / "000", root / "unused", frames(3))
    shutil.rmtree(root / "unused")
    return root


def reds_regrouped(root: Path) -> Path:
    """As BasicSR has it: no first level, val's clips in train as 240 to 269."""
    for clip in ("000", "011", "100", "240", "241", "269"):
        write_pairs(root / "train_blur" / clip, root / "train_sharp" / clip, frames(3))
    return root


def bsd(root: Path) -> Path:
    """Names that are sorted as numbers, RAW beside RGB, three exposures side by side."""
    root = root / "BSD" / "BSD_2ms16ms"
    for split, sequences in (("train", ("9", "010", "100")), ("valid", ("001",)), ("test", ("015", "020"))):
        for sequence in sequences:
            folder = root / split / sequence
            write_pairs(folder / "Blur" / "RGB", folder / "Sharp" / "RGB", frames(3))
            (folder / "Blur" / "RAW").mkdir()
            (folder / "Blur" / "RAW" / "00000000.tiff").touch()
    return root


def hide(root: Path) -> Path:
    """As published: sharp pictures of both splits in one folder, the test pictures in two."""
    for part, names in (
        ("train", ["1fromGOPR1.png", "10fromGOPR1.png"]),
        ("test/test-close-ups", ["2fromGOPR2.png"]),
        ("test/test-long-shot", ["3fromGOPR3.png", "4fromGOPR3.png"]),
    ):
        write_pairs(root / part, root / "GT", names)
    return root


def hide_repacked(root: Path) -> Path:
    root = root / "HIDE"
    write_pairs(root / "input", root / "target", ["1fromGOPR1.png", "10fromGOPR1.png"])
    return root


def realblur(root: Path) -> Path:
    """The misspelled folder, trailing spaces, a scene with a suffix, gaps in numbers, sizes that vary, CRLF."""
    for kind, name in (
        ("J", "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"),
        ("R", "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref"),
    ):
        for split, scenes in (("train", {"scene001": (1, 3)}), ("test", {"scene002": (2,), "scene244_reflect": (1,)})):
            lines = []
            for place, (scene, numbers) in enumerate(scenes.items()):
                folder = root / name / scene
                for k in numbers:
                    size = (24 + 2 * k + 4 * place, 32)
                    write_pairs(folder / "blur", folder / "gt", [f"gt_{k}.png"], size, lq_names=[f"blur_{k}.png"])
                    lines.append(f"{name}/{scene}/gt/gt_{k}.png {name}/{scene}/blur/blur_{k}.png ")
            ending = "\r\n" if split == "test" else "\n"
            (root / f"RealBlur_{kind}_{split}_list.txt").write_bytes((ending.join(lines) + ending).encode())
    return root


def rsblur(root: Path) -> Path:
    """Every picture of a kind has one name; lists beside the folder, whose own name they begin with."""
    root = root / "RSBlur"
    lists: dict[str, list[str]] = {"real_train": ["0001/000001", "0002/000021"], "real_test": ["0001/000022"]}
    for split, places in lists.items():
        for place in places:
            write_pairs(root / place / "real_blur", root / place / "gt", ["gt_sharp.png"], lq_names=["real_blur.png"])
        lines = [f"RSBlur/{p}/gt/gt_sharp.png RSBlur/{p}/real_blur/real_blur.png\n" for p in places]
        (root.parent / f"RSBlur_{split}.txt").write_text("".join(lines))
    return root


def vimeo(root: Path) -> Path:
    """Septuplets in lists that end in an empty line; degraded ones in a folder of another name."""
    clips = {"train": ["00001/0001", "00002/0010"], "test": ["00001/0266"]}
    for split, names in clips.items():
        for name in names:
            degraded, sharp = (
                root / top / "sequences" / name for top in ("vimeo_septuplet_matlabLRx4", "vimeo_septuplet")
            )
            write_pairs(degraded, sharp, [f"im{i}.png" for i in range(1, 8)], scale=4)
        (root / "vimeo_septuplet" / f"sep_{split}list.txt").write_text("\n".join(names) + "\n\n")
    return root


def pictures(root: Path) -> Path:
    """MPRNet's and Restormer's, with their patches; NAFNet's differ in the patches' names only."""
    for split in ("train", "test"):
        write_pairs(
            root / split / "input", root / split / "target", ["GOPR0372_07_00-000047.png", "GOPR0374-000001.png"]
        )
    write_pairs(
        root / "train" / "input_crops", root / "train" / "target_crops", ["GOPR0372_07_00-000047-1.png"], (8, 8)
    )
    return root


def pictures_mimo(root: Path) -> Path:
    write_pairs(root / "train" / "blur", root / "train" / "sharp", ["GOPR0372_07_00_000047.png"], (20, 24))
    write_pairs(root / "train" / "blur", root / "train" / "sharp", ["GOPR0374_11_00_000001.png"])
    return root


def parallel(root: Path) -> Path:
    for clip in ("000", "011"):
        write_pairs(root / "blur" / clip, root / "GT" / clip, frames(3))
        write_pairs(root / "BIx4" / clip, root / "GT" / clip, frames(3), scale=4)
    return root


def unpaired(root: Path) -> Path:
    write_pairs(root / "one", root / "unused", frames(3))
    write_pairs(root / "two", root / "unused", frames(2, 3, 7, ".jpg"))
    shutil.rmtree(root / "unused")
    return root


def one_folder(root: Path) -> Path:
    write_pairs(root / "holiday", root / "unused", ["1.png", "2.png", "10.png"])
    shutil.rmtree(root / "unused")
    return root / "holiday"


def gopro_large_all(root: Path) -> Path:
    """Sharp frames of 240 a second: names that begin anywhere, a sequence whose first exposure is cut (zz > 0)."""
    for folder, first, count in (
        ("train/GOPR0372_07_00", 323, 3 * 7 + 2),
        ("train/GOPR0372_07_01", 4202, 3 * 7),
        ("test/GOPR0384_11_05", 44001, 3 * 11),
    ):
        write_pairs(root / folder, root / "unused", frames(count, 6, first))
    shutil.rmtree(root / "unused")
    (root / "train" / "GOPR0372_07_00" / ".DS_Store").touch()
    return root


def photos(root: Path) -> Path:
    """Photos of any size and format, in folders of folders; one is small, hidden and other files lie among them."""
    for name, size in (
        ("1.png", (80, 100)),
        ("2.png", (64, 96)),
        ("10.png", (120, 90)),
        ("holiday/beach.jpg", (70, 110)),
        ("holiday/IMG.1.png", (60, 80)),
        ("holiday/sea.webp", (40, 60)),
    ):
        path = root / name
        write_pairs(path.parent, root / "unused", [path.name], size)
    shutil.rmtree(root / "unused")
    (root / ".thumbnails").mkdir()
    shutil.copy(root / "1.png", root / ".thumbnails" / "1.png")
    (root / "holiday" / "notes.txt").touch()
    return root
