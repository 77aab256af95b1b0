"""Rules about layers of low rank."""

from __future__ import annotations

from typing import Any

from accel_cli.config.facts import Facts, Rule
from accel_cli.config.transfer_rules import brings_nothing

KEY = "compression.passes.low_rank"


def _low_rank(facts: Facts) -> Any:
    return facts.run.compression.get("low_rank")


def _both(facts: Facts) -> bool:
    return _low_rank(facts).energy is not None


LOW_RANK_RULES: tuple[Rule, ...] = (
    Rule(
        "one-way-to-a-rank", "refuse", "ranks follow from one of energy and multiply_adds",
        lambda f: f"{KEY}.energy={_low_rank(f).energy} {KEY}.multiply_adds={_low_rank(f).multiply_adds}",
        lambda f: _low_rank(f) is not None and _both(f) == (_low_rank(f).multiply_adds is not None),
        lambda f: "each would give a layer another rank" if _both(f) else "nothing says of which rank a layer becomes",
        lambda f: f"try {KEY}.{'energy=null' if _both(f) else 'energy=0.95'}",
    ),
    Rule(
        "low-rank-of-trained-weights", "warn", "compression=low_rank keeps what weights have learned",
        lambda f: f"{KEY}.start={_low_rank(f).start:g}",
        lambda f: _low_rank(f) is not None and _low_rank(f).start == 0 and brings_nothing(f),
        "before training weights are random: no rank of theirs says anything",
        f"try {KEY}.start=0.3, or transfer=finetune transfer.weights=runs/<a run>",
    ),
)  # fmt: skip
