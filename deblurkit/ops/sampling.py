"""What the sampling operators share: bilinear reads at pixel coordinates, and cutting work to a memory budget.

`torch.grid_sample` reads an image at a grid; its `align_corners=False` form is used throughout because it knows the
position of pixels in images that are one pixel wide, too. `sample` is for use inside of `torch.autograd.Function`s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

GridOf = Callable[[Tensor, Tensor, int, int], Tensor]

ZEROS, BORDER = 0, 1  # padding modes of aten::grid_sampler_2d
_BILINEAR = 0


def grid_of(x: Tensor, y: Tensor, width: int, height: int) -> Tensor:
    """Pixel coordinates `(...)` to a grid `(..., 2)` for `sample`."""
    # 2x + 1 - width keeps the digits that (2x + 1) / width - 1 loses near the middle
    return torch.stack([(x * 2).add_(1 - width).div_(width), (y * 2).add_(1 - height).div_(height)], dim=-1)


def gradient_grid_of(x: Tensor, y: Tensor, width: int, height: int) -> Tensor:
    """`grid_of` for the backward pass: on which side of a pixel a point lies survives the rounding of the grid.

    The slope of a bilinear read jumps at pixels, and zero offsets lie exactly there. The definition takes the slope
    towards larger coordinates, and none where a point is a whole pixel outside; so points are moved right by the
    rounding error of a grid, and out of the image if they touch it from outside.
    """
    error = torch.finfo(x.dtype).eps
    x, y = (one.masked_fill(one <= -1, -2).add_(2 * error * size) for one, size in ((x, width), (y, height)))
    return grid_of(x, y, width, height)


def sample(image: Tensor, grid: Tensor, padding: int = ZEROS) -> Tensor:
    """Read `image (B, C, H, W)` at `grid (B, h, w, 2)`: `(B, C, h, w)`."""
    return torch.ops.aten.grid_sampler_2d(image, grid, _BILINEAR, padding, False)


def sample_backward(
    grad: Tensor, image: Tensor, grid: Tensor, padding: int = ZEROS, *, of_image: bool = True
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of `sample`: of the image `(B, C, H, W)`, and of the pixel coordinates x and y `(B, h, w)` each."""
    grad_image, grad_grid = torch.ops.aten.grid_sampler_2d_backward(
        grad, image, grid, _BILINEAR, padding, False, [of_image, True]
    )
    height, width = image.shape[-2:]
    return grad_image if of_image else None, grad_grid[..., 0] * (2 / width), grad_grid[..., 1] * (2 / height)


def working_dtype(*tensors: Tensor | None) -> torch.dtype:
    """The common dtype of the tensors, at least float32: half precision is too coarse for coordinates and sums."""
    dtype = torch.float32
    for tensor in tensors:
        if tensor is not None:
            dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def chunks(
    samples: int, groups: int, positions: int, item_bytes: int, budget: int, *, split_groups: bool
) -> Iterator[tuple[slice, slice, slice]]:
    """Cut `(samples, groups, positions)` items into blocks of at most `budget` bytes (or of one item).

    Whole samples are kept together where they fit; else blocks are of one sample, and of one group if those may be
    split; else of some positions.
    """
    samples_each, groups_each, positions_each = 1, groups, positions
    sample_bytes = max(1, groups * positions * item_bytes)
    if sample_bytes <= budget:
        samples_each = budget // sample_bytes
    else:
        if split_groups:
            groups_each = 1
        positions_each = max(1, min(positions, budget // (groups_each * item_bytes)))
        blocks = -(-positions // positions_each)
        positions_each = -(-positions // blocks)
    for n in range(0, samples, samples_each):
        for g in range(0, groups, groups_each):
            for p in range(0, positions, positions_each):
                yield (
                    slice(n, min(n + samples_each, samples)),
                    slice(g, min(g + groups_each, groups)),
                    slice(p, min(p + positions_each, positions)),
                )
