"""Rules about replicas that train by themselves and agree now and then."""

from __future__ import annotations

from accel_cli.config.facts import Facts, Rule

REPLICAS = {"localsgd", "diloco"}


def _has_replicas(facts: Facts) -> bool:
    return facts.run.strategy.option in REPLICAS


def _evaluates_between(facts: Facts) -> bool:
    """Overlapped and in fragments replicas are never equal; then no beat is better than another."""
    strategy, every = facts.run.strategy, facts.run.evaluate.every
    always = getattr(strategy, "overlap", 0) > 0 or getattr(strategy, "fragments", 1) > 1
    return every != "epoch" and not always and bool(every % strategy.steps)


REPLICA_RULES: tuple[Rule, ...] = (
    Rule(
        "replicas-send-weights", "refuse", "strategies of replicas average weights: communication=exact",
        lambda f: f"communication={f.run.communication.option}",
        lambda f: _has_replicas(f) and f.run.communication.option != "exact",
        lambda f: f"is about gradients; strategy={f.run.strategy.option} averages weights",
        lambda f: "try communication=exact"
        + (" strategy.compression=int8" if f.run.strategy.option == "diloco" else " or strategy=diloco"),
    ),
    Rule(
        "overlap-in-a-round", "refuse", "an overlapped exchange ends before the next one of its fragment begins",
        lambda f: f"strategy.overlap={f.run.strategy.overlap}",
        lambda f: f.run.strategy.option == "diloco" and f.run.strategy.overlap >= f.run.strategy.steps,
        lambda f: f"the next exchange begins {f.run.strategy.steps} steps after the one before",
        lambda f: f"try strategy.overlap={f.run.strategy.steps // 2}",
    ),
    Rule(
        "agrees-in-time", "warn", "replicas agree within the run",
        lambda f: f"strategy.steps={f.run.strategy.steps}",
        lambda f: _has_replicas(f) and f.run.strategy.steps > (f.steps or f.run.strategy.steps),
        lambda f: f"the run has {f.steps} steps: its replicas never agree",
        lambda f: f"try strategy.steps={max(1, (f.steps or 0) // 4)}",
    ),
    Rule(
        "evaluates-when-agreed", "warn", "evaluations of replicas cost least right after they have agreed",
        lambda f: f"evaluate.every={f.run.evaluate.every}",
        lambda f: _has_replicas(f) and f.world_size > 1 and _evaluates_between(f),
        lambda f: f"replicas agree every {f.run.strategy.steps} steps; at any other they send all weights to evaluate",
        lambda f: f"try evaluate.every={max(1, f.run.evaluate.every // f.run.strategy.steps) * f.run.strategy.steps}",
    ),
)  # fmt: skip
