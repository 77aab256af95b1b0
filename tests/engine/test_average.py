"""The moving average of the weights."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from accel_cli.engine.average import Lookahead, MovingAverage, evaluation_weights
from accel_cli.optimizer.schedule_free import ScheduleFree


class Tied(nn.Module):
    """One weight by two names, a frozen one, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)


def trained() -> tuple[Tied, MovingAverage, list[torch.Tensor]]:
    torch.manual_seed(0)
    model = Tied()
    average = MovingAverage(model, 0.9)
    weights = [model.embedding.weight.detach().clone()]
    for step in range(3):
        with torch.no_grad():
            model.embedding.weight.add_(torch.randn(5, 3))
            model.norm.running_mean.add_(1.0)  # type: ignore[union-attr]
        average.after_step(step)
        weights.append(model.embedding.weight.detach().clone())
    return model, average, weights


def test_it_is_the_formula_and_tied_weights_are_averaged_once() -> None:
    model, average, weights = trained()
    expected = weights[0]
    for weight in weights[1:]:
        expected = 0.9 * expected + 0.1 * weight
    with average.applied():
        torch.testing.assert_close(model.embedding.weight.detach(), expected)
        assert model.head.weight is model.embedding.weight
        assert torch.equal(model.norm.running_mean, torch.full((3,), 3.0))  # type: ignore[arg-type]


def test_the_weights_come_back_bit_for_bit_also_twice() -> None:
    model, average, weights = trained()
    for _ in range(2):
        held = {name: value.clone() for name, value in average.tensors.items()}
        with average.applied():
            assert not torch.equal(model.embedding.weight, weights[-1])
        assert torch.equal(model.embedding.weight, weights[-1])
        assert all(torch.equal(average.tensors[name], value) for name, value in held.items())


def test_without_an_average_there_is_nothing() -> None:
    model = Tied()
    average = evaluation_weights(model, SimpleNamespace(ema=None, lookahead=None), torch.optim.SGD(model.parameters()))
    before = model.embedding.weight.detach().clone()
    with average.applied():
        assert torch.equal(model.embedding.weight, before)
    assert average.tensors == {}
    assert not average.is_active


def test_lookahead_is_the_algorithm() -> None:
    """Every third step: slow <- slow + 0.5 (fast - slow), fast <- slow; slow is what is evaluated."""
    torch.manual_seed(0)
    model = Tied()
    average = Lookahead(model, 3, 0.5)
    fast = slow = model.embedding.weight.detach().clone()
    for step in range(7):
        change = torch.randn(5, 3)
        with torch.no_grad():
            model.embedding.weight.add_(change)
            model.norm.running_mean.add_(1.0)  # type: ignore[union-attr]
        average.after_step(step)
        fast = fast + change
        if step % 3 == 2:
            slow = fast = slow + 0.5 * (fast - slow)
        torch.testing.assert_close(model.embedding.weight.detach(), fast)
        live = model.embedding.weight.detach().clone()
        with average.applied():
            torch.testing.assert_close(model.embedding.weight.detach(), slow)
            assert torch.equal(model.norm.running_mean, torch.full((3,), step + 1.0))  # type: ignore[arg-type]
        assert torch.equal(model.embedding.weight, live)


def test_what_an_optimizer_averages_leaves_the_live_weights_their_bits() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = ScheduleFree([{"params": list(model.parameters()), "weight_decay": 0.0}], lr=0.1, beta1=0.9, beta2=0.99,
                             epsilon=1e-8)  # fmt: skip
    average = evaluation_weights(model, SimpleNamespace(ema=None, lookahead=None), optimizer)
    with average.applied():
        pass
    for _ in range(3):
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        live = model.weight.detach().clone()
        with average.applied():
            y, z = live, optimizer.state[model.weight]["z"]
            torch.testing.assert_close(model.weight.detach(), (y - 0.1 * z) / 0.9)
        assert torch.equal(model.weight, live)
    assert not torch.equal(live, (live - 0.1 * z) / 0.9)
