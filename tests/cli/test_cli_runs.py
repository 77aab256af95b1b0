"""accel runs: what stands in a folder, and that clean deletes nothing that could be missed."""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from accel_cli.cli.main import main
from accel_cli.config import run as run_file
from accel_cli.config.plan import plan
from accel_cli.engine.summary import EMPTY

LONG_AGO = time.time() - 3 * 24 * 3600


@pytest.fixture(scope="module")
def run_yaml(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("plan") / "run.yaml"
    run_file.write(plan([]).run, path)
    return path.read_bytes()


@pytest.fixture
def make(tmp_path: Path, run_yaml: bytes) -> Any:
    """make("name", status=, checkpoint=, locked_once=, old=) -> a run folder below tmp_path/runs."""

    def build(
        name: str, *, status: str | None = None, checkpoint: bool = False, begun: bool = True, old: bool = False
    ) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "run.yaml").write_bytes(run_yaml)
        (folder / "command.txt").write_text("accel train\n")
        if begun:
            (folder / ".lock").write_text("process 1 on here")
            (folder / "metrics.jsonl").write_text('{"kind": "train", "step": 3, "samples": 192, "seconds": 1.5}\n')
        if status is not None:
            metric = {"name": "accuracy", "mode": "max", "value": 0.97, "best": 0.96, "best_step": 5}
            summary = {**EMPTY, "status": status, "steps": 7, "wall_seconds": 2.5, "metric": metric}
            (folder / "summary.json").write_text(json.dumps(summary))
        if checkpoint:
            (folder / "checkpoints/step-00000003").mkdir(parents=True)
            (folder / "checkpoints/step-00000003/model.safetensors").write_bytes(bytes(100_000))
        if old:
            for path in folder.iterdir():
                os.utime(path, (LONG_AGO, LONG_AGO))
        return folder

    return build


def listed(capsys: pytest.CaptureFixture[str], tmp_path: Path, *words: str) -> dict[str, Any]:
    assert main(["runs", *words, "--folder", str(tmp_path / "runs"), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_each_run_with_how_it_stands(make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("sweep/000", status="completed", checkpoint=True, old=True)
    make("killed")
    make("waiting", begun=False)
    busy = make("busy", status="interrupted", checkpoint=True)
    with (busy / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = {Path(row["path"]).name: row for row in listed(capsys, tmp_path)["runs"]}
    assert {name: row["status"] for name, row in found.items()} == {
        "000": "completed",
        "killed": "unfinished",
        "waiting": "not started",
        "busy": "running",
    }
    assert (found["000"]["steps"], found["000"]["metric"]["value"], found["000"]["wall_seconds"]) == (7, 0.97, 2.5)
    assert found["killed"]["steps"] == 3
    assert found["000"]["bytes"] >= 100_000
    assert next(iter(found)) == "000"  # the oldest first

    main(["runs", "--folder", str(tmp_path / "runs")])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[1].split()[:5] == ["sweep/000", "completed", "7", "accuracy", "0.97"]


def test_a_study_is_one_line_and_what_it_holds_is_its_own(
    make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make("alone", status="completed")
    for kind, status in (("sweep", "running"), ("ledger", "budget")):
        make(f"a-{kind}/000", status="failed", old=True)
        said = {"kind": kind, "command": f"accel {kind} model=mlp,cnn", "status": status, "seconds": 70, "started": 1.0}
        (tmp_path / f"runs/a-{kind}/{kind}.json").write_text(json.dumps(said))
    make("project/runs/own", status="completed")
    (tmp_path / "runs/project/bench.json").write_text('{"samples": {}}')  # a baseline that somebody keeps there
    found = listed(capsys, tmp_path)
    assert [Path(row["path"]).name for row in found["runs"]] == ["alone", "own"]
    assert [(row["kind"], row["status"]) for row in found["studies"]] == [
        ("ledger", "budget spent"),
        ("sweep", "unfinished"),
    ]
    assert listed(capsys, tmp_path, "clean", "--yes")["runs"] == []
    main(["runs", "--folder", str(tmp_path / "runs")])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("a-sweep   unfinished    70.0 s")
    assert last.endswith("accel sweep model=mlp,cnn")
    main(["runs", "--folder", str(tmp_path / "runs/a-sweep")])
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["000", "failed"]
    assert main(["resume", str(tmp_path / "runs/a-sweep")]) == 2
    said = capsys.readouterr().err
    assert "is a sweep, not a run" in said
    assert "its own command: accel sweep model=mlp,cnn" in said


def test_clean_names_first_and_deletes_only_when_told(
    make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    doomed = {make("killed"), make("failed", status="failed"), make("dry", begun=False, old=True)}
    kept = [
        make("done", status="completed"),
        make("failed-but-saved", status="failed", checkpoint=True),
        make("killed-but-saved", checkpoint=True),
        make("fresh-dry", begun=False),
        make("diverged", status="diverged"),
    ]
    said = listed(capsys, tmp_path, "clean")
    assert {Path(row["path"]) for row in said["runs"]} == doomed
    assert said["bytes"] == sum(row["bytes"] for row in said["runs"]) > 0
    assert not said["deleted"]
    assert all(folder.is_dir() for folder in doomed)

    assert listed(capsys, tmp_path, "clean", "--yes")["deleted"]
    assert not any(folder.exists() for folder in doomed)
    assert all((folder / "run.yaml").is_file() for folder in kept)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted(folder.name for folder in kept)


def test_clean_never_touches_a_running_run(make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    busy = make("busy", status="failed")
    with (busy / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert listed(capsys, tmp_path, "clean", "--yes")["runs"] == []
    unlocked = make("under-torchrun")  # plain torchrun takes no lock
    (unlocked / ".lock").unlink()
    found = [Path(row["path"]) for row in listed(capsys, tmp_path, "clean", "--yes")["runs"]]
    assert found == [busy]
    assert unlocked.is_dir()


def test_clean_deletes_nothing_but_runs(make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = make("project")
    (mine / "notebook.ipynb").write_text("{}")
    other = tmp_path / "runs/notes"
    other.mkdir()
    (other / "run.yaml").write_text("speed: 10 km/h\n")
    assert listed(capsys, tmp_path, "clean", "--yes")["runs"] == []
    assert (mine / "notebook.ipynb").is_file()
    assert (other / "run.yaml").is_file()


def test_clean_follows_no_link(make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make("failed", status="failed")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    elsewhere = tmp_path / "elsewhere"
    make("outside", status="failed").rename(elsewhere)
    (tmp_path / "runs/linked").symlink_to(elsewhere)
    (run / "profile").symlink_to(precious)
    found = [Path(row["path"]) for row in listed(capsys, tmp_path, "clean", "--yes")["runs"]]
    assert found == [run]
    assert (precious / "thesis.txt").read_text() == "years of work"
    assert (elsewhere / "run.yaml").is_file()


def test_damaged_files_do_not_hide_a_run(make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make("broken", status="completed")
    (run / "summary.json").write_text('{"status": ')
    (run / "metrics.jsonl").write_bytes(b"\xff\x00{")
    (row,) = listed(capsys, tmp_path)["runs"]
    assert row["status"] == "unfinished"


def test_folders_without_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 0
    assert main(["runs", "clean", "--yes"]) == 0
    assert main(["runs", "--folder", "absent"]) == 2
    assert "no such folder" in capsys.readouterr().err
