"""The machine that ranks will have: this one, or a node of the partition that a job of theirs is queued in."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from typing import Any

from accel_cli.config.accelerators import GPU
from accel_cli.config.machine import Machine
from accel_cli.errors import ConfigError, Problem

PATIENCE = 10.0
"""Seconds that Slurm may take for an answer."""
UNKNOWN = (9, 0)
"""Compute capability of a GPU that only its node can look at: what it lacks is found there, as the run begins."""


def machine_of(run: Any, here: Machine) -> Machine:
    """The plain facts of one node, as far as they are known where the command is typed.

    Raises ConfigError where no job can be submitted, since Slurm's controller is down.
    """
    return _slurm_node(run.launch, here) if run.launch.option == "slurm" else here


def _slurm_node(launch: Any, here: Machine) -> Machine:
    command = ["sinfo", "--noheader", "--responding", "--format=%P|%c|%m|%G"]
    if launch.partition is not None:
        command.append(f"--partition={launch.partition}")
    try:
        ping = _answer(["scontrol", "ping"])  # knows at once what sinfo takes nine seconds to give up on
        if ping.returncode:
            said = (ping.stdout or ping.stderr).strip().split("\n")[0]
            why = f"no job can be submitted: {said}"
            raise ConfigError(Problem("launch=slurm", why, "wait until scontrol ping says UP, or try launch=local"))
        said = _answer(command).stdout
    except (OSError, subprocess.TimeoutExpired):
        return here
    rows = [line.split("|") for line in said.splitlines() if line.count("|") == 3]
    rows = [row for row in rows if launch.partition is not None or row[0].endswith("*")] or rows
    if not rows:
        return here
    _, processors, megabytes, resources = rows[0]
    counted = re.search(r"gpu:(?:([^:,()]+):)?(\d+)", resources)
    number = int(counted[2]) if counted else 0
    if launch.gpus != "auto":
        number = min(number, launch.gpus)
    like = here.gpus[0] if here.gpus else GPU((counted and counted[1]) or "GPU", 0, UNKNOWN)
    cores = int(processors.rstrip("+"))
    return replace(
        here,
        cores=cores if launch.cores == "auto" else min(cores, launch.cores),
        all_cores=cores,
        core_mask=cores,
        core_quota=None,
        memory_bytes=int(megabytes.rstrip("+")) << 20,
        gpus=(like,) * number,
        mps=False,
        xpus=0,
        tpus=0,
    )


def _answer(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
