"""Folders of ledgers, sweeps, tunes and benches, with numbers as they come out on a small machine."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from run_builder import records, settings, summary, write_run

ENVIRONMENT = {"python": "3.12.3", "torch": "2.11.0", "cores": 2, "git": {"commit": "0f3c1e", "dirty": False}}
MEMORY = {"device": None, "host": 812_000_000}


def write_study(folder: Path, kind: str, content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / f"{kind}.json").write_text(text)
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
    return folder


def head(kind: str, command: str, **changes: Any) -> dict[str, Any]:
    return {
        "format_version": 1,
        "kind": kind,
        "command": command,
        "started": 1_795_679_000.0,
        "seconds": 312.4,
        "status": "settled",
        **changes,
    }


def ratio(value: float, width: float = 0.02) -> dict[str, float]:
    return {"value": value, "low": value * (1 - width), "high": value * (1 + width)}


def row(
    technique: str, form: str = "alone", found: float | None = 1.0, verdict: str | None = None, **changes: Any
) -> Any:
    known = found is not None
    return {
        "technique": technique,
        "words": technique.replace(" + ", " ").split(),
        "form": form,
        "against": "baseline",
        "status": "measured" if known else "failed",
        "cause": None,
        "ratio": ratio(found) if known else None,
        "verdict": verdict,
        "step_milliseconds": 9.8 * found if known else None,
        "samples_per_second": 6400 / found if known else None,
        "peak_memory_bytes": MEMORY if known else None,
        "communication_bytes": 0,
        "one_off_seconds": {"prepare": 0.1, "compile": 0.0, "setup": 0.4} if known else None,
        "break_even_step": None,
        "unequal": [],
        "metric": None,
        "seconds_to_target": None,
        "run_seconds": None,
        "runs": [],
        **changes,
    }


def metric(difference: float, beyond: bool = False, width: float = 0.004) -> dict[str, Any]:
    return {
        "name": "accuracy",
        "values": [0.972 + difference + shift for shift in (-0.002, 0.0, 0.002)],
        "difference": {"value": difference, "low": difference - width, "high": difference + width},
        "beyond_noise": beyond,
    }


def ledger(**changes: Any) -> dict[str, Any]:
    """Six techniques: helps, hurts, nothing, cannot tell, a crash, a refusal."""
    whole = {"run_seconds": {"values": [6.1, 6.3, 6.0], "ratio": ratio(0.63, 0.06)}}
    reached = {"seconds_to_target": {"values": [3.9, None, 4.4], "ratio": ratio(0.66, 0.2)}}
    rows = [
        row(
            "loader=memory",
            found=0.612,
            verdict="helps",
            metric=metric(0.0004),
            **whole,
            **reached,
            runs=["runs/memory-0"],
        ),
        row("precision=bf16", found=1.34, verdict="hurts", metric=metric(-0.011, True), runs=["runs/bf16-0"]),
        row(
            "loader=memory augment=[flip,crop]",
            found=1.06,
            verdict="cannot tell",
            metric=metric(0.003),
            unequal=["each sample is changed before it is used"],
            ratio={"value": 1.06, "low": 0.97, "high": 1.19},
        ),
        row("metrics.every=25", found=1.001, verdict="no effect", metric=metric(0.0)) | {"ratio": ratio(1.001, 0.004)},
        row(
            "compile=full",
            found=0.81,
            verdict="helps",
            break_even_step=8400,
            metric=metric(0.0002),
            one_off_seconds={"prepare": 0.1, "compile": 15.6, "setup": 0.5},
        ),
        row(
            "model=mine",
            found=None,
            cause="RuntimeError: mat1 and mat2 shapes cannot be multiplied (64x784 and 64x256)",
        ),
        row("strategy=fsdp", found=None, status="refused", cause="splits over processes; launch.processes=1"),
        row("loader=memory + precision=bf16", "together", 0.79, "helps", metric=metric(-0.012, True)),
        row("loader=memory + precision=bf16 + compile=full", "together", 0.55, "helps", metric=metric(-0.011, True)),
        row("loader=memory", "left_out", 0.64, "helps", against="all but loader=memory"),
        row("precision=bf16", "left_out", 1.31, "hurts", against="all but precision=bf16"),
        row("compile=full", "left_out", 0.77, "helps", against="all but compile=full"),
    ]
    whole_ledger = {
        **head(
            "ledger",
            "accel ledger loader=memory precision=bf16 compile=full --base data=digits --to-target accuracy=0.97",
        ),
        "base": ["data=digits"],
        "margin": 0.01,
        "error": 0.001,
        "rounds": 34,
        "seeds": 3,
        "target": {"metric": "accuracy", "value": 0.97},
        "floor": ratio(1.0012, 0.006),
        "baseline": {
            "step_milliseconds": 9.8,
            "samples_per_second": 6400.0,
            "global_batch": 64,
            "peak_memory_bytes": MEMORY,
            "communication_bytes": 0,
            "one_off_seconds": {"prepare": 0.1, "compile": 0.0, "setup": 0.4},
            "metric": {"name": "accuracy", "mode": "max", "values": [0.970, 0.972, 0.974], "difference": None},
            "seconds_to_target": {"values": [6.2, 6.6, 6.4], "ratio": None},
            "run_seconds": {"values": [9.9, 10.1, 9.8], "ratio": None},
            "runs": ["runs/baseline-0"],
        },
        "samples": {"baseline": [0.0098, 0.0099]},
        "rows": rows,
    }
    return whole_ledger | changes


def point(
    number: int, words: list[str], accuracy: float | None, seconds: float | None, **changes: Any
) -> dict[str, Any]:
    known = accuracy is not None
    return {
        "number": number,
        "point": words,
        "status": "completed" if known else "failed",
        "exit_code": 0 if known else 1,
        "cause": None,
        "run": f"{number:03d}" if known else None,
        "metric": {
            "name": "accuracy",
            "mode": "max",
            "value": accuracy and accuracy - 0.004,
            "best": accuracy,
            "best_step": 900,
        }
        if known
        else None,
        "loss": 0.02 if known else None,
        "train_seconds": seconds,
        "wall_seconds": seconds and seconds + 0.6,
        "seconds": seconds and seconds + 0.9,
        "samples_per_second": seconds and 64000 / seconds,
        "peak_memory_bytes": MEMORY if known else None,
        "steps": 1000,
        "samples": 64000,
        **changes,
    }


RATES, BATCHES, LOADERS = (0.0003, 0.001, 0.003, 0.01), (32, 64, 128), ("memory", "workers")


def sweep(**changes: Any) -> dict[str, Any]:
    """24 points, of which one crashed, one ran out of memory, one was refused, one ran out of time."""
    draws, points = random.Random(0), []
    for rate in RATES:
        for batch in BATCHES:
            for loader in LOADERS:
                words = [f"optimizer.learning_rate={rate}", f"train.global_batch={batch}", f"loader={loader}"]
                accuracy = (
                    0.985
                    - 0.01 * abs(RATES.index(rate) - 2) ** 1.6
                    - 0.004 * BATCHES.index(batch)
                    + draws.gauss(0, 0.002)
                )
                seconds = (10 if loader == "memory" else 17) * 64 / batch * draws.uniform(0.95, 1.08) + 2
                points.append(point(len(points), words, accuracy, seconds))
    for place, status, cause in (
        (5, "failed", "ZeroDivisionError: division by zero in my_pkg/nets.py, line 31"),
        (12, "out_of_memory", "rank 0 was killed by the system for memory, at step 112; try train.micro_batch=32"),
        (17, "refused", "loader=workers needs a data set of at least 200 samples"),
        (23, "timed_out", "took longer than --point-seconds 60"),
    ):
        points[place] = point(place, points[place]["point"], None, None, status=status, cause=cause)
    whole = {
        **head(
            "sweep",
            "accel sweep data=digits optimizer.learning_rate=0.0003,0.001,0.003,0.01 train.global_batch=32,64,128",
        ),
        "status": "completed",
        "words": [
            "data=digits",
            "optimizer.learning_rate=0.0003,0.001,0.003,0.01",
            "train.global_batch=32,64,128",
            "loader=memory,workers",
        ],
        "axes": {
            "optimizer.learning_rate": list(map(str, RATES)),
            "train.global_batch": list(map(str, BATCHES)),
            "loader": list(LOADERS),
        },
        "search": "grid",
        "metric": {"name": "accuracy", "mode": "max"},
        "points": points,
    }
    return whole | changes


def candidate(words: str, stage: int, status: str, found: float | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "name": words,
        "words": words.split(),
        "stage": stage,
        "status": status,
        "cause": None,
        "ratio": ratio(found) if found else None,
        "step_milliseconds": 9.8 * found if found else None,
        "peak_memory_bytes": MEMORY if found else None,
        "metric": None,
        **changes,
    }


def tune(**changes: Any) -> dict[str, Any]:
    base = ["precision=bf16", "compile=full", "loader=device", "optimizer.kernel=fused", "hardware.threads=1"]
    candidates = [
        candidate("loader=memory compile=full", 3, "chosen", 0.43),
        candidate("loader=memory", 3, "finalist", 0.61),
    ]
    candidates += [
        candidate(f"{word} train.micro_batch={8 * k}", 1 + k % 2, "dropped", 0.7 + 0.09 * k)
        for k, word in enumerate(base)
    ]
    candidates += [
        candidate("precision=fp16", 0, "refused", cause="this processor has no fp16 units"),
        candidate("compile=max_autotune", 1, "failed", cause="needs a GPU with 68 multiprocessors at least"),
    ]
    finalists = [
        {
            "words": words,
            "seeds": 5,
            "metric": values,
            "metric_values": values,
            "seconds_to_target_values": seconds,
            "difference": {"value": shift, "low": shift - 0.002, "high": shift + 0.002},
        }
        for words, values, seconds, shift in (
            (
                ["loader=memory", "compile=full"],
                [0.971, 0.973, 0.972, 0.970, 0.974],
                [3.1, 3.3, 3.0, 3.2, 3.1],
                -0.0004,
            ),
            (["loader=memory"], [0.972, 0.973, 0.973, 0.971, 0.974], [4.4, 4.3, 4.6, 4.4, 4.5], 0.0002),
            ([], [0.971, 0.973, 0.973, 0.972, 0.974], [6.6, 6.4, 6.3, 6.9, 6.5], 0.0),
        )
    ]
    whole = {
        **head("tune", "accel tune objective=time_to_target floor=validation_accuracy-0.003 model=custom"),
        "status": "completed",
        "objective": "time_to_target",
        "floor": {"metric": "validation_accuracy", "loss_allowed": 0.003},
        "candidates": candidates,
        "finalists": finalists,
        "chosen": {
            "words": ["loader=memory", "compile=full"],
            "ratio": ratio(0.43),
            "metric": None,
            "difference": finalists[0]["difference"],
            "command": "accel train model=custom loader=memory compile=full",
        },
        "bought": [
            row("loader=memory", "left_out", 0.61, "helps", against="chosen"),
            row("compile=full", "left_out", 0.72, "helps", against="chosen"),
        ],
        "budget_seconds": 600,
        "spent_seconds": 504.2,
    }
    return whole | changes


def bench(**changes: Any) -> dict[str, Any]:
    whole = {
        **head("bench", "accel bench --against baseline.json --max-slowdown 5%"),
        "baseline": "baseline.json",
        "ratio": ratio(1.08, 0.01),
        "floor": ratio(1.0, 0.006),
        "max_slowdown": 0.05,
        "verdict": "slower",
        "samples": {"baseline": [0.0098, 0.0099, 0.0097], "now": [0.0106, 0.0105, 0.0107]},
    }
    return whole | changes


STUDIES = {"ledger": ledger, "sweep": sweep, "tune": tune, "bench": bench}


def write_runs(folder: Path, kind: str) -> None:
    """Run folders that the example studies name."""
    places = {
        "ledger": [("runs/baseline-0", "fp32", 1.0), ("runs/memory-0", "fp32", 1.6), ("runs/bf16-0", "bf16", 0.8)],
        "sweep": [(f"{number:03d}", "fp32", 1.0 + number / 20) for number in range(24)],
    }
    for seed, (name, precision, rate) in enumerate(places.get(kind, [])):
        write_run(
            folder / name,
            settings(precision=precision),
            summary(train_seconds=10 / rate),
            records(rate=rate, seed=seed),
        )
