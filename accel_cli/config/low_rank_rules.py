"""Rules about layers of low rank."""

from __future__ import annotations

from typing import Any

from accel_cli.config.facts import Facts, Rule
from accel_cli.config.transfer_rules import GOES_ON_AROUND, brings_nothing

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
    Rule(
        "low-rank-of-a-model-that-learns", "refuse", "features are computed once of a model that stays",
        "transfer=frozen_features compression=low_rank",
        lambda f: _low_rank(f) is not None and f.run.transfer.option == "frozen_features",
        "what is frozen would be another after the pass, and only its head could make up for it",
        "try transfer=finetune",
    ),
    Rule(
        "low-rank-in-a-layout", "refuse", "low_rank needs training to be set up again",
        lambda f: f"compression=low_rank strategy={f.run.strategy.option}",
        lambda f: _low_rank(f) is not None and f.run.strategy.option not in GOES_ON_AROUND,
        "what its ranks hold of the model, and keep beside it, is of the layers before",
        lambda f: "try strategy=fsdp" if f.world_size > 1 else "try strategy=single",
    ),
)  # fmt: skip
