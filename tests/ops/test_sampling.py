"""Grids that read at pixel coordinates, and cutting work into pieces."""

from __future__ import annotations

import torch

from deblurkit.ops.sampling import chunks, gradient_grid_of, grid_of, sample


def test_grids_lead_back_to_their_pixels():
    for size in (*range(1, 300), 720, 1280, 1919, 4095):
        x = torch.arange(-1, size + 1, dtype=torch.float32)
        back = ((grid_of(x, x, size, size)[..., 0] + 1) * size - 1) / 2
        assert (back - x).abs().max() < 1.2e-7 * (size + 1)
        back = ((gradient_grid_of(x, x, size, size)[..., 0] + 1) * size - 1) / 2
        assert torch.equal(back[1:].floor(), x[1:])
        assert back[0] < -1


def test_sample_reads_pixels():
    image = torch.rand(1, 2, 5, 7)
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    torch.testing.assert_close(sample(image, grid_of(x, y, 7, 5)[None]), image)


def test_chunks_cover_everything_once_within_the_budget():
    for budget in (1, 7, 40, 100, 250, 1000, 5000):
        for split in (False, True):
            seen = torch.zeros(3, 4, 11, dtype=torch.int)
            for n, g, p in chunks(3, 4, 11, 8, budget, split_groups=split):
                seen[n, g, p] += 1
                items = seen[n, g, p].numel()
                assert items * 8 <= budget or items == 1 or (not split and items == 4)
            assert (seen == 1).all()
