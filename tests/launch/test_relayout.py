"""accel resume RUN OVERRIDES: a run goes on in another way, and stays the run that it is."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import yaml
from command import accel, start, summary, wait_for_step

RUN = ["model=mlp", "model.widths=[32]", "train.epochs=null", "train.steps=2000", "metrics.every=1",
       "checkpoint.every=1000", "evaluate.every=2000"]  # fmt: skip


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("relayout")
    process = start("train", *RUN, folder=folder)
    run = wait_for_step(folder, 30)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert summary(run)["status"] == "interrupted"
    return run


@pytest.mark.parametrize("words", [["optimizer.learning_rate=0.5"], ["strategy=fsdp", "train.seed=1"], ["model=cnn"]])
def test_another_problem_is_another_run(interrupted: Path, words: list[str]) -> None:
    before = (interrupted / "run.yaml").read_bytes()
    ended = accel("resume", str(interrupted), *words, folder=interrupted.parent)
    assert ended.returncode == 2
    assert "a resumed run trains the same model on the same problem" in ended.stderr
    assert "accel train --run" in ended.stderr
    assert (interrupted / "run.yaml").read_bytes() == before


def test_another_layout_is_the_same_run(interrupted: Path) -> None:
    steps = summary(interrupted)["steps"]
    ended = accel("resume", str(interrupted), "strategy=fsdp", folder=interrupted.parent)
    assert ended.returncode == 0, ended.stderr
    found = summary(interrupted)
    assert (found["status"], found["strategy"], found["world_size"]) == ("completed", "fsdp", 2)
    assert found["steps"] == 2000 > steps
    assert found["attempts"] == 2
    assert yaml.safe_load((interrupted / "run.yaml").read_text())["strategy"]["option"] == "fsdp"
    assert yaml.safe_load((interrupted / "attempts" / "run-1.yaml").read_text())["strategy"]["option"] == "single"
