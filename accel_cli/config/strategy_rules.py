"""Rules about how a strategy lays ranks out."""

from __future__ import annotations

import math

from accel_cli.config.facts import Facts, Rule
from accel_cli.config.work import nearest_batches


def ranks_of(facts: Facts, world_size: int) -> int:
    """The ranks that the strategy's dimensions come to, of ``world_size`` there are."""
    return math.prod(facts.run.strategy.sizes(world_size).values())


def _unfit(facts: Facts) -> int | None:
    """The first number of ranks that the dimensions do not come to."""
    return next((n for n in facts.world_sizes if facts.run.strategy.stated() and ranks_of(facts, n) != n), None)


def _product(facts: Facts) -> str:
    stated = facts.run.strategy.stated()
    return " x ".join(f"{name}={size}" for name, size in stated.items() if size != 1) or "1"


def _fitting_processes(facts: Facts) -> str:
    least, processes = int(facts.run.strategy.least_processes), facts.processes
    if "auto" not in facts.run.strategy.stated().values():
        return f"try launch.processes={least}"
    given = math.prod(size for size in facts.run.strategy.stated().values() if size != "auto")
    near = dict.fromkeys(nearest_batches(processes, given))
    return "try " + " or ".join(f"launch.processes={count}" for count in near)


def _replicas(facts: Facts) -> int:
    """What the global batch has to divide by: the ranks with samples of their own, of every world size there may be."""
    return math.lcm(*(facts.run.strategy.data_ranks(n) for n in facts.world_sizes))


def _unshared(facts: Facts) -> int:
    """The first number of ranks that the global batch does not divide by."""
    every = (facts.run.strategy.data_ranks(n) for n in facts.world_sizes)
    return next(ranks for ranks in every if facts.run.train.global_batch % ranks)


def _accumulates(facts: Facts) -> bool:
    train = facts.run.train
    share = train.global_batch // max(1, facts.run.strategy.data_ranks(facts.world_size))
    return train.micro_batch == "auto" or (train.micro_batch is not None and train.micro_batch < share)


STRATEGY_RULES: tuple[Rule, ...] = (
    Rule(
        "one-process", "refuse", "some strategies run in one process",
        lambda f: f"launch.processes={f.processes}" if f.processes > 1 else f"launch.nodes={f.run.launch.nodes}",
        lambda f: not f.run.strategy.stated() and f.world_size > 1,
        lambda f: f"strategy={f.run.strategy.option} is one process",
        lambda f: "try strategy=ddp, or launch.processes=1" + " launch.nodes=1" * (f.run.launch.most_nodes > 1),
    ),
    Rule(
        "alone", "warn", "to spread over processes takes two",
        lambda f: f"strategy={f.run.strategy.option}",
        lambda f: bool(f.run.strategy.stated()) and f.world_size == 1 and _unfit(f) is None,
        "this strategy does nothing in one process",
        "try launch.processes=2 or strategy=single",
    ),
    Rule(
        "one-auto", "refuse", "one dimension of a mesh may be auto: it takes what the others leave",
        lambda f: f"strategy={f.run.strategy.option}",
        lambda f: list(f.run.strategy.stated().values()).count("auto") > 1,
        lambda f: "more than one dimension is auto: "
        + ", ".join(name for name, size in f.run.strategy.stated().items() if size == "auto"),
        lambda f: "try strategy.{}=1".format(
            [name for name, size in f.run.strategy.stated().items() if size == "auto"][-1]
        ),
    ),
    Rule(
        "mesh-fits", "refuse", "the dimensions of a mesh multiply to the number of processes",
        lambda f: f"strategy={f.run.strategy.option}",
        lambda f: list(f.run.strategy.stated().values()).count("auto") <= 1 and _unfit(f) is not None,
        lambda f: f"{_product(f)} does not come to {_unfit(f)} processes",
        _fitting_processes,
    ),
    Rule(
        "batch-divides", "refuse", "train.global_batch divides evenly over the ranks that get samples of their own",
        lambda f: f"train.global_batch={f.run.train.global_batch}",
        lambda f: _unfit(f) is None and f.run.train.global_batch % _replicas(f) != 0,
        lambda f: f"does not divide over {_unshared(f)} processes"
        + (f", as {f.run.launch.nodes} nodes may have" if len(f.world_sizes) > 1 else ""),
        lambda f: "try train.global_batch={} or train.global_batch={}".format(
            *nearest_batches(f.run.train.global_batch, _replicas(f))
        ),
    ),
    Rule(
        "static-graph-every-step", "refuse", "a static graph is one forward a step",
        "strategy.static_graph=true",
        lambda f: bool(getattr(f.run.strategy, "static_graph", False)) and (_accumulates(f) or f.sizes["pipeline"] > 1),
        lambda f: "the micro-batches of a pipeline take several forwards a step" if f.sizes["pipeline"] > 1
        else f"train.micro_batch={f.run.train.micro_batch} takes several forwards a step",
        "try strategy.static_graph=false",
    ),
    Rule(
        "dataparallel-or-ddp", "warn", "strategy=ddp is faster than strategy=dataparallel",
        "strategy=dataparallel",
        lambda f: f.run.strategy.option == "dataparallel",
        lambda f: "one process feeds all GPUs, and copies the weights to each in every forward"
        if f.device == "cuda"
        else f"one process on {f.device}, as strategy=single",
        "try strategy=ddp",
    ),
    Rule(
        "dataparallel-has-gpus", "refuse", "strategy.devices of strategy=dataparallel are GPUs of this machine",
        lambda f: f"strategy.devices={f.run.strategy.devices}",
        lambda f: f.run.strategy.option == "dataparallel"
        and f.run.strategy.devices != "auto"
        and f.run.strategy.devices > max(1, len(f.machine.gpus) if f.device == "cuda" else 0),
        lambda f: f"hardware={f.device} has {len(f.machine.gpus) if f.device == 'cuda' else 'no'} GPUs for it",
        "try strategy.devices=auto",
    ),
    Rule(
        "dataparallel-copies", "refuse", "strategy=dataparallel copies neither compiled nor recomputed blocks",
        "strategy=dataparallel",
        lambda f: f.run.strategy.option == "dataparallel"
        and (f.run.compile.option not in ("none", "auto") or f.run.train.activation_checkpointing != "none"),
        "compiled or checkpointed blocks of a copy would run with the first GPU's weights",
        lambda f: "try strategy=ddp, or compile=none train.activation_checkpointing=none",
    ),
    Rule(
        "muon-of-a-stage", "refuse", "optimizer=muon has to see the whole model",
        "optimizer=muon",
        lambda f: f.run.optimizer.option == "muon" and f.sizes["pipeline"] > 1,
        "which matrices are hidden ones cannot be told from a stage",
        "try optimizer=adamw",
    ),
    Rule(
        "context-in-one-stage", "refuse", "a shared sequence is not cut into pipeline stages too",
        lambda f: f"strategy.context={f.run.strategy.context}",
        lambda f: min(f.sizes["pipeline"], f.sizes["context"]) > 1,
        "stages hand on whole sequences",
        "try strategy.context=1 or strategy.pipeline=1",
    ),
)  # fmt: skip
