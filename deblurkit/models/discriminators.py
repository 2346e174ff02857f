"""Several discriminators that judge together, such as DeblurGAN-v2's of the whole picture and of patches."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from deblurkit.errors import OptionsError, did_you_mean


class Discriminators(nn.Module):
    """Frames `(N, C, H, W)` to a list with what each discriminator says; a loss is the mean over the list.

    A discriminator may see a random square of the frames. `draw` chooses its place, which then holds for all frames,
    real and restored, until it is called again; it uses torch's own generator, which a training saves.

    Args:
        critics: by name. crops: side of the square that some of them see, in pixels.

    Raises:
        OptionsError: `crops` names a discriminator that is not there.
    """

    def __init__(self, critics: Mapping[str, nn.Module], crops: Mapping[str, int]) -> None:
        super().__init__()
        for name in crops:
            if name not in critics:
                hint = did_you_mean(name, critics) or f"; there are {', '.join(critics)}"
                raise OptionsError(f"train.gan.crops.{name}: no discriminator of that name in network_d{hint}")
        self.critics = nn.ModuleDict(critics)
        self._crops = dict(crops)
        self._places = dict.fromkeys(crops, (0.0, 0.0))

    def draw(self) -> None:
        """Choose new places for the squares."""
        for name, place in zip(self._crops, torch.rand(len(self._crops), 2).tolist(), strict=True):
            self._places[name] = (place[0], place[1])

    def forward(self, frames: Tensor) -> list[Tensor]:
        """See the class; a discriminator that returns a list itself counts with each of its items."""
        found: list[Tensor] = []
        for name, critic in self.critics.items():
            judged = critic(self._view(name, frames))
            found += [judged] if isinstance(judged, Tensor) else judged
        return found

    def _view(self, name: str, frames: Tensor) -> Tensor:
        if name not in self._crops:
            return frames
        height, width = (min(self._crops[name], side) for side in frames.shape[-2:])
        spare = frames.shape[-2] - height, frames.shape[-1] - width
        top, left = (int(share * (free + 1)) for share, free in zip(self._places[name], spare, strict=True))
        return frames[..., top : top + height, left : left + width]
