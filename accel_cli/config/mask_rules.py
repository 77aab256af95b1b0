"""Rules about passes that hold weights at zero while the rest trains."""

from __future__ import annotations

from typing import Any

from accel_cli.config.facts import Facts, Rule
from accel_cli.config.optimizer_rules import AVERAGES
from accel_cli.config.replica_rules import REPLICAS

MASKED = ("prune_magnitude", "prune_2_4")
OTHER_WEIGHTS = ("frozen_features", "lora")
"""Kinds of transfer whose trained weights are not those that the finished model computes with."""


def _masks(facts: Facts) -> list[str]:
    return [name for name in facts.run.compression if name in MASKED]


def _first(facts: Facts) -> Any:
    return facts.run.compression[_masks(facts)[0]]


def _magnitude(facts: Facts) -> Any:
    return facts.run.compression.get("prune_magnitude")


def _key(facts: Facts, key: str) -> str:
    return f"compression.passes.{_masks(facts)[0]}.{key}"


def _cut_otherwise(facts: Facts) -> bool:
    return facts.run.strategy.option in REPLICAS or facts.sizes["tensor"] > 1 or facts.sizes["pipeline"] > 1


def _without(facts: Facts, name: str) -> str:
    kept = [other for other in facts.run.compression if other != name]
    return f"try compression=[{','.join(kept)}]"


MASK_RULES: tuple[Rule, ...] = (
    Rule(
        "one-mask", "refuse", "one pass holds weights at zero",
        lambda f: f"compression=[{','.join(f.run.compression)}]",
        lambda f: len(_masks(f)) > 1,
        "each would choose among the weights that the other has left",
        lambda f: _without(f, _masks(f)[-1]),
    ),
    Rule(
        "mask-of-whole-rows", "refuse", "a mask is chosen from weights that are whole, or dealt out by rows",
        lambda f: f"compression={_masks(f)[0]} strategy={f.run.strategy.option}",
        lambda f: bool(_masks(f)) and _cut_otherwise(f),
        lambda f: "replicas have weights of their own: each would choose another mask"
        if f.run.strategy.option in REPLICAS
        else "a rank holds stages or slices of matrices, of which it cannot choose the smallest weights",
        lambda f: "try strategy=ddp or strategy=fsdp",
    ),
    Rule(
        "mask-of-live-weights", "refuse", "masks reach the model's weights, and averages of them that the engine keeps",
        lambda f: f"compression={_masks(f)[0]} optimizer={f.run.optimizer.option}",
        lambda f: bool(_masks(f)) and f.run.optimizer.option in AVERAGES,
        lambda f: f"{f.run.optimizer.option} evaluates other weights, which it keeps where no mask reaches",
        "try optimizer=adamw train.ema=0.999",
    ),
    Rule(
        "mask-of-trained-weights", "refuse", "masks need the weights that the finished model computes with",
        lambda f: f"compression={_masks(f)[0]} transfer={f.run.transfer.option}",
        lambda f: bool(_masks(f)) and f.run.transfer.option in OTHER_WEIGHTS,
        lambda f: "features were computed once, by weights that would be masked afterwards"
        if f.run.transfer.option == "frozen_features"
        else "what is trained beside the weights is added to them in the end, and fills the zeros",
        "try transfer=finetune",
    ),
    Rule(
        "mask-grows", "refuse", "a mask that grows ends after it has begun",
        lambda f: f"{_key(f, 'end')}={_magnitude(f).end:g}",
        lambda f: _magnitude(f) is not None
        and _magnitude(f).schedule != "one_shot"
        and _magnitude(f).end <= _magnitude(f).start,
        lambda f: f"it begins at start={_magnitude(f).start:g}",
        lambda f: f"try {_key(f, 'end')}={(1 + _magnitude(f).start) / 2:g}, or {_key(f, 'schedule')}=one_shot",
    ),
    Rule(
        "rewinds-to-before", "refuse", "a rewind goes back to weights from before the first cut",
        lambda f: f"{_key(f, 'rewind')}={_first(f).rewind:g}",
        lambda f: bool(_masks(f)) and _first(f).rewind is not None and _first(f).rewind > _first(f).start,
        lambda f: f"masking begins at start={_first(f).start:g}: at the first cut there is nothing yet to go back to",
        lambda f: f"try {_key(f, 'rewind')}={_first(f).start / 2:g}",
    ),
    Rule(
        "mask-recovers", "warn", "a mask leaves steps to recover in",
        lambda f: f"{_key(f, 'end')}={_magnitude(f).end:g}",
        lambda f: _magnitude(f) is not None and _magnitude(f).schedule != "one_shot" and _magnitude(f).end > 0.95,
        "nothing is left of the run for the other weights to make up for the last cut",
        lambda f: f"try {_key(f, 'end')}=0.7",
    ),
)  # fmt: skip
