"""Surfaces for the demo scene, drawn with numpy and OpenCV: bricks, tiles, planks, wallpaper, posters, toys.

All pictures are `(H, W, 3)` float32 RGB in [0, 1]; `rng` decides everything that is random.
"""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Colour = tuple[float, float, float]

HEADLINES = (
    "NIGHT TRAIN", "FRESH BREAD", "OPEN LATE", "SUMMER FAIR", "SLOW COFFEE", "MOVING DAY", "GRAND OPENING",
    "BOOK MARKET", "LOST & FOUND", "RIVERSIDE", "JAZZ FRIDAY", "CITY CIRCUS", "KITE SCHOOL", "WET PAINT",
    "HOLD STILL", "MIND THE GAP",
)  # fmt: skip
SMALL_PRINT = (
    "Doors open at seven and close when the last song is over.",
    "Bring your own cup, we bring the coffee and the stories.",
    "Every frame is sharp until somebody moves the camera.",
    "Platform 4, change at Harbour Street for the night line.",
    "Rye, spelt and sourdough, baked before you are awake.",
    "Children under twelve ride free, kites stay on the roof.",
    "Please keep this poster steady while you are reading it.",
    "Tickets at the counter, by the clock or from the captain.",
)


def colour(hue: float, saturation: float, value: float) -> Colour:
    """RGB in [0, 1] of a hue (wraps around at 1), saturation and value."""
    return colorsys.hsv_to_rgb(hue % 1.0, saturation, value)


def plain(height: int, width: int, tone: Colour) -> Picture:
    """One colour all over."""
    return np.full((height, width, 3), tone, np.float32)


def noise(rng: np.random.Generator, height: int, width: int, cell: float, stretch: float = 1.0) -> Picture:
    """Smooth noise `(H, W, 1)` of about -1 to 1, in octaves from `cell` pixels down; `stretch` lengthens it along x."""
    total = np.zeros((height, width), np.float32)
    weight = 1.0
    while cell >= 1:
        rows, columns = int(height / cell) + 3, int(width / (cell * stretch)) + 3
        grid = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
        size = (round(columns * cell * stretch), round(rows * cell))
        total += weight * cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)[:height, :width]
        cell, weight = cell / 2, weight * 0.6
    return total[..., None]


def bricks(rng: np.random.Generator, height: int, width: int, brick: float) -> Picture:
    """A brick wall; `brick` is the height of a course in pixels."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    row = np.floor(y / brick)
    shifted = x / (2.4 * brick) + 0.5 * (row % 2)
    column = np.floor(shifted)
    tones = rng.uniform(0.72, 1.1, (int(row.max()) + 1, int(column.max()) + 1)).astype(np.float32)
    warm = rng.uniform(-0.05, 0.05, tones.shape).astype(np.float32)
    at = row.astype(int), column.astype(int)
    # distance to the nearest joint, in pixels, made uneven so that no edge is perfectly straight
    joint = np.minimum(y % brick, brick - y % brick)
    side = (shifted - column) * 2.4 * brick
    joint = np.minimum(joint, np.minimum(side, 2.4 * brick - side))
    joint += 0.06 * brick * noise(rng, height, width, brick / 2)[..., 0]
    face = np.clip((joint - 0.07 * brick) / (0.05 * brick), 0, 1)[..., None]
    base = np.array(colour(rng.uniform(0.01, 0.07), rng.uniform(0.35, 0.6), rng.uniform(0.6, 0.75)), np.float32)
    grain = 1 + 0.13 * noise(rng, height, width, brick / 3) + 0.05 * rng.standard_normal((height, width, 1), np.float32)
    clay = base * tones[at][..., None] * grain
    clay[..., 0] += warm[at]
    mortar = np.array((0.74, 0.71, 0.66), np.float32) * (1 + 0.1 * noise(rng, height, width, brick / 4))
    return np.clip(face * clay + (1 - face) * mortar, 0, 1)


def tiles(rng: np.random.Generator, height: int, width: int, tile: float) -> Picture:
    """Stone tiles in two tones with veins and joints; `tile` is their side in pixels."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    row, column = np.floor(y / tile), np.floor(x / tile)
    hue = rng.uniform()
    tones = np.array([colour(hue, 0.08, 0.86), colour(hue + rng.uniform(-0.1, 0.1), 0.25, 0.36)], np.float32)
    which = ((row + column) % 2).astype(int)
    shade = rng.uniform(0.85, 1.1, (int(row.max()) + 1, int(column.max()) + 1)).astype(np.float32)
    veins = 0.35 * np.exp(-np.abs(noise(rng, height, width, tile)) * 14)
    speckle = 0.05 * rng.standard_normal((height, width, 1), np.float32)
    grain = 1 + 0.1 * noise(rng, height, width, tile / 4) + speckle
    stone = tones[which] * shade[row.astype(int), column.astype(int)][..., None] * grain
    stone += veins * (tones[::-1][which] - stone)
    joint = np.minimum(np.minimum(y % tile, tile - y % tile), np.minimum(x % tile, tile - x % tile))
    return np.clip(stone * np.clip(0.35 + joint / (0.05 * tile), 0.35, 1)[..., None], 0, 1)


def planks(rng: np.random.Generator, height: int, width: int, plank: float) -> Picture:
    """Wooden boards along x; `plank` is their width in pixels."""
    y = np.arange(height, dtype=np.float32)[:, None]
    row = np.floor(y / plank).astype(int)
    tone = rng.uniform(0.75, 1.15, row.max() + 1).astype(np.float32)[row]
    grain = noise(rng, height, width, plank / 2, stretch=9)[..., 0]
    rings = np.sin(grain * 9 + y / plank * 5) * 0.09 + grain * 0.1
    gap = np.clip(np.minimum(y % plank, plank - y % plank) / (0.05 * plank), 0.3, 1)
    base = np.array(colour(rng.uniform(0.06, 0.1), rng.uniform(0.4, 0.6), rng.uniform(0.55, 0.75)), np.float32)
    wood = base * ((tone + rings) * gap)[..., None]
    return np.clip(wood + 0.02 * rng.standard_normal((height, width, 1), np.float32), 0, 1)


def wallpaper(rng: np.random.Generator, height: int, width: int, period: float) -> Picture:
    """Stripes with rows of small diamonds on them; `period` is the width of a pair of stripes in pixels."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    hue = rng.uniform()
    light, dark = colour(hue, 0.12, 0.9), colour(hue, 0.35, 0.68)
    accent = colour(hue + 0.5, 0.45, 0.55)
    u, v = x / period % 1, y / period % 1
    paper = np.where((u < 0.5)[..., None], np.array(light, np.float32), np.array(dark, np.float32))
    thin = np.minimum(np.abs(u - 0.06), np.abs(u - 0.44)) < 0.015
    diamond = np.abs(u - 0.25) + np.abs(v - 0.5) * 0.6 < 0.09
    dot = (u - 0.75) ** 2 + (v - 0.5) ** 2 < 0.003
    paper[thin | diamond | dot] = accent
    return np.clip(paper * (1 + 0.03 * noise(rng, height, width, period / 3)), 0, 1)


def _bytes(tone: Colour) -> tuple[int, int, int]:
    """OpenCV smooths edges on 8-bit pictures only, so what is drawn with it is drawn on those."""
    return round(tone[0] * 255), round(tone[1] * 255), round(tone[2] * 255)


def _text(
    picture: Bytes, text: str, middle: tuple[float, float], width: float, height: float, ink: Colour, bold: bool
) -> None:
    """Print one line, as large as the box `width` x `height` around `middle` (x, y) allows."""
    font = cv2.FONT_HERSHEY_TRIPLEX if bold else cv2.FONT_HERSHEY_COMPLEX
    weight = 2 if bold else 1
    (w, h), _ = cv2.getTextSize(text, font, 1.0, weight)
    scale = min(width / w, height / h)
    weight = max(1, round(weight * scale * 1.5))
    start = (round(middle[0] - w * scale / 2), round(middle[1] + h * scale / 2))
    cv2.putText(picture, text, start, font, scale, _bytes(ink), weight, cv2.LINE_AA)


def poster(rng: np.random.Generator, height: int, width: int, headline: str) -> Picture:
    """A printed bill: headline, a picture made of simple shapes, lines of small print."""
    hue = rng.uniform()
    ink, accent = colour(hue + 0.55, 0.6, 0.22), colour(hue + rng.uniform(0.3, 0.6), 0.7, 0.8)
    picture = np.full((height, width, 3), _bytes(colour(hue, 0.1, 0.95)), np.uint8)
    wide = width > 1.8 * height
    m = round(0.04 * min(height, width))
    cv2.rectangle(picture, (m, m), (width - m, height - m), _bytes(ink), max(1, m // 2), cv2.LINE_AA)
    lines = [str(line) for line in rng.permutation(SMALL_PRINT)[: 2 if wide else 4]]
    if wide:
        _text(picture, headline, (width / 2, 0.38 * height), 0.86 * width, 0.4 * height, ink, bold=True)
        first, step = 0.72, 0.13
    else:
        _text(picture, headline, (width / 2, 0.15 * height), 0.84 * width, 0.12 * height, ink, bold=True)
        rows = slice(round(0.27 * height), round(0.68 * height))
        columns = slice(round(0.09 * width), round(0.91 * width))
        _art(picture[rows, columns], rng, hue, accent)
        first, step = 0.74, 0.065
    for i, line in enumerate(lines):
        middle = (width / 2, (first + i * step) * height)
        _text(picture, line, middle, 0.84 * width, 0.6 * step * height, ink, bold=False)
    return np.clip(picture / np.float32(255) * (1 + 0.02 * noise(rng, height, width, width / 8)), 0, 1)


def _art(area: Bytes, rng: np.random.Generator, hue: float, accent: Colour) -> None:
    """Fill part of a poster: sky, a sun with rays, hills with hatching."""
    height, width = area.shape[:2]
    area[:] = np.linspace(0.75, 0.98, height)[:, None, None] * _bytes(colour(hue + 0.08, 0.4, 1))
    sun = (round(width * rng.uniform(0.25, 0.75)), round(height * 0.42))
    for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False):
        reach = 0.42 * height * np.array((np.cos(angle), np.sin(angle)))
        end = (round(sun[0] + float(reach[0])), round(sun[1] + float(reach[1])))
        cv2.line(area, sun, end, _bytes(accent), max(1, height // 50), cv2.LINE_AA)
    cv2.circle(area, sun, round(0.24 * height), _bytes(accent), -1, cv2.LINE_AA)
    x = np.arange(width)
    for k in range(3):
        crest = height * (0.62 + 0.13 * k) + 0.09 * height * np.sin(x / width * rng.uniform(4, 9) + rng.uniform(0, 6))
        outline = np.concatenate((np.stack((x, crest), 1), [(width, height), (0, height)])).astype(np.int32)
        cv2.fillPoly(area, [outline], _bytes(colour(hue + 0.5 + 0.06 * k, 0.5, 0.75 - 0.2 * k)), cv2.LINE_AA)
        furrow = _bytes(colour(hue + 0.5 + 0.06 * k, 0.5, 0.65 - 0.2 * k))
        for i in range(0, width, max(3, width // 30)):
            cv2.line(area, (i, round(crest[i]) + 3), (i, height), furrow, 1, cv2.LINE_AA)


def block_face(rng: np.random.Generator, side: int, letter: str, hue: float) -> Picture:
    """A side of a wooden toy block: frame and letter."""
    wood = planks(rng, side, side, side / 3) * 0.35 + np.array(colour(0.1, 0.3, 0.58), np.float32)
    picture = (np.clip(wood, 0, 1) * 255).astype(np.uint8)
    paint = colour(hue, 0.75, 0.75)
    edge = side // 11
    cv2.rectangle(picture, (edge, edge), (side - edge, side - edge), _bytes(paint), side // 14, cv2.LINE_AA)
    _text(picture, letter, (side / 2, side / 2), 0.62 * side, 0.55 * side, paint, bold=True)
    cv2.rectangle(picture, (0, 0), (side - 1, side - 1), _bytes(colour(0.1, 0.4, 0.4)), max(1, side // 40), cv2.LINE_AA)
    return picture / np.float32(255)


def pinwheel(rng: np.random.Generator, side: int) -> tuple[Picture, NDArray[np.float32]]:
    """Bent coloured blades around a hub, and their cover `(H, W)` in [0, 1]."""
    y, x = (np.mgrid[: 2 * side, : 2 * side].astype(np.float32) + 0.5) / side - 1
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    turn = (angle + 1.6 * radius) / (2 * np.pi) * 8
    hue = rng.uniform()
    tones = ((0, 0.8, 0.9), (0.33, 0.15, 0.97), (0.6, 0.7, 0.7), (0, 0.1, 1))
    blades = np.array([colour(hue + h, s, v) for h, s, v in tones], np.float32)
    picture = blades[np.floor(turn).astype(int) % 4]
    picture[radius < 0.12] = colour(hue + 0.5, 0.6, 0.3)
    picture[(np.abs(radius - 0.78) < 0.03) | (np.abs(radius - 0.9) < 0.015)] = colour(hue + 0.5, 0.6, 0.3)
    smooth = cv2.resize(np.dstack((picture, radius < 0.97)), (side, side), interpolation=cv2.INTER_AREA)
    return smooth[..., :3], smooth[..., 3]
