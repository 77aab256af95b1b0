"""Tune on a model whose speed is known: what is found, what falls out, what a recipe repeats; going on after a kill."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from accel_cli.analysis.levers import LEVERS, candidates
from accel_cli.analysis.metric_floor import BROKEN, CANNOT_TELL, KEPT, Floor, parse
from accel_cli.analysis.tuned_recipe import recipe
from accel_cli.config.names import Names
from accel_cli.config.plan import Plan, plan
from accel_cli.config.tree import read_yaml
from accel_cli.errors import ConfigError

NETS = '''
import time
import torch
from torch import nn


class Net(nn.Module):
    """Slower with two threads, by much; quicker under autocast, where it learns nothing."""

    def __init__(self, classes=10):
        super().__init__()
        self.layer = nn.Linear(64, classes)

    def forward(self, x):
        casts = torch.is_autocast_enabled("cpu")
        if self.training:
            time.sleep((0.02 if torch.get_num_threads() > 1 else 0.008) * (0.5 if casts else 1.0))
            if self.layer.weight.dtype == torch.bfloat16:
                raise MemoryError("too much of it")
        found = self.layer(x.flatten(1))
        return found * 0.0 if casts else found
'''
RUN = ["model=custom", "model.factory=nets:Net", "train.global_batch=64", "train.epochs=null", "train.steps=40",
       "evaluate.every=20", "optimizer.learning_rate=0.01"]  # fmt: skip
AXES = ["hardware.threads=2,1", "precision=fp32,bf16,bf16_pure,tf32"]


def accel(folder: Path, *words: str) -> list[str]:
    (folder / "nets.py").write_text(NETS)
    return [sys.executable, "-m", "accel_cli", *words, "--plugin", "nets.py"]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(accel(folder, *words), cwd=folder, capture_output=True, text=True, timeout=300)


def tuned(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("runs/*-tune/tune.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.slow
def test_finds_what_is_faster_and_keeps_the_metric_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    words = ["tune", *RUN, *AXES, "--seeds", "2", "--budget", "1.5"]
    killed = subprocess.Popen(accel(tmp_path, *words), cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True)
    end = time.monotonic() + 200
    while time.monotonic() < end:
        if (found := list(tmp_path.glob("runs/*-tune/tune.json"))) and len(
            json.loads(found[0].read_text()).get("looks", {})
        ) > 1:
            break
        time.sleep(0.2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    before = tuned(tmp_path)
    assert before["status"] == "running"

    ended = run(tmp_path, *words)
    assert ended.returncode == 0, ended.stderr
    found = tuned(tmp_path)
    assert found["status"] in ("completed", "budget")
    assert found["full_runs"]["baseline seed 0"] == before["full_runs"]["baseline seed 0"]
    assert found["looks"]["baseline"] == before["looks"]["baseline"]
    assert found["spent_seconds"] > before["spent_seconds"]

    rows = {row["name"]: row for row in found["candidates"]}
    assert rows["precision=tf32"]["status"] == "refused"
    assert rows["precision=bf16_pure"]["status"] == "failed"
    assert "too much of it" in rows["precision=bf16_pure"]["cause"]
    assert rows["hardware.threads=1"]["status"] == "chosen"
    first, *_ = found["finalists"]
    assert "precision=bf16" in first["words"]
    assert first["metric"]["floor"] == "broken"
    assert not first["wins"]
    assert "hardware.threads=1" in found["chosen"]["words"]
    assert "precision=bf16" not in found["chosen"]["words"]
    assert found["chosen"]["ratio"]["value"] < 0.75
    assert found["bought"][0]["form"] == "left_out"
    assert found["floor"] == {"metric": "validation_accuracy", "loss_allowed": 0.003}

    (path,) = tmp_path.glob("runs/*-tune/tuned.yaml")
    assert "tuned for throughput" in path.read_text().splitlines()[0]
    repeated = run(tmp_path, "train", f"+recipe={path.relative_to(tmp_path)}", "train.steps=2", "--json")
    assert repeated.returncode == 0, repeated.stderr
    typed = shlex.split(found["chosen"]["command"])
    assert typed[:2] == ["accel", "train"]
    settings = Path(json.loads(repeated.stdout)["run"]) / "run.yaml"
    again = plan([word for word in typed[2:] if word[:2] != "--"], plugins=["nets"])
    assert read_yaml(settings)["hardware"] == again.run.to_tree()["hardware"]


@pytest.mark.slow
def test_time_to_target_is_told_by_whole_runs(tmp_path: Path) -> None:
    target = ["objective=time_to_target", "stopping=target", "stopping.target=0.5"]
    ended = run(tmp_path, "tune", *RUN, *target, "hardware.threads=2,1", "--seeds", "1", "--budget", "1", "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["floor"] is None
    (finalist,) = found["finalists"]
    assert finalist["wins"]
    assert finalist["ratio_to_target"]["value"] < 0.8
    assert finalist["ratio_to_target"]["high"] is None  # one seed tells no interval


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["objectiv=memory"], "did you mean objective=memory ?"),
        (["objective=throughputt"], "did you mean objective=throughput ?"),
        (["objective=speed"], "one of: throughput, time_to_target, memory"),
        (["objective=time_to_target"], "add stopping=target"),
        (["floor=validation_accuracy"], "write METRIC-AMOUNT"),
        (["floor=test_accuracy-0.1"], "try floor=validation_accuracy-0.1"),
        (["floor=validation_loss-0.1"], "try floor=validation_loss+0.1"),
        (["precison=bf16"], "did you mean precision=bf16 ?"),
    ],
)
def test_refuses_before_anything_starts(tmp_path: Path, words: list[str], fix: str) -> None:
    ended = run(tmp_path, "tune", *words)
    assert ended.returncode == 2
    assert fix in ended.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.90, 0.91, 0.92], KEPT),
        ([0.88, 0.89, 0.90], BROKEN),
        ([0.91, 0.89, 0.93], CANNOT_TELL),
        ([0.899, 0.909, 0.919], KEPT),
        ([0.90], CANNOT_TELL),
    ],
)
@pytest.mark.parametrize("more", [True, False])
def test_a_floor_is_kept_broken_or_cannot_be_told(values: list[float], verdict: str, more: bool) -> None:
    base = [0.90, 0.91, 0.92][: len(values)]
    sign = 1 if more else -1
    found, said = Floor("validation_x", 0.003, more).judge([sign * v for v in values], [sign * v for v in base])
    assert said == verdict
    assert math.isclose(found.value, sign * (sum(values) - sum(base)) / len(base), abs_tol=1e-12)


def test_a_floor_is_read() -> None:
    assert parse("floor=validation_accuracy-0.003") == Floor("validation_accuracy", 0.003, True)
    assert parse("floor=perplexity+1.5") == Floor("perplexity", 1.5, False)
    assert parse("floor=none") is None
    assert Floor("accuracy", 0.1, True).found_in(["validation_accuracy"]).metric == "validation_accuracy"
    with pytest.raises(ConfigError, match="did you mean floor=validation_accuracy-0.1"):
        Floor("validation_acuracy", 0.1, True).found_in(["validation_accuracy", "validation_loss"])


@pytest.mark.parametrize("memory", [False, True])
def test_candidates_change_one_lever_at_equal_work(memory: bool) -> None:
    base = plan(["model=cnn"])
    found = list(
        candidates(
            base, lambda words: plan(["model=cnn", *words]), memory=memory, axes={}, decided={"loader": "memory"}
        )
    )
    names = [candidate.name for candidate in found]
    assert len(set(names)) == len(names)
    assert "loader=memory" not in names  # what auto became
    assert all(candidate.cause for candidate in found if candidate.plan is None)
    assert ("train.activation_checkpointing=blocks" in names) == memory
    kept = ("data", "model", "task", "augment", "optimizer.learning_rate", "train.global_batch", "train.epochs")
    for candidate in found:
        if candidate.plan is not None:
            assert differing(base, candidate.plan) & set(kept) == set(), candidate.name
    tops = Names().tops
    assert all(lever.key.partition(".")[0] in tops for lever in LEVERS)


def differing(one: Plan, other: Plan) -> set[str]:
    def flat(node: Any, prefix: str = "") -> dict[str, Any]:
        if not isinstance(node, dict) or not node:
            return {prefix: node}
        return {k: v for key, each in node.items() for k, v in flat(each, f"{prefix}.{key}".strip(".")).items()}

    first, second = flat(one.run.to_tree()), flat(other.run.to_tree())
    keys = {key for key in {**first, **second} if first.get(key) != second.get(key)}
    return keys | {key.partition(".")[0] for key in keys if not key.startswith(("train.", "optimizer."))}


@pytest.mark.parametrize(
    "words",
    [
        ["+recipe=ci_cpu", "precision=bf16", "hardware.threads=1"],
        ["augment=[flip,crop]", "optimizer=sgd", "optimizer.momentum=0.8", "train.steps=5"],
        ["compression=prune_magnitude", "compression.floor=0.1", "model=mlp", "model.widths=[3,4]"],
        ["model=custom", "model.factory=nets:Net", "model.args={width: 3}", "~augment"],
    ],
)
def test_a_recipe_is_the_run(tmp_path: Path, words: list[str]) -> None:
    import yaml

    planned = plan(words, plugins=["nets"])
    (tmp_path / "tuned.yaml").write_text(yaml.safe_dump(recipe(planned), sort_keys=False))
    assert plan([f"+recipe={tmp_path}/tuned.yaml"], plugins=["nets"]).run.to_tree() == planned.run.to_tree()
