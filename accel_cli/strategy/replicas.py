"""Replicas that train by themselves and agree now and then: what localsgd and diloco share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from accel_cli.errors import DivergedError
from accel_cli.strategy.base import Strategy
from accel_cli.strategy.exchange import Exchange
from accel_cli.world import World


class Replicas(Strategy):
    """Every rank has weights, an optimizer and a loss scale of its own; no step waits for another rank.

    A rank's gradient is that of its own share's mean loss, clipped and checked by its own norm. Buffers, such as
    BatchNorm's statistics, stay each rank's own while it trains. Frozen parameters are equal and are never sent.

    What is evaluated and saved is the mean of the replicas, floating-point buffers included. Right after ranks have
    agreed that is what they hold; in between it is the one set of weights that has every rank's latest steps in it,
    and the one whose convergence local SGD's theory is about (Stich 2019, arXiv 1805.09767).
    """

    replicas_differ = True

    def __init__(self, config: Any, world: World) -> None:
        super().__init__(config, world)
        self.after_step = (self._after_step,)
        self.steps_alone = config.steps > 1
        self.exchange = Exchange(world)
        self.parameters: list[nn.Parameter] = []
        self._is_apart = False
        """Whether the replicas' weights may differ; the same on every rank."""
        self._means: list[Tensor] | None = None
        """What ``evaluating`` found at this step, for the next time."""
        self._training: Any = None

    def agree(self, step: int) -> bool:
        """Exchange what is due after ``step``; returns whether all ranks have the same weights now."""
        raise NotImplementedError

    def wrap(self, model: nn.Module, blocks: Sequence[nn.Module], communication: Any, precision: Any) -> nn.Module:
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        return model

    def forward_backward(self, training: Any, batches: Sequence[Any]) -> tuple[Tensor, float]:
        """The loss comes back divided by the weight: of tokens that do not all count, ranks may have different ones."""
        self._training = training
        total, weight = super().forward_backward(training, batches)
        return total / weight, 1.0

    def reduce_report(self, rows: Tensor) -> None:
        """Losses are added. Norms are averaged. A step is skipped if any rank skipped it: its loss may be none."""
        self.world.sum(rows)
        rows[1] /= self.world.world_size
        rows[2].clamp_(max=1.0)

    def _after_step(self, step: int) -> None:
        clock = self._training.clock
        clock.mark("optimizer")
        self._means = None
        self._is_apart = not self.agree(step)
        clock.mark("communication")

    def must_be_finite(self, mean: Tensor, step: int) -> None:
        """Raise DivergedError, on all ranks together, for the mean that they have just received.

        One rank's nan or inf is in every rank's mean. Nothing has been taken over from it.
        """
        if not bool(torch.isfinite(mean).all()):
            raise DivergedError(
                f"after step {step + 1} a rank's weights held nan or inf; no other rank has taken them over",
                "try a lower optimizer.learning_rate, or train.clip_norm=1.0",
            )

    @contextmanager
    def evaluating(self, model: nn.Module) -> Iterator[None]:
        if self.world.world_size == 1:
            yield
            return
        buffers = [b for b in model.state_dict(keep_vars=True).values() if not isinstance(b, nn.Parameter)]
        # A moving average follows each rank's own weights, before they agree. The model may hold it, or itself.
        averages = self._training is not None and self._training.average.is_active
        live = [*(self.parameters if self._is_apart or averages else ()), *buffers]
        with torch.no_grad():
            kept = [tensor.detach().clone() for tensor in live]
            means = self._means if self._means is not None else self._mean_of(live)
            if not averages:
                self._means = means
            assign(live, means)
        try:
            yield
        finally:
            with torch.no_grad():
                assign(live, kept)

    def _mean_of(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Rank 0's, of integers. A collective."""
        floating = [tensor for tensor in tensors if tensor.is_floating_point()]
        averaged = iter(split(self.exchange.exact_mean(flat(floating)), floating) if floating else ())
        return [next(averaged) if t.is_floating_point() else self.world.share(t.detach().clone()) for t in tensors]

    def own_state(self) -> dict[str, Tensor]:
        return {"bytes_sent": torch.tensor(self.exchange.bytes_sent)}

    def load_own(self, tensors: dict[str, Tensor]) -> None:
        self.exchange.bytes_sent = int(tensors["bytes_sent"])
        self._is_apart = True

    def bytes_sent(self, communication: Any, gradient_bytes: int, steps: int) -> int | None:
        """Counted: what ranks agreed by, and the means that were taken to evaluate and to save."""
        return self.exchange.bytes_sent


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """All elements of all tensors, 1-d, fp32 or wider; a copy."""
    wide = [t.detach().reshape(-1).to(torch.promote_types(t.dtype, torch.float32)) for t in tensors]
    return torch.cat(wide)


def split(values: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The inverse of ``flat``: views of ``values`` in the shapes of ``like``."""
    parts = values.split([tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]


def assign(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Copy values in, of whatever type and memory layout."""
    for tensor, value in zip(tensors, values, strict=True):
        tensor.detach().copy_(value)
