"""Rules about how gradients travel."""

from __future__ import annotations

import math

from accel_cli.config.facts import Facts, Rule

SPREAD = {"fsdp", "hsdp", "mesh", "tensor", "pipeline", "context"}
"""Strategies whose ranks may hold parts of a parameter, or stages of a model."""


def _averages_nothing(facts: Facts) -> bool:
    sizes = facts.sizes
    return bool(sizes["replicate"] * sizes["shard"] * sizes["context"] == 1)


COMMUNICATION_RULES: tuple[Rule, ...] = (
    Rule(
        "nothing-to-send", "warn", "communication changes how gradients are averaged, nothing else",
        lambda f: f"communication={f.run.communication.option}",
        lambda f: f.run.communication.option != "exact" and _averages_nothing(f),
        lambda f: f"strategy={f.run.strategy.option} averages no gradients over {f.world_size} "
        f"{'process' if f.world_size == 1 else 'processes'}",
        "try communication=exact",
    ),
    Rule(
        "powersgd-under-ddp", "refuse", "communication=powersgd needs whole gradients: strategy=ddp",
        "communication=powersgd",
        lambda f: f.run.communication.option == "powersgd" and f.run.strategy.option in SPREAD,
        lambda f: f"takes whole gradient matrices; strategy={f.run.strategy.option} may hold parts of them",
        lambda f: "try strategy=ddp or communication="
        + ("bf16" if f.sizes["shard"] > 1 else "exact"),
    ),
    Rule(
        "powersgd-in-time", "warn", "communication.start_step lies within the run",
        lambda f: f"communication.start_step={f.run.communication.start_step}",
        lambda f: f.run.communication.option == "powersgd"
        and f.run.communication.start_step >= (f.steps or math.inf),
        lambda f: f"the run has {f.steps} steps: every one of them is sent exactly",
        lambda f: f"try communication.start_step={(f.steps or 0) // 10}",
    ),
)  # fmt: skip
