"""Each optimizer against torch's own loop over tensors, and on a quadratic."""

import pytest
import torch
from optimizer_cases import build, network, train
from torch import nn

from accel_cli.config.parts import table

REFERENCES = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {"beta1": 0.8, "epsilon": 1e-6}, {"betas": (0.8, 0.999), "eps": 1e-6}),
    "adamw": (torch.optim.AdamW, {"beta2": 0.95}, {"betas": (0.9, 0.95)}),
    "nadam": (
        torch.optim.NAdam,
        {"momentum_decay": 0.01},
        {"momentum_decay": 0.01, "decoupled_weight_decay": True},
    ),
    "rmsprop": (
        torch.optim.RMSprop,
        {"smoothing": 0.9, "momentum": 0.5, "centered": True},
        {"alpha": 0.9, "momentum": 0.5, "centered": True},
    ),
    "adagrad": (
        torch.optim.Adagrad,
        {"initial_accumulator": 0.1},
        {"initial_accumulator_value": 0.1},
    ),
}


@pytest.mark.parametrize("option", REFERENCES)
def test_equals_torch(option):
    reference, ours, theirs = REFERENCES[option]
    torch.set_default_dtype(torch.float64)
    try:
        mine, other, untouched = network(), network(), network()
        optimizer = build(option, mine, learning_rate=0.003, weight_decay=0.1, **ours)
        decayed = [p for p in other.parameters() if p.dim() >= 2]
        plain = [p for p in other.parameters() if p.dim() < 2]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
        train(mine, optimizer, 60)
        train(other, reference(groups, lr=0.003, foreach=False, **theirs), 60)
    finally:
        torch.set_default_dtype(torch.float32)
    assert (mine[0].weight - untouched[0].weight).abs().max() > 0.01
    for p, q in zip(mine.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("option", [name for name in table("optimizer") if name != "custom"])
def test_minimises_a_quadratic(option):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 4))
    wanted = [torch.randn_like(p) for p in model.parameters()]

    def distance():
        return sum((p - w).square().sum() for p, w in zip(model.parameters(), wanted, strict=True))

    rate = 0.2 if option == "adagrad" else 0.05
    share = {"adamw_rate": 1.0} if option == "muon" else {}
    optimizer = build(option, model, learning_rate=rate, weight_decay=0.0, **share)
    for group in optimizer.param_groups:
        group["start"] = group["lr"]
    before = distance().item()
    for step in range(300):
        for group in optimizer.param_groups:
            group["lr"] = group["start"] * (1 - step / 300)
        distance().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert distance().item() < 1e-2 * before


@pytest.mark.parametrize("option", ["sgd", "adam", "adamw", "adagrad"])
def test_fused_on_cpu(option):
    optimizer = build(option, network())
    assert all(group["fused"] for group in optimizer.param_groups)


def test_rates_are_multiples_of_the_learning_rate():
    optimizer = build("adamw", network(), {"0.weight": 0.1}, learning_rate=0.5)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["names"]}
    assert rates["0.weight"] == pytest.approx(0.05)
    assert {rate for name, rate in rates.items() if name != "0.weight"} == {0.5}
