"""Data sets of the BasicSR family as `VideoDataset`."""

from __future__ import annotations

from deblurkit.compat.dialect import PICTURES, Dialect
from deblurkit.compat.realesrgan import degraded_pictures
from deblurkit.compat.sections import Section

#: What `val_partition` leaves out of training.
_PARTITIONS = {
    "REDS4": ["000", "011", "015", "020"],
    "official": [f"{i:03d}" for i in range(240, 270)],
}
#: Its name has changed: both stand in BasicSR's own files.
_FLIP = ("use_hflip", "use_flip")


def translate_dataset(entry: Section, dialect: Dialect, root: Section) -> None:
    """Put the native form of one entry of `datasets` where it belongs; `root` is the whole file."""
    scale = root.get("scale", 1)
    key = entry.path[-1]
    to = ("datasets", key)
    name = entry.get("type")
    if entry.alias({foreign: kind.native for foreign, kind in dialect.datasets.items()}, *to, kind="data set") is None:
        return
    kind = dialect.datasets[name]
    if kind.native == "DegradedVideoDataset":
        degraded_pictures(entry, root, to)
    else:
        roots = {"DualPixelDataset": _dual_pixel, "GaussianNoiseDataset": _gaussian_noise}.get(kind.native, _roots)
        roots(entry, to)
    for argument, value in kind.fixed.items():
        entry.set(value, "type", *to, argument)
    for foreign, argument in kind.moved.items():
        entry.move(foreign, *to, argument)
    if scale != 1 or kind.native == "DegradedVideoDataset":
        entry.set(scale, "type", *to, "scale")
    _backend(entry)
    for known in ("scale", "phase", *(() if kind is PICTURES else ("num_frame", "padding"))):
        entry.get(known)
    if key == "train":
        _loading(entry, dialect, to)
        _augmentation(entry, dialect, to)
    else:
        entry.ignore("gt_size", "batch_size_per_gpu", "num_worker_per_gpu", "use_shuffle", *_FLIP, "use_rot")
        if dialect.progressive:
            entry.ignore("geometric_augs")
        entry.ignore("random_reverse", "interval_list", "dataset_enlarge_ratio", "prefetch_mode")
    entry.ignore("name", "num_prefetch_queue", "pin_memory", "persistent_workers", "cache_data", "flip_sequence")
    entry.refuse("color", "dataroot_flow", why="has no counterpart here")
    for key in ("mean", "std"):
        neutral = {"mean": 0, "std": 1}[key]
        if entry.get(key, neutral) not in (neutral, [neutral] * 3):
            entry.translation.problem(entry.at(key), "networks here take [0, 1]; give the normalisation to the network")
    entry.close()


def _roots(entry: Section, to: tuple[str, ...]) -> None:
    """The two folders or LMDBs, and which of their frames count."""
    roots = (*to, "dataroot")
    for side in ("lq", "gt"):
        entry.move(f"dataroot_{side}", *roots, side)
    if not entry.get("dataroot_lq"):
        entry.translation.problem(entry.at("dataroot_lq"), "missing: it is required")
    entry.move("meta_info_file", *roots, "names")
    if entry.get("filename_tmpl", "{}") != "{}":
        entry.move("filename_tmpl", *roots, "lq_name")
    partition = entry.get("val_partition", "REDS4" if str(entry.get("type")).startswith("REDS") else None)
    if partition is not None:
        names = _PARTITIONS.get(str(partition))
        if names is None:
            entry.translation.problem(entry.at("val_partition"), f"is REDS4 or official, got {partition!r}")
        else:
            which = "only" if entry.get("test_mode") else "without"
            entry.set(names, "val_partition", *roots, which)
    entry.get("test_mode")


def _dual_pixel(entry: Section, to: tuple[str, ...]) -> None:
    """Restormer's two views and their sharp pictures."""
    for foreign, own in (("lqL", "left"), ("lqR", "right"), ("gt", "gt")):
        key = f"dataroot_{foreign}"
        entry.move(key, *to, "dataroot", own)
        if not entry.get(key):
            entry.translation.problem(entry.at(key), "missing: it is required")
    entry.ignore("filename_tmpl", why="a picture has one name in all three folders")


def _gaussian_noise(entry: Section, to: tuple[str, ...]) -> None:
    """Restormer's clean pictures, and the noise that is put on them."""
    entry.move("dataroot_gt", *to, "dataroot")
    if not entry.get("dataroot_gt"):
        entry.translation.problem(entry.at("dataroot_gt"), "missing: it is required")
    entry.move("meta_info_file", *to, "names")
    entry.move("in_ch", *to, "channels")
    entry.ignore("dataroot_lq", "filename_tmpl", why="the noise is made")
    draw, values = entry.get("sigma_type"), entry.get("sigma_range")
    if entry.path[-1] != "train":
        draw, values = "constant", entry.get("sigma_test", values)
    key = "sigma_range" if entry.path[-1] == "train" else "sigma_test"
    if draw not in ("constant", "random", "choice"):
        entry.translation.problem(entry.at("sigma_type"), f"is constant, random or choice, got {draw!r}")
        return
    listed = values if isinstance(values, list) else [values]
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in listed):
        entry.translation.problem(entry.at(key), f"should be a number, or a list of numbers, got {values!r}")
        return
    entry.set([float(one) for one in listed], key, *to, "sigma")
    if draw == "random":
        entry.set("range", "sigma_type", *to, "draw")


def _backend(entry: Section) -> None:
    """Where frames are read from is seen from the paths."""
    backend = entry.section("io_backend")
    if backend:
        if backend.get("type") not in ("disk", "lmdb"):
            text = f"frames are read from files or LMDBs (disk, lmdb), got {backend.get('type')!r}"
            backend.translation.problem(backend.at("type"), text)
        backend.ignore("db_paths", "client_keys")
        backend.close()


def _loading(entry: Section, dialect: Dialect, to: tuple[str, ...]) -> None:
    stages = ("iters", "gt_sizes", "mini_batch_sizes") if dialect.progressive else ()
    schedule = [key for key in stages if entry.get(key)]
    for key in schedule:
        entry.move(key, *to, key)
    if schedule:  # gt_size and batch_size_per_gpu are the largest of the lists then
        entry.get("gt_size"), entry.get("batch_size_per_gpu")
    else:
        if dialect.enlarged_sampler:
            entry.set("enlarged", "type", *to, "sampler")
        entry.move("gt_size", *to, "gt_size")
        entry.move("batch_size_per_gpu", *to, "batch_size_per_gpu")
    for key in ("num_worker_per_gpu", "dataset_enlarge_ratio", "prefetch_mode"):
        entry.move(key, *to, key)
    entry.ignore("use_shuffle", why="batches always come shuffled")
    entry.get("interval_list")


def _augmentation(entry: Section, dialect: Dialect, to: tuple[str, ...]) -> None:
    found: dict[str, str] = {}
    for key, names in (
        *((key, ("hflip",)) for key in _FLIP),
        ("use_rot", ("vflip", "transpose")),
        ("random_reverse", ("reverse",)),
        # one of eight: all three in half of the cases each
        *([("geometric_augs", ("hflip", "vflip", "transpose"))] if dialect.progressive else []),
    ):
        if entry.get(key):
            found.update(dict.fromkeys(names, key))
    for name, key in found.items():
        entry.set(0.5, key, *to, "augment", name)
