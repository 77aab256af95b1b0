"""Law: a run handed to Slurm is the run that it is here: the same numbers, exit codes, signals and folder.

What needs a cluster skips without one; scripts/slurm-here makes one of two virtual nodes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from command import CUSTOM, NETS, accel, start, summary

from accel_cli.config.plan import plan
from accel_cli.launch.begin import claim_folder, describe
from accel_cli.launch.crew import Crew, Ended
from accel_cli.launch.slurm_script import script

WORK = [*CUSTOM, "+strategy=ddp", "hardware=cpu", "hardware.threads=1", "train.epochs=null", "metrics.every=1"]
SLURM = ["launch=slurm", "launch.nodes=2", "launch.time=5"]


def answers() -> str:
    """Why there is no Slurm to ask, or nothing."""
    if shutil.which("scontrol") is None:
        return "no Slurm here: scontrol is not on PATH; scripts/slurm-here says what to install"
    asked = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=30)
    return "" if asked.returncode == 0 else "Slurm does not answer: try scripts/slurm-here up"


@pytest.fixture(scope="module")
def cluster() -> None:
    if why := answers():
        pytest.skip(why)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


def wait_for_metrics(run: Path) -> None:
    end = time.monotonic() + 90
    while not (run / "metrics.jsonl").exists() and time.monotonic() < end:
        time.sleep(0.1)


def test_a_controller_that_is_down_is_refused_at_once(folder: Path) -> None:
    """By stand-ins for Slurm's own programs: what they say of a controller that is down was taken from a real one."""
    for name in ("sbatch", "sinfo", "scontrol"):
        (folder / name).write_text("#!/bin/sh\necho 'Slurmctld(primary) at here is DOWN'; exit 1\n")
        (folder / name).chmod(0o755)
    ended = accel("train", "launch=slurm", folder=folder, PATH=f"{folder}:{os.environ['PATH']}")
    assert ended.returncode == 2
    assert "no job can be submitted: Slurmctld(primary) at here is DOWN" in ended.stderr
    assert not (folder / "runs").exists()


def test_without_slurm_it_is_refused_before_anything_starts(folder: Path) -> None:
    ended = accel("train", "launch=slurm", folder=folder, PATH=str(folder))
    assert ended.returncode == 2
    assert "launch=slurm   needs the program sbatch, which is not on PATH" in ended.stderr
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_the_script_says_what_was_asked_for(tmp_path: Path, resume: bool) -> None:
    run = plan(["strategy=ddp", "hardware=cpu", "hardware.threads=2", "launch.processes=2"]).run
    run = run.with_option("launch", "slurm").with_values(
        "launch",
        nodes="2:4",
        partition="long",
        account=None,
        time="1-00:00:00",
        warning=90,
        arguments=["--mail-user=me"],
    )
    said = script(tmp_path / "a run", run, ["my nets.py"], resume=resume)
    options = [line.removeprefix("#SBATCH ") for line in said.splitlines() if line.startswith("#SBATCH")]
    assert {"--nodes=2-4", "--partition=long", "--time=1-00:00:00", "--signal=B:USR1@90", "--cpus-per-task=4"} <= {
        *options
    }
    assert options[-1] == "--mail-user=me"
    assert not any(option.startswith(("--account", "--mem", "--gpus")) for option in options)
    assert ("--resume $again" in said) is resume
    assert "my nets.py" in said
    assert subprocess.run(["bash", "-n"], input=said, text=True, check=False).returncode == 0


@pytest.mark.usefixtures("cluster")
def test_two_nodes_have_the_losses_of_two_processes_here(folder: Path) -> None:
    work = [*WORK, "train.steps=8", "--json", "--run-dir"]
    here = accel("train", *work, "here", "launch.processes=2", folder=folder)
    there = accel("train", *work, "there", *SLURM, folder=folder)
    assert here.returncode == there.returncode == 0, there.stderr
    one, two = (json.loads(ended.stdout) for ended in (here, there))
    assert (two["status"], two["world_size"], two["loss"]) == ("completed", 2, one["loss"])


@pytest.mark.usefixtures("cluster")
def test_a_failure_is_told_as_it_is_here_and_a_refusal_is_slurms(folder: Path) -> None:
    ended = accel("train", *WORK, *SLURM, "train.steps=9", "model.args.step=3", "--run-dir", "r", folder=folder)
    assert ended.returncode == 3, ended.stderr
    assert "accel: rank 1 at step 3: ValueError: my own bug" in ended.stderr
    assert "nets.py:" in ended.stderr
    assert summary(folder / "r")["error"]["type"] == "ValueError"
    refused = accel("train", *WORK, *SLURM, "train.steps=3", "launch.partition=nowhere", folder=folder)
    assert refused.returncode == 2
    assert "invalid partition specified: nowhere" in refused.stderr


@pytest.mark.usefixtures("cluster")
def test_ctrl_c_saves_and_the_run_goes_on_in_a_job_of_its_own(folder: Path) -> None:
    process = start("train", *WORK, *SLURM, "train.steps=60", "model.args.delay=0.1", "--run-dir", "r", folder=folder)
    wait_for_metrics(folder / "r")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert 0 < summary(folder / "r")["steps"] < 60
    resumed = accel("resume", "r", "--plugin", "nets.py", folder=folder)
    assert resumed.returncode == 0, resumed.stderr
    found = summary(folder / "r")
    assert (found["status"], found["steps"], found["attempts"], found["lost_steps"]) == ("completed", 60, 2, 0)


@pytest.mark.usefixtures("cluster")
def test_points_of_a_crew_are_jobs_beside_each_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    words = [
        "model=mlp", "launch=slurm", "launch.cores=1", "hardware.threads=1", "train.epochs=null", "hardware=cpu",
    ]  # fmt: skip
    ended: dict[str, Ended] = {}

    def train(name: str, steps: int) -> None:
        planned = plan([*words, f"train.steps={steps}"])
        run = claim_folder(planned, folder / name)
        describe(run, planned, ["train", *words])
        ended[name] = crew.train(run, planned, started=time.time())

    with Crew() as crew:
        threads = [threading.Thread(target=train, args=point) for point in (("quick", 5), ("long", 10**7))]
        for thread in threads:
            thread.start()
        wait_for_metrics(folder / "long")
        threads[0].join()
        signal.raise_signal(signal.SIGTERM)
        threads[1].join()
        assert crew.ending == signal.SIGTERM
    assert (ended["quick"].outcome.exit_code, ended["long"].outcome.exit_code) == (0, 75)
    assert summary(folder / "long")["status"] == "interrupted"
    queued = subprocess.run(["squeue", "--noheader", "--format=%j"], capture_output=True, text=True, check=True).stdout
    assert "accel-long" not in queued
