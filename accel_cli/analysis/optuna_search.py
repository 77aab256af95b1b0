"""Points proposed by Optuna from how the earlier ones ended, and bad ones ended early.

Its memory is the sweep's own file: a study is made anew from the rows, so that a killed search has one truth to go on
from. Akiba et al. 2019, Optuna: A Next-generation Hyperparameter Optimization Framework; the sampler is the
tree-structured Parzen estimator of Bergstra et al. 2011.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import Trial, TrialState, create_trial

from accel_cli.analysis.search import TRIES, Point, Row, Search, objective
from accel_cli.config.axes import Axis, Parts, axes_of

PRUNERS = {"median": MedianPruner, "asha": SuccessiveHalvingPruner, "none": NopPruner}
UNDECIDED = ("waiting", "running", "interrupted")


class OptunaSearch(Search):
    """``rows`` are those of an earlier process of the same sweep; ``parallel`` whether points run beside each other."""

    ahead = 0

    def __init__(
        self, parts: Parts, trials: int, *, seed: int, pruner: str, rows: Sequence[Row], parallel: bool = False
    ) -> None:
        super().__init__([])
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.axes = axes_of(parts)
        self.space = {axis.key: distribution(axis) for axis in self.axes}
        finite = not any(axis.is_interval for axis in self.axes)
        self.most = min(trials, math.prod(len(set(axis.values)) for axis in self.axes)) if finite else trials
        sampler = optuna.samplers.TPESampler(seed=seed + len(rows), constant_liar=parallel)
        chosen: BasePruner = PRUNERS[pruner]()
        self.study = optuna.create_study(sampler=sampler, pruner=chosen)
        self.running: dict[int, Trial] = {}
        for row in rows:
            if row["status"] not in UNDECIDED:
                self.study.add_trial(self._ended_trial(row))

    def propose(self, known: Sequence[Row]) -> Point | None:
        if len(known) >= self.most:
            return None
        taken = {tuple(row["values"]): row for row in known}
        for _ in range(TRIES):
            trial = self.study.ask(self.space)
            point = tuple(written(axis, trial.params[axis.key]) for axis in self.axes)
            if point not in taken:
                self.running[len(known)] = trial
                return point
            self._tell(trial, taken[point])
        return None

    def begins(self, row: Row) -> None:
        """A row of an earlier process gets its trial back, with what it had reported."""
        if row["number"] not in self.running:
            self.study.enqueue_trial(self._parameters(row))
            trial = self.running[row["number"]] = self.study.ask(self.space)
            for place, (_, value) in enumerate(row["reported"]):
                trial.report(_sign(row["mode"]) * value, place)

    def reported(self, row: Row) -> bool:
        """Values compare by their place: of other batches, steps would not."""
        trial = self.running[row["number"]]
        trial.report(_sign(row["mode"]) * row["reported"][-1][1], len(row["reported"]) - 1)
        return trial.should_prune()

    def ended(self, row: Row) -> None:
        if row["status"] not in UNDECIDED and (trial := self.running.pop(row["number"], None)) is not None:
            self._tell(trial, row)

    def _tell(self, trial: Trial, row: Row) -> None:
        state, value = _state(row)
        self.study.tell(trial, value, state)

    def _ended_trial(self, row: Row) -> optuna.trial.FrozenTrial:
        state, value = _state(row)
        reported = {place: _sign(row["mode"]) * value for place, (_, value) in enumerate(row["reported"])}
        return create_trial(
            params=self._parameters(row), distributions=self.space, state=state, value=value,
            intermediate_values=reported,
        )  # fmt: skip

    def _parameters(self, row: Row) -> dict[str, Any]:
        return {axis.key: parameter(axis, value) for axis, value in zip(self.axes, row["values"], strict=True)}


def _sign(mode: str | None) -> int:
    """The study always minimises: what is better is known only when the first run has told."""
    return -1 if mode == "max" else 1


def _state(row: Row) -> tuple[TrialState, float | None]:
    value = objective(row)
    if row["status"] in ("completed", "target_reached", "stopped_early") and value is not None:
        return TrialState.COMPLETE, _sign(row["metric"]["mode"]) * value
    return (TrialState.PRUNED if row["status"] == "pruned" else TrialState.FAIL), None


def distribution(axis: Axis) -> BaseDistribution:
    """Numbers are in order, by their place among one another; names are not."""
    if axis.low is not None and axis.high is not None:
        if axis.is_whole:
            return IntDistribution(int(axis.low), int(axis.high), log=axis.logarithmic)
        return FloatDistribution(axis.low, axis.high, log=axis.logarithmic)
    return IntDistribution(0, len(axis.values) - 1) if axis.numbers else CategoricalDistribution(axis.values)


def written(axis: Axis, parameter: Any) -> str:
    """The value that stands for Optuna's own."""
    if axis.is_interval:
        return axis.written(parameter)
    return _in_order(axis)[parameter] if axis.numbers else str(parameter)


def parameter(axis: Axis, value: str) -> Any:
    """Optuna's own for a value."""
    if axis.is_interval:
        return int(value) if axis.is_whole else float(value)
    return _in_order(axis).index(value) if axis.numbers else value


def _in_order(axis: Axis) -> list[str]:
    return [value for _, value in sorted(zip(axis.numbers, axis.values, strict=True))]
