"""Training over a slow link: two hosts on one machine, joined by a cable of a stated rate (Linux, as root).

    .venv/bin/python benchmarks/link.py step --rate 1gbit --rate 100mbit     ddp's step against what the link allows
    .venv/bin/python benchmarks/link.py race --rate 100mbit                  every way to send less, to ddp's loss
    .venv/bin/python benchmarks/link.py race --steps 6 --seeds 1 model.width=64      a trial

step: ddp's step / max(compute, bytes / (0.89 x link)), where compute is the step of two ranks that send nothing, bytes
are a step's gradients as ddp sends them, and link is the stated rate, which a plain socket confirms in the same run.
race: exact, fp16, bf16, powersgd, localsgd and diloco over the same samples, with their throughput on the same cable
without a limit. The target is a validation loss within 1% of exact's last.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from compare import interleave, merged, ratio, table, verdict
from link_pair import UNLIMITED, Sample, apart, bits, pair, raw_rate, shape, spread

from accel_cli.config.parts import table as options
from accel_cli.config.plan import plan
from accel_cli.config.run import Run

SHARE = 0.89
"""Of the stated rate, what gradients can use: the rest is headers and acknowledgements."""
LIMIT = 1.10
NEAR = 1.01
RUN = [
    "hardware=cpu", "hardware.threads=1", "launch.processes=2", "strategy=ddp", "data=stdlib_text", "data.length=64",
    "model=gpt", "model.width=192", "model.depth=4", "model.heads=4", "train.epochs=null", "train.global_batch=32",
    "schedule=constant", "optimizer.learning_rate=0.001", "metrics.every=2", "checkpoint.every=1000000",
]  # fmt: skip
SMALL = [
    "data.length=32", "data.max_bytes=1000000", "model.width=32", "model.depth=2", "model.heads=2",
    "train.global_batch=64", "schedule=cosine", "optimizer.learning_rate=0.002", "metrics.every=48",
]  # fmt: skip
"""A race is run to its end, thrice: a net that learns what it can in two minutes."""
ALONE = ["strategy=single", "launch.processes=1"]
ARMS = {
    "exact": ["communication=exact"],
    "fp16": ["communication=fp16"],
    "bf16": ["communication=bf16"],
    "powersgd": ["communication=powersgd"],
    "localsgd": ["strategy=localsgd"],
    "diloco": ["strategy=diloco", "strategy.steps=32"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("step", "race"))
    parser.add_argument("--rate", action="append", help="of the cable, such as 100mbit; may be given again")
    parser.add_argument("--steps", type=int, help="of a run; 40 for step, 3200 for race")
    parser.add_argument("--rounds", type=int, default=5, help="step: runs of each arm")
    parser.add_argument("--seeds", type=int, default=3, help="race: runs of each arm")
    parser.add_argument("--arm", action="append", choices=list(ARMS), help="race: only these, beside exact")
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("overrides", nargs="*", help="of every run, such as model.width=64")
    given = parser.parse_intermixed_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, pair():
        for rate in given.rate or ["100mbit"]:
            found[rate] = {"step": step, "race": race}[given.part](given, rate, Path(folder) / rate)
            if given.json:
                given.json.write_text(json.dumps(found, indent=1))


def step(given: argparse.Namespace, rate: str, folder: Path) -> dict[str, Any]:
    """ddp's step against the larger of computing and sending."""
    steps = given.steps or 40
    words = [*RUN, f"train.steps={steps}", f"evaluate.every={10 * steps}", *given.overrides]
    run = plan(merged(words)).run
    shared = [word for word in words if not word.startswith("strategy.")]
    alone = plan(merged([*shared, *ALONE, f"train.global_batch={run.train.global_batch // 2}"])).run
    shape(rate)
    numbers = iter(range(10**6))
    arms = {
        "ddp": lambda: spread(run, folder / str(next(numbers))),
        "compute": lambda: apart(alone, folder / str(next(numbers))),
        "ddp again": lambda: spread(run, folder / str(next(numbers))),
    }
    raw = [raw_rate(rate)]
    samples = interleave(arms, given.rounds, _say)
    raw.append(raw_rate(rate))
    seconds = {name: [sample.step_seconds for sample in each] for name, each in samples.items()}
    sent = statistics.median(payload(sample) for sample in samples["ddp"])
    wire = statistics.median(sample.wire_bytes for sample in samples["ddp"])
    floor = ratio(seconds["ddp again"], seconds["ddp"])
    rows: list[list[object]] = [["", "ms"], ["ddp's step", _milliseconds(seconds["ddp"])]]
    rows.append(["compute alone", _milliseconds(seconds["compute"])])
    rows.append([f"gradients, {sent / 1e6:.3g} MB at {SHARE} x {rate}", f"{8e3 * sent / SHARE / bits(rate):.1f}"])
    rows.append([f"the wire's own count, {wire / 1e6:.3g} MB", f"{8e3 * wire / SHARE / bits(rate):.1f}"])
    print(table(rows))
    print(f"a plain socket: {8 * raw[0] / bits(rate):.3f} and {8 * raw[1] / bits(rate):.3f} of the stated {rate}")
    result: dict[str, Any] = {"seconds": seconds, "sent": sent, "wire": wire, "raw": raw, "floor": floor}
    for name, size in (("gradients", sent), ("wire", wire)):
        least = [max(compute, 8 * size / SHARE / bits(rate)) for compute in seconds["compute"]]
        own = ratio(seconds["ddp"], least)
        result[name] = {"ratio": own, "verdict": verdict(own, floor, LIMIT)}
        print(f"ddp / max(compute, {name}): {own}; floor {floor}; at most {LIMIT}: {result[name]['verdict']}")
    return result


def race(given: argparse.Namespace, rate: str, folder: Path) -> dict[str, Any]:
    """Every arm over the same samples; loss, bytes, time to the target, and throughput against no limit."""
    steps = given.steps or 3200
    names = ["exact", *(name for name in ARMS if name != "exact" and name in (given.arm or ARMS) and _exists(name))]
    base = [*RUN, *SMALL, f"train.steps={steps}", f"evaluate.every={max(1, steps // 40)}", *given.overrides]
    found: dict[str, dict[str, list[Sample]]] = {name: {rate: [], UNLIMITED: []} for name in names}
    for seed in range(given.seeds):
        for limit in (rate, UNLIMITED):
            shape(limit)
            runs = {
                name: partial(
                    spread, planned([*base, f"train.seed={seed}", *ARMS[name]]), folder / f"{name}-{limit}-{seed}"
                )
                for name in (names if seed % 2 == 0 else names[::-1])
            }
            for name, samples in interleave(runs, 1, lambda text, limit=limit: _say(f"{limit}: {text}")).items():
                found[name][limit] += samples
    target = NEAR * statistics.mean(last_loss(sample) for sample in found["exact"][rate])
    rows = {name: measures(each[rate], each[UNLIMITED], target) for name, each in found.items()}
    exact = rows["exact"]
    head = ["arm", "last loss", "/ exact", "samples/s", "/ unlimited", "bytes / exact", "s to target", "sooner"]
    print(table([head, *([name, *_told(row, exact)] for name, row in rows.items())]))
    print(f"target: a validation loss of {target:.4f}; {given.seeds} seeds; {steps} steps over {rate}")
    if "diloco" in rows:
        for name in ("exact", "fp16", "powersgd"):
            if name in rows:
                print(
                    f"diloco is there {_times(rows[name]['to_target'], rows['diloco']['to_target'])} sooner than {name}"
                )
    return {"target": target, "arms": rows}


def planned(words: list[str]) -> Run:
    """The run; replicas that agree now and then evaluate when they have agreed: between, it costs an exchange."""
    run = plan(merged(words)).run
    beat = getattr(run.strategy, "steps", 1)
    every = math.ceil(run.evaluate.every / beat) * beat
    return run.with_values("evaluate", every=every)


def measures(limited: list[Sample], unlimited: list[Sample], target: float) -> dict[str, Any]:
    throughput = [sample.summary["samples_per_second"] for sample in limited]
    free = [sample.summary["samples_per_second"] for sample in unlimited]
    reached = [seconds_to(sample, target) for sample in limited]
    return {
        "loss": [last_loss(sample) for sample in limited],
        "samples_per_second": throughput,
        "of_unlimited": ratio(throughput, free),
        "wire_bytes": statistics.mean(sample.wire_bytes for sample in limited),
        "payload_bytes": statistics.mean(payload(sample) for sample in limited),
        "to_target": statistics.mean(reached) if all(map(math.isfinite, reached)) else None,
    }


def payload(sample: Sample) -> float:
    """Bytes that one rank sends in a step, as accel says."""
    return float(sample.summary["communication_bytes"] or 0) / sample.summary["steps"]


def last_loss(sample: Sample) -> float:
    return float([r for r in sample.records if "validation_loss" in r][-1]["validation_loss"])


def seconds_to(sample: Sample, target: float) -> float:
    """Seconds of steps until an evaluation was as good as that; infinite where none was."""
    evaluations = (r for r in sample.records if r.get("validation_loss") is not None)
    return next((float(r["seconds"]) for r in evaluations if r["validation_loss"] <= target), math.inf)


def _told(row: dict[str, Any], exact: dict[str, Any]) -> list[str]:
    loss, exact_loss = statistics.mean(row["loss"]), statistics.mean(exact["loss"])
    reached = "never" if row["to_target"] is None else f"{row['to_target']:.1f}"
    spread_of = f" +- {statistics.stdev(row['loss']):.4f}" if len(row["loss"]) > 1 else ""
    return [
        f"{loss:.4f}{spread_of}", f"{loss / exact_loss:.4f}", f"{statistics.mean(row['samples_per_second']):.1f}",
        str(row["of_unlimited"]), f"1/{exact['wire_bytes'] / max(row['wire_bytes'], 1e-9):.1f}", reached,
        _times(exact["to_target"], row["to_target"]),
    ]  # fmt: skip


def _times(slower: float | None, faster: float | None) -> str:
    return "-" if slower is None or faster is None else f"{slower / faster:.2f} times"


def _exists(name: str) -> bool:
    group, _, option = ARMS[name][0].partition("=")
    if option in options(group):
        return True
    _say(f"{name}: no such option yet")
    return False


def _milliseconds(seconds: list[float]) -> str:
    return f"{1e3 * statistics.median(seconds):.1f}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
