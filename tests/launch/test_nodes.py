"""Law: the same command on several machines is one run; what is lost starts again; nobody waits for the dead.

Two network namespaces stand in for two hosts (scripts/link).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import CUSTOM, NETS, accel, clean_environment, left_behind, ranks_of, start, summary, wait_until_gone
from safetensors.torch import load_file
from test_launch import listening

from accel_cli.config import network
from accel_cli.engine.folder import in_use
from accel_cli.errors import ConfigError
from accel_cli.launch.here import Here, here

SCRIPT = Path(__file__).parents[2] / "scripts" / "link"
FIRST = "10.77.0.1:29500"
WORK = [
    *CUSTOM, "+strategy=ddp", "hardware=cpu", "hardware.threads=1", "train.epochs=null",
    "metrics.every=1", "checkpoint.every=10", "evaluate.every=1000",
]  # fmt: skip
LINK = {**clean_environment(), "LINK": f"test{os.getpid()}-"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


@pytest.fixture(scope="module")
def hosts() -> Iterator[None]:
    up = subprocess.run([SCRIPT, "up", "1gbit"], env=LINK, capture_output=True, text=True)
    if up.returncode:
        pytest.skip(f"no two hosts here: {up.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run([SCRIPT, "down"], env=LINK, check=True)


def on(host: str, *words: str, folder: Path, run: str) -> subprocess.Popen[str]:
    """``accel train`` of one process on a host, left running, into a folder of its own."""
    command = ["train", *WORK, "launch.processes=1", f"launch.rendezvous={FIRST}", *words, "--run-dir", run]
    return at(host, [sys.executable, "-m", "accel_cli", *command], folder)


def at(host: str, command: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [SCRIPT, "exec", host, *command],
        cwd=folder,
        env={**LINK, "ACCEL_TEST": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str]:
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


def wait_for(run: Path, step: int, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not losses(run) or max(losses(run)) < step:
        assert time.monotonic() < end, f"no step {step} in {run}"
        time.sleep(0.05)


def losses(run: Path) -> dict[int, float]:
    """Step -> loss; fails where a step was recorded twice."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [row for row in map(json.loads, lines) if row["kind"] == "train"]
    assert len({row["step"] for row in rows}) == len(rows)
    return {row["step"]: row["loss"] for row in rows}


def assert_same_weights(one: Path, other: Path, step: int) -> None:
    saved = [run / "checkpoints" / f"step-{step:08d}" for run in (one, other)]
    for file in ("model", "optimizer"):
        first, second = (load_file(folder / f"{file}.safetensors") for folder in saved)
        assert first.keys() == second.keys()
        assert all(first[name].equal(second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.usefixtures("hosts")
def test_two_hosts_are_one_run(folder: Path) -> None:
    steps = "train.steps=40"
    first, second = (on(host, steps, "launch.nodes=2", folder=folder, run=host) for host in "AB")
    wait_for(folder / "A", 3)
    heard = {address for pid in left_behind(folder) for address in listening([pid], f"/proc/{pid}/net")}
    assert heard
    assert heard <= {"10.77.0.1", "10.77.0.2"}
    (code, output), (other_code, other_output) = ended(first), ended(second)
    assert (code, other_code) == (0, 0), output + other_output
    assert "2 nodes: rank 1 of 2 on this one" in other_output
    assert "rank 0's node has the summary" in other_output
    found = summary(folder / "A")
    assert (found["status"], found["world_size"], found["attempts"]) == ("completed", 2, 1)
    assert not (folder / "B" / "summary.json").exists()
    assert [p.name for p in (folder / "B" / "ranks").iterdir()] == ["1.log"]
    one = accel("train", *WORK, steps, "launch.processes=2", "--run-dir", "one", folder=folder)
    assert one.returncode == 0, one.stderr
    assert losses(folder / "A") == pytest.approx(losses(folder / "one"), rel=1e-6)


@pytest.mark.slow
def test_a_killed_rank_starts_again_and_ends_the_same(folder: Path) -> None:
    words = [*WORK, "train.steps=60", "launch.processes=2"]
    process = start("train", *words, "launch.max_restarts=2", "--run-dir", "killed", folder=folder)
    wait_for(folder / "killed", 25)
    os.kill(ranks_of(folder, process.pid)[1], signal.SIGKILL)
    code, output = ended(process)
    assert code == 0, output
    told = [line for line in output.splitlines() if "attempt" in line]
    assert len(told) == 1
    assert re.search(r"rank 1 was ended by SIGKILL.* at step \d+; restarting from step [2-5]0, attempt 2 of 3", told[0])
    assert "Traceback" not in output
    found = summary(folder / "killed")
    assert (found["status"], found["attempts"], found["steps"]) == ("completed", 2, 60)
    assert list(losses(folder / "killed")) == list(range(1, 61))
    straight = accel("train", *words, "--run-dir", "straight", folder=folder)
    assert straight.returncode == 0, straight.stderr
    assert_same_weights(folder / "killed", folder / "straight", 60)
    assert losses(folder / "killed") == losses(folder / "straight")


@pytest.mark.parametrize(("how", "tries"), [("kill", 2), ("diverge", 1)])
def test_what_fails_again_and_again_fails(folder: Path, how: str, tries: int) -> None:
    """A rank that dies each time ends the run when the restarts are used up; a divergence is not tried again."""
    words = [*WORK, "train.steps=30", "launch.processes=2", "launch.max_restarts=1"]
    diverging = ["optimizer.learning_rate=1e38", "train.max_skipped_steps=3"]
    words += ["model.args={step: 3, how: kill}"] if how == "kill" else diverging
    done = accel("train", *words, "--run-dir", "run", folder=folder)
    assert done.returncode == (3 if how == "kill" else 5), done.stderr
    assert done.stderr.count("restarting") == tries - 1
    assert ("restarting from the start, as nothing is saved yet, attempt 2 of 2" in done.stderr) == (tries == 2)
    assert len([line for line in done.stderr.splitlines() if line.startswith("accel:")]) == 1
    assert summary(folder / "run")["attempts"] == tries


@pytest.mark.slow
@pytest.mark.usefixtures("hosts")
def test_one_node_speaks_for_all(folder: Path) -> None:
    """Another configuration is refused; a Ctrl-C on one node saves and ends the run on both."""
    words = ["launch.nodes=2", "train.steps=2000"]
    first = on("A", *words, folder=folder, run="A")
    code, output = ended(on("B", *words, "train.seed=1", folder=folder, run="C"))
    assert code == 2, output
    assert re.search(r"train.seed=1 +on the first node it is 0 +type the same", output)
    second = on("B", *words, folder=folder, run="B")
    wait_for(folder / "A", 12)
    os.kill(second.pid, signal.SIGINT)
    assert [ended(process)[0] for process in (first, second)] == [130, 130]
    found = summary(folder / "A")
    assert found["status"] == "interrupted"
    assert not wait_until_gone(folder, 2)


@pytest.mark.slow
@pytest.mark.usefixtures("hosts")
def test_a_node_is_lost_and_another_comes(folder: Path) -> None:
    """Elastic, on disks that are not shared: the run goes on alone, then together again, as if nothing had been."""
    words = ["launch.nodes=1:2", "train.steps=100000", "schedule=constant"]
    first, second = (on(host, *words, folder=folder, run=host) for host in "AB")
    wait_for(folder / "A", 12)
    second.kill()
    ended(second)
    wait_for(folder / "A", 22)
    third = on("B", *words, folder=folder, run="C")
    log = folder / "A" / "attempts" / "log.jsonl"
    end = time.monotonic() + 60
    while len(log.read_text().splitlines()) < 3:
        assert time.monotonic() < end, "nobody joined"
        time.sleep(0.05)
    attempts = [json.loads(line) for line in log.read_text().splitlines()]
    wait_for(folder / "A", attempts[2]["from_step"] + 5)
    first.send_signal(signal.SIGINT)
    (code, output), (other_code, other_output) = ended(first), ended(third)
    assert (code, other_code) == (130, 130), output + other_output
    assert re.search(r"10\.77\.0\.2 was lost at step \d+; restarting from step \d+, attempt 2 of 11", output)
    assert "1 node: rank 0 of 1 on this one\n" in output
    assert "another node joins: saving" in output
    assert [attempt["world_size"] for attempt in attempts] == [2, 1, 2]
    handed = [path.name for path in (folder / "C" / "checkpoints").iterdir()]
    assert handed == [f"step-{attempts[2]['from_step']:08d}"]
    found = losses(folder / "A")
    assert list(found) == list(range(1, len(found) + 1))
    straight = [f"train.steps={len(found)}", "schedule=constant", "model.args={delay: 0.0}", "launch.processes=1"]
    one = accel("train", *WORK, *straight, "--run-dir", "one", folder=folder)
    assert one.returncode == 0, one.stderr
    assert found == pytest.approx(losses(folder / "one"), rel=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("hosts")
def test_the_printed_line_works_by_hand_on_each_node(folder: Path) -> None:
    words = ["launch.nodes=2", "train.steps=30", "--dry-run"]
    printed = [ended(on(host, *words, folder=folder, run="run"))[1] for host in "AB"]
    lines = {line for text in printed for line in text.splitlines() if "torchrun" in line}
    assert len(lines) == 1
    line = lines.pop().replace("torchrun", f"{sys.executable} -m torch.distributed.run")
    for word in ("--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint={FIRST}", "--rdzv-id=run", "--max-restarts=0"):
        assert word in line
    for code, output in map(ended, [at(host, ["bash", "-c", line], folder) for host in "AB"]):
        assert code == 0, output
    found = summary(folder / "run")
    assert (found["status"], found["world_size"], found["steps"]) == ("completed", 2, 30)


def test_nodes_hold_a_folder_together_and_each_once(tmp_path: Path) -> None:
    with in_use(tmp_path, "10.0.0.1") as alone:
        assert alone
        with in_use(tmp_path, "10.0.0.2") as alone:
            assert not alone
            for node in ("", "10.0.0.2"):
                with pytest.raises(ConfigError, match="is in use by"), in_use(tmp_path, node):
                    pass
    with in_use(tmp_path), pytest.raises(ConfigError), in_use(tmp_path, "10.0.0.1"):
        pass


def test_a_node_knows_its_place() -> None:
    try:
        own = network.own_address()
    except OSError:
        pytest.skip("this machine has no network")
    assert here(f"{own}:29500") == Here(True, own, own, 29500, network.interface_of(own))
    assert here("127.0.1.1:29500").address == own, "a name of this machine that means itself only"
    with pytest.raises(ConfigError, match="no host named"):
        here("nowhere.invalid:29500")
