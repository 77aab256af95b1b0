"""accel ledger through the real command line, on effects far beyond any machine's noise."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import study_builder

from accel_cli.analysis.ledger_table import lines

SLOW_DATA = """
import time
import torch

class Slow(torch.utils.data.Dataset):
    '''Reading a sample takes a millisecond, each time.'''
    classes = ["no", "yes"]

    def __init__(self, split):
        draw = torch.Generator().manual_seed({"train": 0, "validation": 1, "test": 2}[split])
        self.inputs = torch.randn(64, 8, generator=draw)
        self.targets = (self.inputs.sum(1) > 0).long()
    def __len__(self):
        return 64
    def __getitem__(self, index):
        time.sleep(0.001)
        return self.inputs[index], int(self.targets[index])

def make(split):
    return Slow(split)
"""
BASE = (
    "data=custom data.factory=slow:make model=mlp train.global_batch=32 train.epochs=20 loader=workers loader.workers=0"
)
WORDS = ["ledger", "loader=memory", "--base", BASE, "--plugin", "slow.py", "--error", "0.05"]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "slow.py").write_text(SLOW_DATA)
    return tmp_path


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "accel_cli", *words]


def accel(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), cwd=folder, capture_output=True, text=True, timeout=300)


def content(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("runs/*-ledger/ledger.json")
    return dict(json.loads(path.read_text()))


def test_a_ledger_killed_and_gone_on_with_finds_what_helps(here: Path) -> None:
    words = [*WORDS, "--alone", "--budget", "3", "--seeds", "2", "--to-target", "validation_accuracy=0.6"]
    process = subprocess.Popen(command(*words), cwd=here, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not list(here.glob("runs/*-ledger/ledger.json")) or content(here).get("rounds", 0) < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = content(here)
    ended = accel(*words, folder=here)
    assert ended.returncode == 0, ended.stderr
    assert "going on with runs/" in ended.stderr
    found = content(here)
    assert found["rounds"] > before["rounds"] >= 2
    assert found["samples"]["baseline"][:2] == before["samples"]["baseline"][:2]
    (memory,) = found["rows"]
    assert found["status"] == "settled"
    assert memory["verdict"] == "helps"
    assert memory["ratio"]["high"] < 0.9
    assert memory["metric"]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert memory["seconds_to_target"]["ratio"]["value"] < 1
    assert len(memory["runs"]) == 2
    assert "loader=memory: helps" in ended.stderr
    assert "loader=memory" in ended.stdout
    assert not subprocess.run(["pgrep", "-f", f"{here}/runs"], capture_output=True).stdout


def test_ctrl_c_keeps_what_was_measured(here: Path) -> None:
    process = subprocess.Popen(command(*WORDS, "--alone"), cwd=here, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not list(here.glob("runs/*-ledger/ledger.json")) or content(here).get("rounds", 0) < 1:
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command goes on" in said
    assert content(here)["status"] == "interrupted"


def test_a_technique_that_fails_is_a_row_and_too_little_time_is_said(here: Path) -> None:
    ended = accel(
        "ledger", "loader=memory", "train.ema=0.9 optimizer=custom optimizer.factory=slow:missing", "--alone", "--base",
        BASE, "--plugin", "slow.py", "--error", "0.05", "--budget", "0.01", folder=here,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"no verdict comes of less than \d+ rounds.*try .*--budget", ended.stderr)
    found = content(here)
    assert found["status"] == "budget"
    assert [row["status"] for row in found["rows"]] == ["measured", "failed"]
    assert "missing" in found["rows"][1]["cause"]


def test_the_table_makes_room_in_a_narrow_terminal() -> None:
    whole = study_builder.ledger()
    wide, narrow = lines(whole), lines(whole, 120)
    assert max(map(len, narrow)) <= 120 < max(map(len, wide))
    assert "time of a step" in narrow[0]
    assert "once" in wide[0]
    assert "once" not in narrow[0]
    assert re.search("a wider terminal.*once", narrow[-1])
    assert any("time to target" in line and "test metric" in line for line in narrow)
    added = [line for line in wide if line.startswith("  + ")]
    assert added, wide


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["precison=bf16"], "did you mean precision=bf16"),
        ([], "accel ledger"),
        (["precision=bf16", "--to-target", "0.9"], "is no METRIC=VALUE"),
        (["precision=bf16", "--budget", "-1"], "-1 is not a number above 0"),
    ],
)
def test_bad_commands_are_refused_at_once(words: list[str], why: str, tmp_path: Path) -> None:
    ended = accel("ledger", *words, folder=tmp_path)
    assert ended.returncode == 2
    assert why in ended.stderr
    assert not (tmp_path / "runs").exists()
