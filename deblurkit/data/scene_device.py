"""Drawing scenes on the device, for whole batches: workers decode and plan only.

What travels is the part of the photo that is seen, as pixels, and where it is in each sub-frame. The light is the same
as that which `Scene.expose` draws on a CPU but for rounding (8-bit pixels differ by a level here and there, where the
interpolation of OpenCV is one of 1/32 pixels); the noise is that of the device's generator.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deblurkit.data.base import Sample
from deblurkit.data.camera_path import Floats
from deblurkit.data.light import Development, SensorNoise
from deblurkit.data.scene import BRIGHT, FINER, PlannedLayer, ScenePlan

#: The entry of a sample that holds a scene to be drawn: its frames become `lq` and `gt`.
SCENE = "scene"


@dataclass(frozen=True)
class DeviceScene:
    """All that a sample's frames are made of.

    Attributes:
        plan: what is seen. curve: response of photos and frames. noise: of blurred frames. seed: of the noise.
        slots: frames that are restored. backwards: the clip runs so. channels: order of the colours.
    """

    plan: ScenePlan
    curve: str
    noise: SensorNoise
    seed: int
    slots: tuple[int, ...]
    backwards: bool = False
    channels: tuple[int, ...] = (0, 1, 2)

    def pack(self) -> bytes:
        """As bytes, which collate to a list whatever their length."""
        layers = [layer._replace(places=layer.places.astype(np.float32)) for layer in self.plan.layers]
        packed = DeviceScene(self.plan._replace(layers=layers), *(getattr(self, name) for name in _REST))
        return pickle.dumps(packed, pickle.HIGHEST_PROTOCOL)


_REST = ("curve", "noise", "seed", "slots", "backwards", "channels")


def draw_scenes(batch: Sample, device: torch.device) -> Sample:
    """A batch with its scenes drawn: `lq` and `gt`, uint8 `(B, T, h, w, 3)` on the device, in the place of `SCENE`."""
    drawn = [_draw(pickle.loads(packed), device) for packed in batch[SCENE]]
    rest = {name: value for name, value in batch.items() if name != SCENE}
    return {"lq": torch.stack([lq for lq, _ in drawn]), "gt": torch.stack([gt for _, gt in drawn]), **rest}


@lru_cache(maxsize=8)
def _tables(curve: str, device: torch.device) -> tuple[Tensor, Tensor]:
    to_light, to_pixels = Development(curve).tables()
    return torch.from_numpy(to_light).to(device), torch.from_numpy(to_pixels).to(device)


def _draw(scene: DeviceScene, device: torch.device) -> tuple[Tensor, Tensor]:
    """Blurred frames and sharp ones of a sample, uint8 `(T, h, w, 3)`."""
    plan = scene.plan
    to_light, to_pixels = _tables(scene.curve, device)
    lights = [_light(layer, plan.gain, to_light, device) for layer in plan.layers]
    generator = torch.Generator(device).manual_seed(scene.seed)
    blurred, sharp = [], []
    for frame in range(len(plan.layers[0].places)):
        exposed = _expose(plan, lights, frame, device)
        blurred.append(_developed(_noisy(exposed.mean(0).clamp_(max=1), scene.noise, generator), to_pixels))
        sharp.append(_developed(exposed[len(exposed) // 2], to_pixels))
    if scene.backwards:
        blurred, sharp = blurred[::-1], sharp[::-1]
    order = list(scene.channels)
    lq, gt = torch.stack(blurred), torch.stack([sharp[slot] for slot in scene.slots])
    return lq[:, order].movedim(1, -1).contiguous(), gt[:, order].movedim(1, -1).contiguous()


def _light(layer: PlannedLayer, gain: float, to_light: Tensor, device: torch.device) -> Tensor:
    """A finer layer in light, `(1, 3 or 4, H, W)`; see `ScenePlan.lit`."""
    pixels = torch.from_numpy(layer.pixels).to(device).movedim(-1, 0)[None].float()
    fine = F.interpolate(pixels, scale_factor=FINER, mode="bicubic", align_corners=False)
    light = to_light[fine.round_().clamp_(0, 255).long()]
    if gain:
        bright = ((light.amax(1, keepdim=True) - BRIGHT) / (1 - BRIGHT)).clamp_(0, 1)
        light = light * (1 + gain * bright * bright)
    if layer.coverage is not None:
        coverage = torch.from_numpy(layer.coverage).to(device)[None, None]
        light = torch.cat([light * coverage, coverage], 1)
    return light


def _expose(plan: ScenePlan, lights: list[Tensor], frame: int, device: torch.device) -> Tensor:
    """All sub-frames of a frame, `(S, 3, h, w)` light; see `Scene.expose`."""
    y, x = torch.meshgrid(
        torch.arange(plan.height, dtype=torch.float32, device=device),
        torch.arange(plan.width, dtype=torch.float32, device=device),
        indexing="ij",
    )
    points = torch.stack([x.flatten(), y.flatten(), torch.ones(x.numel(), device=device)])
    background, *things = lights
    picture = _warp(background, plan.layers[0].places[frame], points, plan, "border")
    for light, layer in zip(things, plan.layers[1:], strict=True):
        drawn = _warp(light, layer.places[frame], points, plan, "zeros")
        picture = picture * (1 - drawn[:, 3:]) + drawn[:, :3]
    return picture


def _warp(light: Tensor, places: Floats, points: Tensor, plan: ScenePlan, padding: str) -> Tensor:
    mapped = torch.from_numpy(places).to(points.device, torch.float32) @ points
    size = torch.tensor([light.shape[3], light.shape[2]], dtype=torch.float32, device=points.device)[:, None]
    depth = mapped[:, 2:]
    grid = (mapped[:, :2] / depth * 2 + 1) / size - 1
    grid = torch.where(depth > 0, grid, -10.0)  # what is behind the camera is not seen
    grid = grid.movedim(1, -1).reshape(len(places), plan.height, plan.width, 2)
    return F.grid_sample(
        light.expand(len(places), -1, -1, -1), grid, mode="bilinear", padding_mode=padding, align_corners=False
    )


def _noisy(light: Tensor, noise: SensorNoise, generator: torch.Generator) -> Tensor:
    """See `SensorNoise.add`."""
    if noise.strength == 0:
        return light
    variance = light.clamp(min=0) * (noise.strength * noise.shot) + (noise.strength * noise.read) ** 2
    drawn = torch.randn(light.shape, generator=generator, device=light.device)
    return light + variance.sqrt_() * drawn


def _developed(light: Tensor, to_pixels: Tensor) -> Tensor:
    """See `Development.to_pixels`."""
    places = light.clamp(0, 1).sqrt_().mul_(len(to_pixels) - 1).add_(0.5)
    return to_pixels[places.long()]
