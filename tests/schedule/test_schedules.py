"""Schedules against torch's own, against values by hand, and at their edges."""

import math
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError
from torch.optim import lr_scheduler

from accel_cli.config import factory
from accel_cli.config.parts import implementation, table
from accel_cli.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs/schedule"
STEPS = 40
BUILT_IN = [name for name in table("schedule") if name != "custom"]


def configured(option, **overrides):
    values = yaml.safe_load((CONFIGS / f"{option}.yaml").read_text())
    return table("schedule")[option].schema.model_validate({"option": option, **values, **overrides})


def schedule(option, **overrides):
    config = configured(option, **overrides)
    return implementation("schedule", config)(config)


def factors(option, steps=STEPS, **overrides):
    made = schedule(option, **overrides)
    return [made(step, steps) for step in range(steps)]


def torch_rates(make, steps=STEPS):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = make(optimizer)
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return rates


REFERENCES = {
    "constant": ({}, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    "step": ({"every": 7, "gamma": 0.3}, lambda o: lr_scheduler.StepLR(o, 7, 0.3)),
    "multistep": (
        {"milestones": [0.25, 30], "gamma": 0.2},
        lambda o: lr_scheduler.MultiStepLR(o, [10, 30], 0.2),
    ),
    "linear": ({"final": 0.1}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, STEPS)),
    "cosine": ({"final": 0.1}, lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=0.1)),
    "exponential": ({"final": 0.01}, lambda o: lr_scheduler.ExponentialLR(o, 0.01 ** (1 / STEPS))),
}


@pytest.mark.parametrize("option", REFERENCES)
def test_equals_torch(option):
    values, make = REFERENCES[option]
    assert factors(option, **values) == pytest.approx(torch_rates(make), abs=1e-6)


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
@pytest.mark.parametrize("peak_at", [0.3, 0.33, 0.9])
def test_onecycle_equals_torch(anneal, peak_at):
    expected = torch_rates(
        lambda o: lr_scheduler.OneCycleLR(
            o,
            1.0,
            total_steps=STEPS,
            pct_start=peak_at,
            anneal_strategy=anneal[:3] if anneal == "cosine" else anneal,
            cycle_momentum=False,
        ),
        STEPS - 1,
    )
    mine = factors("onecycle", peak_at=peak_at, anneal=anneal)
    assert mine[:-1] == pytest.approx(expected, abs=1e-6)
    assert mine[-1] == pytest.approx(1 / 25 / 1e4, abs=1e-9)


def test_cosine_after_warmup_equals_torch():
    def make(optimizer):
        rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / 8, total_iters=7)
        fall = lr_scheduler.CosineAnnealingLR(optimizer, STEPS - 8)
        return lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[8])

    assert factors("cosine", warmup=8) == pytest.approx(torch_rates(make), abs=1e-6)
    assert factors("cosine", warmup=0.2) == factors("cosine", warmup=8)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_plateau_equals_torch(mode):
    values = [1.0, 0.8, 0.79, 0.8, 0.85, 0.9, 0.9, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, math.nan, 0.7]
    values = [value if mode == "min" else -value for value in values]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = lr_scheduler.ReduceLROnPlateau(
        optimizer, mode, factor=0.5, patience=2, threshold=0.02, threshold_mode="abs", min_lr=0.2
    )
    made = schedule("plateau", factor=0.5, patience=2, min_delta=0.02, min_factor=0.2)
    seen = set()
    for value in values:
        made.observe(value, mode)
        reference.step(value)
        seen.add(made(3, STEPS))
        assert made(3, STEPS) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-6)
    assert len(seen) >= 3

    again = schedule("plateau", factor=0.5, patience=2, min_delta=0.02, min_factor=0.2)
    again.load(made.state())
    for value in values:
        made.observe(value, mode)
        again.observe(value, mode)
        assert again(0, STEPS) == made(0, STEPS)


@pytest.mark.parametrize(
    ("option", "values", "expected"),
    [
        ("constant", {"warmup": 4}, {0: 0.25, 3: 1.0, 99: 1.0}),
        ("step", {"every": 0.25, "gamma": 0.5}, {24: 1.0, 25: 0.5, 99: 0.125}),
        ("multistep", {"milestones": [0.5, 75], "gamma": 0.1}, {49: 1.0, 50: 0.1, 75: 0.01}),
        ("linear", {"final": 0.5}, {0: 1.0, 50: 0.75, 90: 0.55}),
        ("cosine", {"final": 0.0}, {0: 1.0, 50: 0.5, 75: 0.146446609}),
        ("exponential", {"final": 0.01}, {0: 1.0, 50: 0.1, 75: 0.0316227766}),
        ("onecycle", {"anneal": "linear"}, {0: 0.04, 29: 1.0, 99: 4e-6}),
        ("plateau", {"warmup": 10}, {0: 0.1, 4: 0.5, 50: 1.0}),
        ("cosine", {"warmup": 20}, {9: 0.5, 20: 1.0, 60: 0.5}),
    ],
)
def test_three_values_by_hand(option, values, expected):
    all_factors = factors(option, steps=100, **values)
    assert {step: all_factors[step] for step in expected} == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("option", BUILT_IN)
@pytest.mark.parametrize("warmup", [0, 1, 5, 0.5, 12, 40])
@pytest.mark.parametrize("steps", [1, 2, 3, 12])
def test_edges(option, warmup, steps):
    values = factors(option, steps=steps, warmup=warmup)
    assert all(math.isfinite(value) and 0 <= value <= 1 for value in values)
    rise = warmup if isinstance(warmup, int) else round(warmup * steps)
    begin = schedule(option, warmup=warmup).shape(rise, rise, steps)
    assert values[:rise] == pytest.approx([begin * (k + 1) / rise for k in range(min(rise, steps))])


@pytest.mark.parametrize("option", BUILT_IN)
def test_one_step_is_not_lost(option):
    assert factors(option, steps=1)[0] == 1.0


@pytest.mark.parametrize("option", BUILT_IN)
def test_pure(option):
    made = schedule(option, warmup=3)
    forwards = [made(step, STEPS) for step in range(STEPS)]
    assert [made(step, STEPS) for step in reversed(range(STEPS))] == forwards[::-1]
    if option != "plateau":
        made.observe(1.0, "min")
        assert made.state() == {}


@pytest.mark.parametrize("warmup", [-1, 1.5, -0.1, True, "5"])
def test_warmup_is_steps_or_a_share(warmup):
    with pytest.raises(ValidationError):
        configured("cosine", warmup=warmup)


def test_custom(tmp_path, monkeypatch):
    (tmp_path / "own_rates.py").write_text(
        "def line(slope):\n    return lambda step, steps: 1 - slope * step / steps\n"
        "def bad():\n    return lambda step, steps: float('nan')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(factory, "_granted", ["own_rates"])
    made = schedule("custom", factory="own_rates:line", args={"slope": 0.5}, warmup=2)
    assert [made(step, 4) for step in range(4)] == pytest.approx([0.375, 0.75, 0.75, 0.625])
    with pytest.raises(ConfigError, match="slope"):
        schedule("custom", factory="own_rates:line")
    with pytest.raises(ConfigError, match="gave nan"):
        schedule("custom", factory="own_rates:bad")(0, 4)
