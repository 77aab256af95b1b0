"""accel advise: what is tried, how short, and when an expectation held."""

from __future__ import annotations

from pathlib import Path

import pytest

from accel_cli.analysis.tried import ARMS, chosen, result, shortened
from accel_cli.config import run as run_file
from accel_cli.config.plan import plan
from accel_cli.errors import ConfigError


@pytest.mark.parametrize(
    ("ratios", "expected", "held"),
    [
        ([0.5] * 8, 0.5, True),
        ([0.5] * 8, 0.6, True),
        ([0.5] * 8, 0.7, False),
        ([0.5] * 3, 0.5, None),  # too few rounds
        ([0.3, 0.7] * 5, 0.5, None),  # too noisy
        ([0.5] * 8, None, None),
        ([], 0.5, None),
    ],
)
def test_an_expectation_holds_where_the_interval_lies_near_it(
    ratios: list[float], expected: float | None, held: bool | None
) -> None:
    found = result({ARMS[0]: [2.0] * len(ratios), ARMS[1]: [2 * ratio for ratio in ratios]}, expected)
    assert found["held"] is held
    assert found["rounds"] == len(ratios)
    assert (found["factor"] is None) == (expected is None or not ratios)


def test_what_only_changes_the_length_is_not_tried() -> None:
    rows = [{"override": None}, {"override": "train.epochs=20"}, {"override": "stopping=early"}]
    assert chosen(rows) is None
    assert chosen([*rows, {"override": "loader=memory"}]) == {"override": "loader=memory"}


def test_both_arms_are_the_run_but_for_the_override(tmp_path: Path) -> None:
    words = ["hardware=cpu", "evaluate.every=2", "stopping=early", "export=safetensors", "train.seed=3"]
    run_file.write(plan(words).run, tmp_path / "run.yaml")
    short = shortened(tmp_path, "evaluate.every=50", [], 0.01)
    one, other = (short.plans[name].run for name in ARMS)
    assert one.train.steps == other.train.steps == short.steps == 200
    assert (one.evaluate.every, other.evaluate.every) == (2, 50)
    assert one.with_values("evaluate", every=50) == other
    assert (one.train.seed, one.export.option, one.stopping.option) == (3, "none", "none")


def test_powersgd_begins_at_once(tmp_path: Path) -> None:
    run_file.write(plan(["hardware=cpu", "strategy=ddp", "launch.processes=2"]).run, tmp_path / "run.yaml")
    short = shortened(tmp_path, "communication=powersgd", [], None)
    assert short.plans[ARMS[1]].run.communication.start_step == 1


def test_a_run_of_several_machines_is_refused(tmp_path: Path) -> None:
    words = ["hardware=cpu", "strategy=ddp", "launch.nodes=2", "launch.rendezvous=10.0.0.1:29500"]
    run_file.write(plan(words).run, tmp_path / "run.yaml")
    with pytest.raises(ConfigError, match="several machines"):
        shortened(tmp_path, "communication=bf16", [], None)
