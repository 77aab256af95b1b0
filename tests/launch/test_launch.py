"""Law: one command starts everything, ends everything, and its exit code says why."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import (
    CUSTOM,
    NETS,
    accel,
    left_behind,
    ranks_of,
    run_folder,
    start,
    summary,
    wait_for_step,
    wait_until_gone,
)

from accel_cli.engine.summary import EMPTY

DDP = ["+strategy=ddp", "launch.processes=2"]
SLOW = [*CUSTOM, "train.epochs=100", "metrics.every=1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


def test_ddp_in_fp16_on_two_processes_does_the_same_work_as_single(folder: Path) -> None:
    ended = accel("train", "+strategy=ddp", "precision=fp16", "train.epochs=8", "--json", folder=folder)
    assert ended.returncode == 0, ended.stderr
    two = json.loads(ended.stdout)
    one = json.loads(accel("train", "train.epochs=8", "--json", folder=folder).stdout)
    assert two["world_size"] == 2
    assert (two["samples"], two["global_batch"], two["steps"]) == (one["samples"], one["global_batch"], one["steps"])
    assert abs(two["metric"]["value"] - one["metric"]["value"]) <= 0.015
    assert set(one) - {"run"} == set(EMPTY)
    run = Path(two["run"])
    assert {path.name for path in (run / "ranks").iterdir()} == {"0.log", "1.log"}
    assert {"run.yaml", "command.txt", "environment.json", "decisions.json", "metrics.jsonl"} <= set(os.listdir(run))


@pytest.mark.parametrize(
    ("how", "says", "code"),
    [
        ("raise", "rank 1 at step 3: ValueError: my own bug", 3),
        ("kill", "rank 1 was ended by SIGKILL", 3),
        ("exit", "rank 1 left with exit code 7", 3),
        ("leave", "rank 1 left with exit code 0", 3),
        ("hang", "did not answer", 6),
    ],
)
def test_the_first_failure_is_told_once(folder: Path, how: str, says: str, code: int) -> None:
    ended = accel("train", *SLOW, *DDP, f"model.args={{step: 3, how: {how}}}", "launch.wait=3", folder=folder)
    assert ended.returncode == code
    told = [line for line in ended.stderr.splitlines() if line.startswith("accel:")]
    assert len(told) == 1
    assert says in told[0]
    assert "Traceback" not in ended.stderr + ended.stdout
    if how == "raise":
        assert "nets.py:" in ended.stderr
    found = summary(run_folder(folder))
    assert (found["status"], found["exit_code"]) == ("failed", code)
    assert set(found) == set(EMPTY)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)])
def test_a_signal_saves_and_a_resume_goes_on(folder: Path, number: int, code: int) -> None:
    process = start("train", *SLOW, *DDP, folder=folder)
    run = wait_for_step(folder, 5)
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == code, output
    assert "Traceback" not in output
    found = summary(run)
    assert (found["status"], found["exit_code"]) == ("interrupted", code)
    steps = int((run / "checkpoints" / "latest").resolve().name.removeprefix("step-"))
    assert steps == found["steps"] >= 5
    assert not wait_until_gone(folder, 2)
    refused = accel("resume", str(run), folder=folder)
    assert refused.returncode == 8
    assert "--plugin nets" in refused.stderr


def test_a_signal_to_one_rank_stops_all_of_them(folder: Path) -> None:
    process = start("train", *SLOW, *DDP, folder=folder)
    run = wait_for_step(folder, 5)
    os.kill(ranks_of(folder, process.pid)[1], signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 75, output
    assert summary(run)["status"] == "interrupted"


def test_a_second_interrupt_ends_at_once(folder: Path) -> None:
    process = start("train", *CUSTOM, *DDP, "model.args={delay: 30.0}", folder=folder)
    end = time.monotonic() + 60
    while not ranks_of(folder, process.pid) and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - began < 2
    assert "Traceback" not in output
    assert not wait_until_gone(folder, 1)


@pytest.mark.parametrize("victim", ["front", "agent"])
def test_nothing_outlives_its_launcher(folder: Path, victim: str) -> None:
    process = start("train", *SLOW, *DDP, folder=folder)
    wait_for_step(folder, 3)
    assert len(left_behind(folder)) >= 4
    agent = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    os.kill(process.pid if victim == "front" else agent, signal.SIGKILL)
    assert not wait_until_gone(folder, 2)
    process.communicate()


def test_one_machine_listens_on_loopback_only(folder: Path) -> None:
    process = start("train", *SLOW, *DDP, folder=folder)
    try:
        wait_for_step(folder, 3)
        addresses = listening(left_behind(folder))
        assert addresses
        assert all(address.startswith("127.") or address == "::1" for address in addresses), addresses
    finally:
        process.kill()
        process.communicate()


def listening(pids: list[int], net: str = "/proc/net") -> set[str]:
    """Local addresses that any of these processes listens on, as its network namespace's tables tell."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"{net}/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                packed = bytes.fromhex(words[1].split(":")[0])
                packed = b"".join(packed[i : i + 4][::-1] for i in range(0, len(packed), 4))
                found.add(socket.inet_ntop(family, packed).removeprefix("::ffff:"))
    return found


def test_stale_variables_of_other_launchers_are_ignored(folder: Path) -> None:
    stale = {"RANK": "3", "WORLD_SIZE": "8", "MASTER_ADDR": "10.255.0.1", "MASTER_PORT": "1", "LOCAL_RANK": "3"}
    ended = accel("train", "train.steps=3", "train.epochs=null", "--json", folder=folder, **stale)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["world_size"] == 1


def test_the_printed_torchrun_line_does_the_same(folder: Path) -> None:
    ended = accel("train", *DDP, "train.steps=5", "train.epochs=null", "--dry-run", folder=folder)
    assert ended.returncode == 0, ended.stderr
    line = ended.stdout.strip()
    assert line.startswith("torchrun ")
    assert not (run_folder(folder) / "metrics.jsonl").exists()
    line = line.replace("torchrun", f"{sys.executable} -m torch.distributed.run", 1)
    done = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = summary(run_folder(folder))
    assert (found["status"], found["world_size"], found["steps"]) == ("completed", 2, 5)


def test_a_run_folder_is_used_once_and_by_one(folder: Path) -> None:
    process = start("train", *SLOW, "--run-dir", "runs/mine", folder=folder)
    wait_for_step(folder, 2)
    busy = accel("train", "--run-dir", "runs/mine", "--resume", "--plugin", "nets.py", folder=folder)
    assert busy.returncode == 2
    assert "is in use by process" in busy.stderr
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    held = accel("train", "--run-dir", "runs/mine", folder=folder)
    assert held.returncode == 2
    assert "--resume" in held.stderr


def test_a_finished_run_is_left_as_it_is(folder: Path) -> None:
    accel("train", "train.steps=3", "train.epochs=null", "--run-dir", "done", folder=folder)
    before = {path: path.stat().st_mtime_ns for path in (folder / "done").rglob("*") if path.is_file()}
    again = accel("resume", "done", folder=folder)
    assert again.returncode == 0
    assert "already complete" in again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "done").rglob("*") if path.is_file()}


@pytest.mark.slow
def test_twenty_launches_at_once_all_start(folder: Path) -> None:
    words = ["train", *DDP, "train.steps=2", "train.epochs=null", "--json"]
    processes = [start(*words, folder=folder) for _ in range(20)]
    for process in processes:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    assert len(list((folder / "runs").iterdir())) == 20
