"""Rules about a model that is cut into stages."""

from __future__ import annotations

from accel_cli.config.facts import Facts, Rule
from accel_cli.config.work import micro_batches, nearest_batches


def _is_cut(facts: Facts) -> bool:
    return facts.sizes["pipeline"] > 1 or facts.run.strategy.option == "layers"


def _schedule(facts: Facts) -> str:
    return str(facts.run.strategy.schedule) if facts.sizes["pipeline"] > 1 else ""


def _share(facts: Facts) -> int | None:
    """Samples of a global batch that a pipeline works on; None where it does not divide, which another rule says."""
    batch, replicas = facts.run.train.global_batch, facts.run.strategy.data_ranks(facts.world_size)
    return None if batch % replicas else int(batch // replicas)


def _does_not_fill(facts: Facts) -> bool:
    share = _share(facts) if facts.sizes["pipeline"] > 1 else None
    return share is not None and micro_batches(facts.run, share, facts.sizes["pipeline"]) is None


def _unfilled(facts: Facts) -> str:
    stated = facts.run.strategy.micro_batches
    batch = f"train.global_batch={facts.run.train.global_batch}"
    return batch if stated == "auto" else f"strategy.micro_batches={stated}"


def _why_unfilled(facts: Facts) -> str:
    share, stages = _share(facts), facts.sizes["pipeline"]
    return f"{share} samples have to divide into a multiple of {stages} micro-batches, one for every process of a stage"


def _filling(facts: Facts) -> str:
    share, stages = _share(facts) or 1, facts.sizes["pipeline"]
    if share % stages == 0:
        at_least = "" if facts.run.train.micro_batch is None else " train.micro_batch=null"
        return "try strategy.micro_batches=auto" + at_least
    replicas = facts.run.train.global_batch // share
    low, high = (replicas * size for size in nearest_batches(share, stages))
    return f"try train.global_batch={low} or train.global_batch={high}"


PIPELINE_RULES: tuple[Rule, ...] = (
    Rule(
        "stages-are-filled", "refuse", "a pipeline's micro-batches are a multiple of its processes",
        _unfilled, _does_not_fill, _why_unfilled, _filling,
    ),
    Rule(
        "stages-of-a-schedule", "refuse", "gpipe and 1f1b have one stage in a process",
        lambda f: f"strategy.stages_per_rank={f.run.strategy.stages_per_rank}",
        lambda f: _schedule(f) in ("gpipe", "1f1b") and f.run.strategy.stages_per_rank not in ("auto", 1),
        lambda f: f"strategy.schedule={_schedule(f)} has one stage in a process",
        "try strategy.schedule=interleaved",
    ),
    Rule(
        "zero-bubble-alone", "refuse", "the zero-bubble schedule has no other ranks to average gradients with",
        "strategy.schedule=zero_bubble",
        lambda f: _schedule(f) == "zero_bubble" and f.run.strategy.data_ranks(f.world_size) > 1,
        "it computes the gradients of weights where DDP and FSDP do not see them, so they would not be averaged",
        "try strategy.schedule=interleaved",
    ),
    Rule(
        "stages-share-no-weight", "refuse", "the first and the last stage share no weight",
        "model.weight_tying=true",
        lambda f: _is_cut(f) and bool(getattr(f.run.model, "weight_tying", False)),
        "the embedding is in the first stage, the head in the last",
        "try model.weight_tying=false",
    ),
)  # fmt: skip
