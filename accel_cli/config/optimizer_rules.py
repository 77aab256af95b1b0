"""Rules about optimizers, and about what evaluation reads of the weights that they train."""

from __future__ import annotations

import os
import shutil

from accel_cli.config.facts import Facts, Rule
from accel_cli.config.replica_rules import REPLICAS

WHOLE_STATE = {"adafactor": "sums over rows and columns", "adamw8bit": "blocks of 256 numbers"}
"""Optimizers whose state is not of the parameter's shape, so that parts of it do not make up the whole."""
AVERAGES = ("schedule_free", "asgd")
"""Optimizers that say themselves which weights are evaluated."""


def _averages(facts: Facts) -> list[str]:
    """What says which weights are evaluated: one at most, if the run is right."""
    train, option = facts.run.train, facts.run.optimizer.option
    keys = [f"train.{key}" for key in ("ema", "lookahead") if getattr(train, key) is not None]
    return [*keys, *([f"optimizer={option}"] if option in AVERAGES else [])]


def _is_dealt_out(facts: Facts) -> bool:
    sizes = facts.sizes
    return sizes["shard"] > 1 or sizes["tensor"] > 1


def _no_compiler(facts: Facts) -> bool:
    if facts.run.optimizer.option != "adamw8bit" or facts.device != "cpu":
        return False
    return not (shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++"))


def _decays(facts: Facts) -> bool:
    optimizer = facts.run.optimizer
    return bool(optimizer.weight_decay or any(group.weight_decay for group in optimizer.groups))


def _is_scheduled(facts: Facts) -> bool:
    return facts.run.schedule.option != "constant"


OPTIMIZER_RULES: tuple[Rule, ...] = (
    Rule(
        "one-average", "refuse", "one thing says which weights are evaluated: ema, lookahead or the optimizer",
        lambda f: " ".join(_averages(f)),
        lambda f: len(_averages(f)) > 1,
        "each evaluates other weights than the live ones",
        lambda f: "try " + " ".join(f"{key}=null" for key in _averages(f)[:-1]),
    ),
    Rule(
        "schedule-free-of-replicas", "refuse", "replicas average one set of weights; schedule_free has two",
        lambda f: f"optimizer=schedule_free strategy={f.run.strategy.option}",
        lambda f: f.run.optimizer.option == "schedule_free" and f.run.strategy.option in REPLICAS,
        "replicas agree on the weights that are trained, not on those behind them",
        "try strategy=ddp, or optimizer=adamw",
    ),
    Rule(
        "state-in-one-piece", "refuse", "adafactor and adamw8bit keep state of whole parameters",
        lambda f: f"optimizer={f.run.optimizer.option} strategy={f.run.strategy.option}",
        lambda f: f.run.optimizer.option in WHOLE_STATE and _is_dealt_out(f),
        lambda f: f"keeps {WHOLE_STATE[f.run.optimizer.option]}, which parts of a parameter do not add up to",
        "try optimizer=adamw or strategy=ddp",
    ),
    Rule(
        "adamw8bit-is-compiled", "refuse", "adamw8bit on a CPU needs a C++ compiler",
        "optimizer=adamw8bit",
        _no_compiler,
        "torchao compiles its update, and there is no C++ compiler on PATH",
        "try optimizer=adamw, or install g++",
    ),
    Rule(
        "rprop-has-no-decay", "refuse", "rprop has no weight decay",
        lambda f: f"optimizer.weight_decay={f.run.optimizer.weight_decay:g}",
        lambda f: f.run.optimizer.option == "rprop" and _decays(f),
        "rprop goes by the gradient's sign alone: it has no weight decay",
        "try optimizer.weight_decay=0, in its groups too",
    ),
    Rule(
        "schedule-free-is-free", "warn", "schedule_free wants a rate that does not decay",
        lambda f: f"schedule={f.run.schedule.option}",
        lambda f: f.run.optimizer.option == "schedule_free" and _is_scheduled(f),
        "schedule_free averages instead of letting the rate decay: under a schedule it gives less",
        "try schedule=constant schedule.warmup=0.05",
    ),
    Rule(
        "rprop-steps-by-itself", "warn", "rprop takes from the learning rate its first step only",
        lambda f: f"schedule={f.run.schedule.option}",
        lambda f: f.run.optimizer.option == "rprop" and _is_scheduled(f),
        "rprop keeps a step size for every weight: the rate counts at the first step only",
        "try schedule=constant",
    ),
)  # fmt: skip
