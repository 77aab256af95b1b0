"""The user's own model."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

from torch import nn

from accel_cli.config.factory import load_factory
from accel_cli.config.schema.model import Custom
from accel_cli.config.suggest import nearest
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem

NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def facts(description: DataDescription) -> dict[str, Any]:
    """What the data knows, under each name that a factory's parameter may have; unknown facts are left out."""
    shape = description.input_shape
    flat = math.prod(shape) if description.input in ("image", "vector") else None
    numbers = description.classes or description.outputs or description.vocabulary
    known = {
        "classes": description.classes,
        "num_classes": description.classes,
        "n_classes": description.classes,
        "input_shape": tuple(shape),
        "in_channels": shape[0] if description.input == "image" else None,
        "in_features": flat,
        "vocabulary": description.vocabulary,
        "vocab_size": description.vocabulary,
        "outputs": description.outputs or numbers,
    }
    return {name: value for name, value in known.items() if value is not None}


def parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters that can be given by name; {} where Python cannot tell."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return {}
    return {name: p for name, p in signature.parameters.items() if p.kind in NAMED}


def build(config: Custom, description: DataDescription) -> nn.Module:
    """Whatever the factory returns, called with model.args and with what it names of the data's facts.

    Raises ConfigError where there is no factory, where the call does not fit its parameters, and where the
    result is no torch.nn.Module; SecurityError where the command line did not name its module.
    """
    if config.factory is None:
        why = "model=custom needs to know what to call"
        raise ConfigError(Problem("model.factory=null", why, "try model.factory=my_file:MyNet --plugin my_file.py"))
    where = f"model.factory={config.factory}"
    factory = load_factory(config.factory, "model.factory")
    if not callable(factory):
        fix = "name a class or a function that returns a torch.nn.Module"
        raise ConfigError(Problem(where, f"is a {type(factory).__name__}, which cannot be called", fix))
    taken = parameters(factory)
    arguments = {**{k: v for k, v in facts(description).items() if k in taken}, **config.args}
    try:
        model = factory(**arguments)
    except TypeError as error:
        raise ConfigError(call_problem(config, taken, arguments, error)) from error
    if not isinstance(model, nn.Module):
        what = "the class itself" if isinstance(model, type) else f"a {type(model).__name__}"
        raise ConfigError(Problem(where, f"returned {what}, not a torch.nn.Module", "return the model"))
    return model


def call_problem(
    config: Custom, taken: dict[str, inspect.Parameter], arguments: dict[str, Any], error: TypeError
) -> Problem:
    """The TypeError of a call, with what the factory does take and the argument to type."""
    takes = ", ".join(name if p.default is p.empty else f"{name}={p.default!r}" for name, p in taken.items())
    fix = f"it takes {takes or 'no arguments'}"
    unknown = [name for name in config.args if taken and name not in taken]
    missing = [n for n, p in taken.items() if p.default is p.empty and n not in arguments]
    if unknown and (near := nearest(unknown[0], taken)):
        fix = f"did you mean model.args.{near[0]} ? {fix}"
    elif missing:
        fix = f"try model.args.{missing[0]}=... ; {fix}"
    return Problem(f"model.args={config.args}", f"{config.factory}: {error}", fix)
