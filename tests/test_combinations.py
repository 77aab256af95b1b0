"""The law of combinations: every pair of settings that the doors let through takes its steps; none hangs.

`scripts/test tests/test_combinations.py --strength 3` meets all triples instead: that takes hours.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from covering import Row, cover
from ranks import records, run_ranks, train_here, write_run

from accel_cli.config import tree
from accel_cli.config.decide import decide
from accel_cli.config.machine import Machine
from accel_cli.config.parts import table
from accel_cli.config.plan import plan
from accel_cli.config.rules import Facts, refusals
from accel_cli.config.run import Run, check_tree
from accel_cli.errors import Problem

MACHINE = Machine(cores=2, memory_bytes=8 << 30)
SHORT = ["train.global_batch=16", "train.epochs=null", "train.steps=2", "metrics.every=1", "evaluate.batch=16"]
MODELS = {
    "mlp": ["data=digits", "model=mlp", "model.widths=[16,16,16,16]"],
    "resnet": ["data=digits", "model=resnet", "model.width=8", "model.blocks=[1,1]", "model.normalisation=group"],
    "gpt": ["data=stdlib_text", "data.length=16", "data.max_bytes=40000", "model=gpt", "model.width=16",
            "model.depth=4", "model.heads=2", "model.dropout=0.1"],
}  # fmt: skip
MESHES = {
    "shard x tensor": {"shard": 2, "tensor": 2},
    "replicate x shard": {"replicate": 2, "shard": 2},
    "replicate x pipeline": {"replicate": 2, "pipeline": 2, "shard": 1},
    "tensor x pipeline": {"tensor": 2, "pipeline": 2, "shard": 1},
    "shard x context": {"shard": 2, "context": 2},
    "replicate x tensor": {"replicate": 2, "tensor": 2, "shard": 1},
}
GROWS = {"mlp": "progressive_resize", "resnet": "progressive_resize", "gpt": "sequence_length_warmup"}
FACTORS = {
    "strategy": [*(option for option in table("strategy") if option != "mesh"), *MESHES],
    "communication": list(table("communication")),
    "precision": ["fp32", "bf16", "fp16", "bf16_pure"],
    "train.activation_checkpointing": ["none", "blocks", "selective"],
    "model": list(MODELS),
    "compile": ["none", "full"],
    "train.micro_batch": ["null", "2"],
    "augment": ["none", "mixup", "grows"],
    "loader": ["auto", "device", "threads", "workers"],
}


def words(row: Row) -> list[str]:
    """What one would type."""
    mesh = MESHES.get(row["strategy"])
    strategy = ["strategy=mesh", *(f"strategy.{name}={size}" for name, size in mesh.items())] if mesh else []
    backend = ["compile.backend=aot_eager"] if row["compile"] == "full" else []
    said = {**row, "augment": augment(row)}
    others = [f"{key}={value}" for key, value in said.items() if key != "model" and not (mesh and key == "strategy")]
    processes = f"launch.processes={run_of(row).launch.processes}"
    return [*MODELS[row["model"]], *SHORT, *others, *strategy, *backend, processes]


def augment(row: Row) -> str:
    return GROWS[row["model"]] if row["augment"] == "grows" else row["augment"]


@cache
def base(model: str) -> Run:
    run = check_tree(plan([*MODELS[model], *SHORT]).composed.tree).run
    assert run is not None
    return run.with_values("launch", processes="auto").with_values("hardware", threads="auto")


def run_of(row: Row) -> Run:
    """The same as composing would make of the words, in a hundredth of its time."""
    run = base(row["model"])
    mesh = MESHES.get(row["strategy"])
    run = run.with_option("strategy", "mesh" if mesh else row["strategy"])
    run = run.with_values("strategy", **(mesh or {}))
    if (name := augment(row)) != "none":
        defaults = tree.read_yaml(tree.options("augment")[name])
        run = replace(run, augment={name: table("augment")[name].schema(option=name, **defaults)})
    for group in ("communication", "precision", "compile", "loader"):
        run = run.with_option(group, row[group])
    if row["compile"] == "full":
        run = run.with_values("compile", backend="aot_eager")
    micro_batch = None if row["train.micro_batch"] == "null" else int(row["train.micro_batch"])
    recomputed = row["train.activation_checkpointing"]
    return decide(run.with_values("train", micro_batch=micro_batch, activation_checkpointing=recomputed), MACHINE)[0]


def refused(row: Row) -> list[Problem]:
    return refusals(Facts(run_of(row), MACHINE))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    strength = metafunc.config.getoption("--strength")
    if "row" in metafunc.fixturenames:
        rows, _ = array(strength)
        metafunc.parametrize("row", rows, ids=lambda row: "-".join(row.values()))
    if "strength" in metafunc.fixturenames:
        metafunc.parametrize("strength", [strength])


@cache
def array(strength: int) -> tuple[list[Row], list[Any]]:
    @cache
    def allowed(values: tuple[str, ...]) -> bool:
        return not refused(dict(zip(FACTORS, values, strict=True)))

    return cover(FACTORS, strength, lambda row: allowed(tuple(row[name] for name in FACTORS)))


def test_what_never_meets_is_refused_with_a_fix(strength: int) -> None:
    rows, never = array(strength)
    assert strength > 2 or len(rows) <= 150
    for together in never:
        row = {name: values[0] for name, values in FACTORS.items()} | dict(together)
        models = [
            refused({**row, "model": model}) for model in ([row["model"]] if "model" in dict(together) else MODELS)
        ]
        assert all(models), row
        assert all(problem.fix for problem in models[0])


def test_it_takes_its_steps(tmp_path: Path, row: Row) -> None:
    world_size = run_of(row).launch.processes
    folder = write_run(words(row), tmp_path, world_size)
    assert run_ranks(train_here, world_size, str(folder)) == [0] * world_size
    assert [record["step"] for record in records(folder, "train")] == [1, 2]
    assert all(record["loss"] > 0 for record in records(folder, "train"))
