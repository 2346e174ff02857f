"""Guided deformable attention: the fixture, gradients, pieces, and a plain form."""

from __future__ import annotations

import pytest
import torch

from deblurkit.ops import deform_attention as module
from deblurkit.ops.deform_attention import deform_attention
from tests.support import operators


def naive(query, keys_values, offset, heads, deformable_groups, kernel_size=3):
    clip = keys_values.shape[1]
    rows, _, channels = query.shape[:3]
    out = []
    for b in range(rows):
        keys, values = [], []
        for n, slot in enumerate(offset[b : b + 1].chunk(clip, 1)):
            image = keys_values[b // clip, (n + b) % clip][None]
            samples = operators.columns(image, slot, (kernel_size, kernel_size), 1, kernel_size // 2, 1)[0]
            samples = samples.unflatten(0, (2, heads, -1))
            keys.append(samples[0])
            values.append(samples[1])
        queries = query[b, 0].unflatten(0, (heads, -1)) * (channels // heads) ** -0.5
        logits = torch.einsum("hdyx,hdkyx->hkyx", queries, torch.cat(keys, 2))
        out.append(torch.einsum("hkyx,hdkyx->hdyx", logits.softmax(1), torch.cat(values, 2)).flatten(0, 1))
    return torch.stack(out)[:, None]


def make(batch=2, clip=2, channels=8, groups=4, kernel=3, size=(4, 5), dtype=torch.float64):
    shapes = (
        (batch * clip, 1, channels, *size),
        (batch, clip, 2 * channels, *size),
        (batch * clip, clip * groups * kernel**2 * 2, *size),
    )
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("budget", [None, 3000, 1])
def test_fixture(budget):
    inputs, params, (wanted,), tolerance = operators.load("deform_attn")
    found = deform_attention(*inputs, params["attention_heads"], params["deformable_groups"], budget=budget)
    torch.testing.assert_close(found, wanted, **tolerance)


def test_gradients():
    tensors = make(1, 2, 4, 4, size=(2, 2))
    assert torch.autograd.gradcheck(lambda *a: deform_attention(*a, 2, 4), tensors)
    query, keys_values, offset = tensors
    assert torch.autograd.gradcheck(lambda q: deform_attention(q, keys_values.detach(), offset.detach(), 2, 4), query)


@pytest.mark.parametrize("budget", [None, 20_000, 3000, 100])
@pytest.mark.parametrize(
    ("clip", "channels", "heads", "groups", "kernel"),
    [(1, 4, 1, 2, 1), (2, 12, 6, 4, 3), (3, 12, 2, 12, 3), (2, 12, 3, 4, 3), (2, 8, 2, 4, 5)],
)
def test_pieces_equal_the_plain_form(clip, channels, heads, groups, kernel, budget):
    tensors = make(2, clip, channels, groups, kernel)
    found = deform_attention(*tensors, heads, groups, kernel_size=kernel, budget=budget)
    wanted = naive(*tensors, heads, groups, kernel)
    torch.testing.assert_close(found, wanted)
    operators.assert_same_gradients(found, wanted, tensors)


def test_pieces_stay_within_the_budget(monkeypatch):
    largest = 0
    sample = module.sample

    def watch(*arguments):
        nonlocal largest
        found = sample(*arguments)
        largest = max(largest, found.numel() * found.element_size())
        return found

    monkeypatch.setattr(module, "sample", watch)
    tensors = make(1, 2, 8, 4, size=(12, 10), dtype=torch.float32)
    row = 2 * 16 * 9 * 120 * 4
    for budget in (row, row // 2, row // 40):
        largest = 0
        deform_attention(*tensors, 2, 4, budget=budget).sum().backward()
        assert budget / 3 < largest <= budget


def test_half_precision_is_computed_in_float32():
    tensors = [tensor.detach().bfloat16() for tensor in make()]
    found = deform_attention(*tensors, 2, 4)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, deform_attention(*(t.float() for t in tensors), 2, 4).bfloat16())


def test_wrong_arguments():
    query, keys_values, offset = make()
    with pytest.raises(ValueError, match=r"offset must be \(4, 144, 4, 5\)"):
        deform_attention(query, keys_values, offset[:, :72], 2, 4)
    with pytest.raises(ValueError, match="keys_values must be"):
        deform_attention(query, keys_values[:, :, :8], offset, 2, 4)
    with pytest.raises(ValueError, match="deformable_groups=3 even"):
        deform_attention(query, keys_values, offset[:, : 3 * 36], 2, 3)
    with pytest.raises(ValueError, match="heads=3 must divide the 8"):
        deform_attention(query, keys_values, offset, 3, 4)


@pytest.mark.slow
def test_compiles_whole():
    tensors = make(dtype=torch.float32)

    def run(*arguments):
        return deform_attention(*arguments, 2, 4)

    found, wanted = torch.compile(run, fullgraph=True, backend="aot_eager")(*tensors), run(*tensors)
    torch.testing.assert_close(found, wanted)
    operators.assert_same_gradients(found, wanted, tensors, rtol=1e-4, atol=1e-5)
