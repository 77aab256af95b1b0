"""What ``auto`` means, as far as torch-free facts can tell; every decision with its reason."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accel_cli.config import host
from accel_cli.config.machine import Machine
from accel_cli.config.run import Run
from accel_cli.config.schema.hardware import BACKENDS

TASK_KEYS = {
    "label_smoothing": ("class", 0.0),
    "test_time_augmentation": ("class", "none"),
    "ignored_targets": ("next_token", False),
}
"""Key of task=auto -> the target that it has a meaning for, and the value by which it does nothing."""
TASK_OF = {"class": "classification", "number": "regression", "next_token": "language_model"}
FOLLOWS = {"strategy": ("launch", "hardware.threads"), "hardware": ("launch",), "data": ("task", "loader"),
           "launch": ("hardware.threads", "hardware.affinity")}  # fmt: skip
"""Group -> the groups and keys that ``decide`` settles by it."""
ELASTIC_RESTARTS = 10
UNCHANGED = ("none", "system", "contiguous")
"""Values that leave torch as it is: nothing to say."""


@dataclass(frozen=True)
class Decision:
    """``key`` was auto; it became ``value``. The override that pins it is ``key=value``."""

    key: str
    value: Any
    why: str
    measurements: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"key": self.key, "value": self.value, "why": self.why, "measurements": self.measurements}


def decide(run: Run, machine: Machine) -> tuple[Run, list[Decision]]:
    """Replace every ``auto`` that this machine's plain facts settle. What only the data can tell stays auto."""
    decisions: list[Decision] = []

    def say(key: str, value: Any, why: str) -> None:
        decisions.append(Decision(key, value, why))

    if run.hardware.option == "auto":
        option, why = _hardware(machine)
        run = run.with_option("hardware", option)
        say("hardware", option, why)
    device = run.hardware.option
    if run.launch.processes == "auto":
        processes, why = _processes(run.strategy, device, machine)
        if device not in BACKENDS:
            processes = math.ceil(processes / run.launch.least_nodes)
        run = run.with_values("launch", processes=processes)
        say("launch.processes", processes, why)
    if run.launch.max_restarts == "auto":
        run = run.with_values("launch", max_restarts=ELASTIC_RESTARTS if run.launch.elastic else 0)
        if run.launch.elastic:
            say("launch.max_restarts", ELASTIC_RESTARTS, f"launch.nodes={run.launch.nodes} is elastic: nodes may leave")
    if run.launch.backend == "auto":
        backend = BACKENDS.get(device, "gloo")
        run = run.with_values("launch", backend=backend)
        say("launch.backend", backend, f"{device} tensors travel over {backend}")
    for key, (value, why) in host.settled(run, machine).items():
        if getattr(run.hardware, key, None) == "auto":
            run = run.with_values("hardware", **{key: value})
            if value not in UNCHANGED:
                say(f"hardware.{key}", value, why)
    if getattr(run.strategy, "find_unused_parameters", None) == "auto":
        value = run.launch.processes * run.launch.most_nodes > 2 and run.launch.backend == "gloo"
        run = run.with_values("strategy", find_unused_parameters=value)
        if value:
            why = "keeps the order of gradient buckets: a resumed run repeats bit for bit with more than two ranks"
            say("strategy.find_unused_parameters", value, why)
    ranks = run.launch.processes * run.launch.most_nodes
    if run.communication.option == "auto" and (run.strategy.option != "ddp" or ranks == 1):
        run = run.with_option("communication", "exact")
        say(
            "communication",
            "exact",
            "one rank sends nothing" if ranks == 1 else "only gradients of strategy=ddp are compressed",
        )
    if run.loader.option == "auto" and run.data.option == "shards":
        run = run.with_option("loader", "stream")
        say("loader", "stream", "data=shards lies in chunks: a few of them are on the disk at a time")
    kind = run.data.target_kind
    if run.task.option == "auto" and kind in TASK_OF and not foreign_task_keys(run):
        run = run.with_option("task", TASK_OF[kind])
        say("task", TASK_OF[kind], f"a target of data={run.data.option} is a {kind.replace('_', ' ')}")
    return run, decisions


def foreign_task_keys(run: Run) -> list[str]:
    """Keys of task=auto that are set, and that the task of the data's targets has not: a rule refuses them."""
    kind = run.data.target_kind
    if run.task.option != "auto" or kind is None:
        return []
    return [key for key, (of, idle) in TASK_KEYS.items() if of != kind and getattr(run.task, key) != idle]


def _hardware(machine: Machine) -> tuple[str, str]:
    if machine.gpus and "cuda" not in machine.built_without:
        return "cuda", f"{len(machine.gpus)} x {machine.gpus[0].name}"
    if machine.xpus and "xpu" not in machine.built_without:
        return "xpu", f"{machine.xpus} Intel GPUs, and no CUDA device"
    if machine.mps:
        return "mps", "an Apple GPU, and no CUDA device"
    if machine.gpus:
        return "cpu", f"the installed torch is built without code for the {machine.gpus[0].name}"
    return "cpu", "no GPU found"


def _processes(strategy: Any, device: str, machine: Machine) -> tuple[int, str]:
    if strategy.least_processes == 1:
        return 1, f"strategy={strategy.option} is one process"
    if device in BACKENDS:
        return max(1, machine.count(device)), f"one for every {'chip' if device == 'tpu' else 'GPU'}"
    return strategy.least_processes, f"the least that strategy={strategy.option} needs on {device}"


def settled_before(run: Run, known: dict[str, Any]) -> Run:
    """The run with what ``known``, key -> value of a run's decisions.json, says of the autos that only ranks measure.

    A run that is resumed or repeated stays itself.
    """
    for group in ("communication", "precision", "compile"):
        if group in known and getattr(run, group).option == "auto":
            run = run.with_option(group, known[group])
    counted = [name for name in ("workers", "threads") if f"loader.{name}" in known]
    if run.loader.option == "auto" and counted == [known.get("loader")]:
        run = run.with_option("loader", known["loader"])
    for name in (*counted, "prefetch"):
        if f"loader.{name}" in known and getattr(run.loader, name, None) == "auto":
            run = run.with_values("loader", **{name: known[f"loader.{name}"]})
    if "train.micro_batch" in known and run.train.micro_batch == "auto":
        run = with_micro_batch(run, known["train.micro_batch"])
    if "optimizer.learning_rate" in known and run.train.learning_rate == "find":
        run = run.with_values("optimizer", learning_rate=known["optimizer.learning_rate"])
        run = run.with_values("train", learning_rate=None)
    return run


def with_micro_batch(run: Run, size: int) -> Run:
    """The run with the micro-batch that fits, and no larger batches in evaluation: they would not."""
    return run.with_values("train", micro_batch=size).with_values("evaluate", batch=min(run.evaluate.batch, size))


def decided_in(folder: Path) -> dict[str, Any]:
    """Key -> value of what was decided in a run folder; {} where nothing was."""
    path = folder / "decisions.json"
    try:
        return {entry["key"]: entry["value"] for entry in json.loads(path.read_text())}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
