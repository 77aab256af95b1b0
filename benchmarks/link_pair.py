"""Two hosts on one machine, made by scripts/link: runs with a rank on each, and what the cable between them carried."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from accel_cli.config import run as run_file
from accel_cli.config.run import Run

ROOT = Path(__file__).parents[1]
LINK = ROOT / "scripts" / "link"
NAME = f"bench{os.getpid()}"
"""Of this pair of hosts: others may have theirs."""
ENVIRONMENT = {**os.environ, "LINK": NAME, "PYTHONPATH": str(ROOT)}
HOSTS = {"A": "10.77.0.1", "B": "10.77.0.2"}
UNLIMITED = "unlimited"
SENDER = """
import socket, sys
own = socket.create_connection(("10.77.0.1", 29400))
block = bytes(1 << 16)
for _ in range(int(sys.argv[1]) >> 16):
    own.sendall(block)
"""
RECEIVER = """
import socket, sys, time
server = socket.create_server(("10.77.0.1", 29400))
print("ready", flush=True)
own, _ = server.accept()
skip, count, began, got = int(sys.argv[1]), 0, None, 0
while data := own.recv(1 << 16):
    count += len(data)
    if count > skip and began is None:
        began, got = time.perf_counter(), count
print((count - got) / (time.perf_counter() - began))
"""


class Sample(NamedTuple):
    """One run over the cable."""

    step_seconds: float
    """The median step of rank 0."""
    wire_bytes: float
    """That host A sent in a step, headers and all, from /proc/net/dev, between two records of metrics.jsonl."""
    summary: dict[str, Any]
    records: list[dict[str, Any]]


@contextlib.contextmanager
def pair() -> Iterator[None]:
    """Make the hosts, and take them down whatever happens. Exits where that is not allowed."""
    try:
        shape("1gbit")
        yield
    finally:
        subprocess.run([LINK, "down"], env=ENVIRONMENT, check=False)


def shape(rate: str) -> None:
    """Give the cable a rate such as 100mbit, or lift every limit."""
    if rate != UNLIMITED:
        made = subprocess.run([LINK, "up", rate], env=ENVIRONMENT, capture_output=True, text=True)
        if made.returncode:
            raise SystemExit(made.stderr.strip())
        return
    for host in HOSTS:
        subprocess.run(["tc", "-n", f"{NAME}{host}", "qdisc", "del", "dev", "wire", "root"], capture_output=True)


def bits(rate: str) -> float:
    """``100mbit`` in bits a second."""
    for unit, size in (("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)):
        if rate.endswith(unit):
            return float(rate.removesuffix(unit)) * size
    raise SystemExit(f"--rate {rate}: a rate such as 100mbit")


def raw_rate(rate: str) -> float:
    """Bytes a second of a plain socket from B to A over about a second, after what the shaper lets pass at once."""
    size = min(int(bits(rate) / 8), 1 << 27)
    skip = size // 4
    with _on_host("A", "-c", RECEIVER, str(skip), stdout=subprocess.PIPE) as receiver:
        assert receiver.stdout is not None
        receiver.stdout.readline()
        with _on_host("B", "-c", SENDER, str(size + skip)) as sender:
            answer = receiver.stdout.read()
            sender.wait()
    return float(answer)


def spread(run: Run, folder: Path) -> Sample:
    """A run of two ranks, one on each host, over the cable as it is shaped."""
    processes = _start(run, folder, {"A": 0, "B": 1}, 2)
    return _follow(processes, [folder], processes[0].pid)[0]


def apart(run: Run, folder: Path) -> Sample:
    """The same run of one rank on both hosts at once, each for itself: what computing alone takes. The slower one."""
    folders = {host: folder / host for host in HOSTS}
    processes = [_start(run, place, {host: 0}, 1)[0] for host, place in folders.items()]
    return max(_follow(processes, list(folders.values()), processes[0].pid), key=lambda sample: sample.step_seconds)


def _start(run: Run, folder: Path, ranks: dict[str, int], world_size: int) -> list[subprocess.Popen[str]]:
    folder.mkdir(parents=True)
    run_file.write(run, folder / "run.yaml")
    started = []
    for host, rank in ranks.items():
        environment = {
            "TORCHELASTIC_RUN_ID": "link", "RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_RANK": "0",
            "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": HOSTS["A"], "MASTER_PORT": "29500", "GLOO_SOCKET_IFNAME": "wire",
        }  # fmt: skip
        log = (folder / f"{rank}.log").open("w")
        started.append(
            _on_host(host, "-m", "accel_cli.worker", str(folder / "run.yaml"), stdout=log, stderr=log, **environment)
        )
    return started


def _on_host(host: str, *words: str, stdout: Any = None, stderr: Any = None, **environment: str) -> Any:
    return subprocess.Popen(
        [LINK, "exec", host, sys.executable, *words],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
        env={**ENVIRONMENT, **environment},
    )


def _follow(processes: Sequence[Any], folders: Sequence[Path], pid: int) -> list[Sample]:
    """Wait for the end, looking at the cable when steps are recorded."""
    seen: list[tuple[int, int]] = []
    try:
        while any(process.poll() is None for process in processes):
            lines = records(folders[0], "train")
            if lines and (not seen or lines[-1]["step"] != seen[-1][0]):
                with contextlib.suppress(OSError):
                    seen.append((lines[-1]["step"], sent_bytes(pid)))
            if any(process.poll() not in (None, 0) for process in processes):
                break
            time.sleep(0.01)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
    if any(process.returncode for process in processes):
        logs = "\n".join(path.read_text()[-3000:] for path in sorted(folders[0].glob("*.log")))
        raise SystemExit(f"a rank failed: {[process.returncode for process in processes]}\n{logs}")
    found = []
    for folder in folders:
        summary = json.loads((folder / "summary.json").read_text())
        (step, sent), (last_step, last_sent) = seen[0], seen[-1]
        wire = (last_sent - sent) / max(1, last_step - step)
        every = records(folder, "train") + records(folder, "evaluation")
        found.append(Sample(summary["step_milliseconds"]["median"] / 1e3, wire, summary, every))
    return found


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return [record for record in found if record["kind"] == kind]


def sent_bytes(pid: int) -> int:
    """By the network interface of the process's host, so far."""
    for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "wire":
            return int(counts.split()[8])
    raise OSError("no interface named wire")
