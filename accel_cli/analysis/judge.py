"""What the points of a sweep are compared by, where that is not the run's own metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accel_cli.analysis.reading import read_lines
from accel_cli.config.suggest import did_you_mean, nearest
from accel_cli.engine.summary import EMPTY
from accel_cli.errors import ConfigError, Problem

MORE_IS_BETTER = ("per_second", "utilisation", "accuracy")
"""Ends of the names of what should be large; of times, sizes and losses less is better."""
EVALUATED = ("validation_", "test_")
Metric = tuple[str, str]
"""A name, and min or max."""


def metric_of(name: str, mode: str | None) -> Metric:
    """A number of summary.json, or of an evaluation. Raises ConfigError for a name that is neither."""
    numbers = [key for key, value in EMPTY.items() if not isinstance(value, dict | list)]
    numbers += [f"{key}.{inner}" for key, value in EMPTY.items() if isinstance(value, dict) for inner in value]
    if name not in numbers and not name.startswith(EVALUATED):
        meant = did_you_mean(nearest(name, numbers)) or "try train_seconds, or validation_accuracy"
        raise ConfigError(Problem(f"--metric {name}", "is neither in summary.json nor an evaluation's", meant))
    return name, mode or ("max" if name.endswith(MORE_IS_BETTER) else "min")


def value(folder: Path, summary: dict[str, Any], name: str, mode: str) -> dict[str, Any]:
    """The same keys as the ``metric`` of summary.json; an evaluation's is the best of all of them."""
    found: Any = summary
    for key in name.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    step = None
    if name.startswith(EVALUATED):
        lines = read_lines(folder / "metrics.jsonl").value
        seen = [(line[name], line["step"]) for line in lines if line.get(name) is not None]
        if seen:
            found, step = (max if mode == "max" else min)(seen, key=lambda pair: pair[0])
    return {"name": name, "mode": mode, "value": found, "best": found, "best_step": step}
