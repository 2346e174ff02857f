"""Flow warp: every convention against its fixture and a plain form."""

from __future__ import annotations

import pytest
import torch

from deblurkit.ops.flow_warp import (
    compose_flows,
    flow_warp,
    flow_warp_corners,
    masked_warp_cdvd,
    masked_warp_pwc,
    resize_flow,
)
from tests.support import operators

FORMS = {
    "flow_warp_zeros": flow_warp,
    "flow_warp_border": lambda x, flow: flow_warp(x, flow, padding="border"),
    "flow_warp_misaligned": lambda x, flow: flow_warp(x, flow, misaligned=True),
    "masked_warp_pwc": masked_warp_pwc,
    "masked_warp_cdvd": masked_warp_cdvd,
}


def points(flow):
    columns, rows = (torch.arange(n, dtype=flow.dtype) for n in (flow.shape[3], flow.shape[2]))
    return flow[:, 1] + rows[:, None], flow[:, 0] + columns


@pytest.mark.parametrize("name", FORMS)
def test_fixture(name):
    (x, flow), _, wanted, tolerance = operators.load(name)
    found = FORMS[name](x, flow)
    for one, other in zip(found if isinstance(found, tuple) else (found,), wanted, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize("size", [(5, 7), (1, 4), (3, 1)])
def test_equals_the_plain_form(size):
    x = torch.rand(2, 3, *size, dtype=torch.float64, requires_grad=True)
    flow = (torch.randn(2, 2, *size, dtype=torch.float64) * 3).requires_grad_()
    y, xx = points(flow)
    found, wanted = flow_warp(x, flow), operators.read(x, y, xx)
    torch.testing.assert_close(found, wanted)
    operators.assert_same_gradients(found, wanted, [x, flow])

    clamped = operators.read(x, y.clamp(0, size[0] - 1), xx.clamp(0, size[1] - 1))
    torch.testing.assert_close(flow_warp(x, flow, padding="border"), clamped)

    plane = operators.read(torch.ones_like(x), y, xx)
    torch.testing.assert_close(masked_warp_pwc(x, flow), wanted * (plane > 0.999))
    warped, mask = masked_warp_cdvd(x, flow)
    assert torch.equal(mask, (plane >= 0.999).double())
    torch.testing.assert_close(warped, clamped * mask)


@pytest.mark.parametrize("form", [flow_warp, masked_warp_pwc, lambda x, flow: masked_warp_cdvd(x, flow)[0]])
def test_gradients(form):
    x = torch.rand(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    flow = (torch.rand(1, 2, 3, 4, dtype=torch.float64) * 2 - 1).requires_grad_()
    assert torch.autograd.gradcheck(form, (x, flow))


def test_flow_on_a_grid_of_its_own_and_nearest():
    x = torch.rand(1, 2, 5, 6)
    flow = torch.tensor([2.4, 0.6]).view(1, 2, 1, 1).expand(1, 2, 3, 2)
    assert torch.equal(flow_warp(x, flow, mode="nearest"), x[:, :, 1:4, 2:4])
    assert torch.equal(flow_warp(x, flow - 40, mode="nearest"), torch.zeros(1, 2, 3, 2))


def test_corners_are_the_four_pixels_around():
    x = torch.rand(1, 3, 6, 7)
    flow = torch.tensor([1.3, -1.6]).view(1, 2, 1, 1).expand(1, 2, 6, 7)
    found = flow_warp_corners(x, flow)[:, :, 2:, :5]
    order = [(1, -2), (1, -1), (2, -2), (2, -1)]  # (x, y)
    wanted = [x[:, :, 2 + v : 6 + v, u : 5 + u] for u, v in order]
    assert torch.equal(found, torch.cat(wanted, 1))
    whole = torch.ones(1, 2, 6, 7)
    assert torch.equal(flow_warp_corners(x, whole), flow_warp(x, whole, mode="nearest").repeat(1, 4, 1, 1))


def test_resize_and_compose():
    flow = torch.tensor([3.0, 5.0]).view(1, 2, 1, 1).expand(1, 2, 4, 6)
    resized = resize_flow(flow, (8, 3))
    assert resized.shape == (1, 2, 8, 3)
    torch.testing.assert_close(resized, torch.tensor([1.5, 10.0]).view(1, 2, 1, 1).expand(1, 2, 8, 3))
    first = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 3, 4)
    second = torch.arange(24.0).view(1, 2, 3, 4)
    composed = compose_flows(first, second)
    torch.testing.assert_close(composed[..., :-1], second[..., 1:] + first[..., 1:])
    torch.testing.assert_close(composed[..., -1], first[..., -1])


def test_half_precision_keeps_the_coordinates():
    x, flow = torch.rand(1, 2, 4, 300), torch.full((1, 2, 4, 300), 0.25).bfloat16()
    flow[:, 1] = 0
    found = flow_warp(x.bfloat16(), flow)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, flow_warp(x.bfloat16().float(), flow.float()).bfloat16())


def test_wrong_shapes():
    with pytest.raises(ValueError, match="expected x"):
        flow_warp(torch.rand(1, 3, 4, 4), torch.rand(1, 4, 4, 2))
    with pytest.raises(ValueError, match="expected x"):
        masked_warp_pwc(torch.rand(2, 3, 4, 4), torch.rand(1, 2, 4, 4))


@pytest.mark.slow
@pytest.mark.parametrize("form", [*FORMS.values(), flow_warp_corners])
def test_compiles_whole(form):
    x, flow = torch.rand(1, 2, 4, 5), torch.randn(1, 2, 4, 5)
    found, wanted = torch.compile(form, fullgraph=True, backend="aot_eager")(x, flow), form(x, flow)
    torch.testing.assert_close(found, wanted)
