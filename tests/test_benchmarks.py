"""The benchmarks against peers still run: each with its smallest settings, and none of the peers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
ARMS = {
    "engine": ["--steps", "8", "--warm", "4", "--arm", "hand", "--arm", "accel"],
    "device": ["--hardware", "cpu", "--precision", "fp32", "--model", "cnn", "--steps", "4", "--warm", "4",
               "--lever", "optimizer.kernel=loop"],
    "loading": ["--samples", "160", "--batch", "16", "--epochs", "1", "--only", "batches", "--arm", "accel"],
    "loading cache": ["--samples", "40", "--batch", "16", "--only", "cache"],
    "launch": ["--part", "first", "--arm", "script", "--arm", "accel"],
    "launch commands": ["--part", "commands", "--arm", "accel --help", "--arm", "python -c pass"],
    "checkpoint": ["--model", "cnn", "--every", "4", "--steps", "12", "--arm", "accel saving", "--arm", "hand saving"],
}  # fmt: skip
SAYS = {
    "device": ["accel", "the same bits", "optimizer.kernel=loop: ", "accel / hand, wall: "],
    "engine": ["accel", "the same bits", "lightning: no --peers DIR given", "accel / hand, wall: "],
    "loading": ["160 samples", "% flipped", "spdl: no --peers DIR given"],
    "loading cache": ["build / ImageFolder, CPU: ", "two ranks on one cache: one file", "in memory once"],
    "launch": ["101770 parameters in 1 rank(s)", "accel / script, wall: ", "lightning: no --peers DIR given"],
    "launch commands": ["accel --help / python -c pass, CPU: "],
    "checkpoint": ["the same bits", "blocked, accel / torch.save: "],
}


def started(name: str, *words: str) -> subprocess.Popen[str]:
    program = str(BENCHMARKS / f"{name.partition(' ')[0]}.py")
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)}
    return subprocess.Popen(
        [sys.executable, program, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ARMS))
def test_a_benchmark_measures_and_proves_equal_work(name: str) -> None:
    process = started(name, "--rounds", "1", "--threads", "1", *ARMS[name])
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-3000:]
    for text in [*SAYS[name], "torch "]:
        assert text in output, output[-3000:]
    assert "NOT" not in output


def test_a_ratio_of_few_rounds_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import arms

    found = {name: [{"wall": 1.0, "cpu": 1.0}] * 2 for name in ("accel", "hand", "hand again")}
    for line in arms.judge(found, "accel", "hand", "hand again", 1.01):
        assert "cannot tell" in line
    several = {name: samples * 3 for name, samples in found.items()}
    assert all("holds" in line for line in arms.judge(several, "accel", "hand", "hand again", 1.01))


def test_the_cpu_seconds_of_children_count_while_they_live_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import arms

    monkeypatch.setenv(arms.HARNESS, str(os.getppid()))
    before = arms.tree_seconds()
    burn = "import time\nwhile time.process_time() < 0.5: pass\nprint('burnt', flush=True)\ninput()"
    child = subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    living = arms.tree_seconds()
    child.communicate("\n")
    assert living - before > 0.45
    assert arms.tree_seconds() - before > 0.45


def test_a_benchmark_that_is_told_to_end_leaves_no_arm() -> None:
    process = started("launch", "--part", "commands", "--rounds", "1000", "--arm", "import torch")
    end = time.monotonic() + 60
    while not arms_of(process.pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert arms_of(process.pid)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert not arms_of(process.pid)


def arms_of(harness: int) -> list[str]:
    """Living processes that this harness has started, by what it gave them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"BENCHMARK_HARNESS={harness}".encode() in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
        except OSError:
            continue
    return found
