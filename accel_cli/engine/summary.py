"""summary.json: how a run ended, in one object whose every key is always there."""

from __future__ import annotations

import json
import os
import statistics
import uuid
from pathlib import Path
from typing import Any

from accel_cli.engine.attempts import count, records

EMPTY: dict[str, Any] = {
    "status": "failed",
    "exit_code": 3,
    "error": None,
    "steps": 0,
    "epochs": None,
    "samples": 0,
    "global_batch": None,
    "world_size": None,
    "device": None,
    "strategy": None,
    "precision": None,
    "parameters": None,
    "parameters_trained": None,
    "metric": {"name": None, "mode": None, "value": None, "best": None, "best_step": None},
    "loss": None,
    "attempts": 1,
    "lost_steps": 0,
    "train_seconds": None,
    "wall_seconds": None,
    "first_step_seconds": None,
    "time_to_target_seconds": None,
    "samples_per_second": None,
    "step_milliseconds": {"median": None, "p95": None},
    "utilisation": None,
    "time_share": {},
    "costs": {"step": None, "evaluation": None, "checkpoint": None, "evaluate_every": None, "checkpoint_every": None},
    "peak_memory_bytes": {"device": None, "host": None},
    "communication_bytes": None,
    "one_off_seconds": {"import": None, "prepare": None, "compile": None, "checkpoint_load": None, "compression": None},
    "model_bytes": None,
    "compression": [],
    "what_if": [],
    "advice": [],
}


def step_milliseconds(seconds: list[float]) -> dict[str, float | None]:
    """Median and 95th percentile of the steady step times."""
    if not seconds:
        return {"median": None, "p95": None}
    ordered = sorted(steady(seconds))
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return {"median": round(statistics.median(ordered) * 1e3, 4), "p95": round(p95 * 1e3, 4)}


def steady(seconds: list[float]) -> list[float]:
    """Without the first steps, which warm up, where there are enough."""
    return seconds[len(seconds) // 10 :] if len(seconds) >= 10 else seconds


def write_json(path: Path, value: Any) -> None:
    """All or nothing."""
    partial = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(partial, path)


def world_size(folder: Path, launch: dict[str, Any]) -> int:
    """Ranks of the newest attempt that came to train; before the first, the fewest that were asked for."""
    begun = records(folder / "attempts" / "log.jsonl")
    return int(begun[-1]["world_size"]) if begun else launch["processes"] * int(str(launch["nodes"]).partition(":")[0])


def failed(
    folder: Path, settings: dict[str, Any], error: dict[str, Any], exit_code: int, status: str
) -> dict[str, Any]:
    """The summary of a run that could not write its own: what its last records tell, and what ended it."""
    lines = records(folder / "metrics.jsonl")
    train = [r for r in lines if r.get("kind") == "train"]
    last = train[-1] if train else {}
    return {
        **EMPTY,
        "status": status,
        "exit_code": exit_code,
        "error": error,
        "steps": last.get("step", 0),
        "epochs": last.get("epoch"),
        "samples": last.get("samples", 0),
        "global_batch": settings["train"]["global_batch"],
        "world_size": world_size(folder, settings["launch"]),
        "device": settings["hardware"]["option"],
        "strategy": settings["strategy"]["option"],
        "precision": settings["precision"]["option"],
        "loss": last.get("loss"),
        "train_seconds": last.get("seconds"),
        "samples_per_second": last.get("samples_per_second"),
        "attempts": count(folder),
    }
