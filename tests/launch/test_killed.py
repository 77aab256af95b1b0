"""A rank killed under any strategy: the others are down within two seconds, the report names it, a resume goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from command import ranks_of, start, summary, wait_for_step, wait_until_gone

GPT = [
    "data=stdlib_text", "data.length=16", "data.max_bytes=40000", "model=gpt", "model.width=16", "model.depth=2",
    "model.heads=2", "train.global_batch=16", "train.epochs=null", "train.steps=2000", "metrics.every=1",
    "checkpoint.every=5", "evaluate.every=1000", "launch.wait=60",
]  # fmt: skip
STRATEGIES = {
    "ddp": ["strategy=ddp"],
    "fsdp": ["strategy=fsdp"],
    "tensor": ["strategy=tensor"],
    "pipeline": ["strategy=pipeline"],
    "context": ["strategy=context"],
    "localsgd": ["strategy=localsgd"],
    "diloco": ["strategy=diloco", "strategy.steps=5", "strategy.overlap=2"],
    "hsdp": ["strategy=hsdp"],
    "mesh": ["strategy=mesh", "strategy.shard=2", "strategy.tensor=2", "launch.processes=4"],
}


@pytest.mark.parametrize(
    "strategy",
    [pytest.param(name, marks=() if name in ("fsdp", "pipeline") else pytest.mark.slow) for name in STRATEGIES],
)
def test_a_killed_rank_ends_the_run_and_a_resume_goes_on(tmp_path: Path, strategy: str) -> None:
    process = start("train", *GPT, *STRATEGIES[strategy], folder=tmp_path)
    run = wait_for_step(tmp_path, 12)
    victim = ranks_of(tmp_path, process.pid)[1]
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    assert not [pid for pid in wait_until_gone(tmp_path, 30) if pid != process.pid]
    assert time.monotonic() - killed < 2
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 3, output
    assert "rank 1 was ended by SIGKILL" in output
    assert "Traceback" not in output
    assert summary(run)["error"]["rank"] == 1
    saved = int((run / "checkpoints" / "latest").resolve().name.removeprefix("step-"))
    assert saved >= 5
    process = start("resume", str(run), folder=tmp_path)
    end = time.monotonic() + 60
    while time.monotonic() < end and _last_step(run) <= saved + 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    found = summary(run)
    assert found["status"] == "interrupted"
    assert found["steps"] > saved
    assert found["attempts"] == 2


def _last_step(run: Path) -> int:
    attempts = (run / "attempts" / "log.jsonl").read_text().splitlines()
    lines = (run / "metrics.jsonl").read_text().splitlines() if len(attempts) > 1 else []
    return json.loads(lines[-1])["step"] if lines else 0
