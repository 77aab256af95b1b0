"""The range test on curves whose descent is known, on curves without one, and on a net that learns."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from accel_cli.schedule.range_test import before_divergence, pick, smooth, sweep


def descent(rates, middle, width, noise=0.0, seed=0, diverges=math.inf):
    """2.3 down to 0.4 around ``middle``, over ``width`` decades to both sides; noise; up again at ``diverges``."""
    draws = random.Random(seed)
    return [
        0.4 + 1.9 / (1 + (rate / middle) ** (1.7 / width)) + draws.gauss(0, noise) + (rate / diverges) ** 3
        for rate in rates
    ]


@settings(max_examples=200, deadline=None)
@given(
    middle=st.floats(-4, -1),
    width=st.floats(0.3, 1.2),
    noise=st.floats(0, 0.1),
    room=st.floats(0, 1),
    count=st.integers(60, 300),
    seed=st.integers(0, 10_000),
)
def test_the_rate_lies_in_the_descent(middle, width, noise, room, count, seed):
    diverges = 10 ** (middle + width + room)
    rates = sweep(1e-6, 10.0, count)
    found = pick(rates, descent(rates, 10**middle, width, noise, seed, diverges))
    assert found is not None
    assert middle - width - 0.3 <= math.log10(found.rate) <= middle + width
    here, beyond = descent([found.rate, found.rate * 1.05], 10**middle, width, diverges=diverges)
    assert beyond < here
    assert all(map(math.isfinite, found.smoothed))


@pytest.mark.parametrize("curvature", [0.1, 1.0, 300.0])
def test_gradient_descent_in_a_bowl(curvature):
    """One sweep over curvature/2 x**2: rates above 2/curvature diverge."""
    rates, losses, x = sweep(1e-5, 1e3, 120), [], 1.0
    for rate in rates:
        losses.append(curvature / 2 * x * x)
        x -= rate * curvature * x
    found = pick(rates, losses)
    assert found is not None
    assert 0.01 / curvature < found.rate < 1 / curvature
    assert len(found.smoothed) < 120


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=60))
def test_any_losses_give_a_rate_of_the_sweep_or_none(losses):
    rates = sweep(1e-7, 1.0, 60)
    found = pick(rates, losses)
    assert found is None or rates[0] < found.rate < rates[-1]


@pytest.mark.parametrize(
    "losses",
    [
        [],
        [2.3],
        [2.3] * 100,
        [math.nan] * 100,
        [2.3, math.nan, *[0.1] * 98],
        [1.0 + 0.01 * k for k in range(100)],
        [10.0**k for k in range(100)],
        [0.0] * 100,
    ],
    ids=["none", "one", "flat", "nan", "nan at once", "rising", "diverging at once", "zero"],
)
def test_without_a_descent_there_is_no_rate(losses):
    assert pick(sweep(1e-7, 1.0, 100), losses) is None


def test_noise_is_rarely_taken_for_a_descent():
    rates, false = sweep(1e-6, 10, 100), 0
    for seed in range(200):
        draws = random.Random(seed)
        false += pick(rates, [2.3 + draws.gauss(0, 0.2) for _ in rates]) is not None
    assert false <= 10


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_units_of_loss_and_rate_do_not_matter(loss_unit, rate_unit):
    rates = sweep(1e-6, 10.0, 100)
    losses = descent(rates, 1e-3, 0.8, 0.05, diverges=0.1)
    plain = pick(rates, losses)
    scaled = pick([rate * rate_unit for rate in rates], [loss * loss_unit for loss in losses])
    assert scaled.rate == pytest.approx(plain.rate * rate_unit)


def test_divergence_ends_the_curve():
    assert list(before_divergence([2.0, 1.0, 1.0, 3.0, 9.0])) == [2.0, 1.0, 1.0, 3.0]
    assert list(before_divergence([2.0, 1.0, math.inf, 1.0])) == [2.0, 1.0]
    assert list(before_divergence([-1.0, -2.0, -3.0, -2.5])) == [-1.0, -2.0, -3.0, -2.5]
    rates = sweep(1e-6, 10.0, 100)
    losses = descent(rates, 1e-3, 0.5, diverges=0.1)
    found = pick(rates, losses)
    assert found.why.endswith(f"it diverges at {rates[len(found.smoothed)]:.3g}")
    assert found == pick(rates, losses[: len(found.smoothed) + 1])


def test_the_sweep_rises_by_equal_ratios():
    assert sweep(1e-4, 1e-1, 4) == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1])
    assert sweep(1e-4, 1.0, 1) == [1e-4]


def test_smoothing_keeps_level_and_place():
    assert smooth([3.0] * 20, 4) == pytest.approx([3.0] * 20)
    spike = smooth([0.0] * 20 + [1.0] + [0.0] * 20, 4)
    assert spike == pytest.approx(spike[::-1])
    assert max(range(41), key=spike.__getitem__) == 20


@pytest.mark.parametrize(("make", "low", "high"), [(torch.optim.SGD, 1e-2, 2.0), (torch.optim.Adam, 5e-4, 0.1)])
def test_the_rate_trains_a_net(make, low, high):
    """A real sweep; training at the rate found is then within reach of the best of a grid."""
    torch.manual_seed(0)
    inputs = torch.randn(512, 20)
    targets = (inputs @ torch.randn(20, 5)).argmax(1)

    def losses(rates):
        torch.manual_seed(1)
        net = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.ReLU(), torch.nn.Linear(64, 5))
        optimizer = make(net.parameters(), lr=1.0)
        seen = []
        for rate in rates:
            optimizer.param_groups[0]["lr"] = rate
            rows = torch.randint(512, (64,))
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(inputs[rows]), targets[rows])
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
        return seen

    rates = sweep(1e-6, 100.0, 120)
    found = pick(rates, losses(rates))
    assert low < found.rate < high
    final = {rate: sum(losses([rate] * 150)[-20:]) / 20 for rate in (1e-3, 1e-2, 1e-1, 1.0, found.rate)}
    assert final[found.rate] <= 1.5 * min(v for v in final.values() if math.isfinite(v)) + 0.1, final
