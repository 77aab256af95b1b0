"""model=custom: filling from the data, and errors that name what the factory takes."""

from __future__ import annotations

import pytest
import torch

from accel_cli.config import factory
from accel_cli.errors import ConfigError, SecurityError

NETS = """
from torch import nn

class Net(nn.Module):
    def __init__(self, in_features, hidden=4, *, num_classes=2):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_features, hidden), nn.Linear(hidden, num_classes))

    def forward(self, x):
        return self.layers(x)

def everything(classes=None, n_classes=None, input_shape=None, in_channels=None, vocabulary=7, outputs=None):
    model = nn.Identity()
    model.given = dict(classes=classes, n_classes=n_classes, input_shape=input_shape, in_channels=in_channels,
                       vocabulary=vocabulary, outputs=outputs)
    return model

def wide(**settings):
    return nn.Linear(**settings)

def number():
    return 3

def broken():
    raise RuntimeError("my own fault")

constant = 3
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A module of the user's own, granted as --plugin grants it."""
    (tmp_path / "my_model_nets.py").write_text(NETS)
    monkeypatch.setattr(factory, "_granted", [])
    monkeypatch.setattr("sys.path", [str(tmp_path), *__import__("sys").path])
    factory.grant([str(tmp_path / "my_model_nets.py")])
    return "my_model_nets"


def test_fills_what_args_leave_unset(models, data, nets):
    model = models.build("custom", data.digits, factory=f"{nets}:Net", args={"hidden": 5})
    assert model(data.inputs(data.digits)).shape == (4, 10)
    assert model.layers[1].weight.shape == (5, 64)
    own = models.build("custom", data.digits, factory=f"{nets}:Net", args={"num_classes": 3})
    assert own(data.inputs(data.digits)).shape == (4, 3)


def test_facts_go_by_name_and_unknown_ones_stay_at_their_default(models, data, nets):
    given = models.build("custom", data.colour, factory=f"{nets}:everything").given
    assert given == {
        "classes": 10,
        "n_classes": 10,
        "input_shape": (3, 32, 32),
        "in_channels": 3,
        "vocabulary": 7,
        "outputs": 10,
    }
    assert models.build("custom", data.text, factory=f"{nets}:everything").given["vocabulary"] == 65


def test_a_library_class_needs_no_grant(models, data):
    model = models.build("custom", data.rows, factory="torch.nn:Linear", args={"out_features": 3})
    assert model(data.inputs(data.rows)).shape == (4, 3)


def test_builds_without_storage(models, data, nets):
    with torch.device("meta"):
        model = models.build("custom", data.digits, factory=f"{nets}:Net")
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "args", "where", "expected"),
    [
        ("Net", {"hiden": 5}, "model.args={'hiden': 5}", "did you mean model.args.hidden ?"),
        ("Net", {"hiden": 5}, "model.args={'hiden': 5}", "it takes in_features, hidden=4, num_classes=2"),
        ("wide", {"in_features": 3}, "model.args={'in_features': 3}", "out_features"),
        ("number", {}, "model.factory=my_model_nets:number", "returned a int, not a torch.nn.Module"),
        ("constant", {}, "model.factory=my_model_nets:constant", "cannot be called"),
    ],
)
def test_a_wrong_call_names_args_and_parameters(models, data, nets, name, args, where, expected):
    with pytest.raises(ConfigError) as raised:
        models.build("custom", data.digits, factory=f"{nets}:{name}", args=args)
    (problem,) = raised.value.problems
    assert problem.where == where
    assert expected in f"{problem.why} {problem.fix}"


def test_a_missing_argument_is_named(models, data, nets):
    with pytest.raises(ConfigError) as raised:
        models.build("custom", data.text, factory=f"{nets}:Net")
    assert "try model.args.in_features=..." in raised.value.problems[0].fix


def test_the_users_own_failure_passes_through(models, data, nets):
    with pytest.raises(RuntimeError, match="my own fault"):
        models.build("custom", data.digits, factory=f"{nets}:broken")


def test_no_factory_and_no_grant(models, data):
    with pytest.raises(ConfigError, match="try model.factory="):
        models.build("custom", data.digits)
    with pytest.raises(SecurityError):
        models.build("custom", data.digits, factory="os:getcwd")
