"""What the demo came to: a table of PSNR and SSIM, and a picture of blurred, restored and sharp frames side by side.

    python scripts/demo_report.py DEMO

reads DEMO/results and DEMO/data and writes DEMO/side_by_side.png. Exit code 1 when the restored frames do not win by
0.3 dB.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurkit.image_io import Pixels, read_image, write_image

NEEDED = 0.3  # dB
DETAIL = (60, 106)  # height and width of the part that is shown enlarged
ENLARGED = 6
BAND = 34  # height of a caption


def main() -> int:
    """Print the table, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    demo = parser.parse_args().demo
    results = demo / "results" / "demo_dbn"
    scores = json.loads((results / "metrics.json").read_text(encoding="utf-8"))["datasets"]["val"]
    before, after = scores["average_input"], scores["average"]
    gain = after["psnr"] - before["psnr"]
    print(f"{scores['frames']} frames of a room that the network has not seen in training:\n")
    print(f"{'':10}{'PSNR (dB)':>10}{'SSIM':>9}")
    for name, row in (("blurred", before), ("restored", after)):
        print(f"{name:10}{row['psnr']:10.2f}{row['ssim']:9.4f}")
    print(f"{'gain':10}{gain:+10.2f}{after['ssim'] - before['ssim']:+9.4f}\n")

    with (results / "metrics.csv").open(encoding="utf-8", newline="") as file:
        shots = [Shot(demo, results, row, before["psnr"]) for row in csv.DictReader(file)]
    picture = demo / "side_by_side.png"
    write_image(picture, max(shots, key=lambda shot: shot.gain).side_by_side())
    print(f"Picture: {picture} (blurred | restored | sharp)")
    if gain < NEEDED:
        print(f"error: restored frames should win by at least {NEEDED} dB, they win by {gain:.2f}", file=sys.stderr)
        return 1
    return 0


class Shot:
    """A frame blurred, restored and sharp, and the part of it that shows the difference best.

    Args:
        row: of metrics.csv. usual: PSNR of blurred frames; a part that is less blurred is not worth showing.

    Attributes:
        gain: by how many dB that part became better. y, x: its upper left corner.
    """

    def __init__(self, demo: Path, results: Path, row: dict[str, str], usual: float) -> None:
        name = f"{row['frame']}.png"
        pair = demo / "data" / "test" / row["sequence"]
        files = (pair / "blur" / name, results / "images" / "val" / row["sequence"] / name, pair / "sharp" / name)
        self.images = [read_image(file) for file in files]
        self.captions = (
            f"blurred  {float(row['input_psnr']):.2f} dB",
            f"restored  {float(row['psnr']):.2f} dB",
            "sharp",
        )
        before, after = (local_psnr(image, self.images[2]) for image in self.images[:2])
        gains = np.where(before < usual, after - before, 0)
        self.gain = float(gains.max())
        self.y, self.x = (int(v) for v in np.unravel_index(np.argmax(gains), gains.shape))

    def side_by_side(self) -> Pixels:
        """Three columns: the whole frame above, its part enlarged below."""
        columns = [column(image, self.y, self.x, text) for image, text in zip(self.images, self.captions, strict=True)]
        gap = np.full((columns[0].shape[0], 8, 3), 255, np.uint8)
        return np.hstack([columns[0], gap, columns[1], gap, columns[2]])


def local_psnr(image: Pixels, sharp: Pixels) -> NDArray[np.float64]:
    """PSNR of every part of the size DETAIL, by its upper left corner."""
    error = cv2.boxFilter(np.square(image.astype(float) - sharp).mean(2), -1, DETAIL[::-1], anchor=(0, 0))
    whole = error[: sharp.shape[0] - DETAIL[0] + 1, : sharp.shape[1] - DETAIL[1] + 1]
    return 10 * np.log10(255**2 / np.maximum(whole, 1e-9))


def column(image: Pixels, y: int, x: int, caption: str) -> Pixels:
    """Caption, whole frame with a box around the detail, detail."""
    height, width = DETAIL
    part = image[y : y + height, x : x + width]
    part = cv2.resize(part, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_CUBIC)
    zoom = part.shape[1] / image.shape[1]
    whole = cv2.resize(image, (part.shape[1], round(image.shape[0] * zoom)), interpolation=cv2.INTER_CUBIC)
    box = [round(v * zoom) for v in (x, y, x + width, y + height)]
    cv2.rectangle(whole, box[:2], box[2:], (255, 230, 0), 2)
    band = np.full((BAND, part.shape[1], 3), 255, np.uint8)
    cv2.putText(band, caption, (8, BAND - 11), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (20, 20, 20), 1, cv2.LINE_AA)
    return np.vstack([band, whole, np.full((8, part.shape[1], 3), 255, np.uint8), part])


if __name__ == "__main__":
    sys.exit(main())
