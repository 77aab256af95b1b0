"""What comes before validation has passed needs no torch, and takes no time."""

import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

REPORT = """
import sys, contextlib, io
from accel_cli.cli.main import main
with contextlib.redirect_stdout(io.StringIO()):
    for words in {commands!r}:
        try:
            main(words)
        except SystemExit:
            pass
heavy = {{"torch", "torchvision", "timm", "transformers", "tensorboard"}} & set(sys.modules)
hydra = "hydra" in sys.modules
print(sorted(heavy), hydra)
"""
VERBS = [
    ["--help"],
    ["train", "--help"],
    ["check"],
    ["check", "strategy=dpp", "train.epochs=-1"],
    ["show"],
    ["show", "--help-keys"],
    ["show", "--explain", "strategy"],
    *(["show", "--schedule", f"schedule={name}"] for name in ("step", "onecycle", "plateau", "warmup_stable_decay")),
    ["list"],
    ["list", "options"],
    ["list", "recipes"],
    ["list", "rules"],
    ["runs", "list"],
    ["completion", "bash"],
]


def modules_after(commands: list[list[str]], folder: Path) -> str:
    code = REPORT.format(commands=commands)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment(), capture_output=True, text=True, check=True
    ).stdout.strip()


def environment() -> dict[str, str]:
    """This project's own code, from any folder, with bytecode kept."""
    root = str(Path(__file__).parents[2])
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": root}


def test_no_verb_that_starts_nothing_imports_torch(tmp_path: Path) -> None:
    assert modules_after(VERBS, tmp_path) == "[] True"


def test_completion_imports_neither_torch_nor_hydra(tmp_path: Path) -> None:
    words = [["train", "opt"], ["train", "optimizer.l"], ["train", "train.determinism="], ["resume", ""], ["list", ""]]
    assert modules_after([["completion", "words", "--", *typed] for typed in words], tmp_path) == "[] False"


def cpu_seconds(*command: str, folder: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], cwd=folder, env=environment(), check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.flaky(reruns=2)
def test_check_takes_at_most_half_of_importing_torch(tmp_path: Path) -> None:
    check, torch = [], []
    cpu_seconds("-m", "accel_cli", "check", folder=tmp_path)  # leaves the bytecode behind
    for _ in range(3):
        check.append(cpu_seconds("-m", "accel_cli", "check", folder=tmp_path))
        torch.append(cpu_seconds("-c", "import torch", folder=tmp_path))
    assert statistics.median(check) <= statistics.median(torch) / 2, (check, torch)


def test_results_go_to_stdout_and_everything_else_to_stderr(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "accel_cli", "check", "precision=fp61", "--json"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert ended.returncode == 2
    found = json.loads(ended.stdout)
    assert found["exit_code"] == 2
    assert found["problems"][0]["where"] == "precision=fp61"
    assert "fp16" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("words", [["show"], ["list", "options"], ["runs", "list"]])
def test_colours_are_for_terminals(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from accel_cli.cli.main import main

    assert main(words) == 0
    assert "\033" not in capsys.readouterr().out
