"""Whether two settings do the same work, before either has run."""

from __future__ import annotations

from typing import Any

from accel_cli.config.run import Run
from accel_cli.config.tree import flatten

WORK = ("data", "model", "task", "train.global_batch", "train.epochs", "train.steps", "train.samples", "train.seconds")
"""What is learnt, by what, in which steps. Of the task only its option: smooth labels teach the same."""
SOURCES = ("data.cache", "data.cache_gigabytes", "data.fingerprint")
"""Where data is kept, which changes nothing about it."""


def unequal(run: Run, other: Run) -> list[str]:
    """In words, how the work of ``other`` differs; empty for equal work."""
    mine, its = _work(run), _work(other)
    return [
        f"{key}={its.get(key, 'none')} for {mine.get(key, 'none')}"
        for key in dict.fromkeys([*mine, *its])
        if mine.get(key) != its.get(key)
    ]


def _work(run: Run) -> dict[str, Any]:
    settings = dict(flatten(run.to_tree()))
    return {
        key: value
        for key, value in settings.items()
        if any(key == part or key.startswith(f"{part}.") for part in WORK)
        and key not in SOURCES
        and not (key.startswith("task.") and key != "task.option")
    }
