"""What a tracker is told: a record's numbers by name, and the run's settings and headline numbers from its folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accel_cli.config.tree import flatten, read_yaml

AXES = {"kind", "step", "epoch", "samples", "seconds"}
"""Keys that say where a record stands rather than what was measured."""
SPLITS = ("train", "validation", "test")
HEADLINE = (
    "train_seconds", "wall_seconds", "samples_per_second", "time_to_target_seconds", "samples", "parameters",
    "utilisation", "model_bytes", "communication_bytes",
)  # fmt: skip
HEADLINE_PARTS = {
    "metric": ("value", "best"),
    "step_milliseconds": ("median", "p95"),
    "peak_memory_bytes": ("device", "host"),
    "time_share": None,
}
"""Objects of summary.json, and which of their numbers belong to the headline (None: all)."""


def scalars(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """(name, value) of a record's numbers; the split that a name starts with becomes its folder."""
    default = "train" if record.get("kind") == "train" else "validation"
    for key, value in record.items():
        if key in AXES or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        split, _, name = key.partition("_")
        yield (f"{split}/{name}" if name and split in SPLITS else f"{default}/{key}"), value


def settings(folder: Path) -> dict[str, str]:
    """run.yaml with dotted keys: ``train.epochs`` -> ``3``; a group's ``option`` stands under the group's own name.

    Raises ConfigError or OSError where it cannot be read; empty where there is none.
    """
    path = folder / "run.yaml"
    return dict(flatten(read_yaml(path))) if path.exists() else {}


def headline(folder: Path) -> dict[str, float]:
    """The finite numbers of summary.json that matter, as ``summary/metric_best``; empty where the run did not end.

    Raises OSError or ValueError where it cannot be read.
    """
    path = folder / "summary.json"
    if not path.exists():
        return {}
    said = json.loads(path.read_text())
    found = {key: said.get(key) for key in HEADLINE}
    for key, wanted in HEADLINE_PARTS.items():
        inner = said.get(key) or {}
        found |= {f"{key}_{name}": inner.get(name) for name in (inner if wanted is None else wanted)}
    return {f"summary/{key}": float(value) for key, value in found.items() if _finite(value)}


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
