"""The user's own optimizer class."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from accel_cli.config.factory import load_factory
from accel_cli.errors import ConfigError, Problem
from accel_cli.optimizer.base import start_momentum, with_rates


def build(config: Any, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
    """Call ``factory(groups, lr=learning_rate, **args)``; each group carries its own weight_decay.

    Raises ConfigError if the arguments do not fit, if it makes no torch.optim.Optimizer, or if a weight decay is
    asked of one that has none.
    """
    factory = load_factory(config.factory, "optimizer.factory")
    starting = with_rates(groups, config.learning_rate)
    try:
        inspect.signature(factory).bind(starting, lr=config.learning_rate, **config.args)
    except TypeError as error:
        why = f"{config.factory} cannot be called with (groups, lr=..., **args): {error}"
        raise ConfigError(
            Problem(f"optimizer.args={config.args}", why, f"its arguments are {inspect.signature(factory)}")
        ) from None
    _check_step(config.factory, factory)
    optimizer = factory(starting, lr=config.learning_rate, **config.args)
    where = f"optimizer.factory={config.factory}"
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(Problem(where, f"made a {type(optimizer).__name__}", "let it return a torch.optim.Optimizer"))
    if config.weight_decay and "weight_decay" not in optimizer.defaults:
        raise ConfigError(
            Problem(
                f"optimizer.weight_decay={config.weight_decay}",
                f"{config.factory} has no weight_decay",
                "try optimizer.weight_decay=0",
            )
        )
    return start_momentum(optimizer) if type(optimizer) is torch.optim.SGD else optimizer


def _check_step(name: str, factory: Any) -> None:
    """Raise ConfigError for an optimizer such as LBFGS, whose step cannot do without a closure."""
    step = getattr(factory, "step", None) if inspect.isclass(factory) else None
    closure = inspect.signature(step).parameters.get("closure") if step is not None else None
    if closure is not None and closure.default is inspect.Parameter.empty:
        why = f"{name} computes the gradient again within a step; a run computes it once, before"
        raise ConfigError(Problem(f"optimizer.factory={name}", why, "try optimizer=adamw"))
