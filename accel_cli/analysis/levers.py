"""Levers: what makes a run faster or smaller at equal work, and which of it can be tried on this run, here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from accel_cli.config.facts import Facts
from accel_cli.config.machine import detect
from accel_cli.config.plan import Plan
from accel_cli.config.precision_candidates import candidates as precisions
from accel_cli.config.schema.hardware import BACKENDS
from accel_cli.errors import ConfigError

Values = Callable[[Facts], Iterable[str]]
"""Words to try, space-separated where it takes several."""


class Lever(NamedTuple):
    """``is_exact``: what is computed stays the same, but for the order in which numbers are added."""

    key: str
    values: Values
    is_exact: bool = False
    for_memory: bool | None = None
    """True: only worth trying for memory, False: only for time, None: for both."""


@dataclass(frozen=True)
class Candidate:
    lever: str
    words: tuple[str, ...]
    is_exact: bool
    plan: Plan | None = field(default=None, compare=False)
    cause: str = ""
    """Why it is none, where the doors refuse it or it is known to be worse here."""

    @property
    def name(self) -> str:
        return " ".join(self.words)


def _precision(f: Facts) -> Iterable[str]:
    found = precisions(f.device, f.machine)
    return [f"precision={option}" for option in (*found.options, *found.left_out)]


def _compile(f: Facts) -> Iterable[str]:
    yield from ("compile=none", "compile=blocks", "compile=full")
    if f.device == "cuda":
        yield from ("compile=full compile.cuda_graphs=true", "compile=max_autotune")


def _loader(f: Facts) -> Iterable[str]:
    if f.run.data.option != "shards":
        yield from ("loader=memory", "loader=threads", "loader=workers")
        if f.device != "cpu":
            yield "loader=device"


def _threads(f: Facts) -> Iterable[str]:
    if f.device == "cpu":
        counts = {1, f.machine.cores // f.processes // 2, f.machine.cores // f.processes}
        yield from (f"hardware.threads={count}" for count in sorted(counts) if count)


def _memory_format(f: Facts) -> Iterable[str]:
    if hasattr(f.run.hardware, "memory_format") and f.run.model.option not in ("mlp", "gpt", "transformers"):
        yield from ("hardware.memory_format=contiguous", "hardware.memory_format=channels_last")


def _allocator(f: Facts) -> Iterable[str]:
    if f.device == "cpu":
        names = ("system", "tuned", *f.machine.allocators)
        yield from (f"hardware.allocator={name}" for name in names)


def _kernel(f: Facts) -> Iterable[str]:
    if hasattr(f.run.optimizer, "kernel"):
        yield from ("optimizer.kernel=foreach", "optimizer.kernel=fused")


def _micro_batch(f: Facts) -> Iterable[str]:
    train = f.run.train
    share = train.global_batch // f.run.strategy.data_ranks(f.world_size)
    largest = 2 if train.micro_batch is None else 1
    yield from (f"train.micro_batch={share // parts}" for parts in (largest, 4) if share % parts == 0)


def _checkpointing(f: Facts) -> Iterable[str]:
    return (f"train.activation_checkpointing={value}" for value in ("none", "blocks", "selective"))


def _replicas(f: Facts) -> Iterable[str]:
    if _may_spread(f):
        yield "strategy=single launch.processes=1"
        yield from (f"strategy=ddp launch.processes={count}" for count in _counts(f))


def _shards(f: Facts) -> Iterable[str]:
    if _may_spread(f):
        yield from (f"strategy=fsdp launch.processes={count}" for count in _counts(f))


def _may_spread(f: Facts) -> bool:
    """Where the batch is spread, or nothing at all: a mesh that splits the model was chosen to fit."""
    return f.run.strategy.option in ("single", "ddp", "fsdp") and f.run.launch.most_nodes == 1


def _counts(f: Facts) -> list[int]:
    devices = f.machine.count(f.device) if f.device in BACKENDS else f.machine.cores
    return sorted({n for n in (2, devices) if 1 < n <= devices and f.run.train.global_batch % n == 0})


def _communication(f: Facts) -> Iterable[str]:
    if f.run.strategy.option == "ddp" and f.world_size > 1:
        yield from (f"communication={option}" for option in ("exact", "bf16", "fp16"))


LEVERS = (
    Lever("precision", _precision),
    Lever("compile", _compile, is_exact=True),
    Lever("loader", _loader, is_exact=True),
    Lever("hardware.threads", _threads, is_exact=True, for_memory=False),
    Lever("hardware.memory_format", _memory_format, is_exact=True, for_memory=False),
    Lever("hardware.allocator", _allocator, is_exact=True),
    Lever("optimizer.kernel", _kernel, is_exact=True),
    Lever("train.micro_batch", _micro_batch),
    Lever("train.activation_checkpointing", _checkpointing, is_exact=True, for_memory=True),
    Lever("strategy", _replicas),
    Lever("strategy", _shards, for_memory=True),
    Lever("communication", _communication),
)
"""In the order in which they are told. None changes the global batch, the length, the seed, the data or the model;
micro-batches and replicas change the statistics of a batch where a model keeps such, so that the metric has to tell."""
EXACT = frozenset(lever.key for lever in LEVERS if lever.is_exact) | {"loader.workers", "loader.threads"}


def candidates(
    base: Plan,
    laid_over: Callable[[Sequence[str]], Plan],
    *,
    memory: bool,
    axes: Mapping[str, Sequence[str]],
    decided: Mapping[str, Any],
) -> Iterator[Candidate]:
    """What can be tried on a run, a value at a time, and, with its cause, what cannot.

    ``laid_over`` plans the run with words laid over it, and raises ConfigError. ``axes``, key -> words, are the user's
    own; the table's where she named none. ``decided`` is what the run's autos became: trying that shows nothing.
    """
    facts = Facts(base.run, detect(), base.plugins)
    tried: dict[str, list[tuple[str, ...]]] = {name: [(word,) for word in words] for name, words in axes.items()}
    for lever in LEVERS if not axes else ():
        if lever.for_memory in (None, memory):
            tried.setdefault(lever.key, []).extend(tuple(value.split()) for value in lever.values(facts))
    left_out = {} if axes else precisions(facts.device, facts.machine).left_out
    seen = [base.run.to_tree()]
    for name, values in tried.items():
        for words in values:
            if all(str(decided.get(word.partition("=")[0])) == word.partition("=")[2] for word in words):
                continue
            made = Candidate(name, words, name in EXACT)
            if cause := left_out.get(words[0].removeprefix("precision=")):
                if base.run.precision.option != words[0].removeprefix("precision="):
                    yield replace(made, cause=cause)
                continue
            try:
                planned = laid_over(words)
            except ConfigError as error:
                first = error.problems[0]
                yield replace(made, cause=f"{first.where}: {first.why}")
                continue
            if (settings := planned.run.to_tree()) not in seen:
                seen.append(settings)
                yield replace(made, plan=planned)
