"""accel sweep on the real command line: whatever happens to points or to the sweep, each point ends once."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from command import SIGNALS, accel, start, summary, wait_until_gone

NETS = (Path(__file__).parents[2] / "benchmarks" / "sweep_nets.py").read_text()
CUSTOM = ["model=custom", "model.factory=nets:Net", "--plugin", "nets.py", "hardware=cpu", "train.epochs=null"]
FAST = ["model=mlp", "hardware=cpu", "train.epochs=1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


def sweeps(folder: Path) -> list[Path]:
    return sorted(folder.glob("runs/*-sweep*/sweep.json"))


def content(folder: Path) -> dict[str, Any]:
    (path,) = sweeps(folder)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def ended(folder: Path) -> dict[int, Any]:
    rows = content(folder).get("points", []) if sweeps(folder) else []
    return {row["number"]: row for row in rows if row["status"] not in ("waiting", "running", "interrupted")}


def wait_until(process: subprocess.Popen[str], condition: Any, timeout: float = 90) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.02)


def saved(folder: Path, number: int) -> bool:
    return any(folder.glob(f"runs/*-sweep/{number:03d}/checkpoints/step-*/manifest.json"))


def test_each_point_ends_once(folder: Path) -> None:
    """A crash, a want of memory and a refusal are rows; after a SIGKILL a point that has saved goes on from there."""
    words = ["sweep", "train.global_batch=0,13,48,64,32", "train.steps=60", "checkpoint.every=5", *CUSTOM]
    words += ["hardware.memory_gigabytes=2"]
    process = start(*words, folder=folder)
    wait_until(process, lambda: saved(folder, 3))
    process.kill()
    process.communicate()
    before = ended(folder)
    assert wait_until_gone(folder, 5) == []
    again = accel(*words, folder=folder)
    assert again.returncode == 0, again.stderr
    assert f"going on with runs/{sweeps(folder)[0].parent.name}: {len(before)} points have ended" in again.stderr
    found = content(folder)
    rows = found["points"]
    assert found["status"] == "completed"
    assert found["axes"] == {"train.global_batch": ["0", "13", "48", "64", "32"]}
    assert found["metric"] == {"name": "accuracy", "mode": "max"}
    assert [row["status"] for row in rows] == ["refused", "failed", "out_of_memory", "completed", "completed"]
    assert [row["exit_code"] for row in rows] == [2, 3, 7, 0, 0]
    assert rows[1]["cause"] == "ValueError: thirteen at step 0"
    assert "train.global_batch=64" in rows[0]["cause"]
    assert {number: rows[number] for number in before} == before
    run = sweeps(folder)[0].parent / "003"
    assert summary(run)["attempts"] == 2
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if line["kind"] == "train"] == sorted(
        {line["step"] for line in steps if line["kind"] == "train"}
    )
    assert json.loads((run / "attempts/log.jsonl").read_text().splitlines()[1])["from_step"] >= 5
    assert (run.parent / "report.html").exists()
    lines = again.stdout.splitlines()
    assert lines[1].split()[:4] == ["003", "train.global_batch=64", "completed", "accuracy"] or "004" in lines[1]
    assert "ValueError: thirteen" in again.stdout


@pytest.mark.parametrize("code", SIGNALS)
def test_signal_saves_and_says_how_to_go_on(folder: Path, code: int) -> None:
    words = ["sweep", "train.seed=1,2", "train.steps=400", *CUSTOM, "--parallel", "2"]
    process = start(*words, folder=folder)
    wait_until(process, lambda: len(list(folder.glob("runs/*-sweep/*/metrics.jsonl"))) == 2)
    process.send_signal(SIGNALS[code])
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert wait_until_gone(folder, 5) == []
    assert "2 points not ended; this goes on: accel sweep train.seed=1,2" in output
    found = content(folder)
    assert found["status"] == "interrupted"
    assert [row["status"] for row in found["points"]] == ["interrupted"] * 2
    assert all(saved(folder, number) for number in (0, 1))


def test_limit_retry_and_parallel(folder: Path) -> None:
    """The slow one is out of time, its neighbour is not; --retry-failed gives it another try, and only it."""
    words = ["sweep", "model.args.delay=4,0.001", "train.steps=5", *CUSTOM, "--parallel", "2", "--limit", "8"]
    first = accel(*words, folder=folder)
    rows = content(folder)["points"]
    assert first.returncode == 0, first.stderr
    assert [row["status"] for row in rows] == ["timed_out", "completed"]
    assert "8 s were up" in rows[0]["cause"]
    threads = (sweeps(folder)[0].parent / "001/decisions.json").read_text()
    assert "2 points beside each other" in threads
    nets = folder / "nets.py"
    nets.write_text(nets.read_text().replace("time.sleep(self.delay)", "time.sleep(self.delay / 1e3)"))
    second = accel(*words, "--retry-failed", "--json", folder=folder)
    assert second.returncode == 0, second.stderr
    found = json.loads(second.stdout)
    assert [row["status"] for row in found["points"]] == ["completed", "completed"]
    assert found["points"][1] == rows[1]


def test_train_m_is_the_same_and_ended_sweeps_are_not_repeated(folder: Path) -> None:
    for count in (1, 2):
        assert accel("train", "-m", "train.seed=1,2", *FAST, folder=folder).returncode == 0
        assert len(sweeps(folder)) == count


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=mlp"], "nothing to sweep"),
        (["modle=mlp,cnn"], "no such group or key"),
        (["train.sed=1,2"], "did you mean train.seed"),
        (["train.seed=1,2", "train.epocs=3"], "did you mean train.epochs"),
        (["train.seed=1,2", "train.seed=3"], "given twice"),
        (["train.seed=interval(1,9)"], "--search random"),
        (["train.seed=tag(log, interval(0,9))", "--search", "random"], "above 0"),
        (["train.seed=1,2", "--trials", "3"], "--search random"),
        (["train.seed=1,2", "--metric", "train_second"], "did you mean train_seconds"),
        (["train.seed=1,2", "--limit", "0"], "0 is not a number above 0"),
    ],
)
def test_bad_command_starts_nothing(tmp_path: Path, words: list[str], said: str) -> None:
    found = accel("sweep", *words, folder=tmp_path)
    assert found.returncode == 2
    assert said in found.stderr
    assert not (tmp_path / "runs").exists()


def test_all_refused_is_a_bad_command(tmp_path: Path) -> None:
    found = accel("sweep", "train.seed=1,2", "train.global_batch=0", folder=tmp_path)
    assert found.returncode == 2
    assert "must be at least 1" in found.stdout


def test_optuna_prunes_and_goes_on(folder: Path) -> None:
    """Bad learning rates end early; killed in between, nothing is lost or tried twice."""
    pytest.importorskip("optuna")
    words = ["sweep", "--search", "optuna", "--trials", "8", "--seed", "1"]
    words += [*CUSTOM, "model.args.delay=0.005", "train.steps=114"]
    words += ["optimizer.learning_rate=tag(log, interval(1e-4,1e-1))"]
    process = start(*words, folder=folder)
    wait_until(process, lambda: len(ended(folder)) >= 5)
    process.kill()
    process.communicate()
    before = ended(folder)
    again = accel(*words, "--json", folder=folder)
    assert again.returncode == 0, again.stderr
    rows = json.loads(again.stdout)["points"]
    assert {number: rows[number] for number in before} == before
    assert len({tuple(row["values"]) for row in rows}) == len(rows) == 8
    assert {row["status"] for row in rows} == {"completed", "pruned"}
    pruned = [row for row in rows if row["status"] == "pruned"]
    whole = max(row["steps"] for row in rows)
    assert all(row["steps"] < whole and row["exit_code"] == 75 for row in pruned)
    best = max(row["metric"]["best"] for row in rows)
    assert all(row["metric"]["best"] < best for row in pruned)
