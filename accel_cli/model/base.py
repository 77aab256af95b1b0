"""Where a model meets the data: how many numbers it puts out, and what it refuses to take in."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import nn

from accel_cli.config.schema.base import Option
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem

CUSTOM = "try model=custom model.factory=my_file:MyNet --plugin my_file.py"


def suited(description: DataDescription) -> str:
    """The override to type for a model that takes this data."""
    if description.input == "tokens":
        other = "try model=transformers model.architecture=distilbert"
        return {"next_token": "try model=gpt", "class": other, "number": other}.get(description.target, CUSTOM)
    return {"image": "try model=cnn", "vector": "try model=mlp"}.get(description.input, CUSTOM)


def require(config: Option, description: DataDescription, *, inputs: Collection[str], targets: Collection[str]) -> None:
    """Raise ConfigError unless the data has one of these kinds of input and of target."""
    if description.input not in inputs:
        why = f"takes {' or '.join(inputs)} input; the data has {described(description)}"
    elif description.target not in (*targets, "other"):
        why = f"predicts {' or '.join(targets)}; the data's target is {description.target}"
    else:
        return
    raise ConfigError(Problem(f"model={config.option}", why, suited(description)))


def described(description: DataDescription) -> str:
    """The kind and shape of a sample, for a message: ``image 3x32x32``."""
    return f"{description.input} {'x'.join(map(str, description.input_shape))}"


def outputs(config: Option, description: DataDescription) -> int:
    """Numbers that the model puts out for a sample (for a token, where the target is the next one)."""
    known = {
        "class": description.classes,
        "number": description.outputs,
        "next_token": description.vocabulary,
        "other": description.classes or description.outputs,
    }
    count = known[description.target]
    if not count:
        why = f"the data does not say how many numbers a target of kind {description.target} needs"
        raise ConfigError(Problem(f"model={config.option}", why, CUSTOM))
    return count


def check_heads(width: int, heads: int) -> None:
    """Raise ConfigError with the nearest number of heads where heads do not divide width."""
    if width % heads:
        divisors = [n for n in range(1, width + 1) if width % n == 0]
        best = min(divisors, key=lambda n: (abs(n - heads), n))
        why = f"attention heads must divide model.width={width}"
        raise ConfigError(Problem(f"model.heads={heads}", why, f"try model.heads={best}"))


def normalise(kind: str, channels: int) -> nn.Module:
    """BatchNorm, or GroupNorm (Wu and He 2018, arXiv:1803.08494) with at most 8 groups of 2 or more channels."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(1 if channels % 2 else math.gcd(8, channels // 2), channels)


def on_meta() -> bool:
    """Whether models are now built without storage: shapes only, under ``torch.device("meta")``."""
    return torch.get_default_device().type == "meta"


def probe(config: Option, twin: nn.Module, description: DataDescription, *, where: str, fix: str) -> None:
    """Run shapes only through ``twin``, a model on the meta device; a refusal of them becomes a ConfigError.

    A model that has operations without a meta kernel is let through: the first real step will tell.
    """
    training = twin.training
    twin.eval()
    try:
        result = twin(torch.empty(2, *description.input_shape, device="meta"))
    except NotImplementedError:
        return
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        why = f"cannot take {described(description)}: {reason}"
        raise ConfigError(Problem(where, why, fix)) from error
    finally:
        twin.train(training)
    count = outputs(config, description)
    if not isinstance(result, torch.Tensor) or tuple(result.shape) != (2, count):
        shape = tuple(result.shape[1:]) if isinstance(result, torch.Tensor) else type(result).__name__
        why = f"puts out {shape} for a sample; the data needs {count} numbers"
        raise ConfigError(Problem(where, why, suited(description)))
