"""Gradual unfreezing: layers thaw from the head backwards, at their borders, and what is asked to stay stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from borders import border
from test_transfer import Net, make


@pytest.mark.parametrize(
    ("settings", "steps", "expected"),
    [
        ({}, 100, (20, 40, 60)),
        ({"start": 0.0, "times": 1}, 100, (0,)),
        ({"start": 0.5, "end": 0.99, "times": 3}, 2, (1,)),
        ({"start": 0.0, "end": 0.5, "times": 6}, 4, (0, 1, 2)),
    ],
)
def test_borders_lie_between_start_and_end(settings: dict[str, Any], steps: int, expected: tuple[int, ...]) -> None:
    assert make("gradual_unfreezing", **settings).borders(steps) == expected


def test_layers_thaw_from_the_head_backwards() -> None:
    model, inputs = Net(2), torch.randn(2, 4)
    transfer = make("gradual_unfreezing", times=2, layer_decay=0.5)
    assert transfer.apply(model)[-1] == "trained at first: the last 1 of 5 layers, 14 of 206 numbers"
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}
    assert transfer.rates(model) == {}
    assert len(transfer.frozen_modules(model)) == 3
    first, second = (transfer.borders(10)[n] for n in (0, 1))
    changed = transfer.change(model, border(first, inputs))
    assert changed.record == {"depth": 2}
    assert {n.split(".")[1] for n, p in model.named_parameters() if p.requires_grad and "blocks" in n} == {"1", "2"}
    assert transfer.frozen_modules(model) == [model.blocks[0][1]]
    assert transfer.rates(model)["blocks.1.0.weight"] == 0.25
    other = Net(2)
    transfer.apply(other)
    transfer.replay(other, changed.record)
    assert [p.requires_grad for p in other.parameters()] == [p.requires_grad for p in model.parameters()]
    assert transfer.change(model, border(second, inputs)).record == {"depth": 0}
    assert all(p.requires_grad for p in model.parameters())
    assert transfer.frozen_modules(model) == []


def test_what_is_frozen_never_thaws_and_what_is_new_is_never_frozen() -> None:
    model = Net(2)
    model.new_parameters = ("stem.weight",)
    transfer = make("gradual_unfreezing", times=1, freeze=["blocks.1.*"])
    transfer.apply(model)
    assert model.stem.weight.requires_grad
    assert not model.stem.bias.requires_grad
    transfer.change(model, border(transfer.borders(10)[0], torch.randn(2, 4)))
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in model.named_parameters() if n.startswith("blocks.1.")}
