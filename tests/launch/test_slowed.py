"""Law: a run that is slowed in one way names it, with an override that the doors let pass and the gain expected.

Slowed for real: a data set that sleeps, batches of two, an optimizer in Python, a link of 50 Mbit/s, an evaluation
after every second step. How near the expected gains come is measured by benchmarks/advice.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import accel, clean_environment

SCRIPT = Path(__file__).parents[2] / "scripts" / "link"
LINK = {**clean_environment(), "LINK": f"slowed{os.getpid()}-"}
OWN = (SCRIPT.parents[1] / "benchmarks" / "slowed.py").read_text()
ALONE = ["hardware=cpu", "hardware.threads=1", "model=mlp", "train.epochs=null"]
SLEEPS = ["data=custom", "data.factory=own:Set", "--plugin", "own.py", "train.global_batch=8", "train.steps=40"]
EVERY = [*ALONE, "train.steps=150"]
SLOWED = {
    "data": ([*ALONE, *SLEEPS, "loader=workers", "loader.workers=0"], "loader=memory"),
    "data drawn anew": ([*ALONE, *SLEEPS, "loader=workers", "loader.workers=0", "data.args={draws: true}"],
                        "loader.workers="),
    "batch": ([*ALONE, "train.global_batch=2", "train.steps=400"], "train.global_batch=8"),
    "optimizer": ([*EVERY, "optimizer=custom", "optimizer.factory=own:Steps", "--plugin", "own.py"], "optimizer=adamw"),
    "kernel": ([*EVERY, "model.widths=[768,768]", "train.global_batch=32", "optimizer=adamw", "optimizer.kernel=loop"],
               "optimizer.kernel=auto"),
    "evaluation": ([*EVERY, "evaluate.every=2"], "evaluate.every=20"),
}  # fmt: skip
WORDS = {"data": "waits for data", "batch": "so small", "optimizer": "the optimizer takes", "evaluation": "evaluation"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def first(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert sum(found["time_share"].values()) == pytest.approx(1, abs=0.001)
    row: dict[str, Any] = found["advice"][0]
    return row


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SLOWED))
def test_the_bottleneck_is_named(folder: Path, name: str) -> None:
    words, override = SLOWED[name]
    row = first(accel("train", *words, "--json", "--run-dir", "run", folder=folder))
    assert row["override"].startswith(override)
    assert WORDS[{"data drawn anew": "data", "kernel": "optimizer"}.get(name, name)] in row["finding"]
    assert 0 < row["expected"] < 0.9


@pytest.mark.slow
def test_advise_runs_both_and_says_what_came_of_it(folder: Path) -> None:
    words, override = SLOWED["data"]
    expected = first(accel("train", *words, "--json", "--run-dir", "run", folder=folder))["expected"]
    done = accel("advise", "run", "--plugin", "own.py", "--budget", "0.001", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "round 1 of" in done.stderr
    assert f"override   {override}" in done.stdout
    found = json.loads((folder / "run" / "advise.json").read_text())
    assert (found["kind"], found["status"], found["rounds"]) == ("advise", "completed", 1)
    assert found["expected"] == pytest.approx(expected, rel=0.01)
    assert found["held"] is None  # one round cannot tell
    assert found["measured"]["value"] < 0.5
    assert not (folder / "run" / "advise").exists()


@pytest.mark.slow
def test_what_cannot_be_tried_says_why(folder: Path) -> None:
    words, _ = SLOWED["data"]
    accel("train", *words, "--dry-run", "--run-dir", "begun", folder=folder)
    done = accel("advise", "begun", folder=folder)
    assert done.returncode == 2
    assert "has not ended yet" in done.stderr


@pytest.mark.slow
def test_a_throttled_link_is_named(folder: Path) -> None:
    """Two ranks on one host whose loopback is shaped."""
    up = subprocess.run([SCRIPT, "up", "1gbit"], env=LINK, capture_output=True, text=True)
    if up.returncode:
        pytest.skip(f"no cable here: {up.stderr.strip()}")
    try:
        shape = ["qdisc", "replace", "dev", "lo", "root", "tbf", "rate", "50mbit", "burst", "256kb", "latency", "50ms"]
        subprocess.run(["tc", "-n", f"{LINK['LINK']}A", *shape], check=True)
        words = [*ALONE, "+strategy=ddp", "launch.processes=2", "train.steps=40", "--json", "--run-dir", "run"]
        command = [SCRIPT, "exec", "A", sys.executable, "-m", "accel_cli", "train", *words]
        done = subprocess.run(command, cwd=folder, env=LINK, capture_output=True, text=True, timeout=120)
        row = first(done)
        assert row["override"] == "communication=powersgd"
        assert "link" in row["finding"]
        assert 0 < row["expected"] < 0.6
        thin = [*command, "communication=powersgd", "communication.start_step=1", "--run-dir", "thin"]
        done = subprocess.run(thin, cwd=folder, env=LINK, capture_output=True, text=True, timeout=120)
        shares = json.loads(done.stdout)["time_share"]
        assert min(shares[phase] for phase in ("communication", "forward", "optimizer")) > 0.01, shares
    finally:
        subprocess.run([SCRIPT, "down"], env=LINK, check=True)
