"""A momentum that follows the schedule: torch's updates, real runs, and what has no momentum to move."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ranks import compose, records, run_ranks, train_here, train_ranks, write_run
from torch import nn
from torch.optim import lr_scheduler

from accel_cli.analysis.curves import figures
from accel_cli.analysis.run_folder import RunFolder
from accel_cli.config.parts import implementation, table
from accel_cli.engine.step import set_learning_rate
from accel_cli.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
STEPS = 101
SHORT = ["data=digits", "model=mlp", "model.widths=[16]", "train.global_batch=32", "train.epochs=null",
         "train.steps=6", "metrics.every=1", "evaluate.every=6"]  # fmt: skip
FOLLOWS = "schedule.momentum=[0.85,0.95]"


def configured(group: str, option: str, **overrides: Any) -> Any:
    values = yaml.safe_load((CONFIGS / group / f"{option}.yaml").read_text())
    return table(group)[option].schema.model_validate({"option": option, **values, **overrides})


def schedule(option: str, **overrides: Any) -> Any:
    config = configured("schedule", option, **overrides)
    return implementation("schedule", config)(config)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 3)).double()


def learn(model: nn.Module, optimizer: Any, draws: torch.Generator) -> None:
    inputs = torch.randn(16, 6, generator=draws, dtype=torch.float64)
    optimizer.zero_grad()
    (model(inputs) - inputs[:, :3].sin()).square().mean().backward()
    optimizer.step()


REFERENCES = {
    "sgd": ({"learning_rate": 0.3, "weight_decay": 0.0}, lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9)),
    "adam": ({"learning_rate": 0.02}, lambda p: torch.optim.Adam(p, lr=0.02)),
    "adamw": (
        {"learning_rate": 0.02, "decay_norms_and_biases": True},
        lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.01),
    ),
}


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
@pytest.mark.parametrize("option", REFERENCES)
def test_updates_are_those_of_torchs_onecycle(option: str, anneal: str) -> None:
    values, make = REFERENCES[option]
    mine, theirs = network(), network()
    config = configured("optimizer", option, **values)
    groups = [{"params": list(mine.parameters()), "rate": 1.0, "weight_decay": config.weight_decay}]
    optimizer = implementation("optimizer", config)(config, groups, torch.device("cpu"))
    made = schedule("onecycle", anneal=anneal, momentum=[0.85, 0.95])
    made.check(optimizer.param_groups)
    draws = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        set_learning_rate(optimizer, config.learning_rate * made(step, STEPS), made.momentum(step, STEPS))
        learn(mine, optimizer, draws)

    reference = make(theirs.parameters())
    kind = {"cosine": "cos", "linear": "linear"}[anneal]
    cycle = lr_scheduler.OneCycleLR(reference, config.learning_rate, total_steps=STEPS, anneal_strategy=kind)
    draws = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        learn(theirs, reference, draws)
        if step < STEPS - 1:
            cycle.step()

    unmoved = network()
    for own, other, begun in zip(mine.parameters(), theirs.parameters(), unmoved.parameters(), strict=True):
        assert torch.allclose(own, other, rtol=1e-6, atol=1e-9)
        assert not torch.allclose(own, begun, rtol=1e-2)


def test_without_it_momentum_is_left_alone() -> None:
    optimizer = torch.optim.SGD(network().parameters(), lr=1.0, momentum=0.3)
    made = schedule("cosine")
    set_learning_rate(optimizer, made(3, 10), made.momentum(3, 10))
    assert optimizer.param_groups[0]["momentum"] == 0.3
    assert made.momentum(3, 10) is None


def test_low_at_full_rate_and_high_where_the_rate_is_low() -> None:
    made = schedule("warmup_stable_decay", warmup=10, decay=10, momentum=[0.8, 0.9])
    found = [made.momentum(step, 100) for step in range(100)]
    assert found[0] == pytest.approx(0.89)
    assert found[10:90] == pytest.approx([0.8] * 80)
    assert found[-1] == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize(
    "groups",
    [
        [{"lr": 0.1}],
        [{"lr": 0.1, "momentum": 0}],
        [{"betas": (0.9, 0.99)}, {"lr": 0.1}],
    ],
)
def test_what_has_none_is_refused_once_it_is_built(groups: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match=r"schedule.momentum=\[0.85,0.95\].*neither betas nor a momentum"):
        schedule("cosine", momentum=[0.85, 0.95]).check(groups)
    schedule("cosine").check(groups)


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["optimizer=adagrad"], "schedule.momentum=null"),
        (["optimizer=sgd", "optimizer.momentum=0"], "optimizer.momentum=0.9"),
        (["optimizer=rmsprop"], "optimizer.momentum=0.9"),
        (["optimizer=adam", "optimizer.beta1=0"], "schedule.momentum=null"),
    ],
)
def test_what_is_known_to_have_none_is_refused_before_it_starts(words: list[str], fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([*SHORT, FOLLOWS, *words], 1)
    (problem,) = caught.value.problems
    assert problem.where == FOLLOWS
    assert fix in problem.fix


def test_an_own_optimizer_without_is_refused_by_the_fourth_door(tmp_path: Path) -> None:
    own = ["optimizer=custom", "optimizer.factory=torch.optim:Adadelta"]
    summary = train_ranks([*SHORT, FOLLOWS, *own], tmp_path, expect=2)
    assert "neither betas nor a momentum" in summary["error"]["message"]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_run_tells_its_momentum(tmp_path: Path, strategy: str) -> None:
    """On two ranks, both parts of muon follow; the losses differ from those without."""
    words = [*SHORT, f"strategy={strategy}", "schedule=onecycle", "optimizer=muon"]
    train_ranks([*words, FOLLOWS], tmp_path / "follows", 2)
    train_ranks(words, tmp_path / "stays", 2)
    follows, stays = records(tmp_path / "follows", "train"), records(tmp_path / "stays", "train")
    made = schedule("onecycle", momentum=[0.85, 0.95])
    assert [record["momentum"] for record in follows] == [made.momentum(step, 6) for step in range(6)]
    assert all("momentum" not in record for record in stays)
    assert follows[0]["loss"] == stays[0]["loss"]
    assert follows[-1]["loss"] != stays[-1]["loss"]
    titles = ["".join(map(str, figures([RunFolder(tmp_path / name)], [name]))) for name in ("follows", "stays")]
    assert [">Momentum<" in title for title in titles] == [True, False]


def test_new_schedules_take_their_steps_on_two_ranks(tmp_path: Path) -> None:
    for option in ("polynomial", "inverse_sqrt"):
        folder = write_run([*SHORT, f"schedule={option}", FOLLOWS, "strategy=fsdp"], tmp_path / option, 2)
        assert run_ranks(train_here, 2, str(folder)) == [0, 0]
        assert len(records(folder, "train")) == 6
