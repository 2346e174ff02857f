"""What the trainers ask of losses: `Loss` for restored frames, `AdversarialLoss` and `DiscriminatorPenalty` for GANs.

All of them compute in float32 also where the networks run under autocast: squares, logarithms, square roots and
spectra do not survive half precision.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

#: What a discriminator returns: logits, or a list of them, one for each of its scales. A scale that is a list itself
#: (features and, last, logits) counts with its last element.
Logits = Tensor | Sequence[Tensor | Sequence[Tensor]]

C = TypeVar("C")


class Loss(nn.Module, ABC):
    """A training loss. Its weight in the sum and the output that it looks at are the trainer's business.

    Attributes:
        needs: names of further tensors that `forward` must be given by keyword, such as "averaged": a model that
            does not have them cannot use the loss.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """The loss of `restored` against `gt`, float RGB in about [0, 1], `(B, ..., C, H, W)`, as a scalar.

        Raises:
            ValueError: the shapes differ.
        """

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """`forward` in full precision."""
        devices = [value.device.type for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        with torch.autocast(devices[0] if devices else "cpu", enabled=False):
            return super().__call__(*map(_widened, args), **{key: _widened(value) for key, value in kwargs.items()})


class AdversarialLoss(nn.Module, ABC):
    """The two losses of a GAN, from what the discriminator says about real (sharp) and fake (restored) frames.

    Logits have any shape, batch first. Where a discriminator looks at several scales it returns a list, and the loss
    is the mean over them. Weights are the trainer's business.

    Attributes:
        needs_real: whether `generator` must be given the logits of the real frames too.
    """

    needs_real: ClassVar[bool] = False

    def generator(self, fake: Logits, real: Logits | None = None) -> Tensor:
        """The generator's loss as a scalar.

        Args:
            fake, real: what the discriminator says of the restored and of the sharp frames.

        Raises:
            ValueError: `real` is needed and missing, or has another number of scales than `fake`.
        """
        if self.needs_real and real is None:
            raise ValueError(f"{type(self).__name__} needs the discriminator's logits of the real frames")
        fakes = _scales(fake)
        reals = [None] * len(fakes) if real is None else _scales(real)
        with torch.autocast(fakes[0].device.type, enabled=False):
            return _mean(self.generator_term(f, r, i) for i, (f, r) in enumerate(_paired(fakes, reals)))

    def discriminator(self, real: Logits, fake: Logits) -> Tensor:
        """The discriminator's loss, the sum of its terms for real and fake frames, as a scalar.

        Args:
            real, fake: what the discriminator says of the sharp and of the (detached) restored frames.

        Raises:
            ValueError: they have different numbers of scales.
        """
        reals, fakes = _scales(real), _scales(fake)
        with torch.autocast(reals[0].device.type, enabled=False):
            return _mean(self.discriminator_term(r, f, i) for i, (r, f) in enumerate(_paired(reals, fakes)))

    @abstractmethod
    def generator_term(self, fake: Tensor, real: Tensor | None, scale: int) -> Tensor:
        """`generator` for the discriminator's scale number `scale`."""

    @abstractmethod
    def discriminator_term(self, real: Tensor, fake: Tensor, scale: int) -> Tensor:
        """`discriminator` for the discriminator's scale number `scale`."""


class DiscriminatorPenalty(nn.Module, ABC):
    """A term on the gradient of the discriminator with respect to the frames that it judges, added to its loss."""

    @abstractmethod
    def penalty(self, discriminator: Callable[[Tensor], Logits], real: Tensor, fake: Tensor) -> Tensor:
        """See `forward`, which calls it in full precision."""

    def forward(self, discriminator: Callable[[Tensor], Logits], real: Tensor, fake: Tensor) -> Tensor:
        """The penalty as a scalar; its own gradient reaches the discriminator's parameters.

        Args:
            discriminator: from frames to logits. real, fake: sharp and restored frames, `(B, ..., C, H, W)`.

        Raises:
            ValueError: the shapes of `real` and `fake` differ.
        """
        check_shapes(real, fake)
        with torch.autocast(real.device.type, enabled=False):
            return self.penalty(discriminator, _widened(real.detach()), _widened(fake.detach()))


def check_shapes(restored: Tensor, gt: Tensor) -> None:
    """Refuse to broadcast: a missing axis would silently compare every frame with every other.

    Raises:
        ValueError: the shapes differ.
    """
    if restored.shape != gt.shape:
        raise ValueError(f"the loss compares equal shapes: restored {tuple(restored.shape)}, gt {tuple(gt.shape)}")


def difference(restored: Tensor, gt: Tensor) -> Tensor:
    """`restored - gt`.

    Raises:
        ValueError: the shapes differ.
    """
    check_shapes(restored, gt)
    return restored - gt


def as_images(frames: Tensor) -> Tensor:
    """`(B, ..., C, H, W)` as `(N, C, H, W)`: every frame of a clip counts as a picture."""
    return frames.flatten(0, -4)


def chosen(argument: str, value: C, choices: Iterable[C]) -> C:
    """`value`, which must be one of `choices`.

    Raises:
        ValueError: it is not; the message names the argument.
    """
    known = list(choices)
    if value not in known:
        raise ValueError(f"{argument}: should be {' or '.join(map(repr, known))}, got {value!r}")
    return value


def positive(argument: str, value: float) -> float:
    """`value`, which must be above zero.

    Raises:
        ValueError: it is not; the message names the argument.
    """
    if not value > 0:
        raise ValueError(f"{argument}: should be above 0, got {value}")
    return value


def gradient_of(logits: Logits, frames: Tensor) -> Tensor:
    """The gradient of the sum of all logits with respect to the frames, itself differentiable."""
    total = torch.stack([one.sum() for one in _scales(logits)]).sum()
    (gradient,) = torch.autograd.grad(total, frames, create_graph=True)
    return gradient


def _widened(value: Any) -> Any:
    """Half precision as float32; everything else as it is."""
    half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if half else value


def _scales(logits: Logits) -> list[Tensor]:
    scales = [logits] if isinstance(logits, Tensor) else logits
    return [_widened(one if isinstance(one, Tensor) else one[-1]) for one in scales]


def _paired(first: Sequence[Any], second: Sequence[Any]) -> list[tuple[Any, Any]]:
    if len(first) != len(second):
        raise ValueError(f"the discriminator judged real and fake frames at {len(first)} and {len(second)} scales")
    return list(zip(first, second, strict=True))


def _mean(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).mean()
