"""The user's own function of (step, steps)."""

from __future__ import annotations

import inspect
import math
from typing import Any

from accel_cli.config.factory import load_factory
from accel_cli.errors import ConfigError, Problem
from accel_cli.schedule.base import Schedule


class Custom(Schedule):
    """``factory(**args)`` returns a callable ``(step, steps) -> float``; it must be pure, or resuming changes it.

    Raises ConfigError if the arguments do not fit, or a factor is no finite number of at least 0.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        factory = load_factory(config.factory, "schedule.factory")
        try:
            inspect.signature(factory).bind(**config.args)
        except TypeError as error:
            fix = f"its arguments are {inspect.signature(factory)}"
            raise ConfigError(Problem(f"schedule.args={config.args}", f"{config.factory}: {error}", fix)) from None
        self.function = factory(**config.args)
        if not callable(self.function):
            why = f"made a {type(self.function).__name__}"
            raise ConfigError(
                Problem(f"schedule.factory={config.factory}", why, "let it return a function of (step, steps)")
            )

    def shape(self, step: int, first: int, steps: int) -> float:
        factor = float(self.function(step, steps))
        if not (math.isfinite(factor) and factor >= 0):
            where = f"schedule.factory={self.config.factory}"
            raise ConfigError(Problem(where, f"gave {factor} at step {step} of {steps}", "let it return 0 or more"))
        return factor
