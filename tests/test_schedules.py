from __future__ import annotations

import ast
import json
from typing import Any

import pytest
import torch

from deblurkit.engine.schedules import OPTIMIZERS, SCHEDULES, build_schedule, known_name, set_rates
from deblurkit.errors import RegistryError
from tests.support.parity import FOLDER

TABLE = json.loads((FOLDER / "lr_curves.json").read_text())


def mapping_of(title: str) -> dict[str, Any]:
    """`MultiStepLR milestones=[5] gamma=0.5` as it stands in an options file."""
    name, *arguments = title.removeprefix("two groups ").split()
    return {"type": name, **{key: ast.literal_eval(value) for key, value in (a.split("=") for a in arguments)}}


@pytest.mark.parametrize("title", TABLE["curves"])
def test_rates_equal_basicsrs(title: str) -> None:
    """The rate during iteration i + 1, of one or two parameter groups, with warm-up where it leaves no drift behind."""
    mapping = mapping_of(title)
    warmup = mapping.pop("warmup_iter", 0)
    schedule = build_schedule(mapping)
    curve = TABLE["curves"][title]
    initial = [TABLE["base_lr"] * 0.1**group for group in range(len(curve[0]))]
    groups = [{"initial_lr": rate} for rate in initial]
    for done, expected in enumerate(curve):
        set_rates(groups, schedule, done, (done + 1) / warmup if done + 1 < warmup else None)
        assert [group["lr"] for group in groups] == pytest.approx(expected, rel=1e-9)


def test_milestones_equal_torchs() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5, 5, 9], gamma=0.3)
    ours = build_schedule({"type": "MultiStepLR", "milestones": [9, 5, 3, 5], "gamma": 0.3})
    for done in range(12):
        assert ours.rate(0.1, done) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        theirs.step()


def test_flat_then_linear() -> None:
    schedule = build_schedule({"type": "FlatLinearLR", "flat": 150, "decay": 100, "eta_min": 1e-7})
    assert schedule.rate(1e-4, 0) == schedule.rate(1e-4, 150) == 1e-4
    assert schedule.rate(1e-4, 200) == pytest.approx((1e-4 + 1e-7) / 2)
    assert schedule.rate(1e-4, 250) == schedule.rate(1e-4, 300) == pytest.approx(1e-7)
    with pytest.raises(RegistryError, match="decay"):
        build_schedule({"type": "FlatLinearLR", "flat": 1, "decay": 0})


def test_the_vibration_keeps_to_its_envelope() -> None:
    schedule = build_schedule({"type": "VibrateLR", "total_iter": 800})
    # tops of triangles (period 10): before and after 3/8, after 5/8
    assert schedule.rate(1.0, 295) == pytest.approx(1 - 295 / 300)
    assert schedule.rate(1.0, 305) == pytest.approx(0.2)
    assert schedule.rate(1.0, 505) == pytest.approx(0.1)
    with pytest.raises(RegistryError, match="at least 160, not 159"):
        build_schedule({"type": "VibrateLR", "total_iter": 159})


def test_the_cosine_stays_at_its_end() -> None:
    schedule = build_schedule({"type": "TrueCosineAnnealingLR", "T_max": 10, "eta_min": 1e-6})
    assert schedule.rate(1e-3, 0) == 1e-3
    assert schedule.rate(1e-3, 5) == pytest.approx((1e-3 + 1e-6) / 2)
    assert schedule.rate(1e-3, 10) == schedule.rate(1e-3, 15) == pytest.approx(1e-6)


def test_without_a_schedule_the_rate_is_constant() -> None:
    assert [build_schedule(None).rate(0.5, done) for done in (0, 10**6)] == [0.5, 0.5]


def test_groups_fall_from_their_own_rates() -> None:
    groups: list[dict[str, Any]] = [{"initial_lr": 1.0, "lr": 7.0}, {"initial_lr": 0.1, "lr": 7.0}]
    schedule = build_schedule({"type": "MultiStepLR", "milestones": [5], "gamma": 0.5})
    for _ in range(2):  # setting a rate twice changes nothing: it is no function of the rate before
        set_rates(groups, schedule, 5)
        assert [group["lr"] for group in groups] == [0.5, 0.05]
    set_rates(groups, schedule, 4)
    assert [group["lr"] for group in groups] == [1.0, 0.1]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"type": "MultiStepRestartLR", "milestones": [], "restarts": [0, 5]}, "must have the same length"),
        ({"type": "TrueCosineAnnealingLR", "T_max": 0}, "T_max must be at least 1, not 0"),
        ({"type": "CosineAnealingLR"}, "there is no 'CosineAnealingLR' among the schedulers; did you mean 'TrueCosine"),
        ({"type": "X"}, "among the schedulers; there are ConstantLR, "),
    ],
)
def test_wrong_schedules_are_refused(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        build_schedule(mapping)


def test_optimisers_are_torchs() -> None:
    table = OPTIMIZERS()
    assert table["Adam"] is torch.optim.Adam
    assert {"AdamW", "SGD", "RMSprop"} <= set(table)
    assert "Optimizer" not in table
    assert known_name("optimizers", "SGD", table) is torch.optim.SGD
    assert {"ConstantLR", "MultiStepLR", "MultiStepRestartLR", "TrueCosineAnnealingLR"} <= set(SCHEDULES)
