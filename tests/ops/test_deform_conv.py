"""Deformable convolution: the definition, its fixtures, gradients, pieces, groups, modules, precision, compilation."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from deblurkit.ops import backend, deform_conv
from deblurkit.ops.deform_conv import deform_conv2d
from deblurkit.ops.deform_conv_modules import (
    DeformConv2d,
    DeformConvPack,
    FlowGuidedDeformConv,
    guided_offset_mask,
    split_offset_mask,
)
from tests.support import operators

BACKENDS = backend.available("deform_conv2d", "cpu")


def naive(x, offset, weight, bias, mask, stride=1, padding=0, dilation=1):
    columns = operators.columns(x, offset, tuple(weight.shape[2:]), stride, padding, dilation)
    if mask is not None:
        taps = columns.shape[2]
        mask = mask.unflatten(1, (-1, taps)).repeat_interleave(x.shape[1] * taps // mask.shape[1], 1)
        columns = columns * mask
    groups = x.shape[1] // weight.shape[1]
    out = torch.einsum(
        "ngckyx,gock->ngoyx",
        columns.unflatten(1, (groups, -1)),
        weight.flatten(2).unflatten(0, (groups, -1)),
    ).flatten(1, 2)
    return out if bias is None else out + bias[:, None, None]


def make(cin=4, cout=6, groups=1, deformable=2, kernel=(3, 3), size=(5, 6), batch=2, dtype=torch.float64, **geometry):
    s, p, d = (geometry.get(name, default) for name, default in (("stride", 1), ("padding", 0), ("dilation", 1)))
    out = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k in zip(size, kernel, strict=True)]
    taps = kernel[0] * kernel[1]
    shapes = (
        (batch, cin, *size),
        (batch, deformable * 2 * taps, *out),
        (cout, cin // groups, *kernel),
        (cout,),
        (batch, deformable * taps, *out),
    )
    tensors = [torch.randn(shape, dtype=dtype) for shape in shapes]
    tensors[1] *= 2
    return [tensor.requires_grad_() for tensor in tensors]


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("budget", [None, 300])
@pytest.mark.parametrize("fixture", ["dcnv2", "dcnv2_general", "dcn_pack", "flow_guided_dcn"])
def test_fixture(fixture, budget, name):
    inputs, params, (wanted,), tolerance = operators.load(fixture)
    if fixture == "dcn_pack":
        x, raw, weight, bias = inputs
        offset, mask = split_offset_mask(raw)
    elif fixture == "flow_guided_dcn":
        x, raw, *flows, weight, bias = inputs
        offset, mask = guided_offset_mask(raw, flows, params["max_residue_magnitude"])
    else:
        x, offset, mask, weight, bias = inputs
    geometry = {key: params[key] for key in ("stride", "padding", "dilation") if key in params}
    with backend.use_backend(name):
        found = deform_conv2d(x, offset, weight, bias, mask, budget=budget, **geometry)
    torch.testing.assert_close(found, wanted, **tolerance)


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("budget", [None, 1])
def test_gradients(modulated, budget):
    x, offset, weight, bias, mask = make(4, 2, 2, 2, (2, 3), (3, 4), 1, padding=1, stride=2)
    if modulated:
        arguments = (x, offset, weight, bias, mask)
    else:
        arguments = (x, offset, weight, bias)
    assert torch.autograd.gradcheck(lambda *a: deform_conv2d(*a, padding=1, stride=2, budget=budget), arguments)


@pytest.mark.parametrize("wanted", range(5))
def test_gradients_of_one_input_alone(wanted):
    tensors = make(batch=1, size=(3, 3), padding=1)
    frozen = [tensor if i == wanted else tensor.detach() for i, tensor in enumerate(tensors)]
    found, reference = deform_conv2d(*frozen, padding=1), naive(*frozen, padding=1)
    operators.assert_same_gradients(found, reference, [tensors[wanted]])


@pytest.mark.parametrize("budget", [None, 6000, 2000, 100])
@pytest.mark.parametrize(("groups", "deformable"), [(1, 1), (1, 4), (2, 4), (4, 2), (12, 1), (3, 2), (2, 3), (12, 12)])
def test_groups_are_independent(groups, deformable, budget):
    tensors = make(12, 12, groups, deformable, padding=2, dilation=2)
    found = deform_conv2d(*tensors, padding=2, dilation=2, budget=budget)
    wanted = naive(*tensors, padding=2, dilation=2)
    torch.testing.assert_close(found, wanted)
    operators.assert_same_gradients(found, wanted, tensors)


def test_pairs_and_memory_formats():
    x, offset, weight, _, _ = make(4, 6, kernel=(1, 3), size=(5, 7))
    found = deform_conv2d(x, offset[..., :5, :5], weight, padding=(0, 0), stride=(1, 1), dilation=(2, 1))
    torch.testing.assert_close(found, naive(x, offset, weight, None, None))
    tensors = make(4, 6, padding=1)
    last = [tensor.to(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor for tensor in tensors]
    found = deform_conv2d(*last, padding=1, budget=900)
    torch.testing.assert_close(found, deform_conv2d(*tensors, padding=1))
    operators.assert_same_gradients(found, deform_conv2d(*tensors, padding=1), tensors)


@pytest.mark.parametrize("size", [(7, 11), (1, 5), (3, 1)])
def test_zero_offsets_are_an_ordinary_convolution(size):
    x, offset, weight, bias, mask = make(size=size, dtype=torch.float32, padding=1)
    found = deform_conv2d(x, offset * 0, weight, bias, torch.ones_like(mask), padding=1)
    torch.testing.assert_close(found, F.conv2d(x, weight, bias, padding=1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(7, 11), (33, 61)])
def test_slopes_at_pixels_are_those_of_the_definition(size):
    """The slope jumps where an offset is an integer, as all are in untrained networks: rounding must not choose."""
    x, offset, weight, bias, mask = make(size=size, batch=1, dtype=torch.float32, padding=1)
    offset = offset.detach().round().requires_grad_()
    found = deform_conv2d(x, offset, weight, bias, mask, padding=1)
    wanted = naive(x, offset, weight, bias, mask, padding=1)
    operators.assert_same_gradients(found, wanted, [x, offset, mask], rtol=1e-3, atol=1e-3)


def test_pieces_stay_within_the_budget(monkeypatch):
    largest = 0
    sample = deform_conv.sample

    def watch(*arguments):
        nonlocal largest
        found = sample(*arguments)
        largest = max(largest, found.numel() * found.element_size())
        return found

    monkeypatch.setattr(deform_conv, "sample", watch)
    tensors = make(8, 4, deformable=2, size=(12, 10), batch=3, dtype=torch.float32, padding=1)
    whole = 3 * 8 * 9 * 120 * 4
    for budget in (whole, whole // 2, whole // 5, whole // 40):
        largest = 0
        with backend.use_backend("torch"):
            deform_conv2d(*tensors, padding=1, budget=budget).sum().backward()
        assert budget / 3 < largest <= budget


def test_nothing_but_the_inputs_is_kept_for_backward():
    kept = []
    tensors = make(dtype=torch.float32, padding=1)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        deform_conv2d(*tensors, padding=1)
    assert set(kept) <= {tensor.data_ptr() for tensor in tensors}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    tensors = [tensor.detach().to(dtype) for tensor in make(padding=1)]
    found = deform_conv2d(*tensors, padding=1)
    assert found.dtype == dtype
    torch.testing.assert_close(found, deform_conv2d(*(t.float() for t in tensors), padding=1).to(dtype))


def test_autocast_does_not_coarsen():
    tensors = make(dtype=torch.float32, padding=1)
    wanted = deform_conv2d(*tensors, padding=1)
    gradients = torch.autograd.grad(wanted.sum(), tensors)
    with torch.autocast("cpu", torch.bfloat16):
        found = deform_conv2d(*tensors, padding=1)
        assert torch.equal(found, wanted)
        for one, other in zip(torch.autograd.grad(found.sum(), tensors), gradients, strict=True):
            assert torch.equal(one, other)


def test_empty_batch():
    x, offset, weight, bias, mask = make(padding=1)
    found = deform_conv2d(x[:0], offset[:0], weight, bias, mask[:0], padding=1)
    assert found.shape == (0, 6, 5, 6)
    found.sum().backward()
    assert not weight.grad.any()


def test_wrong_shapes():
    x, offset, weight, bias, mask = make(padding=1)
    with pytest.raises(ValueError, match=r"offset must be \(2, D\*18, 5, 6\), got \(2, 36, 5, 5\)"):
        deform_conv2d(x, offset[..., :5], weight, padding=1)
    with pytest.raises(ValueError, match=r"offset must be"):
        deform_conv2d(x, offset, weight)
    with pytest.raises(ValueError, match=r"mask must be \(2, 18, 5, 6\)"):
        deform_conv2d(x, offset, weight, bias, mask[:, :9], padding=1)
    with pytest.raises(ValueError, match="does not fit an input"):
        deform_conv2d(x[:, :3], offset, weight, padding=1)
    with pytest.raises(ValueError, match="3 deformable groups do not divide 4"):
        deform_conv2d(x, torch.cat([offset, offset[:, :18]], 1), weight, padding=1)
    with pytest.raises(ValueError, match=r"bias must be \(6,\)"):
        deform_conv2d(x, offset, weight, bias[:3], mask, padding=1)
    with pytest.raises(ValueError, match="multiple of 3"):
        split_offset_mask(torch.zeros(1, 28, 2, 2))
    with pytest.raises(ValueError, match="cannot be divided among 2 flows"):
        guided_offset_mask(torch.zeros(1, 27, 2, 2), [torch.zeros(1, 2, 2, 2)] * 2, 10)


def test_module_validates_and_names_its_parameters():
    layer = DeformConv2d(4, 8, groups=2, deformable_groups=4, padding=1, bias=False)
    assert {key: tuple(value.shape) for key, value in layer.state_dict().items()} == {"weight": (8, 2, 3, 3)}
    x, offset = torch.rand(1, 4, 5, 5), torch.rand(1, 72, 5, 5)
    torch.testing.assert_close(layer(x, offset), deform_conv2d(x, offset, layer.weight, padding=1))
    assert "deformable_groups=4" in repr(layer)
    with pytest.raises(ValueError, match="groups=3"):
        DeformConv2d(4, 8, groups=3)
    with pytest.raises(ValueError, match="deformable_groups=3"):
        DeformConv2d(4, 8, deformable_groups=3)


@pytest.mark.parametrize("modulated", [False, True])
def test_untrained_pack_is_a_convolution(modulated):
    pack = DeformConvPack(4, 6, stride=2, padding=2, dilation=2, deformable_groups=2, modulated=modulated)
    channels = 54 if modulated else 36
    assert {key: tuple(value.shape) for key, value in pack.state_dict().items()} == {
        "weight": (6, 4, 3, 3),
        "bias": (6,),
        "conv_offset.weight": (channels, 4, 3, 3),
        "conv_offset.bias": (channels,),
    }
    x = torch.rand(2, 4, 9, 8)
    weight = pack.weight * (0.5 if modulated else 1)  # an untrained mask is one half
    wanted = F.conv2d(x, weight, pack.bias, stride=2, padding=2, dilation=2)
    torch.testing.assert_close(pack(x), wanted, rtol=1e-4, atol=1e-5)


def test_pack_finds_offsets_in_another_map():
    pack = DeformConvPack(4, 6, padding=1, source_channels=3)
    torch.nn.init.normal_(pack.conv_offset.weight)
    x, source = torch.rand(1, 4, 5, 6), torch.rand(1, 3, 5, 6)
    offset, mask = split_offset_mask(pack.conv_offset(source))
    torch.testing.assert_close(pack(x, source), deform_conv2d(x, offset, pack.weight, pack.bias, mask, padding=1))


def test_flow_guided_module_follows_its_flows():
    layer = FlowGuidedDeformConv(8, 4, 7, deformable_groups=4, groups=1)
    keys = {f"conv_offset.{i}.{name}" for i in (0, 2, 4, 6) for name in ("weight", "bias")} | {"weight", "bias"}
    assert set(layer.state_dict()) == keys
    assert layer.conv_offset[6].out_channels == 3 * 4 * 9
    x, condition = torch.rand(1, 8, 6, 7), torch.rand(1, 7, 6, 7)
    # one map moves by a row, the other by two columns: untrained, the layer undoes just that
    flows = [torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 6, 7), torch.tensor([-2.0, 0.0]).view(1, 2, 1, 1)]
    flows[1] = flows[1].expand(1, 2, 6, 7)
    moved = torch.cat([x[:, :4].roll(1, 2), x[:, 4:].roll(-2, 3)], 1)
    found = layer(moved, condition, flows, mask_bias=torch.full((1, 1, 1, 1), 100.0))
    wanted = F.conv2d(x, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(found[..., 1:-2, 3:-1], wanted[..., 1:-2, 3:-1], rtol=1e-4, atol=1e-5)


@pytest.mark.skipif("torchvision" not in BACKENDS, reason="torchvision's operators are not installed")
@pytest.mark.parametrize("modulated", [False, True])
def test_torchvision_agrees(modulated):
    tensors = make(8, 6, 2, 4, padding=2, dilation=2, stride=2, batch=3)
    tensors = tensors if modulated else tensors[:4]
    results = []
    for name in BACKENDS:
        with backend.use_backend(name):
            results.append(deform_conv2d(*tensors, padding=2, dilation=2, stride=2, budget=20_000))
    torch.testing.assert_close(results[0], results[1])
    operators.assert_same_gradients(results[0], results[1], tensors)


@pytest.mark.slow
@pytest.mark.parametrize("budget", [None, 4000])
def test_compiles_whole(budget):
    tensors = make(4, 6, deformable=2, dtype=torch.float32, padding=1)

    def run(*arguments):
        return deform_conv2d(*arguments, padding=1, budget=budget)

    found, wanted = torch.compile(run, fullgraph=True, backend="aot_eager")(*tensors), run(*tensors)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    operators.assert_same_gradients(found, wanted, tensors, rtol=1e-4, atol=1e-4)
