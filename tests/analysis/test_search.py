"""Axes as Hydra writes them, points drawn from them, and what Optuna makes of how they ended."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest

from accel_cli.analysis import point
from accel_cli.analysis.search import drawn, every, ranked
from accel_cli.config.axes import Axis, axes_of
from accel_cli.config.compose import axes
from accel_cli.errors import ConfigError

RATE = "optimizer.learning_rate=tag(log, interval(1e-4, 1e-1))"
WIDTH = "model.width=int(interval(1, 4))"
SEVERAL = ["train.seed=1,2", "augment=[flip,crop],none", "model=mlp"]


def axis(word: str) -> Axis:
    (found,) = axes_of(axes([word]))
    return found


def test_grid_has_every_point_in_order() -> None:
    assert every(axes(SEVERAL)).points == [
        ("1", "[flip,crop]"), ("1", "none"), ("2", "[flip,crop]"), ("2", "none")
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="--search random"):
        every(axes([RATE]))
    with pytest.raises(ConfigError, match="1,000,000 points"):
        every(axes(["train.seed=range(0,1000)", "train.global_batch=range(1,1001)"]))


def test_drawn_points_are_different_and_repeat_by_seed() -> None:
    parts = axes(["train.seed=1,2", WIDTH])
    points = drawn(parts, 6, seed=3).points
    assert len(points) == len(set(points)) == 6
    assert points == drawn(parts, 6, seed=3).points
    assert points[:4] == drawn(parts, 4, seed=3).points
    assert points != drawn(parts, 6, seed=4).points
    assert len(drawn(parts, 100, seed=0).points) == 8


def test_draws_are_even_over_the_interval_or_its_logarithm() -> None:
    random = Random(0)

    def draws(word: str, count: int) -> list[str]:
        one = axis(word)
        return [one.draw(random) for _ in range(count)]

    rates = sorted(map(float, draws(RATE, 2000)))
    assert rates[0] >= 1e-4
    assert rates[-1] <= 1e-1
    assert rates[1000] == pytest.approx(math.sqrt(1e-4 * 1e-1), rel=0.2)
    plain = sorted(map(float, draws("optimizer.weight_decay=interval(0,2)", 2000)))
    assert plain[1000] == pytest.approx(1.0, rel=0.1)
    widths = draws(WIDTH, 2000)
    assert {width: round(widths.count(width) / 500) for width in widths} == {"1": 1, "2": 1, "3": 1, "4": 1}
    assert all(1 <= int(width) <= 100 for width in draws("model.width=tag(log, int(interval(1, 100)))", 500))


def row(number: int, rate: str, status: str, best: float | None, reported: tuple[float, ...] = ()) -> dict[str, Any]:
    found = point.row(number, axes_of(axes([RATE])), (rate,))
    found.update(status=status, mode="max", reported=[[step, value] for step, value in enumerate(reported)])
    found["metric"] = {"name": "accuracy", "mode": "max", "value": None, "best": best, "best_step": 1}
    return found


def test_ranked_has_the_best_first() -> None:
    rows = [row(0, "0.1", "failed", None), row(1, "0.01", "completed", 0.5), row(2, "0.02", "completed", 0.7)]
    assert [one["number"] for one in ranked(rows)] == [2, 1, 0]


def test_ranked_goes_by_the_mean_over_seeds_not_by_the_luckiest() -> None:
    rows = [row(number, "0.1", "completed", best) for number, best in enumerate((0.3, 0.9, 0.7, 0.65))]
    for number, one in enumerate(rows):
        one["point"] = ["a=1" if number < 2 else "a=2", f"train.seed={number % 2}"]
    assert [one["number"] for one in ranked(rows)] == [2, 3, 1, 0]


def test_optuna_is_made_anew_from_the_rows() -> None:
    """What had ended counts; what had not gets its trial back, and is judged by what it had reported."""
    pytest.importorskip("optuna")
    from accel_cli.analysis.optuna_search import OptunaSearch

    good = [row(n, f"0.0{n + 1}", "completed", 0.9, (0.5, 0.8, 0.9)) for n in range(5)]
    bad = row(5, "0.0001", "interrupted", None, (0.45,))
    search = OptunaSearch(axes([RATE]), 8, seed=0, pruner="median", rows=[*good, bad])
    assert [trial.value for trial in search.study.trials] == [-0.9] * 5
    search.begins(bad)
    assert search.study.trials[-1].params == {"optimizer.learning_rate": 0.0001}
    bad["reported"].append([1, 0.6])
    assert search.reported(bad)
    bad["status"] = "pruned"
    search.ended(bad)
    assert search.study.trials[-1].state.name == "PRUNED"
    values = search.propose([*good, bad])
    assert values is not None
    assert values not in {tuple(known["values"]) for known in (*good, bad)}


def test_optuna_takes_each_point_of_a_small_grid_once() -> None:
    pytest.importorskip("optuna")
    from accel_cli.analysis.optuna_search import OptunaSearch

    parts = axes(["optimizer.learning_rate=0.1,0.001,0.01", "model=mlp,cnn"])
    search = OptunaSearch(parts, 20, seed=0, pruner="none", rows=[])
    rows: list[dict[str, Any]] = []
    while (values := search.propose(rows)) is not None:
        rows.append(point.row(len(rows), axes_of(parts), values))
        rows[-1]["status"] = "failed"
        search.ended(rows[-1])
    assert len({tuple(one["values"]) for one in rows}) == len(rows) == search.most == 6
    assert {one["values"][0] for one in rows} == {"0.1", "0.001", "0.01"}
