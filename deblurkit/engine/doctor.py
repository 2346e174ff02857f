"""What this installation has and what is wrong with it: every finding tries the thing out."""

from __future__ import annotations

import io
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deblurkit.errors import DeblurkitError

_MIB, _GIB = 2**20, 2**30
#: Less than this and a training run, or a result, does not fit.
_LITTLE_MEMORY, _LITTLE_DISK = 2 * _GIB, 2 * _GIB
#: Of a trial video. Of clips of one or two frames FFmpeg's libx265 leaves some times unset, and most encodings fail.
_FRAMES = 4


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what. ok: it works. text: what was found; for what does not work, what to do.
    """

    subject: str
    ok: bool
    text: str


def examine() -> list[Finding]:
    """Try out everything that deblurkit builds on. What fails becomes a finding, never an exception."""
    findings: list[Finding] = []
    for subject, look in _CHECKS:
        try:
            for ok, text in look():
                findings.append(Finding(subject, ok, text))
        except Exception as error:  # the finding is that this fails, whatever it is
            reason = str(error) if isinstance(error, DeblurkitError) else f"{type(error).__name__}: {error}"
            findings.append(Finding(subject, False, reason))
    return findings


Results = Iterator[tuple[bool, str]]


def _python() -> Results:
    import deblurkit

    new_enough = sys.version_info >= (3, 10)
    hint = "" if new_enough else "; 3.10 or newer is needed"
    where = Path(deblurkit.__file__).parent
    yield new_enough, f"{platform.python_version()} on {platform.system()} {platform.machine()}{hint}"
    yield True, f"deblurkit {deblurkit.__version__} in {where}"


def _torch() -> Results:
    import torch
    from torch.nn import functional as F

    value = F.conv2d(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3)).sum().item()
    yield value == 36.0, f"{torch.__version__}, {torch.get_num_threads()} threads; a convolution gives {value:g} of 36"


def _devices() -> Results:
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"built for CUDA {built}, but no device answers" if built else "this torch is built for the CPU"
        yield True, f"no CUDA device ({why}); networks run on the CPU"
        return
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        ones = torch.ones(256, 256, device=f"cuda:{index}")
        total = (ones @ ones).sum().item()
        free, _ = torch.cuda.mem_get_info(index)
        yield (
            total == 256.0**3,
            f"cuda:{index} {facts.name}, {free / _GIB:.1f} of {facts.total_memory / _GIB:.1f} GiB free, "
            f"compute capability {facts.major}.{facts.minor}, CUDA {torch.version.cuda}",
        )


def _opencv() -> Results:
    import numpy as np

    from deblurkit.image_io import cv2, decode_image, encode_png

    pixels = np.arange(16 * 16 * 3, dtype=np.uint16).reshape(16, 16, 3) * 80
    same = bool((decode_image(encode_png(pixels), "a 16-bit PNG") == pixels).all())
    text = "a 16-bit PNG comes back as it was" if same else "a 16-bit PNG does not come back as it was: reinstall it"
    yield same, f"{cv2().__version__}; {text}"


def _codecs() -> Results:
    import av
    import numpy as np

    yield True, f"PyAV {av.__version__}"
    for codec, pixel_format, container, options in (
        ("libx264", "yuv420p", "mp4", {}),
        ("libx265", "yuv420p10le", "mp4", {"x265-params": "log-level=none"}),
        ("ffv1", "bgr0", "matroska", {}),
    ):
        try:
            file = io.BytesIO()
            with av.open(file, "w", format=container) as output:
                stream: Any = output.add_stream(codec, rate=25, options=options)
                stream.width, stream.height, stream.pix_fmt = 64, 64, pixel_format
                for number in range(_FRAMES):
                    picture = np.full((64, 64, 3), number, np.uint8)
                    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                    frame.pts = number
                    output.mux(stream.encode(frame))
                output.mux(stream.encode())
            file.seek(0)
            with av.open(file) as back:
                decoded = sum(1 for _ in back.decode(video=0))
        except (av.FFmpegError, ValueError) as error:
            yield False, f"{codec}: {error}; install PyAV from PyPI (`pip install --force-reinstall av`)"
        else:
            yield decoded == _FRAMES, f"{codec}: {_FRAMES} frames were encoded and {decoded} decoded"


def _lmdb() -> Results:
    import lmdb

    with tempfile.TemporaryDirectory() as folder:
        with lmdb.open(folder, map_size=_MIB) as database, database.begin(write=True) as transaction:
            transaction.put(b"key", b"value")
        with lmdb.open(folder, readonly=True) as database, database.begin() as transaction:
            kept = transaction.get(b"key") == b"value"
    yield kept, f"{lmdb.__version__}; a value {'comes back' if kept else 'does not come back'}"


def _memory() -> Results:
    file = Path("/proc/meminfo")
    if not file.is_file():
        yield True, "this system does not say how much is free"
        return
    lines = (line.split() for line in file.read_text().splitlines())
    sizes = {words[0]: int(words[1]) * 1024 for words in lines if len(words) == 3}
    free, total = sizes["MemAvailable:"], sizes["MemTotal:"]
    hint = "" if free >= _LITTLE_MEMORY else "; training needs more, close other programs"
    yield free >= _LITTLE_MEMORY, f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB free{hint}"


def _shared_memory() -> Results:
    """Containers often have 64 MiB of /dev/shm.

    Data loading workers need a page of it for their locks; batches travel in memory that is mapped without a file.
    NCCL shares buffers there between GPUs (its manual asks for 1 GiB).
    """
    import multiprocessing

    import torch

    folder = Path("/dev/shm")
    if not folder.is_dir():
        yield True, "/dev/shm is not used on this system"
        return
    free = shutil.disk_usage(folder).free
    try:
        multiprocessing.Lock()
    except OSError as error:
        yield False, f"{folder}: {error.strerror}; data loading workers cannot start: empty it, or enlarge it"
        return
    enough = torch.cuda.device_count() < 2 or free >= _GIB
    hint = "" if enough else "; training on several GPUs may fail: start the container with --shm-size=1g"
    yield enough, f"{free / _MIB:,.0f} MiB free in {folder}{hint}"


def _disk() -> Results:
    here = Path.cwd()
    with tempfile.NamedTemporaryFile(dir=here, prefix=".deblurkit-") as file:
        file.write(b"1")
        file.flush()
    free = shutil.disk_usage(here).free
    hint = "" if free >= _LITTLE_DISK else "; that is little for checkpoints and results"
    yield free >= _LITTLE_DISK, f"{free / _GIB:.1f} GiB free in {here}, which can be written{hint}"


def _plugins() -> Results:
    from deblurkit.registry import REGISTRIES, discover, plugin_failures

    discover()
    failures = plugin_failures()
    for failure in failures:
        yield False, f"{failure.source} failed to import: {failure.reason}"
    yield True, ", ".join(f"{len(registry.names())} {kind}" for kind, registry in REGISTRIES.items())


_CHECKS: tuple[tuple[str, Callable[[], Results]], ...] = (
    ("Python", _python),
    ("torch", _torch),
    ("devices", _devices),
    ("OpenCV", _opencv),
    ("video", _codecs),
    ("LMDB", _lmdb),
    ("memory", _memory),
    ("shared memory", _shared_memory),
    ("disk", _disk),
    ("registered", _plugins),
)
