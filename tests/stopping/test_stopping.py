"""Stopping rules: when they end a run, by which metric, and across a resume."""

import math
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from accel_cli.config.parts import implementation, table
from accel_cli.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs/stopping"


def rule(option, *, metric="accuracy", mode="max", **overrides):
    values = yaml.safe_load((CONFIGS / f"{option}.yaml").read_text())
    config = table("stopping")[option].schema.model_validate({"option": option, **values, **overrides})
    return implementation("stopping", config)(config, metric, mode)


def watch(made, values, name="validation_accuracy"):
    return [made.observe(step, {name: value}) for step, value in enumerate(values)]


def test_none_never_stops():
    made = rule("none")
    made.check([])
    assert watch(made, [0.1, math.nan, 1.0]) == [None] * 3
    assert made.state() == {}


def test_early_counts_evaluations_without_improvement():
    made = rule("early", patience=3)
    assert watch(made, [0.5, 0.6, 0.6, 0.55, 0.61, 0.5, 0.6, 0.61]) == [None] * 7 + ["stopped_early"]


def test_early_min_delta():
    made = rule("early", patience=2, min_delta=0.05)
    assert watch(made, [0.5, 0.54, 0.58, 0.6, 0.62]) == [None, None, None, None, "stopped_early"]


def test_early_of_a_loss_falls():
    made = rule("early", patience=2, metric="bits_per_byte", mode="min")
    assert watch(made, [3.0, 2.0, 2.5, 2.1], "validation_bits_per_byte")[-1] == "stopped_early"


def test_nan_is_no_improvement():
    assert watch(rule("early", patience=2), [math.nan, math.nan])[-1] == "stopped_early"
    assert watch(rule("early", patience=2), [0.5, math.nan, 0.6, math.nan]) == [None] * 4
    assert watch(rule("target", target=0.5), [math.nan]) == [None]


def test_early_resumes_where_it_was():
    made = rule("early", patience=3)
    watch(made, [0.5, 0.4, 0.4])
    again = rule("early", patience=3)
    again.load(made.state())
    assert watch(again, [0.5]) == ["stopped_early"]


@pytest.mark.parametrize("value", [0.97, 0.98])
def test_target_of_an_accuracy(value):
    assert watch(rule("target", target=0.97), [0.9, value]) == [None, "target_reached"]


def test_target_of_the_tasks_loss():
    made = rule("target", metric="mse", mode="min", target=0.3)
    assert watch(made, [0.5, 0.31, 0.3], "validation_mse") == [None, None, "target_reached"]


def test_metric_by_name_has_the_mode_of_its_kind():
    values = yaml.safe_load((CONFIGS / "target.yaml").read_text()) | {"option": "target", "target": 0.3}
    schema = table("stopping")["target"].schema
    for name, mode in {
        "validation_loss": "min",
        "validation_top5_accuracy": "max",
        "validation_mae": "min",
        "validation_r2": "max",
        "validation_bits_per_byte": "min",
    }.items():
        config = schema.model_validate(values | {"metric": name})
        made = implementation("stopping", config)(config, "accuracy", "max")
        assert made.mode == mode
        reached = 0.2 if mode == "min" else 0.4
        assert watch(made, [0.6 - reached, reached], name) == [None, "target_reached"]
    config = schema.model_validate(values | {"metric": "validation_energy"})
    assert implementation("stopping", config)(config, "energy", "max").mode == "max"


def test_unknown_metric_names_those_there_are():
    values = {"option": "early", "metric": "accuracy", "patience": 2, "min_delta": 0.0}
    config = table("stopping")["early"].schema.model_validate(values)
    made = implementation("stopping", config)(config, "accuracy", "max")
    with pytest.raises(ConfigError, match="did you mean stopping.metric=validation_accuracy"):
        made.check(["validation_loss", "validation_accuracy"])
    with pytest.raises(ConfigError, match="there are: validation_loss"):
        made.observe(0, {"validation_loss": 1.0})


def test_target_must_be_given():
    with pytest.raises(ValidationError):
        rule("target")
