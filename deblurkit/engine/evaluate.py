"""The one evaluator: `deblurkit test` and validation during training both end here."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from deblurkit.console import progress, say
from deblurkit.data.base import EvaluationClip, FrameDataset
from deblurkit.data.store import frame_key
from deblurkit.engine.crops import CroppedNetwork
from deblurkit.engine.launch import Place, gather_objects
from deblurkit.engine.pixels import to_pixels
from deblurkit.engine.restore import Restorer
from deblurkit.errors import CheckpointError, DataError, NotFiniteError
from deblurkit.files import write_json, write_text
from deblurkit.image_io import Pixels, write_image
from deblurkit.metrics import Protocol
from deblurkit.network import Network

if TYPE_CHECKING:
    from deblurkit.options import Options

SCHEMA = "deblurkit-metrics/1"
#: Frames of a clip that a network is shown at once; of longer ones, one by one where it can, with the same result.
AT_ONCE = 32


class EvaluationStoppedError(Exception):
    """An evaluation was asked to stop before its end."""


@dataclass(frozen=True)
class FrameScore:
    """The figures of one frame: of the restored one and, where sizes allow, of the degraded input."""

    sequence: str
    frame: str
    restored: dict[str, float]
    input: dict[str, float]


@dataclass
class Evaluation:
    """The figures of one data set under a protocol.

    Attributes:
        protocol: what was measured. scores: a row per frame, in the data set's order.
        examples: for the first sequences one picture each, `(H, W, 3)` uint8: degraded, restored, sharp.
    """

    protocol: Protocol
    scores: list[FrameScore]
    examples: dict[str, Pixels] = field(default_factory=dict)

    @property
    def average(self) -> dict[str, float]:
        """Mean over all scored frames of the restored frames' figures."""
        return _mean([score.restored for score in self.scores])

    @property
    def average_input(self) -> dict[str, float]:
        """The same of the degraded input, {} where its size differs from the ground truth's."""
        return _mean([score.input for score in self.scores])

    def sequences(self) -> dict[str, dict[str, Any]]:
        """Means by sequence."""
        names = list(dict.fromkeys(score.sequence for score in self.scores))
        rows = {name: [score for score in self.scores if score.sequence == name] for name in names}
        return {
            name: {
                "frames": len(own),
                "average": _mean([score.restored for score in own]),
                "average_input": _mean([score.input for score in own]),
            }
            for name, own in rows.items()
        }

    def record(self) -> dict[str, Any]:
        """What goes into `metrics.json`."""
        by_sequence = self.sequences()
        return {
            "frames": len(self.scores),
            "average": self.average,
            "average_input": self.average_input,
            "average_of_sequences": _mean([entry["average"] for entry in by_sequence.values()]),
            "sequences": by_sequence,
        }

    def summary(self) -> str:
        """One line for people."""
        if not self.average:
            return f"{len(self.scores)} frames restored; there are no sharp ones to compare them with"
        before = self.average_input
        parts = [
            f"{name} {value:.4f}" + (f" (input {before[name]:.4f})" if name in before else "")
            for name, value in self.average.items()
        ]
        return f"{', '.join(parts)} over {len(self.scores)} frames [{self.protocol.name}]"


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    if not rows or not rows[0]:
        return {}
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def evaluate(
    net: Network,
    dataset: FrameDataset,
    protocol: Protocol,
    place: Place,
    description: str,
    save_to: Path | None = None,
    examples: int = 0,
    asked_to_stop: Callable[[], object] = bool,
) -> Evaluation:
    """Restore a data set and score it.

    With several processes each takes its share of the clips; every frame is scored once, and all processes return
    the whole.

    Args:
        net: the network; its training mode is put back afterwards. description: for the progress line.
        save_to: folder for the restored frames, `SEQUENCE/FRAME.png`. examples: how many sequences get a picture.
        asked_to_stop: looked at after each frame.

    Raises:
        DataError: nothing to score, or restored and sharp frames differ in size. NotFiniteError: the network returns
            NaN or infinity; the frame is named.
        EvaluationStoppedError: one of the processes was asked to stop; raised on all of them.
    """
    if protocol.crops:
        net = CroppedNetwork(net, protocol.crops)
    clips = dataset.clips(merge=net.contract.kind in ("image", "window"))
    if not any(clip.scored for clip in clips):
        raise DataError(f"{description}: no frame can be scored: the sequences are shorter than the window")
    metrics = protocol.build()
    own: list[tuple[int, list[FrameScore]]] = []
    pictures: dict[str, Pixels] = {}
    total = sum(len(clip.scored) for clip in clips[place.rank :: place.world_size])
    was_training, stopped = net.training, False
    net.eval()
    try:
        with progress(description, total) if place.is_main else _silent() as advance:
            for index in range(place.rank, len(clips), place.world_size):
                wanted = clips[index].sequence not in pictures and len(pictures) < examples
                scores = _evaluate_clip(
                    net, clips[index], metrics, place, save_to, pictures if wanted else None, advance, asked_to_stop,
                    description,
                )  # fmt: skip
                own.append((index, scores))
    except EvaluationStoppedError:
        stopped = True
    finally:
        net.train(was_training)
    if any(gather_objects(place, stopped)):
        raise EvaluationStoppedError(description)
    gathered = [item for part in gather_objects(place, own) for item in part]
    return Evaluation(
        protocol, [score for _, scores in sorted(gathered, key=lambda i: i[0]) for score in scores], pictures
    )


def _silent() -> Any:
    import contextlib

    return contextlib.nullcontext(lambda n: None)


Metrics = Mapping[str, Callable[[Pixels, Pixels], float]]


def _evaluate_clip(
    net: Network,
    clip: EvaluationClip,
    metrics: Metrics,
    place: Place,
    save_to: Path | None,
    pictures: dict[str, Pixels] | None,
    advance: Callable[[int], None],
    asked_to_stop: Callable[[], object],
    description: str,
) -> list[FrameScore]:
    restorer = Restorer(
        net,
        device=str(place.device),
        time_padding=clip.time_padding or "replicate",
        clip_length=clip.source.length or 1,
        clip_overlap=0,
        exact=net.has_sweeps and (clip.source.length or 0) > AT_ONCE,
    )
    # a clip whose ends are not restored has the context of its first frame: nothing is made up before it
    start = 0 if clip.time_padding or not clip.scored else min(net.contract.past, clip.scored[0])
    inputs = _Remember(clip.source, clip.scored)
    scores: list[FrameScore] = []
    for row, (position, tensor) in enumerate(restorer.restore_tensors(inputs, clip.scored, start)):
        degraded = inputs.take(position)
        gt = clip.read_gt[row]() if clip.read_gt else None
        if degraded.dtype == np.float32:  # noise that is not rounded, such as GaussianNoiseDataset's
            degraded = to_pixels(torch.from_numpy(degraded).permute(2, 0, 1), np.uint8 if gt is None else gt.dtype)
        try:
            restored = to_pixels(tensor, degraded.dtype if gt is None else gt.dtype)
        except NotFiniteError as error:
            raise NotFiniteError(f"{description}: {frame_key(clip.sequence, clip.names[row])}: {error}") from error
        if gt is not None and restored.shape != gt.shape:
            raise DataError(
                f"{clip.sequence}/{clip.names[row]}: restored frame {restored.shape} and ground truth {gt.shape} "
                "differ in size: does the network's scale fit the data?"
            )
        scores.append(
            FrameScore(
                clip.sequence,
                clip.names[row],
                _figures(metrics, restored, gt),
                _figures(metrics, degraded, gt) if gt is not None and degraded.shape == gt.shape else {},
            )
        )
        if save_to is not None:
            write_image(save_to / clip.sequence / f"{clip.names[row]}.png", _as_rgb(restored))
        if pictures is not None and row == len(clip.scored) // 2:
            pictures[clip.sequence] = _side_by_side(degraded, restored, gt)
        advance(1)
        if asked_to_stop():
            raise EvaluationStoppedError(clip.sequence)
    return scores


def _figures(metrics: Metrics, pixels: Pixels, gt: Pixels | None) -> dict[str, float]:
    return {} if gt is None else {name: metric(pixels, gt) for name, metric in metrics.items()}


class _Remember:
    """Passes frames on and keeps those that will be scored, until they are taken."""

    def __init__(self, source: Any, wanted: Sequence[int]) -> None:
        self._source, self._wanted = source, set(wanted)
        self._kept: dict[int, Pixels] = {}
        self.length: int | None = source.length
        self.name: str = source.name

    def __iter__(self) -> Any:
        for position, frame in enumerate(self._source):
            if position in self._wanted:
                self._kept[position] = frame
            yield frame

    def take(self, position: int) -> Pixels:
        return self._kept.pop(position)


def _as_rgb(pixels: Pixels) -> Pixels:
    """Grey as RGB; of two views (a dual-pixel sensor's) the first."""
    return pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3]


def _side_by_side(degraded: Pixels, restored: Pixels, gt: Pixels | None) -> Pixels:
    """Three frames (two without a sharp one) in a row as uint8; a smaller input is enlarged by repeating pixels."""
    degraded, restored, gt = _as_rgb(degraded), _as_rgb(restored), None if gt is None else _as_rgb(gt)
    factor = restored.shape[0] // degraded.shape[0]
    degraded = degraded.repeat(factor, 0).repeat(factor, 1) if factor > 1 else degraded
    row = np.concatenate([degraded, restored] if gt is None else [degraded, restored, gt], axis=1)
    return (row >> 8).astype(np.uint8) if row.dtype == np.uint16 else row


def run_test(options: Options, weights: str | None, place: Place) -> Path:
    """Everything that `deblurkit test` does: load, evaluate every data set, write `results/NAME`.

    Args:
        options: checked for phase "test". weights: the file; None: `path.pretrain_network_g`.

    Returns:
        the folder with `metrics.json`, `metrics.csv` and, with `val.save_img`, `images/`.

    Raises:
        CheckpointError: no weights are named, or they do not fit.
    """
    from deblurkit.build import build_dataset
    from deblurkit.engine.checkpoint import load_network
    from deblurkit.engine.reproducibility import environment

    weights = weights or options.path.pretrain_network_g
    if weights is None:
        raise CheckpointError(
            "no weights to test: give --weights FILE or set path.pretrain_network_g in the options "
            f"(training writes {options.path.experiments_root}/{options.name}/models/net_g_latest.pth)"
        )
    config = options.network_g.mapping() if options.network_g else None
    averaged = options.path.param_key_g == "params_ema"
    io = options.path.convention()
    net = load_network(weights, config, options.path.strict_load_g, averaged, io).to(place.device)
    protocol = options.val.find_protocol()
    folder = Path(options.path.results_root) / options.name
    sets = {**options.sets("test"), **options.sets("val")} if not options.sets("test") else options.sets("test")
    results: dict[str, Evaluation] = {}
    prints: dict[str, Any] = {}
    for name, entry in sets.items():
        dataset = build_dataset(entry.mapping(), options.manual_seed)
        prints[name] = dataset.fingerprint()
        save_to = folder / "images" / name if options.val.save_img else None
        results[name] = evaluate(net, dataset, protocol, place, f"testing {name}", save_to)
    if place.is_main:
        record = {
            "schema": SCHEMA,
            "name": options.name,
            "protocol": protocol.record(),
            "network": net.config,
            "weights": {"file": weights, "sha256": hashlib.sha256(Path(weights).read_bytes()).hexdigest()},
            "environment": environment(place.device),
            "datasets": {name: {**result.record(), "data": prints[name]} for name, result in results.items()},
        }
        write_json(folder / "metrics.json", record)
        write_text(folder / "metrics.csv", _csv(results))
        for name, result in results.items():
            say(f"{name}: {result.summary()}")
    return folder


def _csv(results: Mapping[str, Evaluation]) -> str:
    """A row per frame; the protocol stands in every row, so that no figure can lose it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = next((list(result.average) for result in results.values() if result.average), [])
    writer.writerow(["dataset", "sequence", "frame", "protocol", *metrics, *(f"input_{name}" for name in metrics)])
    for dataset, result in results.items():
        for score in result.scores:
            figures = [scores.get(name, "") for scores in (score.restored, score.input) for name in metrics]
            writer.writerow([dataset, score.sequence, score.frame, result.protocol.name, *figures])
    return text.getvalue()
