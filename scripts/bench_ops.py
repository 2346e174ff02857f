"""Time and memory of the operators in deblurkit/ops, by backend, beside plain forms: a table in Markdown.

    python scripts/bench_ops.py                       # all cases, this machine's threads
    python scripts/bench_ops.py --only deform --repeats 9
    python scripts/bench_ops.py --device cuda

"naive" is the obvious form without any cutting: the whole unfolded input, kept by autograd (deform_conv2d,
deform_attention, filter_adaptive_conv, misc_kernel); a product per displacement (correlation); an index for every value
(pixel_volume).
Memory is the peak above the inputs, as counted by torch's profiler on a CPU and its allocator on a GPU.
Ratios are to the naive form; they are of one run, in which the forms take turns.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from deblurkit.ops import backend
from deblurkit.ops.correlation import correlation
from deblurkit.ops.deform_attention import deform_attention
from deblurkit.ops.deform_conv import deform_conv2d
from deblurkit.ops.fac import filter_adaptive_conv
from deblurkit.ops.flow_warp import flow_warp, masked_warp_pwc
from deblurkit.ops.misc_kernel import misc_kernel
from deblurkit.ops.pixel_volume import pixel_volume
from deblurkit.ops.sampling import grid_of

Form = Callable[..., Tensor]


def unfold(x: Tensor, offset: Tensor, kernel: int, padding_mode: str = "zeros") -> Tensor:
    """All samples that offsets `(N, D*2*K, H, W)` lead to: `(N, C, K, H, W)`."""
    height, width = offset.shape[2:]
    groups = offset.shape[1] // (2 * kernel**2)
    offset = offset.unflatten(1, (groups, kernel**2, 2)).flatten(0, 1)
    taps = torch.arange(kernel, device=x.device) - kernel // 2
    y = offset[:, :, 0] + (
        torch.arange(height, device=x.device)[:, None] + taps.repeat_interleave(kernel)[:, None, None]
    )
    across = offset[:, :, 1] + (torch.arange(width, device=x.device) + taps.repeat(kernel)[:, None, None])
    grid = grid_of(across, y, x.shape[-1], x.shape[-2]).flatten(1, 2)
    images = x.unflatten(1, (groups, -1)).flatten(0, 1)
    samples = F.grid_sample(images, grid, padding_mode=padding_mode, align_corners=False)
    return samples.view(len(x), -1, kernel**2, height, width)


def naive_deform_conv(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    columns = unfold(x, offset, 3)
    columns = columns * mask.unflatten(1, (-1, 9)).repeat_interleave(x.shape[1] * 9 // mask.shape[1], 1)
    return (weight.flatten(1) @ columns.flatten(1, 2).flatten(2)).unflatten(2, x.shape[2:]) + bias[:, None, None]


def naive_attention(query: Tensor, keys_values: Tensor, offset: Tensor, heads: int) -> Tensor:
    rows, clip = len(query), keys_values.shape[1]
    order = torch.tensor([[(n + b) % clip for n in range(clip)] for b in range(rows)])
    images = torch.stack([keys_values[b // clip, order[b]] for b in range(rows)]).flatten(0, 1)
    samples = unfold(images, offset.unflatten(1, (clip, -1)).flatten(0, 1), 3)
    keys, values = samples.unflatten(0, (rows, clip)).unflatten(2, (2, heads, -1)).unbind(2)
    queries = query.unflatten(2, (heads, -1)).unsqueeze(4) * (keys.shape[3] ** -0.5)
    weights = (queries * keys).sum(3).movedim(1, 2).flatten(2, 3).softmax(2).unflatten(2, (clip, 9)).movedim(2, 1)
    return (weights.unsqueeze(3) * values).sum((1, 4)).flatten(1, 2).unsqueeze(1)


def naive_correlation(first: Tensor, second: Tensor, radius: int = 4) -> Tensor:
    height, width = first.shape[-2:]
    padded, side = F.pad(second, [radius] * 4), range(2 * radius + 1)
    volume = [(first * padded[..., i : i + height, j : j + width]).mean(1) for i in side for j in side]
    return torch.stack(volume, dim=1)


def naive_filter(features: Tensor, kernels: Tensor) -> Tensor:
    unfolded = F.unfold(F.pad(features, [2] * 4, mode="replicate"), 5).view_as(kernels)
    return (unfolded * kernels).unflatten(1, (-1, 25)).sum(2)


def naive_misc(padded: Tensor, vertical: Tensor, horizontal: Tensor, *rest: Tensor) -> Tensor:
    alpha, beta, weight = rest
    size = vertical.shape[1]
    height, width = padded.shape[-2:]
    taps = torch.arange(size, device=padded.device) - (size - 3) // 2
    y = alpha + torch.arange(alpha.shape[2], device=alpha.device)[:, None] + taps.repeat_interleave(size)[:, None, None]
    x = beta + torch.arange(alpha.shape[3], device=alpha.device) + taps.repeat(size)[:, None, None]
    grid = grid_of(x, y, width, height).flatten(1, 2)
    samples = F.grid_sample(padded, grid, padding_mode="border", align_corners=False).unflatten(2, (size**2, -1))
    doubling = (1.0 + ((y < 0) | (y >= height - 1))) * (1.0 + ((x < 0) | (x >= width - 1)))
    kernel = (vertical.unsqueeze(2) * horizontal.unsqueeze(1)).flatten(1, 2) * weight * doubling
    return (samples * kernel.unsqueeze(1)).sum(2)


def naive_volume(previous: Tensor, flow: Tensor, current: Tensor) -> Tensor:
    old, new = (
        (image * image.new_tensor([0.2989, 0.5870, 0.1140]).view(3, 1, 1)).sum(1) for image in (previous, current)
    )
    _, height, width = old.shape
    grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")).to(flow.device)
    moves = (
        torch.stack(torch.meshgrid(torch.arange(-2, 3), torch.arange(-2, 3), indexing="ij")).to(flow.device).flatten(1)
    )
    dx, dy = moves[0, :, None, None], moves[1, :, None, None]
    qy, qx = grid[0] - dy, grid[1] - dx
    outside = (qy < 0) | (qy >= height) | (qx < 0) | (qx >= width)
    index = qy.clamp(0, height - 1) * width + qx.clamp(0, width - 1)
    px, py = ((q + flow[:, i].flatten(1)[:, index]).trunc().long() + d for i, q, d in ((0, qx, dx), (1, qy, dy)))
    usable = (px >= 1) & (px <= width - 2) & (py >= 1) & (py <= height - 2)
    place = py.clamp(0, height - 1) * width + px.clamp(0, width - 1)
    found = old.flatten(1).gather(1, place.flatten(1)).view_as(place)
    return torch.where(usable, found, new.unsqueeze(1)).masked_fill(outside, 0)


def masked_by_plane(x: Tensor, flow: Tensor) -> Tensor:
    return flow_warp(x, flow) * (flow_warp(torch.ones_like(x), flow) > 0.999)


def of_backend(name: backend.Backend, form: Form) -> Form:
    def run(*arguments: Tensor) -> Tensor:
        with backend.use_backend(name):
            return form(*arguments)

    return run


def by_backend(operator: str, form: Form, device: torch.device) -> list[tuple[str, Form]]:
    return [(name, of_backend(name, form)) for name in backend.available(operator, device.type)]


def cases(device: torch.device) -> list[tuple[str, list[tuple[str, Form]], list[Tensor]]]:
    """Name, forms (the naive one first) and inputs."""

    def make(*shapes: Sequence[int], scale: Sequence[float] = ()) -> list[Tensor]:
        scales = [*scale, *[1.0] * (len(shapes) - len(scale))]
        return [torch.randn(*shape, device=device) * s for shape, s in zip(shapes, scales, strict=True)]

    found = []

    def deform(*arguments: Tensor) -> Tensor:
        # torchvision's is taken where its unfolded input fits the budget: here always, to compare the backends
        forced = backend.choose("deform_conv2d", device.type) == "torchvision"
        return deform_conv2d(*arguments, padding=1, budget=2**40 if forced else None)

    for title, batch, cin, cout, groups, height, width in (
        ("BasicVSR++ at 1/4 of 720p", 1, 128, 64, 16, 180, 320),
        ("BasicVSR++ training crop", 2, 128, 64, 16, 64, 64),
        ("EDVR-M level 1 of 720p", 1, 64, 64, 8, 180, 320),
        ("AirNet, 1 deformable group", 1, 64, 64, 1, 128, 128),
    ):
        size = (height, width)
        tensors = make(
            (batch, cin, *size),
            (batch, groups * 18, *size),
            (cout, cin, 3, 3),
            (cout,),
            (batch, groups * 9, *size),
            scale=(1, 2, 0.1),
        )
        forms: list[tuple[str, Form]] = [("naive", naive_deform_conv), *by_backend("deform_conv2d", deform, device)]
        found.append((f"deform_conv2d: {title}", forms, tensors))
    tensors = make((2, 1, 96, 96, 96), (1, 2, 192, 96, 96), (2, 2 * 12 * 18, 96, 96), scale=(1, 1, 2))
    forms = [
        ("naive", lambda q, kv, o: naive_attention(q, kv, o, 12)),
        ("torch", lambda q, kv, o: deform_attention(q, kv, o, 12, 12)),
    ]
    found.append(("deform_attention: clip of 2, 96 channels, 96x96", forms, tensors))
    for channels, height, width in ((32, 180, 320), (64, 90, 160), (128, 23, 40)):
        shape = (1, channels, height, width)
        forms = [("naive", naive_correlation), *by_backend("correlation", correlation, device)]
        found.append((f"correlation: PWC-Net, {channels} channels, {height}x{width}", forms, make(shape, shape)))
    tensors = make((1, 32, 90, 160), (1, 32 * 25, 90, 160))
    forms = [("naive", naive_filter), *by_backend("filter_adaptive_conv", filter_adaptive_conv, device)]
    found.append(("filter_adaptive_conv: STFAN, 32 channels, 90x160", forms, tensors))
    shapes = [(1, n, 128, 128) for n in (7, 7, 49, 49, 49)]
    forms = [("naive", naive_misc), ("torch", misc_kernel)]
    found.append(("misc_kernel: MISC, 128x128", forms, make((1, 4, 134, 134), *shapes)))
    image = (1, 3, 360, 640)
    forms = [("naive", naive_volume), ("torch", pixel_volume)]
    found.append(("pixel_volume: 640x360", forms, make(image, (1, 2, 360, 640), image, scale=(1, 4))))
    forms = [("naive", masked_by_plane), ("torch", masked_warp_pwc)]
    found.append(
        ("masked_warp_pwc: 64 channels, 180x320", forms, make((1, 64, 180, 320), (1, 2, 180, 320), scale=(1, 4)))
    )
    return found


def seconds(run: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """The most memory that a call holds at a time, besides what exists before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        run()
    held = most = 0
    for event in profile.profiler.kineto_results.events():  # allocations and releases, in order of time
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def measure(forms: list[Form], tensors: list[Tensor], device: torch.device, repeats: int) -> list[list[float]]:
    """Of each form: milliseconds and megabytes of the forward pass, and of forward and backward together."""
    leaves = [tensor.requires_grad_() for tensor in tensors]

    def forward(form: Form) -> object:
        with torch.no_grad():
            return form(*leaves)

    def both(form: Form) -> object:
        return torch.autograd.grad(form(*leaves).square().sum(), leaves, allow_unused=True)

    columns: list[list[float]] = [[] for _ in forms]
    for step in (forward, both):
        runs = [functools.partial(step, form) for form in forms]
        for run in runs:
            run()
        rounds = [[seconds(run, device) for run in runs] for _ in range(repeats)]
        for column, times, run in zip(columns, zip(*rounds, strict=True), runs, strict=True):
            column += [statistics.median(times) * 1e3, peak_bytes(run, device) / 1e6]
    return columns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, median of {options.repeats}\n")
    print("| case | form | forward ms | ratio | forward MB | ratio | + backward ms | ratio | + backward MB | ratio |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, forms, tensors in cases(device):
        if options.only not in name:
            continue
        columns = measure([form for _, form in forms], tensors, device, options.repeats)
        for (form_name, _), values in zip(forms, columns, strict=True):
            cells = [f"{value:.0f} | {value / first:.2f}" for value, first in zip(values, columns[0], strict=True)]
            print(f"| {name} | {form_name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
