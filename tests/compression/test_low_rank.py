"""Low rank: full rank computes the same, fewer multiply-adds are counted, a replay has the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from borders import border
from torch import Tensor, nn

from accel_cli.compression.factored import factored
from accel_cli.config.parts import implementation, table
from accel_cli.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
INPUTS = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))


def make(**overrides: Any) -> Any:
    defaults = yaml.safe_load((CONFIGS / "compression/low_rank.yaml").read_text())
    config = table("compression")["low_rank"].schema(option="low_rank", **{**defaults, **overrides})
    return implementation("compression", config)(config)


class Net(nn.Module):
    def __init__(self, reads: bool = False) -> None:
        super().__init__()
        self.reads = reads
        self.stem = nn.Conv2d(3, 32, 3, stride=2, padding=1, padding_mode="circular")
        self.pointwise = nn.Conv2d(32, 64, 1, bias=False)
        self.grouped = nn.Conv2d(64, 64, 3, groups=64)
        self.hidden = nn.Linear(64, 96)
        self.head = nn.Linear(96, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.pointwise(self.stem(x)).relu()).mean((2, 3))
        return self.head((x @ self.hidden.weight.T if self.reads else self.hidden(x)).relu())


def net(reads: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return Net(reads).eval()


@pytest.mark.parametrize("name", ["stem", "pointwise", "hidden", "head"])
def test_full_rank_computes_the_same(name: str) -> None:
    model, other = net(), net()
    layer = model.get_submodule(name)
    other.set_submodule(name, factored(layer, min(layer.weight.shape[0], layer.weight[0].numel())))
    assert torch.allclose(other(INPUTS), model(INPUTS), atol=1e-5)


def test_a_lower_rank_is_as_near_as_can_be() -> None:
    layer = nn.Linear(20, 30, bias=False)
    made = factored(layer, 5)
    product = made.expand.weight @ made.reduce.weight
    rest = torch.linalg.svdvals(layer.weight)[5:]
    assert torch.allclose((product - layer.weight).norm(), rest.norm(), atol=1e-5)


def multiply_adds(model: nn.Module) -> int:
    """Of a sample, by torch's own counter."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(INPUTS)
    return counter.get_total_flops() // 4


@pytest.mark.parametrize("settings", [{"multiply_adds": 0.5, "energy": None}, {"energy": 0.6}])
def test_what_is_told_is_what_is_computed(settings: dict[str, Any]) -> None:
    model = net()
    before = multiply_adds(model)
    changed = make(**settings).change(model, border(0, INPUTS))
    after = multiply_adds(changed.model)
    parameters = sum(p.numel() for p in changed.model.parameters())
    assert after < before
    assert f"{before:,} multiply-adds of a sample {after:,}" in changed.notes[0]
    assert f"became {parameters:,}" in changed.notes[0]
    ranks = changed.record["ranks"]
    assert set(ranks) <= {"stem", "pointwise", "hidden", "head"}
    assert ranks["hidden"] % 16 == 0
    assert torch.isfinite(changed.model(INPUTS)).all()


def test_ranks_by_share_keep_at_most_that_share() -> None:
    model = net()
    full = {n: m.weight.shape[0] * m.weight[0].numel() for n, m in model.named_modules() if hasattr(m, "weight")}
    both = {n: m.weight.shape[0] + m.weight[0].numel() for n, m in model.named_modules() if hasattr(m, "weight")}
    ranks = make(multiply_adds=0.4, energy=None, multiple=1).change(model, border(0, INPUTS)).record["ranks"]
    assert all(rank * both[n] <= 0.4 * full[n] < (rank + 1) * both[n] for n, rank in ranks.items())


def test_a_matrix_of_low_rank_is_found_and_replayed() -> None:
    model = net()
    with torch.no_grad():
        model.hidden.weight.copy_(torch.randn(96, 3) @ torch.randn(3, 64))
    before = model(INPUTS)
    model.hidden.requires_grad_(False)
    part = make(layers=["hidden"], energy=0.9999999, multiple=1)
    changed = part.change(model, border(0, INPUTS))
    assert changed.record == {"ranks": {"hidden": 3}}
    assert torch.allclose(changed.model(INPUTS), before, atol=1e-3)
    other = part.replay(net(), changed.record)
    own = {n: p.shape for n, p in changed.model.state_dict().items()}
    assert {n: p.shape for n, p in other.state_dict().items()} == own
    assert not changed.model.hidden.expand.weight.requires_grad
    assert changed.model.stem.weight.requires_grad


def test_borders_are_shares_of_the_steps() -> None:
    assert [make(start=share).borders(10) for share in (0.0, 0.34, 1.0)] == [(0,), (3,), (10,)]


@pytest.mark.parametrize(
    ("settings", "reads", "where"),
    [
        ({"layers": ["hiden"]}, False, "compression.passes.low_rank.layers=hiden"),
        ({"energy": 0.999999}, False, "compression.passes.low_rank.energy=0.999999"),
        ({"layers": ["hidden"]}, True, "compression.passes.low_rank.energy=0.95"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_type(settings: dict[str, Any], reads: bool, where: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make(**settings).change(net(reads), border(0, INPUTS))
    (problem,) = raised.value.problems
    assert problem.where == where
    assert problem.fix
