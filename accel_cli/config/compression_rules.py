"""Rules about compression passes: their order, and what a model that changes its width meets."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from accel_cli.config.facts import Facts, Rule

SET_UP_AGAIN = ("single", "ddp", "fsdp", "hsdp", "dataparallel")
"""Strategies under which training can go on around a model of another structure."""
CHANGES = ("prune_structured", "low_rank", "qat")
"""Passes that give a model other layers while it trains."""
KEY = "compression.passes"


def _structured(facts: Facts) -> Any:
    return facts.run.compression.get("prune_structured")


def _changing(facts: Facts) -> list[str]:
    return [name for name in facts.run.compression if name in CHANGES]


def _ptq(facts: Facts) -> list[str]:
    return [name for name in facts.run.compression if name == "ptq"]


def _start(facts: Facts, name: str) -> float:
    return float(getattr(facts.run.compression[name], "start"))  # noqa: B009


def _ends_wrongly(facts: Facts) -> bool:
    c = _structured(facts)
    return c is not None and (c.end is not None if c.times == 1 else c.end is None or c.end <= c.start)


def _from_the_start(facts: Facts) -> list[str]:
    return [name for name, option in facts.run.compression.items() if getattr(option, "start", None) == 0]


def _end_fix(c: Any) -> str:
    return f"{(c.start + 1) / 2:g}" if c.times > 1 else f"null, or {KEY}.prune_structured.times=3"


def _uneven_in_fp8(facts: Facts) -> bool:
    c = _structured(facts)
    return c is not None and facts.run.precision.option in ("fp8", "mxfp8") and c.multiple % 16 > 0


def _backwards(facts: Facts) -> list[tuple[str, str]]:
    """Neighbouring passes of which the second begins before the first."""
    starts = [(name, _start(facts, name)) for name, option in facts.run.compression.items() if hasattr(option, "start")]
    return [(first, second) for (first, early), (second, late) in pairwise(starts) if late < early]


def _first_backwards(facts: Facts) -> tuple[str, str, float]:
    first, second = _backwards(facts)[0]
    return first, second, _start(facts, first)


COMPRESSION_RULES: tuple[Rule, ...] = (
    Rule(
        "passes-in-order", "refuse", "passes begin in the order in which they are named",
        lambda f: f"{KEY}.{_first_backwards(f)[1]}.start={_start(f, _first_backwards(f)[1]):g}",
        lambda f: bool(_backwards(f)),
        lambda f: "{0} stands before it and begins at {2:g} of the run's steps".format(*_first_backwards(f)),
        lambda f: "try {1}.{0[1]}.start={0[2]:g}".format(_first_backwards(f), KEY),
    ),
    Rule(
        "changes-in-a-layout", "refuse", "a pass that changes the model needs training to be set up again",
        lambda f: f"compression={_changing(f)[0]} strategy={f.run.strategy.option}",
        lambda f: bool(_changing(f)) and f.run.strategy.option not in SET_UP_AGAIN,
        "what its ranks hold of the model, and keep beside it, is of the layers before",
        lambda f: "try strategy=ddp" if f.world_size > 1 else "try strategy=single",
    ),
    Rule(
        "changes-under-features", "refuse", "features are computed once, of a model that stays",
        lambda f: f"transfer=frozen_features compression={[*_changing(f), *_ptq(f)][0]}",
        lambda f: bool([*_changing(f), *_ptq(f)]) and f.run.transfer.option == "frozen_features",
        "what is frozen would be another after the pass, and no data passes it any more",
        "try transfer=finetune",
    ),
    Rule(
        "prune-structured-end", "refuse", "pruning several times ends after it begins, pruning once has one time",
        lambda f: f"{KEY}.prune_structured.end={'null' if _structured(f).end is None else _structured(f).end}",
        _ends_wrongly,
        lambda f: f"times={_structured(f).times}, the first at {_structured(f).start:g} of the run's steps",
        lambda f: f"try {KEY}.prune_structured.end={_end_fix(_structured(f))}",
    ),
    Rule(
        "another-width-in-fp8", "refuse", "fp8 products come in blocks of 16",
        lambda f: f"{KEY}.prune_structured.multiple={_structured(f).multiple}",
        _uneven_in_fp8,
        lambda f: f"precision={f.run.precision.option} needs widths that 16 divides",
        f"try {KEY}.prune_structured.multiple=16",
    ),
    Rule(
        "floor-before-training", "warn", "compression.floor compares with the metric before a pass",
        lambda f: f"{KEY}.{_from_the_start(f)[0]}.start=0",
        lambda f: f.run.compression.own.floor is not None and bool(_from_the_start(f)),
        "before the first step the metric is that of a model that has learnt nothing: any other is better",
        lambda f: f"try {KEY}.{_from_the_start(f)[0]}.start=0.3, or compression.floor=null",
    ),
    Rule(
        "floor-of-nothing", "warn", "compression.floor is about passes",
        lambda f: f"compression.floor={f.run.compression.own.floor:g}",
        lambda f: f.run.compression.own.floor is not None and not f.run.compression,
        "there is no pass to roll back",
        "try compression=prune_structured, or leave compression.floor out",
    ),
)  # fmt: skip
