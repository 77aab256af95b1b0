"""communication=auto: what it chooses on which link, that all ranks agree, and what it leaves as it was."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from ranks import run_ranks
from torch import nn

from accel_cli.communication.auto import Auto, choose
from accel_cli.communication.link import Link, measure
from accel_cli.config.decide import Decision
from accel_cli.world import join

SIZES = {"exact": 8_000_000, "bf16": 4_000_000, "powersgd": 200_000}
FORWARD = 0.05
"""Seconds: backward hides 0.1 s."""


@pytest.mark.parametrize(
    ("rate", "chosen"), [(1e9, "exact"), (80e6, "exact"), (35e6, "bf16"), (12e6, "powersgd"), (1e5, "powersgd")]
)
def test_the_mildest_that_is_near_the_fastest(rate: float, chosen: str) -> None:
    decision = choose(SIZES, Link(1e-4, rate), FORWARD, 0.001, 1)
    assert decision.value == chosen, decision
    steps = decision.measurements["step_seconds"]
    assert steps[chosen] <= 1.1 * min(steps.values())
    assert "ms" in decision.why


def test_what_cannot_be_compressed_is_sent_exactly() -> None:
    assert choose(dict.fromkeys(SIZES, 8_000_000), Link(1e-4, 1e6), FORWARD, 0.001, 1).value == "exact"


def test_compressing_takes_its_time() -> None:
    link = Link(1e-4, 12e6)
    assert choose(SIZES, link, FORWARD, 0.001, 1).value == "powersgd"
    assert choose(SIZES, link, FORWARD, 0.4, 1).value == "bf16"


def test_accumulation_waits_less() -> None:
    link = Link(1e-4, 60e6)
    assert choose(SIZES, link, FORWARD, 0.001, 1).value == "bf16"
    assert choose(SIZES, link, FORWARD, 0.001, 8).value == "exact"


def decided(slow_rank: int | None) -> tuple[Decision, bool]:
    """(what this rank decided, whether its model is as it was); one rank may compute far slower than the other."""
    world = join(torch.device("cpu"), "gloo", 30)
    model = nn.Sequential(nn.Linear(256, 256), nn.BatchNorm1d(256), nn.Linear(256, 256)).eval()
    before = [tensor.clone() for tensor in model.state_dict().values()]
    batch = torch.randn(64 if world.rank != slow_rank else 5_000, 256)
    auto = Auto(SimpleNamespace(rank=4, start_step=10, min_compression=2.0))
    with torch.no_grad():
        decision = auto.decide(world, list(model.parameters()), lambda: model(batch), 1, scaled=False)
    after = model.state_dict().values()
    return decision, all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_ranks_agree_to_the_last_digit() -> None:
    (first, kept), (second, also_kept) = run_ranks(decided, 2, 1)
    assert first == second
    assert kept
    assert also_kept


def measured() -> Link:
    world = join(torch.device("cpu"), "gloo", 30)
    return measure(world, 1 << 22)


def test_a_link_is_the_same_on_all_ranks() -> None:
    first, second = run_ranks(measured, 2)
    assert first == second
    assert 1e7 < first.rate < 1e11
    assert 0 < first.latency < 0.1
