"""What ranks measure, seen from the command line: said once, recorded, kept by a resume and by a repeat."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from command import accel, run_folder, summary

WORDS = [
    "hardware=cpu", "hardware.threads=1", "model=mlp", "train.epochs=null", "train.steps=6", "checkpoint.every=3",
    "evaluate.every=1000", "precision=auto", "compile=auto", "train.learning_rate=find", "train.micro_batch=auto",
]  # fmt: skip
KEYS = ("train.micro_batch", "precision", "compile", "optimizer.learning_rate")


def decisions(folder: Path) -> dict[str, Any]:
    found = {entry["key"]: entry for entry in json.loads((folder / "decisions.json").read_text())}
    return {key: found[key] for key in KEYS}


def test_autos_are_told_recorded_and_kept(tmp_path: Path) -> None:
    ended = accel("train", *WORDS, folder=tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert ended.returncode == 0, ended.stderr
    run = run_folder(tmp_path)
    found = decisions(run)
    for key, entry in found.items():
        assert f"{key}={entry['value']}   ({entry['why']})" in ended.stderr
    loss = summary(run)["loss"]

    repeated = accel("train", "--run", str(run), "--run-dir", "again", folder=tmp_path)
    assert repeated.returncode == 0, repeated.stderr
    kept = yaml.safe_load((tmp_path / "again" / "run.yaml").read_text())
    assert kept["optimizer"]["learning_rate"] == found["optimizer.learning_rate"]["value"]
    assert kept["train"]["micro_batch"] == found["train.micro_batch"]["value"]
    assert (kept["precision"]["option"], kept["compile"]["option"]) == ("fp32", "none")
    assert summary(tmp_path / "again")["loss"] == loss

    (run / "summary.json").unlink()
    shutil.rmtree(run / "checkpoints" / "step-00000006")
    resumed = accel("resume", str(run), folder=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert decisions(run) == found
    assert summary(run)["loss"] == loss


def test_more_memory_than_the_limit_ends_with_what_to_type(tmp_path: Path) -> None:
    words = ["hardware=cpu", "hardware.memory_gigabytes=0.1", "model=cnn", "data=synthetic", "train.global_batch=2048"]
    ended = accel("train", *words, folder=tmp_path)
    assert ended.returncode == 7, ended.stderr
    assert "ran out of memory" in ended.stderr
    assert "try train.micro_batch=auto" in ended.stderr
    assert "Traceback" not in ended.stderr
