"""Clips of photos: coherent in time, inside the photo, fine enough in time, the same for the same generator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from deblurkit.data.camera_path import CameraPath, SmoothMotion, View, inverse, project, rotations
from deblurkit.data.camera_shake import ShakeOptions
from deblurkit.data.light import Development
from deblurkit.data.photo_clips import ClipOptions, PhotoClips
from deblurkit.data.photo_scene import PhotoScenes, SceneOptions
from deblurkit.data.store import DiskStore
from deblurkit.data.synthesis import Pair
from deblurkit.errors import DataError
from deblurkit.image_io import Pixels, cv2, write_image

STILL = SceneOptions(motion=(0.01, 0.01), shrink=(1.0, 1.0), objects=0, highlights=0.0)


def photo(seed: int, size: tuple[int, int]) -> Pixels:
    module = cv2()
    small = np.random.default_rng(seed).integers(0, 255, (size[0] // 6, size[1] // 6, 3), dtype=np.uint8)
    return np.asarray(module.resize(small, size[::-1], interpolation=module.INTER_CUBIC))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DiskStore:
    """Three photos of 300x240, and one that is too small for frames of 96x128."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(4):
        write_image(folder / f"{i}.png", photo(i, (240, 300) if i < 3 else (100, 120)))
    return DiskStore({str(i): folder / f"{i}.png" for i in range(4)})


def make(
    store: DiskStore, options: ClipOptions, seed: int = 0, frames: int = 3, size: Sequence[int] = (96, 128)
) -> list[Pair]:
    clips = PhotoClips(store, ["0", "1", "2", "3"], options)
    return list(clips.make(np.random.default_rng(seed), "0", size[0], size[1], frames))


def test_smooth_motion_has_the_speed_that_it_says() -> None:
    times = np.arange(0, 4000, 0.25)
    speeds = []
    for seed in range(5):
        values = SmoothMotion(np.random.default_rng(seed), 4)(times)
        speed = np.diff(values, axis=0) / 0.25
        speeds.append((speed**2).mean())
        # smooth: what changes from one quarter of a frame to the next is a small part of it
        assert np.abs(np.diff(speed, axis=0)).max() < 0.5 * np.abs(speed).max()
    assert np.mean(speeds) == pytest.approx(1, rel=0.35)
    motion = SmoothMotion(np.random.default_rng(0), 2)
    before = np.ptp(motion(times), axis=0)
    assert motion.livelier()
    assert (np.ptp(motion(times), axis=0) < before).all()
    while motion.livelier():
        pass


def test_homographies_of_a_plane() -> None:
    turned = rotations(np.random.default_rng(0).standard_normal((5, 3)))
    np.testing.assert_allclose(turned @ turned.swapaxes(1, 2), np.broadcast_to(np.eye(3), (5, 3, 3)), atol=1e-12)
    view = View(90, 160, 200.0, (79.5, 44.5))
    path = CameraPath(np.random.default_rng(1), view, 5.0, rest=2.0)
    np.testing.assert_allclose(path.to_plane(np.array([2.0]))[0], np.eye(3), atol=1e-12)
    assert np.abs(path.to_plane(np.array([0.0])) - np.eye(3)).max() > 0.1
    times = np.linspace(0, 8, 9)
    forth = path.to_plane(times)
    points = project(forth, view.corners())
    again = np.stack(
        [project(inverse(h[None]), np.vstack([p, np.ones(4)]))[0] for h, p in zip(forth, points, strict=True)]
    )
    np.testing.assert_allclose(again, np.broadcast_to(view.corners()[:2], again.shape), atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_nothing_moves_by_a_pixel_between_sub_frames_or_beyond_the_photo(store: DiskStore, seed: int) -> None:
    options = SceneOptions(motion=(10.0, 40.0), duty=(0.5, 1.0))
    scenes = PhotoScenes(store, ["0", "1", "2"], options)
    rng = np.random.default_rng(seed)
    scene = scenes.draw(rng, "0", 96, 128, 6)
    frames, count = scene.layers[0].places.shape[:2]
    assert frames == 6
    assert count % 2 == 1
    assert count >= 3
    corners = View(96, 128, 1.0, (0.0, 0.0)).corners()
    places = scene.layers[0].places
    seen = project(places.reshape(-1, 3, 3), corners)
    height, width = scene.layers[0].light.shape[:2]
    assert seen[:, 0].min() >= 0
    assert seen[:, 0].max() <= width - 1
    assert seen[:, 1].min() >= 0
    assert seen[:, 1].max() <= height - 1
    # steps on the sensor: where a point of the layer is, from one sub-frame to the next
    for layer in scene.layers:
        side = np.array(layer.light.shape[1::-1]) - 1
        points = np.array([[0, side[0], 0, side[0]], [0, 0, side[1], side[1]], [1, 1, 1, 1]], float)
        if layer is scene.layers[0]:  # of the photo the part that is seen
            points = np.vstack([seen.reshape(frames, count, 2, 4)[0, 0], np.ones(4)])
        way = project(inverse(layer.places.reshape(-1, 3, 3)), points).reshape(frames, count, 2, 4)
        steps = np.hypot(*np.moveaxis(np.diff(way, axis=1), 2, 0))
        assert steps.max() < 1.3  # the speed varies within an exposure


def test_a_camera_that_stands_still_gives_the_photo(store: DiskStore) -> None:
    whole = store.read("0").astype(int)
    pairs = make(store, ClipOptions(scene=STILL, noise=(0.0, 0.0)))
    for blur, sharp in pairs:
        np.testing.assert_allclose(blur.astype(int), sharp, atol=1)
    # it is somewhere in the photo, and as sharp as there
    sharp = pairs[0].sharp.astype(np.float32)
    found = cv2().matchTemplate(whole.astype(np.float32), sharp, cv2().TM_SQDIFF)
    _, _, (x, y), _ = cv2().minMaxLoc(found)
    part = whole[y : y + 96, x : x + 128]
    slope = np.abs(np.diff(part, axis=1)).mean()
    assert np.abs(part - sharp).mean() < 0.8 * slope  # at most half a pixel beside it, on both axes
    assert 0.93 < np.abs(np.diff(sharp, axis=1)).mean() / slope < 1.07


def test_blur_is_the_motion_around_the_sharp_frame(store: DiskStore) -> None:
    """Blurred and sharp frames have the same place and light; frames of a clip follow each other."""
    options = ClipOptions(
        scene=SceneOptions(motion=(6.0, 6.0), duty=(1.0, 1.0), objects=0, highlights=0.0), noise=(0, 0)
    )
    module = cv2()
    for seed in range(4):
        pairs = make(store, options, seed, frames=4)
        for pair in pairs:
            blurred, sharp = (
                module.GaussianBlur(module.cvtColor(p, module.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 4)
                for p in pair
            )
            (dx, dy), _ = module.phaseCorrelate(blurred, sharp)
            assert np.hypot(dx, dy) < 1.0
            light = [Development("srgb").to_light(picture).mean() for picture in pair]
            assert light[0] == pytest.approx(light[1], rel=0.04)
        assert (
            np.abs(np.diff(pairs[0].blur.astype(int), axis=1)).mean()
            < np.abs(np.diff(pairs[0].sharp.astype(int), axis=1)).mean()
        )
        # exposures touch, and the next frame goes on where this one ends
        first, second = (module.cvtColor(pair.sharp, module.COLOR_RGB2GRAY).astype(np.float32) for pair in pairs[:2])
        (dx, dy), _ = module.phaseCorrelate(first, second)
        assert np.hypot(dx, dy) < 25


@pytest.mark.parametrize("mode", ["photos", "shake"])
def test_the_same_generator_gives_the_same_clip(store: DiskStore, mode: str) -> None:
    options = ClipOptions(mode, crf=(20, 30))  # type: ignore[arg-type]
    one, again, other = (make(store, options, seed) for seed in (3, 3, 4))
    for a, b, c in zip(one, again, other, strict=True):
        assert a.blur.shape == a.sharp.shape == (96, 128, 3)
        assert a.blur.dtype == a.sharp.dtype == np.uint8
        np.testing.assert_array_equal(a.blur, b.blur)
        np.testing.assert_array_equal(a.sharp, b.sharp)
        assert (a.blur != c.blur).any()


def test_things_before_the_photo(store: DiskStore) -> None:
    options = SceneOptions(motion=(0.01, 0.01), shrink=(1.0, 1.0), objects=6, highlights=0.0)
    counts = set()
    for seed in range(8):
        scene = PhotoScenes(store, ["0", "1", "2"], options).draw(np.random.default_rng(seed), "0", 96, 128, 2)
        counts.add(len(scene.layers) - 1)
        for layer in scene.layers[1:]:
            coverage = layer.light[..., 3]
            assert coverage.min() == 0
            assert coverage.max() == 1
            assert coverage[0].max() == coverage[:, 0].max() == 0  # it ends inside its square
            assert ((coverage > 0) & (coverage < 1)).any()
            assert (layer.light[..., :3] <= coverage[..., None] + 1e-6).all()
    assert len(counts) >= 3


def test_highlights_draw_streaks(tmp_path: Path) -> None:
    dark = np.full((240, 300, 3), 20, np.uint8)
    for y, x in np.ndindex(5, 8):
        dark[90 + 12 * y : 94 + 12 * y, 90 + 12 * x : 94 + 12 * x] = 255
    write_image(tmp_path / "night.png", dark)
    store = DiskStore({"night": tmp_path / "night.png"})

    def brightest(highlights: float) -> float:
        scene = SceneOptions(motion=(12.0, 12.0), shrink=(1.0, 1.0), objects=0, highlights=highlights)
        found = []
        for seed in range(8):
            clips = PhotoClips(store, ["night"], ClipOptions(scene=scene, noise=(0.0, 0.0)))
            found += [pair.blur.mean() for pair in clips.make(np.random.default_rng(seed), "night", 128, 160, 1)]
        return float(np.mean(found))

    assert brightest(20.0) > brightest(0.0) + 1


def test_shaken_frames_show_one_place(store: DiskStore) -> None:
    pairs = make(store, ClipOptions("shake", shake=ShakeOptions((20.0, 40.0)), noise=(0.0, 0.0)), frames=4)
    for pair in pairs[1:]:
        np.testing.assert_array_equal(pair.sharp, pairs[0].sharp)
        assert (pair.blur != pairs[0].blur).any()
    sharpness = [np.abs(np.diff(p.astype(int), axis=1)).mean() for p in (pairs[0].blur, pairs[0].sharp)]
    assert sharpness[0] < 0.8 * sharpness[1]
    # frames as large as photos allow: kernels reach over the border
    assert make(store, ClipOptions("shake"), size=(200, 260))[0].blur.shape == (200, 260, 3)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"motion": (5.0, 2.0)}, "motion .* is a range"),
        ({"duty": (0.5, 1.5)}, "duty"),
        ({"shrink": (0.5, 1.0)}, "shrink"),
        ({"objects": -1}, "objects"),
        ({"highlights": -1.0}, "highlights"),
    ],
)
def test_wrong_numbers(options: dict[str, object], text: str) -> None:
    with pytest.raises(DataError, match=text):
        SceneOptions(**options)  # type: ignore[arg-type]


def test_more_mistakes(store: DiskStore) -> None:
    clips = PhotoClips(store, ["0"], ClipOptions())
    assert clips.fits("0", 96, 128)
    assert not clips.fits("3", 96, 128)
    with pytest.raises(DataError, match=r"3\.png: is 120x100; frames of 128x96 need a photo that is 1.15 times"):
        clips.make(np.random.default_rng(0), "3", 96, 128, 1)
    for bad in ({"mode": "blur"}, {"noise": (2.0, 1.0)}, {"crf": (30, 20)}, {"crf": (0, 60)}):
        with pytest.raises(DataError):
            ClipOptions(**bad)  # type: ignore[arg-type]
