"""Schedules against torch's own, against values by hand, and at their edges."""

import math
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.optim import lr_scheduler

from accel_cli.config import factory
from accel_cli.config.parts import implementation, table
from accel_cli.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs/schedule"
STEPS = 105
"""More than 100; 5 x 21, and 15 x (1 + 2 + 4)."""
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


def cosine(optimizer, steps, **values):
    return lr_scheduler.CosineAnnealingLR(optimizer, steps, **values)


def restarts(optimizer, first, growth, **values):
    return lr_scheduler.CosineAnnealingWarmRestarts(optimizer, first, growth, **values)


REFERENCES = {
    "constant": ("constant", {}, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    "step": ("step", {"every": 7, "gamma": 0.7}, lambda o: lr_scheduler.StepLR(o, 7, 0.7)),
    "multistep": (
        "multistep",
        {"milestones": [0.25, 30, 101], "gamma": 0.2},
        lambda o: lr_scheduler.MultiStepLR(o, [26, 30, 101], 0.2),
    ),
    "linear": ("linear", {"final": 0.1}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, STEPS)),
    "polynomial": ("polynomial", {"power": 1.7}, lambda o: lr_scheduler.PolynomialLR(o, STEPS, 1.7)),
    "cosine": ("cosine", {"final": 0.1}, lambda o: cosine(o, STEPS, eta_min=0.1)),
    "cosine to zero": ("cosine", {}, lambda o: cosine(o, STEPS)),
    "five cycles": ("cosine", {"cycles": 5}, lambda o: restarts(o, STEPS // 5, 1)),
    "growing cycles": ("cosine", {"cycles": 3, "cycle_growth": 2.0}, lambda o: restarts(o, STEPS // 7, 2)),
    "cycles to a tenth": (
        "cosine",
        {"cycles": 3, "cycle_growth": 2.0, "final": 0.1},
        lambda o: restarts(o, STEPS // 7, 2, eta_min=0.1),
    ),
    "exponential": ("exponential", {"final": 0.01}, lambda o: lr_scheduler.ExponentialLR(o, 0.01 ** (1 / STEPS))),
}
"""Option, values, and torch's scheduler for STEPS steps."""
FROM_THE_START = ("step", "multistep")
"""These count from the start of the run, the others from the end of the warm-up."""


@pytest.mark.parametrize("name", REFERENCES)
def test_equals_torch(name):
    option, values, make = REFERENCES[name]
    assert factors(option, **values) == pytest.approx(torch_rates(make), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("share", [False, True])
def test_equals_torch_after_a_warmup(name, share):
    option, values, make = REFERENCES[name]
    steps = STEPS if option in FROM_THE_START else STEPS + 20
    mine = factors(option, steps=steps, warmup=20 / steps if share else 20, **values)
    after = torch_rates(make)[20:] if option in FROM_THE_START else torch_rates(make)
    assert mine[20:] == pytest.approx(after, rel=1e-6, abs=1e-12)
    assert mine[:20] == pytest.approx([(step + 1) / 20 * mine[20] for step in range(20)], rel=1e-6)


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
@pytest.mark.parametrize("peak_at", [0.3, 0.33, 0.9])
@pytest.mark.parametrize("warmup", [0, 7])
def test_onecycle_equals_torch(anneal, peak_at, warmup):
    """The rate, and a momentum that follows, over the steps after the warm-up."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    reference = lr_scheduler.OneCycleLR(
        optimizer,
        1.0,
        total_steps=STEPS,
        pct_start=peak_at,
        anneal_strategy="cos" if anneal == "cosine" else "linear",
        base_momentum=0.8,
        max_momentum=0.95,
    )
    made = schedule("onecycle", peak_at=peak_at, anneal=anneal, warmup=warmup, momentum=[0.8, 0.95])
    steps = STEPS + warmup
    for step in range(warmup, steps):
        group = optimizer.param_groups[0]
        assert made(step, steps) == pytest.approx(group["lr"], rel=1e-6)
        assert made.momentum(step, steps) == pytest.approx(group["momentum"], rel=1e-6)
        if step < steps - 1:
            optimizer.step()
            reference.step()
    assert made(steps - 1, steps) == pytest.approx(1 / 25 / 1e4, rel=1e-9)
    assert all(made.momentum(step, steps) == pytest.approx(0.95) for step in range(warmup))


def test_warmup_then_cosine_as_one_of_torchs():
    def make(optimizer):
        rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / 8, total_iters=7)
        return lr_scheduler.SequentialLR(optimizer, [rise, cosine(optimizer, STEPS - 8)], milestones=[8])

    assert factors("cosine", warmup=8) == pytest.approx(torch_rates(make), rel=1e-6, abs=1e-12)


def test_inverse_sqrt_is_the_papers():
    """Vaswani et al. 2017, equation 3, over its value at the end of the warm-up; the paper counts from 1."""
    warmup, width = 40, 512
    rate = [width**-0.5 * min(n**-0.5, n * warmup**-1.5) if n else 0.0 for n in range(STEPS + 1)]
    mine = factors("inverse_sqrt", warmup=warmup, timescale=warmup)
    assert mine[:warmup] == pytest.approx([rate[step + 1] / rate[warmup] for step in range(warmup)], rel=1e-6)
    assert mine[warmup:] == pytest.approx([rate[step] / rate[warmup] for step in range(warmup, STEPS)], rel=1e-6)
    assert factors("inverse_sqrt", 50, warmup=5, timescale=9) == factors("inverse_sqrt", 99, warmup=5, timescale=9)[:50]


@pytest.mark.parametrize("anneal", ["linear", "cosine", "1-sqrt"])
def test_warmup_stable_decay_is_the_papers(anneal):
    """Hägele et al. 2024, section 2: 1 up to N - N_decay, then f(n, N, N_decay)."""
    last = 30
    mine = factors("warmup_stable_decay", warmup=10, decay=last, anneal=anneal)
    assert mine[10 : STEPS - last] == [1.0] * (STEPS - last - 10)
    shape = {
        "linear": lambda n: 1 - (n - (STEPS - last)) / last,
        "cosine": lambda n: (1 + math.cos(math.pi * (n - (STEPS - last)) / last)) / 2,
        "1-sqrt": lambda n: 1 - math.sqrt((n - (STEPS - last)) / last),
    }[anneal]
    assert mine[-last:] == pytest.approx([shape(n) for n in range(STEPS - last, STEPS)], rel=1e-6)
    longer = factors("warmup_stable_decay", 2 * STEPS, warmup=10, decay=last, anneal=anneal)
    assert longer[: STEPS - last] == mine[: STEPS - last]


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
        ("polynomial", {"power": 2.0, "final": 0.2}, {0: 1.0, 50: 0.4, 90: 0.208}),
        ("inverse_sqrt", {"warmup": 10, "timescale": 10}, {4: 0.5, 10: 1.0, 40: 0.5, 90: 1 / 3}),
        ("warmup_stable_decay", {"decay": 0.25, "anneal": "linear", "warmup": 0}, {0: 1.0, 75: 1.0, 80: 0.8, 99: 0.04}),
        ("cosine", {"cycles": 2}, {0: 1.0, 25: 0.5, 50: 1.0, 75: 0.5}),
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


LENGTHS = st.one_of(st.integers(0, 400), st.floats(0, 0.999, exclude_max=True))
VALUES = {
    "momentum": st.one_of(st.none(), st.lists(st.floats(0, 0.999), min_size=2, max_size=2).map(sorted)),
    "warmup": LENGTHS,
    "final": st.floats(1e-6, 1),
    "gamma": st.floats(0.01, 1),
    "every": st.one_of(st.integers(1, 400), st.floats(0.001, 0.999)),
    "milestones": st.lists(st.one_of(st.integers(1, 400), st.floats(0.001, 0.999)), max_size=4),
    "timescale": st.one_of(st.integers(1, 400), st.floats(0.001, 0.999)),
    "decay": st.one_of(st.integers(1, 400), st.floats(0.001, 0.999)),
    "power": st.floats(0.01, 20),
    "cycles": st.integers(1, 40),
    "cycle_growth": st.floats(1, 3),
    "peak_at": st.floats(0.001, 0.999),
    "start_divisor": st.floats(1, 1e6),
    "final_divisor": st.floats(1, 1e6),
    "anneal": st.sampled_from(["linear", "cosine", "1-sqrt"]),
}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), steps=st.integers(1, 300))
@pytest.mark.parametrize("option", BUILT_IN)
def test_any_settings_give_a_factor_from_0_to_1_at_every_step(option, data, steps):
    keys = yaml.safe_load((CONFIGS / f"{option}.yaml").read_text())
    values = {key: data.draw(VALUES[key], label=key) for key in keys if key in VALUES}
    if option == "onecycle" and values["anneal"] == "1-sqrt":
        values["anneal"] = "linear"
    made = schedule(option, **values)
    for step in range(steps):
        assert 0 <= made(step, steps) <= 1 + 1e-12
        assert -1e-12 <= made.height(step, steps) <= 1
        if values["momentum"] is not None:
            low, high = values["momentum"]
            assert low - 1e-9 <= made.momentum(step, steps) <= high + 1e-9
        else:
            assert made.momentum(step, steps) is None


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


def test_the_keys_that_count_steps_are_told():
    assert configured("cosine", warmup=0.1, cycles=3).counted_steps == []
    assert configured("cosine", warmup=5).counted_steps == ["warmup"]
    assert configured("multistep", milestones=[0.5, 30]).counted_steps == ["milestones"]
    assert configured("warmup_stable_decay", decay=30, warmup=0).counted_steps == ["decay"]


@pytest.mark.parametrize("momentum", [[0.9], [0.9, 0.8], [0.8, 1.0], [-0.1, 0.9], 0.9, [0.1, 0.2, 0.3]])
def test_momentum_is_low_then_high(momentum):
    with pytest.raises(ValidationError):
        configured("cosine", momentum=momentum)


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
