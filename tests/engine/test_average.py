"""The moving average of the weights."""

from __future__ import annotations

import torch
from torch import nn

from accel_cli.engine.average import MovingAverage


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


def test_without_a_decay_there_is_nothing() -> None:
    model = Tied()
    average = MovingAverage(model, None)
    before = model.embedding.weight.detach().clone()
    with average.applied():
        assert torch.equal(model.embedding.weight, before)
    assert average.tensors == {}
