"""An exported model beside PyTorch's: the same inputs through both; their outputs, metrics and latencies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from accel_cli.data.base import Report
from accel_cli.engine.latency import side_by_side
from accel_cli.errors import ConfigError, Problem

Runtime = Callable[[Tensor], Tensor]
BATCH_SIZES = (1, 32)
CHOOSES = ("class", "next_token")
"""Targets for which the largest output is a prediction."""


class Heard(nn.Module):
    """Calls ``run`` with a batch's only input, as a task calls a model, and keeps what came out."""

    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        self.run = run
        self.outputs: list[Tensor] = []

    def forward(self, *inputs: Any, **named: Any) -> Any:
        output = self.run(*inputs, **named)
        self.outputs.append(logits(output).float())
        return output


def logits(output: Any) -> Tensor:
    """Of an object or a mapping that has logits, those."""
    if isinstance(output, dict):
        output = output.get("logits", output)
    found: Tensor = getattr(output, "logits", output)
    return found


class Differences:
    """What two models' outputs for the same inputs differ by."""

    def __init__(self, target: str) -> None:
        self.chooses = target in CHOOSES
        self.largest = self.height = 0.0
        self.equal = self.predictions = self.not_numbers = 0

    def add(self, ours: Tensor, theirs: Tensor) -> None:
        """PyTorch's outputs and the exported model's, [n, ...]."""
        if ours.shape != theirs.shape:
            why = f"gives {list(theirs.shape)} where PyTorch gives {list(ours.shape)}"
            raise ConfigError(Problem("export", f"the exported model {why}", "let the model's shapes follow its input"))
        numbers = ours.isfinite() & theirs.isfinite()
        self.not_numbers += int((ours.isfinite() != theirs.isfinite()).sum())
        ours, theirs = ours.where(numbers, ours.new_zeros(())), theirs.where(numbers, theirs.new_zeros(()))
        self.largest = max(self.largest, float((ours - theirs).abs().max()))
        self.height = max(self.height, float(ours.abs().max()))
        if self.chooses:
            self.equal += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
            self.predictions += ours[..., 0].numel()

    def to_dict(self) -> dict[str, Any]:
        return {
            "largest_difference": self.largest,
            "relative_difference": self.largest / self.height if self.height else 0.0,
            "equal_predictions": self.equal / self.predictions if self.predictions else None,
            "not_numbers": self.not_numbers,
        }


@torch.no_grad()
def beside(
    model: nn.Module,
    runtime: Runtime,
    task: Any,
    batches: Iterable[tuple[Any, int]],
    *,
    split: str,
    samples: int | None,
    report: Report,
) -> dict[str, Any]:
    """Both on every sample of a split, by the task's own metrics; only sums are kept.

    ``relative_difference`` is the largest difference over the largest of PyTorch's outputs.
    """
    ours, theirs = Heard(model), Heard(lambda *inputs, **named: runtime(only_input(inputs, named)))
    differences = Differences(task.description.target)
    totals: tuple[dict[str, Any], dict[str, Any]] = {}, {}
    seen = 0
    for batch, count in batches:
        for heard, total in zip((ours, theirs), totals, strict=True):
            for name, (value, weight) in _measured(task, heard, batch, is_model=heard is ours).items():
                value_sum, weight_sum = total.get(name, (0.0, 0.0))
                total[name] = value_sum + float(value), weight_sum + float(weight)
        for one, other in zip(ours.outputs, theirs.outputs, strict=True):
            differences.add(one, other)
        ours.outputs.clear()
        theirs.outputs.clear()
        seen += count
        report(f"{split} through both", seen, samples or seen + 1)
    if samples is None:
        report(f"{split} through both", seen, seen)
    means = [{name: value / (weight or 1.0) for name, (value, weight) in total.items()} for total in totals]
    pytorch, exported = (task.summarize(mean, split) for mean in means)
    return {"samples": seen, **differences.to_dict(), "pytorch": pytorch, "exported": exported}


def only_input(inputs: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
    found = [*inputs, *named.values()]
    if len(found) == 1 and isinstance(found[0], Tensor):
        return found[0]
    names = ", ".join(named) or f"{len(inputs)} inputs"
    why = f"the task gives the model {names}; an exported one takes a single tensor"
    raise ConfigError(Problem("export", why, "let data.collate give pairs (inputs, targets)"))


def _measured(task: Any, heard: Heard, batch: Any, *, is_model: bool) -> Any:
    try:
        return task.evaluate(heard, batch)
    except AttributeError as error:
        why = f"the task asks the model for more than its output: {error}"
        raise ConfigError(Problem("export", why, "let the task call the model only: model(inputs)")) from error


@torch.no_grad()
def latencies(model: Runtime, runtime: Runtime, inputs: Tensor, report: Report) -> dict[str, dict[str, Any]]:
    """Of a call, by batch size: see ``side_by_side``; its arms are ``pytorch`` and ``exported``."""
    found = {}
    for done, size in enumerate(BATCH_SIZES):
        some = inputs[torch.arange(size) % len(inputs)].contiguous()
        arms = {"pytorch": partial(model, some), "exported": partial(runtime, some)}
        found[str(size)] = side_by_side(arms, lambda: None)
        report("latency", done + 1, len(BATCH_SIZES))
    return found
