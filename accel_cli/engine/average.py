"""Evaluation weights: what evaluation, the best checkpoint and whoever loads a run read instead of the live ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from accel_cli.optimizer.own import local

Part = Callable[[Tensor, Tensor], Tensor]


class Average:
    """The weights themselves: there is no average, and nothing is surrounded.

    ``is_active``: evaluation reads other weights than the live ones. ``tensors`` are an average's own, by name: saved
    and loaded; one with any has ``after_step``. A skipped step is a step at which the weights stood still.
    """

    is_active = False

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.tensors: dict[str, Tensor] = {}

    @property
    def by_parameter(self) -> dict[Tensor, Tensor]:
        """Live weight -> its average, where that is a tensor of its own."""
        return {}

    def after_step(self, step: int) -> None:
        """Follow the weights; ``step`` counts from 0."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the evaluation weights inside; afterwards the live ones, bit for bit."""
        yield

    def load(self, tensors: dict[str, Tensor], part: Part) -> None:
        """Whole tensors by name, of which ``part`` tells what this rank holds."""
        with torch.no_grad():
            for name, value in self.tensors.items():
                value.copy_(part(tensors[name], value))


class Held(Average):
    """An average of what is trained, which changes places with it; the rest, as BatchNorm's statistics, is live."""

    is_active = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        live = {id(value): (name, value) for name, value in model.state_dict(keep_vars=True).items()}
        self.trained = {name: value for name, value in live.values() if value.requires_grad}
        """By name, each once: tied weights have several."""
        self.tensors = {name: value.detach().clone() for name, value in self.trained.items()}

    @property
    def by_parameter(self) -> dict[Tensor, Tensor]:
        return {value: self.tensors[name] for name, value in self.trained.items()}

    def parts(self) -> tuple[list[Tensor], list[Tensor]]:
        """What this rank holds of the average and of the live weights, asked anew: sharding may move them."""
        return list(map(local, self.tensors.values())), list(map(local, self.trained.values()))

    @contextmanager
    def applied(self) -> Iterator[None]:
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for average, value in zip(*self.parts(), strict=True):
            held = value.detach().clone()
            value.copy_(average)
            average.copy_(held)


class MovingAverage(Held):
    """average <- decay x average + (1 - decay) x weights, after every step (Polyak and Juditsky 1992)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self.decay = decay

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        torch._foreach_lerp_(*self.parts(), 1 - self.decay)


class Lookahead(Held):
    """Every ``steps`` steps the slow weights go ``share`` of the way to the live ones, which begin anew from there.

    Zhang et al. 2019, arXiv:1907.08610, whose algorithm returns the slow weights; the optimizer keeps its momentum. The
    count is that of the run's steps, so a resume, or a skipped step, needs no other.
    """

    def __init__(self, model: nn.Module, steps: int, share: float) -> None:
        super().__init__(model)
        self.steps, self.share = steps, share

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        if (step + 1) % self.steps == 0:
            slow, fast = self.parts()
            torch._foreach_lerp_(slow, fast, self.share)
            torch._foreach_copy_(fast, slow)


class OptimizersOwn(Average):
    """What the optimizer itself says: schedule_free's x, asgd's mean. It is worked out from the optimizer's state."""

    is_active = True

    def __init__(self, model: nn.Module, optimizer: Any) -> None:
        super().__init__(model)
        self.optimizer = optimizer

    @contextmanager
    def applied(self) -> Iterator[None]:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        held = [parameter.detach().clone() for parameter in parameters]
        with torch.no_grad():
            for parameter in parameters:
                average = self.optimizer.average(parameter)
                if average is not None:
                    parameter.data.copy_(average)
        try:
            yield
        finally:
            for parameter, value in zip(parameters, held, strict=True):
                parameter.data.copy_(value)


def evaluation_weights(model: nn.Module, train: Any, optimizer: Optimizer) -> Average:
    """What ``train`` and the optimizer ask for; a rule has refused two at once."""
    if train.ema is not None:
        return MovingAverage(model, train.ema)
    if train.lookahead is not None:
        return Lookahead(model, train.lookahead, train.lookahead_share)
    return OptimizersOwn(model, optimizer) if hasattr(optimizer, "average") else Average(model)
