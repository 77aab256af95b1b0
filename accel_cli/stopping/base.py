"""The harmless stopping rule: train to the stated length; and reading a metric by the name that users see."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Literal

from accel_cli.errors import ConfigError, Problem

Mode = Literal["min", "max"]
MORE_IS_BETTER = ("accuracy", "precision", "recall", "f1", "auc", "r2", "iou", "score", "bleu", "psnr")


class Stopping:
    """Never stops a run before its length is up."""

    def __init__(self, config: Any, metric: str, mode: Mode) -> None:
        """``metric`` and ``mode`` are the task's own, without the prefix of the split."""
        self.config = config

    def check(self, names: Iterable[str]) -> None:
        """Raise ConfigError if the rule reads a metric that is not one of ``names`` (``validation_loss``, ...)."""

    def observe(self, step: int, metrics: dict[str, float]) -> str | None:
        """None: go on; else the status the run ends with: ``stopped_early`` or ``target_reached``."""
        return None

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Take up what ``state`` gave."""


class Watching(Stopping):
    """A rule that reads one metric: ``name`` as users see it, ``mode`` whether less or more is better."""

    def __init__(self, config: Any, metric: str, mode: Mode) -> None:
        super().__init__(config, metric, mode)
        own = f"validation_{metric}"
        self.name = own if config.metric == "auto" else config.metric
        self.mode = mode if self.name == own else mode_of(self.name)

    def check(self, names: Iterable[str]) -> None:
        names = sorted(names)
        if self.name in names:
            return
        near = difflib.get_close_matches(self.name, names, n=1) or [
            name for name in names if name.endswith("_" + self.name)
        ]
        raise ConfigError(
            Problem(
                f"stopping.metric={self.config.metric}",
                f"no such metric; there are: {', '.join(names)}",
                f"did you mean stopping.metric={near[0]} ?" if near else "try stopping.metric=auto",
            )
        )

    def read(self, metrics: dict[str, float]) -> float:
        """Today's value. Raises ConfigError if the evaluation gave none by that name."""
        if self.name not in metrics:
            self.check(metrics)
        return metrics[self.name]

    def better(self, value: float, than: float, *, by: float = 0.0) -> bool:
        """Whether it beats ``than`` by more than ``by``; NaN never does."""
        return value > than + by if self.mode == "max" else value < than - by


def mode_of(name: str) -> Mode:
    """Accuracy-like metrics should rise, all others (losses, errors, perplexity, bits) fall."""
    return "max" if any(word in name for word in MORE_IS_BETTER) else "min"
