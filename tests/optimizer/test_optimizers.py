"""Each optimizer against torch's own loop over tensors, and on a quadratic."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schedulefree
import torch
from optimizer_cases import CPU, build, configured, network, train
from optimizer_formulas import FORMULAS
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from accel_cli.config.parts import implementation, table
from accel_cli.engine.step import set_learning_rate
from accel_cli.errors import ConfigError
from accel_cli.optimizer.base import kernel
from accel_cli.optimizer.groups import parameter_groups
from accel_cli.optimizer.patterns import freeze

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
    "adamax": (torch.optim.Adamax, {"beta1": 0.8, "epsilon": 1e-6}, {"betas": (0.8, 0.999), "eps": 1e-6}),
    "radam": (torch.optim.RAdam, {"beta2": 0.99}, {"betas": (0.9, 0.99), "decoupled_weight_decay": True}),
    "adadelta": (torch.optim.Adadelta, {"smoothing": 0.8, "epsilon": 1e-3}, {"rho": 0.8, "eps": 1e-3}),
    "asgd": (torch.optim.ASGD, {"average_from": 20.0, "power": 0.5}, {"t0": 20.0, "alpha": 0.5}),
    "rprop": (torch.optim.Rprop, {"shrink": 0.4, "largest_step": 0.1}, {"etas": (0.4, 1.2), "step_sizes": (1e-6, 0.1)}),
    "adafactor": (torch.optim.Adafactor, {"clip_threshold": 2.0}, {"d": 2.0}),
    "adagrad": (
        torch.optim.Adagrad,
        {"initial_accumulator": 0.1},
        {"initial_accumulator_value": 0.1},
    ),
}


BY_NAME = [
    {"match": "4.*", "rate": 0.1},
    {"match": "*.bias", "weight_decay": 0.2},
    {"match": "3.weight", "frozen": True},
]
STEPS = 100


def theirs(model: nn.Module, decays: bool) -> list[dict[str, Any]]:
    """What ``BY_NAME`` comes to, by hand; ``rate`` is for the schedule."""
    decay = 0.1 if decays else 0.0
    groups = []
    for name, p in model.named_parameters():
        if name == "3.weight":
            p.requires_grad_(False)
        elif name.startswith("4."):
            groups.append({"params": [p], "rate": 0.1, "weight_decay": decay if p.dim() > 1 else 0.0})
        else:
            own = 2 * decay if name.endswith(".bias") else decay if p.dim() > 1 else 0.0
            groups.append({"params": [p], "rate": 1.0, "weight_decay": own})
    return groups


def train_scheduled(model: nn.Module, optimizer: Any, rate: float) -> None:
    """100 steps of a cosine, as a run sets the rate."""
    generator = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        set_learning_rate(optimizer, rate * (1 + math.cos(math.pi * step / STEPS)) / 2)
        inputs = torch.randn(16, 6, generator=generator)
        (model(inputs) - inputs[:, :3].sin()).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture
def in_fp64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def compare(option: str, ours: dict[str, Any], reference: Callable[[list[dict[str, Any]]], Any], rate: float) -> None:
    mine, other, untouched = network(), network(), network()
    decays = option != "rprop"
    groups = BY_NAME if decays else [group for group in BY_NAME if "weight_decay" not in group]
    config = configured(option, learning_rate=rate, weight_decay=0.1 if decays else 0.0, groups=groups, **ours)
    freeze(mine, config.groups)
    optimizer = implementation("optimizer", config)(config, parameter_groups(mine, config, {}), CPU)
    train_scheduled(mine, optimizer, rate)
    train_scheduled(other, reference(theirs(other, decays)), rate)
    assert (mine[0].weight - untouched[0].weight).abs().max() > 1e-3
    assert torch.equal(mine[3].weight, untouched[3].weight)
    for p, q in zip(mine.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("in_fp64")
@pytest.mark.parametrize("option", REFERENCES)
def test_equals_torch(option: str) -> None:
    reference, ours, plain = REFERENCES[option]
    compare(option, ours, lambda groups: reference(groups, lr=0.003, foreach=False, **plain), 0.003)


@pytest.mark.usefixtures("in_fp64")
@pytest.mark.parametrize("option", FORMULAS)
def test_equals_the_formula(option: str) -> None:
    rate = {"lars": 1.0}.get(option, 0.01)
    compare(option, {}, FORMULAS[option], rate)


@pytest.mark.usefixtures("in_fp64")
def test_schedule_free_is_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what it evaluates; the package's own step wants its training mode."""
    found = []

    def reference(groups: list[dict[str, Any]]) -> Any:
        made = schedulefree.AdamWScheduleFree(groups, lr=0.01, foreach=False)
        made.train()
        found.append(made)
        return made

    compare("schedule_free", {}, reference, 0.01)
    mine, other = network(), network()
    optimizer, package = (
        build("schedule_free", mine, learning_rate=0.01),
        reference([{"params": list(other.parameters())}]),
    )
    train(mine, optimizer, 20)
    train(other, package, 20)
    package.eval()
    for p, q in zip(mine.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(optimizer.average(p), q.detach(), rtol=1e-6, atol=1e-6)


class Watching(TorchDispatchMode):
    """As the engine counts what a step sends."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_adamw8bit_is_near_adamw() -> None:
    torch.manual_seed(0)
    mine, other = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)
    other.load_state_dict(mine.state_dict())
    before = mine.weight.detach().clone()
    optimizer, exact = build("adamw8bit", mine), build("adamw", other)
    for step in range(10):
        inputs = torch.randn(32, 64, generator=torch.Generator().manual_seed(step))
        for model, made in ((mine, optimizer), (other, exact)):
            set_learning_rate(made, 0.001)
            (model(inputs) - inputs.sin()).square().mean().backward()
            with Watching():
                made.step()
            made.zero_grad()
    moved = (other.weight - before).norm()
    assert 0 < (mine.weight - other.weight).norm() < 0.1 * moved
    assert optimizer.state[mine.weight]["exp_avg"].codes.dtype is torch.uint8


@pytest.mark.parametrize("option", [name for name in table("optimizer") if name not in ("custom", "adamw8bit")])
def test_minimises_a_quadratic(option):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 4))
    wanted = [torch.randn_like(p) for p in model.parameters()]

    def distance():
        return sum((p - w).square().sum() for p, w in zip(model.parameters(), wanted, strict=True))

    rate = {"adagrad": 0.2, "adadelta": 10.0}.get(option, 0.05)
    own = {"muon": {"adamw_rate": 1.0}, "lars": {"trust": 1.0}, "asgd": {"shrink": 0.0}}.get(option, {})
    optimizer = build(option, model, learning_rate=rate, weight_decay=0.0, **own)
    before = distance().item()
    for step in range(300):
        set_learning_rate(optimizer, rate * (1 - step / 300))
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


def test_the_kernel_can_be_chosen() -> None:
    for name, expected in (("loop", (False, None)), ("foreach", (True, None)), ("fused", (None, True))):
        (group, *_) = build("sgd", network(), kernel=name).param_groups
        assert (group["foreach"], group["fused"]) == expected
    assert not build("rmsprop", network(), kernel="loop").param_groups[0]["foreach"]
    with pytest.raises(ConfigError, match="no fused sgd"):
        kernel(configured("sgd", kernel="fused"), None, [], CPU)


def test_groups_of_small_tensors_are_walked_by_foreach() -> None:
    """Those of large ones by a loop, unless the kernel is said."""
    model = nn.Sequential(nn.Linear(128, 256), nn.Linear(128, 256))
    groups = build("radam", model).param_groups
    assert {name: g["foreach"] for g in groups for name in g["names"]} == {
        "0.weight": False, "0.bias": True, "1.weight": False, "1.bias": True,
    }  # fmt: skip
    assert {g["foreach"] for g in build("radam", model, kernel="loop").param_groups} == {False}
