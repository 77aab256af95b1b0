"""What to try next, and why, from the facts of one run: a table of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from accel_cli.analysis import what_if
from accel_cli.analysis.expected import ratio
from accel_cli.analysis.facts import Facts, finite
from accel_cli.analysis.what_if import Advice
from accel_cli.analysis.wording import TIME_PARTS, is_finite, number, plain_name, share, times

TINY_STEP_MILLISECONDS = 2.0
WORTH_SAYING = 0.1
"""Where the gain does not follow from a share, a row ranks as if it addressed this share of the time."""
FEW = 0.05
"""The share of the steps' time that an evaluation or a checkpoint may take."""
LEAST_EVENTS = 4
"""That a run keeps, if it had more."""


@dataclass(frozen=True)
class Row:
    """One piece of advice.

    ``addresses`` is the share of the run's time that the override can save at most: it ranks the rows, and gives the
    bound on the gain (Amdahl's law). None: the gain does not follow from a share, and none is promised. ``expected``
    is the time per sample under an override, as a ratio to the run's, where the run has measured what it takes.
    """

    when: Callable[[Facts], bool]
    finding: str
    evidence: Callable[[Facts], str]
    override: Callable[[Facts], str | None]
    addresses: Callable[[Facts], float] | None = None
    expected: Callable[[Facts, str], float | None] = lambda facts, override: None


def rarer(facts: Facts, key: str) -> str | None:
    """``evaluate.every=200`` for 50: so rarely that it takes little of the time, four times a run at least.

    Twice the interval at least; None where the run is too short for that.
    """
    every = steps_between(facts, key)
    if not 0 < 2 * every <= facts.steps:
        return None
    taken = facts.share(key.partition(".")[0].replace("evaluate", "evaluation"))
    enough = every * taken / max(1 - taken, 0.01) / FEW
    return f"{key}={max(round(2 * every), rounded(min(enough, facts.steps / LEAST_EVENTS)))}"


def rounded(steps: float) -> int:
    """Down to 1, 2 or 5 with noughts."""
    power = 10 ** max(0, len(str(int(steps))) - 1)
    return next((digit * power for digit in (5, 2) if digit * power <= steps), power)


def steps_between(facts: Facts, key: str) -> float:
    """From one evaluation or checkpoint to the next; 0 where it is not known."""
    every = facts.setting(key)
    if is_finite(every):
        return float(every)
    epochs = facts.number("epochs")
    return facts.steps / epochs if epochs >= 1 else 0


def with_beat(facts: Facts, override: str) -> float | None:
    """Follows from what one evaluation or checkpoint took."""
    key, _, every = override.partition("=")
    return ratio(facts.pace, facts.pace.with_beat(key, float(every))) if facts.pace is not None else None


def longer(facts: Facts) -> str | None:
    """Twice the length, in the unit in which it is set."""
    for key in ("train.epochs", "train.steps", "train.samples"):
        if is_finite(value := facts.setting(key)):
            return f"{key}={number(2 * value, 12).replace(',', '')}"
    return None


def larger_batch(facts: Facts) -> str | None:
    """Four times the batch, where an epoch still has eight such steps."""
    batch, epochs = int(facts.number("global_batch")), facts.number("epochs")
    epoch = facts.number("samples") / epochs if epochs >= 1 else facts.number("samples")
    return f"train.global_batch={4 * batch}" if batch and epoch >= 32 * batch else None


def gentler(facts: Facts) -> str | None:
    rate = facts.setting("optimizer.learning_rate")
    return f"optimizer.learning_rate={rate / 3:.2g}" if is_finite(rate) else None


def _compile_share(facts: Facts) -> float:
    spent = finite((facts.summary.get("one_off_seconds") or {}).get("compile"))
    wall = facts.number("wall_seconds")
    return min(spent / wall, 1.0) if wall > 0 else 0.0


def _spare_gpus(facts: Facts) -> float:
    return facts.share("data", "forward", "backward") * (1 - 1 / len(facts.gpus)) if facts.gpus else 0.0


def _step_words(facts: Facts) -> str:
    return f"the median step takes {number(facts.step_milliseconds, 3)} ms"


def _best_words(facts: Facts) -> str:
    metric = facts.summary.get("metric") or {}
    name, best = plain_name(metric.get("name")), number(metric.get("best"))
    return f"best {name} {best} at step {number(facts.best_step)} of {number(facts.steps)}"


def _taken(part: str) -> Callable[[Facts], str]:
    return lambda facts: f"{share(facts.share(part))} of the time went to {part}"


TABLE = (
    Row(
        lambda f: f.summary.get("status") == "diverged",
        "a lower learning rate may keep the loss finite",
        lambda f: f"it diverged with optimizer.learning_rate={f.setting('optimizer.learning_rate')}",
        gentler,
    ),
    Row(
        lambda f: f.on("cpu") and bool(f.gpus),
        "a GPU stands idle",
        lambda f: f"the run used the processor; here is {f.gpus[0].get('name', 'a GPU')}",
        lambda f: "hardware=cuda",
    ),
    Row(
        lambda f: f.on("cuda") and f.number("world_size") == 1 and f.fits_more_gpus,
        "other GPUs stand idle",
        lambda f: f"the run used 1 of {len(f.gpus)} GPUs",
        lambda f: "strategy=ddp",
        _spare_gpus,
    ),
    Row(
        lambda f: f.on("cuda") and f.precision == "fp32" and f.capability >= (8, 0),
        "the GPU has units for bfloat16 that fp32 leaves idle",
        lambda f: f"forward and backward took {share(f.share('forward', 'backward'))} of the time, in fp32",
        lambda f: "precision=bf16",
    ),
    Row(
        lambda f: f.on("cuda") and f.precision == "fp32" and (7, 0) <= f.capability < (8, 0),
        "the GPU has units for fp16 that fp32 leaves idle",
        lambda f: f"forward and backward took {share(f.share('forward', 'backward'))} of the time, in fp32",
        lambda f: "precision=fp16",
    ),
    Row(
        lambda f: (
            f.on("cpu")
            and f.precision == "bf16"
            and "cpu_flags" in f.machine
            and not {"amx_bf16", "avx512_bf16"} & set(f.machine["cpu_flags"])
        ),
        "this processor has no instructions for bfloat16",
        lambda f: "neither amx_bf16 nor avx512_bf16: bf16 is emulated there",
        lambda f: "precision=fp32",
    ),
    Row(
        lambda f: (
            f.share("data") > 0.25
            and f.setting("loader") == "workers"
            and f.setting("data") != "custom"
            and not f.measured("data")
        ),
        "the model waits for data",
        _taken("data"),
        lambda f: "loader=memory",
        lambda f: f.share("data"),
    ),
    Row(
        lambda f: f.share("evaluation") > 0.2,
        "evaluation takes much of the time",
        _taken("evaluation"),
        lambda f: rarer(f, "evaluate.every"),
        lambda f: f.share("evaluation"),
        with_beat,
    ),
    Row(
        lambda f: f.share("checkpoint") > 0.1,
        "saving takes much of the time",
        _taken("checkpoint"),
        lambda f: rarer(f, "checkpoint.every"),
        lambda f: f.share("checkpoint"),
        with_beat,
    ),
    Row(
        lambda f: f.share("communication") > 0.3 and not f.measured("communication"),
        "processes wait for each other; a larger batch talks less for each sample, and is another optimisation problem",
        _taken("communication"),
        larger_batch,
        lambda f: f.share("communication") * 3 / 4,
    ),
    Row(
        lambda f: f.setting("compile") == "full" and _compile_share(f) > 0.3,
        "the run is too short to earn back its compilation",
        lambda f: f"{share(_compile_share(f))} of the wall time went to compiling",
        lambda f: "compile=none",
    ),
    Row(
        lambda f: (
            f.step_milliseconds is not None
            and 0 < f.step_milliseconds < TINY_STEP_MILLISECONDS
            and not f.measured("batch")
        ),
        "steps are so short that their fixed costs weigh; a larger batch is another optimisation problem, "
        "so watch the metric",
        _step_words,
        larger_batch,
    ),
    Row(
        lambda f: (
            f.summary.get("status") == "completed"
            and f.setting("stopping") == "none"
            and f.best_step is not None
            and 0 < f.best_step <= f.steps * 0.6
        ),
        "the metric was best long before the end",
        _best_words,
        lambda f: "stopping=early",
        lambda f: 1 - (f.best_step or 0) / max(f.steps, 1),
    ),
    Row(
        lambda f: f.summary.get("status") == "completed" and 0 < f.steps == f.best_step,
        "the metric was still improving when the length was reached",
        _best_words,
        longer,
    ),
)


def advise(
    summary: dict[str, Any],
    settings: dict[str, Any],
    machine: dict[str, Any],
    allows: Callable[[str], bool] = lambda override: True,
) -> list[dict[str, Any]]:
    """Rows {finding, evidence, override, expected} from a run's own facts, the most promising first.

    ``summary`` is summary.json, ``settings`` the tree of run.yaml, ``machine`` Machine.to_dict(); ``allows`` says of
    an override's words whether the run may have them. ``expected`` is the time per sample that is left, of 1, or None
    where the run does not tell. Never what is already set. Where no row holds, one row without an override says so. A
    failed run gets no advice: its error has the word.
    """
    facts = Facts(summary, settings, machine)
    if summary.get("status") == "failed":
        return []
    found = sorted([*_by_rules(facts), *what_if.advice(facts)], key=lambda advice: advice.order)
    rows = [
        {key: value for key, value in vars(advice).items() if key in ("finding", "evidence", "override", "expected")}
        for advice in found
    ]
    return [row for row in rows if allows(row["override"])] or [_nothing(facts)]


def _by_rules(facts: Facts) -> Iterator[Advice]:
    for row in TABLE:
        override = row.override(facts) if row.when(facts) else None
        if override is None or _is_set(facts, override):
            continue
        expected = row.expected(facts, override)
        expected = None if expected is None else round(expected, 4)
        saved = min(row.addresses(facts), 0.99) if row.addresses else 0.0
        gain = f"; at most {times(1 / (1 - saved))}" if saved > 0 and expected is None else ""
        rank = 1 - expected if expected is not None else saved if row.addresses else WORTH_SAYING
        yield Advice(row.finding, row.evidence(facts) + gain, override, expected, rank)


def _is_set(facts: Facts, override: str) -> bool:
    key, value = override.split("=", 1)
    return str(facts.setting(key)) == value


def _nothing(facts: Facts) -> dict[str, Any]:
    largest = max(TIME_PARTS, key=facts.share)
    evidence = (
        f"the largest part of the time is {largest}, {share(facts.share(largest))}"
        if facts.share(largest)
        else "the run was too short to measure where its time went"
    )
    return {"finding": "nothing stands out", "evidence": evidence, "override": None, "expected": None}
