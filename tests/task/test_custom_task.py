"""The user's own task: means, pairs, weights of her own, and what is refused."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from accel_cli.config import factory
from accel_cli.config.parts import implementation, table
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError

OTHER = DataDescription(input="other", target="other", input_shape=())
CONFIG = Path(__file__).parents[2] / "configs/task/custom.yaml"
SOURCE = """
class Mean:
    def __init__(self, power=2):
        self.power = power

    def loss(self, model, batch):
        return (model(batch["x"]) - batch["y"]).abs().pow(self.power).mean()

    def metrics(self, model, batch):
        error = (model(batch["x"]) - batch["y"]).abs()
        return {"mean_error": error.mean(), "total": (error.sum(), error.numel()), "one": 1.0}

class Masked:
    def loss(self, model, batch):
        error = (model(batch["x"]) - batch["y"]).square() * batch["mask"][:, None]
        return error.sum(), batch["mask"].sum()

    def weight(self, batch):
        return batch["mask"].sum()

class Contradicting(Masked):
    def weight(self, batch):
        return len(batch["mask"])

class Silent:
    loss = Masked.loss

class Rows:
    def loss(self, model, batch):
        return (model(batch["x"]) - batch["y"]).square()

class Nothing:
    pass
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    (tmp_path / "own_tasks.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(factory, "_granted", ["own_tasks"])

    def made(name, **overrides):
        values = yaml.safe_load(CONFIG.read_text()) | {"option": "custom", "factory": f"own_tasks:{name}"}
        config = table("task")["custom"].schema.model_validate(values | overrides)
        return implementation("task", config)(config, OTHER)

    return made


@pytest.fixture
def batch():
    torch.manual_seed(0)
    mask = torch.tensor([1.0, 0, 1, 1, 0, 1])
    return {"x": torch.randn(6, 3), "y": torch.randn(6, 1), "mask": mask}


def test_a_mean_becomes_a_sum(make, batch):
    model, made = nn.Linear(3, 1), make("Mean", args={"power": 1}, metric="mean_error")
    total, weight = made.loss(model, batch)
    assert weight == made.weight(batch) == 6
    assert not made.varying_weight
    torch.testing.assert_close(total / 6, (model(batch["x"]) - batch["y"]).abs().mean())
    made.check(made.forward(model, batch), batch)


def test_metrics_as_means_or_pairs_add_up(make, batch):
    model, made = nn.Linear(3, 1), make("Mean")
    halves = [{k: v[:2] for k, v in batch.items()}, {k: v[2:] for k, v in batch.items()}]
    whole, (first, second) = made.evaluate(model, batch), [made.evaluate(model, half) for half in halves]
    assert set(whole) == {"loss", "mean_error", "total", "one"}
    for name, (total, weight) in whole.items():
        assert total.item() == pytest.approx(first[name][0].item() + second[name][0].item(), rel=1e-5)
        assert weight == first[name][1] + second[name][1]
    assert whole["one"][0] == 6


def test_a_weight_of_its_own(make, batch):
    model, made = nn.Linear(3, 1), make("Masked")
    assert made.varying_weight
    total, weight = made.loss(model, batch)
    assert weight == made.weight(batch) == 4
    kept = batch["mask"].bool()
    mean = (model(batch["x"][kept]) - batch["y"][kept]).square().mean()
    ours = torch.autograd.grad(total / weight, list(model.parameters()))
    for mine, other in zip(ours, torch.autograd.grad(mean, list(model.parameters())), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Contradicting", r"weight 4, but by weight\(batch\) it is 6"),
        ("Silent", "weight 4, but by the batch's samples it is 6"),
        ("Rows", r"shape \[6, 1\]"),
    ],
)
def test_losses_that_cannot_be_summed_are_refused(make, batch, name, message):
    with pytest.raises(ConfigError, match=message):
        make(name).loss(nn.Linear(3, 1), batch)


def test_refused_before_training(make, batch):
    with pytest.raises(ConfigError, match=r"has no loss\(model, batch\)"):
        make("Nothing")
    with pytest.raises(ConfigError, match="strength"):
        make("Mean", args={"strength": 1})
    with pytest.raises(ConfigError, match="gives loss, mean_error, one, total"):
        make("Mean", metric="accuracy").evaluate(nn.Linear(3, 1), batch)
    with pytest.raises(ConfigError, match="no tensor"):
        make("Mean").weight({"x": [1, 2]})
