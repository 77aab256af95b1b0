"""DiLoCo: an outer optimizer over what ranks have learned by themselves in many inner steps."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import torch
from torch import Tensor, nn

from accel_cli.errors import CheckpointError
from accel_cli.strategy.exchange import Exchange, done
from accel_cli.strategy.replicas import Replicas, assign, flat, split
from accel_cli.world import World


class DiLoCo(Replicas):
    """DiLoCo (Douillard et al. 2023, arXiv 2311.08105), with the fragments and the overlap of Streaming DiLoCo.

    Fragments of the model take turns within a round. With ``overlap`` an exchange runs while the next inner steps go
    on, and is applied after just so many of them: a run repeats bit for bit. What a rank has learned meanwhile is kept,
    on top of the new outer weights (Douillard et al. 2025, arXiv 2501.18512, mix the two sets of weights instead).
    """

    def __init__(self, config: Any, world: World) -> None:
        super().__init__(config, world)
        self.exchange = Exchange(world, config.compression, background=config.overlap > 0)
        self.fragments: list[Fragment] = []

    def wrap(self, model: nn.Module, blocks: Sequence[nn.Module], communication: Any, precision: Any) -> nn.Module:
        model = super().wrap(model, blocks, communication, precision)
        parts = divide(self.parameters, self.config.fragments)
        turns = [number * self.config.steps // len(parts) for number in range(len(parts))]
        self.fragments = [
            Fragment(part, turn, self.config, self.exchange) for part, turn in zip(parts, turns, strict=True)
        ]
        return model

    def forward_backward(self, training: Any, batches: Sequence[Any]) -> tuple[Tensor, float]:
        for fragment in self.fragments:
            fragment.begin()
        return super().forward_backward(training, batches)

    @torch.no_grad()
    def agree(self, step: int) -> bool:
        for fragment in self.fragments:
            if fragment.is_due(step - self.config.overlap) and fragment.pending is not None:
                self._apply(fragment, step)
            if fragment.is_due(step):
                fragment.start()
                if not self.config.overlap:
                    self._apply(fragment, step)
        return not self.config.overlap and all(fragment.is_due(step) for fragment in self.fragments)

    def _apply(self, fragment: Fragment, step: int) -> None:
        mean = fragment.mean()
        self.must_be_finite(mean, step)
        fragment.apply(mean)

    def state(self) -> dict[str, Tensor]:
        """The outer optimizer's, which is the same on every rank, and the exchanges under way, which it waits for."""
        found: dict[str, Tensor] = {}
        for number, fragment in enumerate(self.fragments):
            found |= {f"{number}/{name}": value for name, value in fragment.shared().items()}
        return self.gather(found)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Raises CheckpointError where the model was divided otherwise. Before the first step there is nothing."""
        if not tensors:
            return
        sizes = {f"{n}/outer": sum(p.numel() for p in f.parameters) for n, f in enumerate(self.fragments)}
        if sizes != {name: value.numel() for name, value in tensors.items() if name.endswith("/outer")}:
            raise CheckpointError("the checkpoint has other fragments", "use the run's own strategy.fragments")
        for number, fragment in enumerate(self.fragments):
            fragment.load(_part(tensors, number), self.world.device)

    def own_state(self) -> dict[str, Tensor]:
        pending = {f"{n}/sent": f.sent for n, f in enumerate(self.fragments) if f.sent is not None}
        return {**super().own_state(), **pending}

    def load_own(self, tensors: dict[str, Tensor]) -> None:
        super().load_own(tensors)
        for number, fragment in enumerate(self.fragments):
            sent = _part(tensors, number).get("sent")
            fragment.sent = None if sent is None else sent.to(self.world.device)


class Fragment:
    """Parameters that are exchanged together, at one turn of every round, with their outer optimizer."""

    def __init__(self, parameters: Sequence[nn.Parameter], turn: int, config: Any, exchange: Exchange) -> None:
        self.parameters = parameters
        self.turn = turn
        self.config = config
        self.exchange = exchange
        self.outer: Tensor | None = None
        """The weights that all ranks began this round with, flat."""
        self.momentum: Tensor | None = None
        self.sent: Tensor | None = None
        """What this rank gave to the exchange under way: outer weights less its own."""
        self.pending: Future[Tensor] | None = None

    def begin(self) -> None:
        """Before the first step, and after whatever has been loaded: ranks are equal here."""
        if self.outer is None:
            self.outer = flat(self.parameters)
            self.momentum = torch.zeros_like(self.outer)

    def is_due(self, step: int) -> bool:
        return step >= 0 and (step + 1) % self.config.steps == self.turn

    def start(self) -> None:
        assert self.outer is not None
        self.sent = self.outer - flat(self.parameters)
        self.pending = self.exchange.start(self.sent.clone())

    def mean(self) -> Tensor:
        assert self.pending is not None
        return self.pending.result()

    def apply(self, gradient: Tensor) -> None:
        """One step of SGD with momentum on the outer weights, as torch's own takes it."""
        assert self.outer is not None
        assert self.momentum is not None
        assert self.sent is not None
        share = self.config.outer_momentum
        self.momentum.mul_(share).add_(gradient)
        update = gradient.add(self.momentum, alpha=share) if self.config.nesterov else self.momentum
        # Where a rank was when the exchange began, it has left since: what it learned meanwhile.
        learned = flat(self.parameters).sub_(self.outer).add_(self.sent) if self.config.overlap else None
        self.outer.add_(update, alpha=-self.config.outer_learning_rate)
        weights = self.outer if learned is None else learned.add_(self.outer)
        assign(self.parameters, split(weights, self.parameters))
        self.sent = self.pending = None

    def shared(self) -> dict[str, Tensor]:
        """What is the same on every rank."""
        if self.outer is None or self.momentum is None:
            return {}
        pending = {} if self.pending is None else {"mean": self.mean()}
        return {"outer": self.outer, "momentum": self.momentum, **pending}

    def load(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        self.outer, self.momentum = tensors["outer"].to(device), tensors["momentum"].to(device)
        self.pending = done(tensors["mean"].to(device)) if "mean" in tensors else None


def divide(parameters: Sequence[nn.Parameter], parts: int) -> list[list[nn.Parameter]]:
    """Consecutive parameters in at most so many parts of about the same number of elements; none of them empty."""
    total = sum(parameter.numel() for parameter in parameters)
    found: list[list[nn.Parameter]] = [[] for _ in range(parts)]
    passed = 0
    for parameter in parameters:
        middle = passed + parameter.numel() / 2
        found[min(parts - 1, int(middle * parts / total))].append(parameter)
        passed += parameter.numel()
    return [part for part in found if part]


def _part(tensors: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    prefix = f"{number}/"
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
