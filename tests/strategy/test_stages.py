"""Stages together compute what the model computes, from its own modules, under its own names; or say why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from accel_cli.engine.blocks import find_blocks
from accel_cli.errors import ConfigError
from accel_cli.model.gpt import GPT
from accel_cli.model.resnet import ResNet
from accel_cli.model.vit import ViT
from accel_cli.strategy import stage_costs
from accel_cli.strategy.stage_module import Stage, merged
from accel_cli.strategy.stages import cut

IMAGES = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
TOKENS = torch.arange(16).reshape(2, 8) % 7
FLAT = torch.ones(2, 6)


def gpt(*, weight_tying: bool = False) -> nn.Module:
    return GPT(vocabulary=7, length=8, width=8, depth=4, heads=2, dropout=0.5, weight_tying=weight_tying)


class Own(nn.Module):
    """A user's own: sizes read at the start and used at the end, dropout by a flag, single tensors, an unused layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.token = nn.Parameter(torch.ones(1, 4, 1, 1))
        self.register_buffer("scale", torch.full((1,), 2.0))
        self.register_buffer("seen", torch.zeros(1), persistent=False)
        self.second = nn.Conv2d(4, 4, 3)
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(4 * 12 * 12, 5)

    def forward(self, images: Tensor, extra: Tensor | None = None) -> Tensor:
        count, channels = images.shape[:2]
        if channels != 3:
            raise ValueError("images have three channels")
        hidden = functional.relu(self.norm(self.first(images * self.scale))) + self.token.expand(count, -1, -1, -1)
        hidden = functional.dropout(hidden, 0.5, self.training)
        hidden = hidden + self.second(functional.pad(hidden, (1, 1, 1, 1)))[:, :, : hidden.shape[2], :]
        hidden = functional.avg_pool2d(hidden, 3, 1) + torch.zeros(count, 1, 1, 1)
        if extra is not None:
            hidden = hidden + extra
        return self.head(hidden.view(count, -1))


class Wrapper(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Pair(nn.Module):
    """Two streams: a cut inside has two tensors to hand on."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 6), nn.Linear(6, 6)
        self.more_left, self.more_right = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left(x), self.right(x)
        return self.more_left(left) * right + self.more_right(right)


class Asking(nn.Module):
    """Asks single tensors of layers for their device and type, before it calls the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(7, 6), nn.Embedding(8, 6)
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.head = nn.Linear(6, 7)

    def forward(self, tokens: Tensor) -> Tensor:
        asked = self.head.weight.dtype
        places = torch.arange(tokens.shape[1], device=self.places.weight.device)
        x = self.words(tokens) + self.places(places)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.to(asked))


def mlp() -> nn.Module:
    widths = [768, 24, 16, 16, 16, 5]
    layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in zip(widths, widths[1:], strict=False)]
    return nn.Sequential(nn.Flatten(), *[layer for pair in layers for layer in pair])


MODELS: dict[str, tuple[Callable[[], nn.Module], Tensor, int]] = {
    "mlp": (mlp, IMAGES, 3),
    "gpt": (gpt, TOKENS, 4),
    "resnet": (lambda: ResNet(3, [2, 2], 8, "batch", 5), IMAGES, 3),
    "vit": (lambda: ViT((3, 16, 16), patch=4, width=8, depth=2, heads=2, dropout=0.1, count=5), IMAGES, 3),
    "own": (Own, IMAGES, 3),
    "wrapped": (lambda: Wrapper(Wrapper(Own())), IMAGES, 2),
    "asking": (Asking, TOKENS, 3),
    "pair": (Pair, torch.ones(2, 6), 2),
}


def parts(name: str, **settings: Any) -> tuple[nn.Module, Tensor, list[Stage]]:
    torch.manual_seed(0)
    make, example, count = MODELS[name]
    model = make()
    return model, example, cut(model, example, count, where="strategy=x", blocks=find_blocks(model, None), **settings)


def passed(stages: list[Stage], inputs: Tensor) -> Any:
    given: tuple[Any, ...] = (inputs,)
    for stage in stages:
        result = stage(*given)
        given = result if isinstance(result, tuple) else (result,)
        samples = inputs.shape[0]
        assert [(tuple(t.shape), t.dtype) for t in given] == [(f.shape(samples), f.dtype) for f in stage.forms]
    return given[0]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [True, False])
def test_stages_compute_what_the_model_does(name: str, training: bool) -> None:
    model, example, stages = parts(name)
    model.train(training)
    for stage in stages:
        stage.train(training)
    inputs = torch.cat([example, example, example[:1]])
    torch.manual_seed(1)
    expected = model(inputs)
    torch.manual_seed(1)
    torch.testing.assert_close(passed(stages, inputs), expected)


@pytest.mark.parametrize("name", MODELS)
def test_names_and_tensors_are_the_models_own(name: str) -> None:
    model, _, stages = parts(name)
    for kind in ("named_parameters", "named_buffers"):
        whole = {n: id(t) for n, t in getattr(model, kind)()}
        held = [(n, id(t)) for stage in stages for n, t in getattr(stage, kind)()]
        assert dict(held) == whole
        assert len(held) == len(whole), "held by two stages"
    assert set().union(*(stage.state_dict() for stage in stages)) == set(model.state_dict())
    assert all(any(p.requires_grad for p in stage.parameters()) for stage in stages)
    assert {n: id(t) for n, t in merged(stages).named_parameters()} == {n: id(t) for n, t in model.named_parameters()}


def test_cutting_changes_nothing_in_the_model() -> None:
    torch.manual_seed(0)
    model = Own()
    model.norm.eval()
    before, modes = {n: t.clone() for n, t in model.state_dict().items()}, [m.training for m in model.modules()]
    state = torch.get_rng_state()
    cut(model, IMAGES, 2, where="strategy=x", costs=stage_costs.measured)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_blocks_stay_whole_and_stages_are_even() -> None:
    _, _, stages = parts("gpt")
    held = [[n for n, _ in stage.named_modules() if n.startswith("blocks.") and n.count(".") == 1] for stage in stages]
    assert held == [["blocks.0"], ["blocks.1"], ["blocks.2"], ["blocks.3"]]


def test_even_by_time() -> None:
    class Slow(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(300):
                x = x + 1.0
            return super().forward(x)

    model = nn.Sequential(Slow(4, 4), nn.Linear(4, 400), nn.Linear(400, 4), nn.Linear(4, 4))
    counted = cut(model, torch.ones(2, 4), 2, where="strategy=x")
    measured = cut(model, torch.ones(2, 4), 2, where="strategy=x", costs=stage_costs.measured)
    assert "1.weight" in dict(counted[0].named_parameters())
    assert list(dict(measured[0].named_parameters())) == ["0.weight", "0.bias"]


def test_cheapest_is_the_best_of_all() -> None:
    """Against every cut there is."""
    costs, sent, learned = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0], dict.fromkeys(range(1, 8), 1), [1] * 8
    found = stage_costs.cheapest(costs, sent, learned, 3)
    assert found is not None
    every = [max(sum(costs[:a]), sum(costs[a:b]), sum(costs[b:])) for a in range(1, 8) for b in range(a + 1, 8)]
    first, second = found
    assert max(sum(costs[:first]), sum(costs[first:second]), sum(costs[second:])) == min(every)
    assert stage_costs.cheapest(costs, {4: 1}, learned, 3) is None
    assert stage_costs.cheapest(costs, sent, [0] * 7 + [1], 2) is None, "a stage would learn nothing"


def test_named_cuts() -> None:
    torch.manual_seed(0)
    model = gpt()
    stages = cut(model, TOKENS, 3, where="strategy=x", names=["blocks.1", "norm"], blocks=find_blocks(model, None))
    assert [sorted({n.split(".")[0] for n, _ in s.named_parameters()}) for s in stages] == [
        ["blocks", "position_embedding", "token_embedding"],
        ["blocks"],
        ["head", "norm"],
    ]


def half_frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[0].requires_grad_(False)
    return model


@pytest.mark.parametrize("names", [None, ["1"]])
def test_a_frozen_stage_where_it_may_be(names: list[str] | None) -> None:
    stages = cut(half_frozen(), FLAT, 2, where="strategy.devices=auto", names=names, frozen=True)
    assert [[name for name, _ in stage.named_parameters()] for stage in stages] == [
        ["0.weight", "0.bias"],
        ["1.weight", "1.bias"],
    ]


class Branches(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.first, self.second = how, nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Any:
        if self.how == "numbers" and x.sum() > 0:
            return x
        x = self.first(x)
        if self.how == "gradients":
            with torch.no_grad():
                return self.second(x)
        if self.how == "modes" and self.training:
            x = x * 2
        if self.how == "writes":
            x[:, 0] = 0
        return (self.second(x), x) if self.how == "pair" else self.second(x)


REFUSED: dict[str, tuple[Callable[[], nn.Module], Any, dict[str, Any], str]] = {
    "tied": (lambda: gpt(weight_tying=True), TOKENS, {}, "token_embedding.weight is used in two places"),
    "too many": (mlp, IMAGES, {"parts": 9, "fewer": "try launch.processes={}".format}, "try launch.processes=5"),
    "one module": (lambda: nn.Linear(6, 6), FLAT, {}, "no place to cut"),
    "a dict": (mlp, {"a": FLAT}, {}, "is a dict"),
    "no such name": (gpt, TOKENS, {"names": ["block.1"]}, "did you mean blocks.1"),
    "number of names": (gpt, TOKENS, {"names": ["blocks.1", "norm"]}, "2 stages have 1 cut"),
    "a stage that learns nothing": (half_frozen, FLAT, {"names": ["1"]}, "stage 1 of 2 would learn nothing"),
    "one stage that learns": (half_frozen, FLAT, {}, "into 1 stages that learn something"),
    "order of names": (gpt, TOKENS, {"names": ["norm", "blocks.1"], "parts": 3}, "not in the order"),
    **{
        how: (lambda how=how: Branches(how), FLAT, {}, why)  # type: ignore[misc]
        for how, why in {
            "numbers": "decides by the numbers in a tensor",
            "gradients": "switches gradients",
            "modes": "under model.train() and model.eval()",
            "writes": "writes into a part of a tensor",
            "pair": "returns a tuple",
        }.items()
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_why_and_what_to_type(name: str) -> None:
    make, example, settings, said = REFUSED[name]
    model = make()
    blocks = find_blocks(model, None)
    with pytest.raises(ConfigError) as raised:
        cut(model, example, settings.pop("parts", 2), where="strategy=pipeline", blocks=blocks, **settings)
    (problem,) = raised.value.problems
    assert said in f"{problem.why} {problem.fix}"
    assert problem.fix
