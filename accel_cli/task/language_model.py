"""The next token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem
from accel_cli.task.base import Sums, Task, shape
from accel_cli.task.batch import split

IGNORED = -100
NEVER = torch.iinfo(torch.int64).min
"""An ignore_index that no target has: an unannounced -100 is then an error, not a token that silently counts."""


class LanguageModel(Task):
    """Cross-entropy of logits [n, length, vocabulary] against targets [n, length], already shifted by one.

    Metrics: ``loss`` in nats a token, ``accuracy``, ``perplexity``, and ``bits_per_byte`` where the data says
    how many bytes a token stands for: unlike the others it can be compared between tokenizers.
    """

    target = "next_token"
    mode = "min"

    def __init__(self, config: Any, description: DataDescription) -> None:
        super().__init__(config, description)
        self.varying_weight = config.ignored_targets
        self.metric = "bits_per_byte" if description.bytes_per_token else "loss"
        derived = ("bits_per_byte",) if description.bytes_per_token else ()
        self.metrics = ("loss", "accuracy", "perplexity", *derived)

    def check(self, output: Any, batch: Any) -> None:
        super().check(output, batch)
        inputs, targets = split(batch)
        vocabulary = self.description.vocabulary or 1
        if output.dim() != 3 or output.shape[:2] != targets.shape or output.shape[2] < vocabulary:
            wanted = f"{[*targets.shape, vocabulary]}"
            raise ConfigError(
                Problem(
                    "model",
                    f"returned {shape(output)}; wanted {wanted}",
                    "end the model in one logit for each of the vocabulary's tokens, at every position",
                )
            )
        if not self.varying_weight and bool((targets == IGNORED).any()):
            raise ConfigError(
                Problem(
                    "task.ignored_targets=false",
                    "some targets are -100, to be left out",
                    "try task.ignored_targets=true",
                )
            )
        tokens = inputs.get("input_ids") if isinstance(inputs, Mapping) else inputs
        counted = targets != IGNORED
        if (
            isinstance(tokens, Tensor)
            and tokens.shape == targets.shape
            and bool(counted.any())
            and bool((tokens == targets)[counted].all())
            and bool((tokens != tokens.flatten()[0]).any())
        ):
            raise ConfigError(
                Problem(
                    "data",
                    "the targets are the inputs themselves, so the model would learn to copy",
                    "shift them by one: targets[i] = inputs[i + 1]",
                )
            )

    def weight(self, batch: Any) -> float:
        """Target tokens; counting those that are not ignored waits for the device."""
        _, targets = split(batch)
        return float((targets != IGNORED).sum()) if self.varying_weight else float(targets.numel())

    def loss_of(self, output: Tensor, batch: Any) -> tuple[Tensor, float]:
        return self._cross_entropy(output, split(batch)[1]), self.weight(batch)

    def measure(self, output: Tensor, batch: Any) -> Sums:
        _, targets = split(batch)
        weight = self.weight(batch)
        return {
            "loss": (self._cross_entropy(output, targets), weight),
            "accuracy": ((output.argmax(-1) == targets).sum(), weight),
        }

    def summarize(self, means: dict[str, float], split: str = "test") -> dict[str, float]:
        shown = dict(means)
        shown["perplexity"] = math.exp(min(means["loss"], 700.0))
        own = self.description.bytes_per_token_of or {}
        if bytes_per_token := own.get(split, self.description.bytes_per_token):
            shown["bits_per_byte"] = means["loss"] / math.log(2) / bytes_per_token
        return shown

    def _cross_entropy(self, output: Tensor, targets: Tensor) -> Tensor:
        ignored = IGNORED if self.varying_weight else NEVER
        return functional.cross_entropy(
            output.float().flatten(0, 1), targets.flatten(), ignore_index=ignored, reduction="sum"
        )
