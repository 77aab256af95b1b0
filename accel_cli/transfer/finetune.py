"""Start from trained weights; freeze or slow down what is already good."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from accel_cli.config.schema.transfer import Finetune as Schema
from accel_cli.config.suggest import unmatched
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem
from accel_cli.transfer.base import Transfer
from accel_cli.transfer.depth import depths
from accel_cli.transfer.weights import load, plain


class Finetune(Transfer):
    """Weights by name and shape, frozen parameters, layer-wise learning rates, a rate for what is new."""

    config: Schema

    def __init__(self, config: Schema):
        super().__init__(config)
        self.new: set[str] | None = None
        """Names of parameters that no trained weights filled; None while nobody has said."""

    def apply(self, model: nn.Module, description: DataDescription | None = None) -> list[str]:
        """Load, then freeze. Raises ConfigError for what cannot be found or matched, SecurityError for a pickle."""
        self.new, lines = begin(model, self.config.weights, description)
        if self.config.head_rate != 1 and self.new is None:
            why = "nobody has said which parameters are new: there are no weights"
            raise ConfigError(
                Problem(f"transfer.head_rate={self.config.head_rate}", why, "try transfer.weights=runs/<run>")
            )
        return lines + freeze(model, self.config.freeze)

    def rates(self, model: nn.Module) -> dict[str, float]:
        """layer_decay ** (layers between this one and the head), as in BEiT (Bao et al. 2021, arXiv:2106.08254),
        times head_rate where the parameter is new."""
        depth_of = depths(model)
        last = max(depth_of.values(), default=0)
        new = self.new or set()
        rates = {
            name: self.config.layer_decay ** (last - depth_of[name])
            * (self.config.head_rate if plain(name) in new else 1.0)
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        return {name: rate for name, rate in rates.items() if rate != 1}

    def frozen_modules(self, model: nn.Module) -> list[nn.Module]:
        """BatchNorm layers whose parameters are all frozen: in train mode their statistics would still move."""
        return still(model) if self.config.freeze else []


def still(model: nn.Module) -> list[nn.Module]:
    """The BatchNorm layers whose parameters are all frozen."""
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [m for m in layers if m.affine and not any(p.requires_grad for p in m.parameters())]


def begin(
    model: nn.Module, weights: str | None, description: DataDescription | None = None
) -> tuple[set[str] | None, list[str]]:
    """Load what is named, or keep what the model brought: (parameters that no trained weights filled, lines)."""
    if weights is not None:
        loaded = load(model, weights, description)
        return {plain(name) for name in loaded.new}, list(loaded.lines)
    if (brought := getattr(model, "new_parameters", None)) is not None:
        return {plain(name) for name in brought}, [
            f"the model's published weights; new: {', '.join(brought) or 'nothing'}"
        ]
    return None, ["no weights given, and none known to be published: first values are the model's own"]


def freeze(model: nn.Module, patterns: list[str]) -> list[str]:
    """Stop the gradients of every parameter that a glob pattern matches; returns a line for the user.

    Raises ConfigError for a pattern that matches nothing, and where nothing would be left to train.
    """
    parameters = {plain(name): parameter for name, parameter in model.named_parameters()}
    problems = []
    frozen: set[str] = set()
    for pattern in patterns:
        matches = {name for name in parameters if fnmatchcase(name, pattern)}
        frozen |= matches
        if not matches:
            where = f"transfer.freeze={pattern}"
            problems.append(unmatched(where, pattern, list(parameters), "transfer.freeze=[{}]"))
    if parameters and len(frozen) == len(parameters):
        where = f"transfer.freeze=[{','.join(patterns)}]"
        problems.append(Problem(where, "freezes every parameter: nothing is left to train", "leave the head out"))
    if problems:
        raise ConfigError(problems)
    for name in frozen:
        parameters[name].requires_grad_(False)
    numbers = sum(parameters[name].numel() for name in frozen)
    total = sum(parameter.numel() for parameter in parameters.values())
    return [f"frozen: {len(frozen)} of {len(parameters)} tensors, {numbers:,} of {total:,} numbers"] if frozen else []
