"""Which parameter gets which decay and rate, and which are left out."""

import re

import pytest
import torch
from optimizer_cases import CPU, configured, network
from torch import nn

from accel_cli.config.parts import implementation
from accel_cli.errors import ConfigError
from accel_cli.optimizer.groups import parameter_groups
from accel_cli.optimizer.patterns import freeze


def by_name(groups, key):
    return {name: group[key] for group in groups for name in group["names"]}


def test_no_decay_on_norms_and_biases():
    decay = by_name(parameter_groups(network(), configured("adamw", weight_decay=0.5), {}), "weight_decay")
    assert decay["0.weight"] == 0.5
    assert decay["0.bias"] == decay["1.weight"] == decay["1.bias"] == 0.0


def test_decay_on_everything_if_asked():
    config = configured("adamw", weight_decay=0.5, decay_norms_and_biases=True)
    (group,) = parameter_groups(network(), config, {})
    assert group["weight_decay"] == 0.5
    assert group["names"] == [name for name, _ in network().named_parameters()]
    assert len(group["params"]) == len(group["names"])


def test_frozen_parameters_are_left_out():
    model = network()
    model[0].requires_grad_(False)
    names = by_name(parameter_groups(model, configured("sgd"), {}), "rate")
    assert set(names) == {"1.weight", "1.bias", "3.weight", "3.bias", "4.weight", "4.bias"}


def grouped(groups, rates=None, **values):
    model, config = network(), configured("adamw", weight_decay=0.5, groups=groups, **values)
    freeze(model, config.groups)
    return parameter_groups(model, config, rates or {})


def test_the_first_match_says_what_is_different():
    groups = grouped(
        [{"match": "0.*", "rate": 0.1}, {"match": "*.bias", "rate": 2.0, "weight_decay": 0.25}], {"4.bias": 3.0}
    )
    rates, decays = by_name(groups, "rate"), by_name(groups, "weight_decay")
    assert (rates["0.weight"], decays["0.weight"]) == (0.1, 0.5)
    assert (rates["0.bias"], decays["0.bias"]) == (0.1, 0.0), "the earlier group has it"
    assert (rates["1.bias"], decays["1.bias"]) == (2.0, 0.25)
    assert (rates["4.bias"], decays["4.bias"]) == (6.0, 0.25), "transfer's own rate is multiplied"
    assert (rates["4.weight"], decays["4.weight"]) == (1.0, 0.5)


def test_groups_freeze():
    names = by_name(grouped([{"match": "[01].*", "frozen": True}]), "rate")
    assert set(names) == {"3.weight", "3.bias", "4.weight", "4.bias"}


def test_a_batch_norm_that_a_group_freezes_keeps_its_statistics():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4))
    (line,), still = freeze(model, configured("sgd", groups=[{"match": "1.*", "frozen": True}]).groups)
    assert "2 of 6 tensors, 8 numbers" in line
    assert still == [model[1]]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([{"match": "layers.*", "rate": 2.0}], "nearest: "),
        ([{"match": "0", "rate": 2.0}], "try match=0.*"),
        ([{"match": "*", "rate": 2.0}, {"match": "0.*", "rate": 3.0}], "put it before them"),
    ],
)
def test_a_group_without_parameters_is_refused(groups, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        grouped(groups)


def test_a_group_says_something():
    with pytest.raises(ValueError, match="needs rate, weight_decay or frozen"):
        configured("sgd", groups=[{"match": "*.bias"}])


def test_nothing_to_train_is_refused():
    with pytest.raises(ConfigError, match="every parameter is frozen"):
        parameter_groups(network().requires_grad_(False), configured("sgd"), {})


def test_rates_by_name_also_under_wrappers():
    model = torch.compile(network())
    rates = by_name(parameter_groups(model, configured("sgd"), {"4.weight": 10.0, "4.bias": 10.0}), "rate")
    assert {name for name, rate in rates.items() if rate == 10.0} == {"4.weight", "4.bias"}
    assert rates["0.weight"] == 1.0


def test_custom_optimizer_takes_rate_decay_and_arguments():
    config = configured("custom", factory="torch.optim:SGD", args={"momentum": 0.5, "fused": True}, weight_decay=0.2)
    optimizer = implementation("optimizer", config)(config, parameter_groups(network(), config, {}), CPU)
    assert type(optimizer) is torch.optim.SGD
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.2}
    assert {group["momentum"] for group in optimizer.param_groups} == {0.5}


@pytest.mark.parametrize(
    ("factory", "values", "message"),
    [
        ("torch.optim:SGD", {"args": {"speed": 1}}, "speed"),
        ("torch.optim:Rprop", {"weight_decay": 0.1}, "has no weight_decay"),
        ("torch.optim:LBFGS", {}, "try optimizer=adamw"),
        ("torch.optim:SDG", {}, "did you mean optimizer.factory=torch.optim:SGD"),
    ],
)
def test_custom_optimizer_that_cannot_be(factory, values, message):
    config = configured("custom", factory=factory, **values)
    with pytest.raises(ConfigError, match=message):
        implementation("optimizer", config)(config, parameter_groups(network(), config, {}), CPU)


def test_nesterov_needs_momentum():
    with pytest.raises(ValueError, match="needs optimizer.momentum"):
        configured("sgd", nesterov=True, momentum=0.0)


def test_sharded_and_plain_parameters_are_kept_apart(tmp_path):
    """Kernels over many tensors raise on a mixture; fused SGD and Adagrad on DTensors at all (torch 2.15)."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        for option in ("sgd", "adam", "adamw", "adagrad", "rmsprop", "nadam", "muon"):
            model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
            for part in (model[0], model[1]):
                torch.distributed.fsdp.fully_shard(part, mesh=mesh)
            config = configured(option)
            optimizer = implementation("optimizer", config)(config, parameter_groups(model, config, {}), CPU)
            before = [p.detach().clone() for p in model.parameters()]
            model(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()
            for old, new in zip(before, model.parameters(), strict=True):
                assert not torch.equal(getattr(old, "_local_tensor", old), getattr(new, "_local_tensor", new))
    finally:
        torch.distributed.destroy_process_group()
