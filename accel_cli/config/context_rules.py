"""Rules about sequences that several ranks share."""

from __future__ import annotations

from accel_cli.config.facts import Facts, Rule

ATTENDS = ("gpt", "vit")
DOES_NOT_ATTEND = ("mlp", "cnn", "resnet")


def _ranks(facts: Facts) -> int:
    return int(facts.run.strategy.sizes(facts.world_size)["context"])


def _length(facts: Facts) -> int | None:
    """Where the configuration tells it."""
    length = getattr(facts.run.data, "length", None)
    return length if isinstance(length, int) else None


def _where(facts: Facts) -> str:
    strategy = facts.run.strategy
    return "strategy=context" if strategy.option == "context" else f"strategy.context={_ranks(facts)}"


def _without(facts: Facts) -> str:
    return "try strategy=ddp" if facts.run.strategy.option == "context" else "try strategy.context=1"


def _multiple(number: int, of: int) -> int:
    """The nearest, at least one."""
    return max(1, round(number / of)) * of


CONTEXT_RULES: tuple[Rule, ...] = (
    Rule(
        "context-needs-attention", "refuse", "a shared sequence needs a model that attends over it",
        _where,
        lambda f: _ranks(f) > 1 and f.run.model.option in DOES_NOT_ATTEND,
        lambda f: f"model={f.run.model.option} has no attention over a sequence",
        _without,
    ),
    Rule(
        "context-shares-heads", "refuse", "attention heads divide over the ranks that share a sequence",
        lambda f: f"model.heads={f.run.model.heads}",
        lambda f: _ranks(f) > 1 and f.run.model.option in ATTENDS and f.run.model.heads % _ranks(f) != 0,
        lambda f: f"does not divide over the {_ranks(f)} ranks that share a sequence",
        lambda f: f"try model.heads={_multiple(f.run.model.heads, _ranks(f))}, or {_without(f)[4:]}",
    ),
    Rule(
        "context-cuts-length", "refuse", "a sequence divides over the ranks that share it",
        lambda f: f"data.length={_length(f)}",
        lambda f: _ranks(f) > 1 and (_length(f) or 0) % _ranks(f) != 0,
        lambda f: f"does not divide over the {_ranks(f)} ranks that share a sequence",
        lambda f: f"try data.length={_multiple(_length(f) or 0, _ranks(f))}",
    ),
)  # fmt: skip
