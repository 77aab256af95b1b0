"""The batch script of a run: sbatch's options, and the worker line that srun starts on every node.

By hand and not with submitit: what runs is a command line, the same that torchrun takes anywhere and --dry-run prints;
submitit would pickle a Python function, with a script, signals and requeueing of its own.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from accel_cli.config import preload
from accel_cli.config.schema.hardware import BACKENDS
from accel_cli.launch.local import set_words, worker_words

EVENTS = "events.jsonl"
"""What rank 0 tells, a JSON object a line; in the folder of the ranks' own output."""
SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
"""torchrun hands these on to its ranks. Slurm sends SIGTERM at a preemption, and SIGUSR1 because the script asks it."""
LAST_TASK = 120
"""Seconds that srun gives the other nodes to end, once one has."""
BODY = """
cd {here} && mkdir -p {ranks} || exit 3
again= asked=
# In the queue again: go on from the newest checkpoint, if there is one.
if [ "${{SLURM_RESTART_COUNT:-0}}" -gt 0 ] && compgen -G {checkpoints} >/dev/null; then again=--resume; fi
# The limit is near: the ranks save and end.
trap 'asked=1; scancel --signal=USR1 "$SLURM_JOB_ID"' USR1
export again port=$((20000 + SLURM_JOB_ID % 10000))
srun --kill-on-bad-exit=0 --wait={last} --open-mode=append --output={output} bash -c {line} &
while :; do wait $!; code=$?; kill -0 $! 2>/dev/null || break; done
"""
REQUEUE = """if [ -n "$asked" ] && grep -q '"exit_code": 75' {summary}; then scontrol requeue "$SLURM_JOB_ID"; fi
"""


def script(folder: Path, run: Any, plugins: list[str], *, resume: bool = False) -> str:
    """The whole script of a run in its folder, which all nodes see; it is submitted from the working directory."""
    body = BODY.format(
        here=shlex.quote(os.getcwd()),
        ranks=shlex.quote(str(folder / "ranks")),
        checkpoints=shlex.quote(str(folder / "checkpoints" / "step-*" / "manifest.json")),
        last=LAST_TASK + run.launch.warning,
        output=shlex.quote(str(folder / "ranks" / "node-%t.log")),
        line=shlex.quote(_line(folder, run, plugins, resume)),
    )
    if run.launch.requeue:
        body += REQUEUE.format(summary=shlex.quote(str(folder / "summary.json")))
    options = "".join(f"#SBATCH {option}\n" for option in _options(folder, run))
    return f"#!/bin/bash\n{options}{body}exit $code\n"


def _options(folder: Path, run: Any) -> list[str]:
    launch = run.launch
    gpus = launch.gpus if launch.gpus != "auto" else launch.processes if run.hardware.option in BACKENDS else 0
    options = {
        "job-name": f"accel-{folder.name}",
        "nodes": str(launch.nodes).replace(":", "-"),
        "ntasks-per-node": 1,
        "cpus-per-task": _cores(run) if launch.cores == "auto" else launch.cores,
        "gpus-per-node": gpus or None,
        "mem": launch.memory,
        "partition": launch.partition,
        "account": launch.account,
        "time": launch.time,
        "signal": f"B:USR1@{launch.warning}",
        "open-mode": "append",
        "output": folder / "job.log",
    }
    words = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return [*map(shlex.quote, [*words, "--requeue" if launch.requeue else "--no-requeue", *launch.arguments])]


def _cores(run: Any) -> int:
    """Of a node, for the threads that compute and the workers that read, of all its processes."""
    workers = getattr(run.loader, "workers", 0) if run.loader.option == "workers" else 0
    return int(run.launch.processes * (run.hardware.threads + (workers if isinstance(workers, int) else 0)))


def _line(folder: Path, run: Any, plugins: list[str], resume: bool) -> str:
    """What each node runs: torchrun, which is told by this node where it stands, and the worker."""
    launch, settings = run.launch, preload.variables(run.hardware.allocator, {})
    torchrun = [
        sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={launch.processes}",
        f"--max-restarts={launch.max_restarts}", f"--signals-to-handle={SIGNALS}",
        f"--shutdown-timeout={math.ceil(launch.warning)}",
    ]  # fmt: skip
    worker = [*worker_words(folder / "run.yaml", plugins), "--events", str(folder / "ranks" / EVENTS)]
    worker += ["--resume"] if resume else []
    meeting = "--standalone"
    if launch.most_nodes > 1:
        settings["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        if launch.interface != "auto":
            settings |= {"GLOO_SOCKET_IFNAME": launch.interface, "NCCL_SOCKET_IFNAME": launch.interface}
        first = '"$SLURM_LAUNCH_NODE_IPADDR:$port"'
        here = f'{shlex.quote(sys.executable)} -m accel_cli.launch.here {first} --node "$SLURM_NODEID"'
        meeting = '--nnodes="$SLURM_JOB_NUM_NODES" --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" '
        meeting += f"--rdzv-endpoint={first} $({here})"
    return f"exec env {set_words(settings)}{shlex.join(torchrun)} {meeting} {shlex.join(worker)} $again"
