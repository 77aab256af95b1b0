"""Run folders as the engine writes them, from synthetic records."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import yaml

STEPS, EVERY, BATCH, SAMPLES = 1000, 5, 64, 64_000


def settings(**changes: Any) -> dict[str, Any]:
    """A resolved run.yaml; a change's key is a group (its option) or ``section__key``."""
    tree: dict[str, Any] = {
        "format_version": 1,
        "hardware": {"option": "cpu", "threads": 2},
        "strategy": {"option": "single"},
        "communication": {"option": "exact"},
        "precision": {"option": "fp32"},
        "compile": {"option": "none"},
        "optimizer": {"option": "adamw", "learning_rate": 0.003, "weight_decay": 0.01},
        "schedule": {"option": "cosine", "warmup": 100},
        "data": {"option": "digits"},
        "loader": {"option": "memory"},
        "augment": {"transforms": {}},
        "model": {"option": "mlp", "depth": 2, "width": 256},
        "task": {"option": "class"},
        "compression": {"passes": {}},
        "stopping": {"option": "none"},
        "tracking": {"trackers": {}},
        "export": {"option": "none"},
        "train": {"global_batch": BATCH, "epochs": 10, "steps": None, "samples": None, "seed": 0},
        "metrics": {"every": EVERY},
        "evaluate": {"every": "epoch", "batch": 256},
        "checkpoint": {"every": 100, "keep_last": 2},
    }
    for key, value in changes.items():
        group, _, name = key.partition("__")
        tree[group][name or "option"] = value
    return tree


def summary(**changes: Any) -> dict[str, Any]:
    """A whole summary.json of a run that went well."""
    return {
        "status": "completed", "exit_code": 0, "error": None, "steps": STEPS, "epochs": 10, "samples": SAMPLES,
        "global_batch": BATCH, "world_size": 1, "device": "cpu", "strategy": "single", "precision": "fp32",
        "parameters": 85_002, "parameters_trained": 85_002,
        "metric": {"name": "accuracy", "mode": "max", "value": 0.9733, "best": 0.9812, "best_step": 900},
        "loss": 0.0123, "attempts": 1, "lost_steps": 0, "train_seconds": 10.0, "wall_seconds": 14.2,
        "first_step_seconds": 2.9, "time_to_target_seconds": None, "samples_per_second": 6400.0,
        "step_milliseconds": {"median": 9.8, "p95": 12.1}, "utilisation": None,
        "time_share": {"data": 0.08, "copy": 0.0, "forward": 0.28, "backward": 0.41, "optimizer": 0.11,
                       "communication": 0.0, "evaluation": 0.06, "checkpoint": 0.02, "other": 0.04},
        "peak_memory_bytes": {"device": None, "host": 812_000_000}, "communication_bytes": 0,
        "one_off_seconds": {
            "import": 2.4, "prepare": 0.1, "compile": 0.0, "checkpoint_load": None, "compression": None,
        },
        "model_bytes": 340_008,
        "advice": [{"finding": "the metric was best long before the end", "evidence": "best accuracy 0.98 at step 400",
                    "override": "stopping=early"}],
        **changes,
    }  # fmt: skip


def records(*, steps: int = STEPS, rate: float = 1.0, seed: int = 0) -> list[dict[str, Any]]:
    """A loss over more than two decades, and an evaluation each epoch."""
    draws = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for step in range(EVERY, steps + 1, EVERY):
        place = {"step": step, "epoch": step / 100, "samples": step * BATCH, "seconds": round(step * 0.01 / rate, 4)}
        loss = 2.3 * math.exp(-step / 170) * math.exp(draws.gauss(0, 0.25)) + 0.004
        factor = min(step / 100, 0.5 * (1 + math.cos(math.pi * step / STEPS)))
        speed = 6400.0 * rate * draws.uniform(0.9, 1.1)
        rows.append(
            {"kind": "train", **place, "loss": loss, "learning_rate": 0.003 * factor, "samples_per_second": speed}
        )
        if step % 100 == 0:
            accuracy = 0.98 - 0.6 * math.exp(-step / 150) + draws.gauss(0, 0.003)
            found = {"validation_loss": loss * 1.4 + 0.05, "validation_accuracy": accuracy}
            rows.append({"kind": "evaluation", **place, **found})
    return rows


def write_run(
    folder: Path, settings: dict[str, Any], summary: dict[str, Any] | None, records: list[dict[str, Any]]
) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    (folder / "command.txt").write_text("accel train precision=auto data=digits\n")
    environment = {"python": "3.12.3", "torch": "2.11.0", "cores": 2, "git": {"commit": "0f3c1e", "dirty": False}}
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    decision = {"key": "precision", "value": "fp32", "why": "this processor has no bf16 units", "measurements": None}
    (folder / "decisions.json").write_text(json.dumps([decision]))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder
