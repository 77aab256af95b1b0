"""Ranks as processes: threads and cores really taken, memory handed out as chosen, nothing leaked to user code's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import build_here, records, run_ranks, train_ranks, write_run

from accel_cli.config import host, preload
from accel_cli.config.machine import Machine, detect
from accel_cli.config.plan import plan

ROOT = Path(__file__).parents[2]
CPU = Machine(cores=4, memory_bytes=8 << 30, core_mask=4, all_cores=4, glibc=True)
SHORT = ["model=mlp", "model.widths=[32]", "train.epochs=null", "train.steps=4", "metrics.every=1"]


def test_threads_follow_what_may_be_used_and_say_what_holds_back() -> None:
    assert host.threads(CPU, 2) == (2, "4 cores / 2 processes")
    assert host.threads(CPU, 8)[0] == 1
    assert "control group grants 1.5 of 4" in host.threads(replace(CPU, cores=2, core_quota=1.5), 1)[1]
    assert "affinity mask allows 2 of 4" in host.threads(replace(CPU, cores=2, core_mask=2), 1)[1]


def test_ranks_are_pinned_where_memory_has_several_nodes_and_each_has_a_core() -> None:
    far = replace(CPU, memory_nodes=2)
    assert host.affinity(far, 2)[0] == "cores"
    assert host.affinity(far, 1)[0] == "none"
    assert host.affinity(CPU, 2)[0] == "none"
    assert host.affinity(far, 8)[0] == "none"
    assert host.affinity(replace(far, cores=2, core_quota=2.0), 2)[0] == "none"


def test_malloc_is_tuned_where_it_is_glibcs_and_nobody_else_has_set_it() -> None:
    assert host.allocator(CPU, "cpu", {})[0] == "tuned"
    assert host.allocator(replace(CPU, glibc=False), "cpu", {})[0] == "system"
    assert host.allocator(CPU, "cuda", {})[0] == "system"
    assert host.allocator(CPU, "cpu", {"LD_PRELOAD": "libmine.so"}) == ("system", "LD_PRELOAD is set")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["model=cnn"], "channels_last"),
        (["model=mlp"], "contiguous"),
        (["model=vit"], "contiguous"),
        (["model=cnn", "train.global_batch=16"], "contiguous"),
        (["model=cnn", "train.micro_batch=8"], "contiguous"),
        (["model=gpt", "data=stdlib_text"], "contiguous"),
        (["model=cnn", "strategy=fsdp"], "contiguous"),
        (["model=cnn", "strategy=ddp"], "channels_last"),
        (["model=cnn", "hardware.memory_format=contiguous"], "contiguous"),
    ],
)
def test_images_lie_as_the_model_likes_it(words: list[str], expected: str) -> None:
    assert plan([*words, "hardware=cpu"]).run.hardware.memory_format == expected


def test_decisions_are_told_and_kept_in_the_run() -> None:
    planned = plan(["model=cnn", "hardware=cpu"])
    told = {d.key: d for d in planned.decisions}
    assert told["hardware.memory_format"].why
    if detect().glibc and not any(name in os.environ for name in host.OWN_MALLOC):
        assert (told["hardware.allocator"].value, planned.run.hardware.allocator) == ("tuned", "tuned")
    assert "hardware.affinity" not in told  # it leaves torch as it is


def look(folder: str) -> dict[str, Any]:
    """What the kernel says of this process, once its threads have worked."""
    before = sorted(os.sched_getaffinity(os.getppid()))
    build_here(folder)
    a = torch.randn(512, 512)
    for _ in range(3):
        a @ a
    tasks = [(task / "status").read_text() for task in Path("/proc/self/task").iterdir()]
    masks: dict[str, set[str]] = {}
    for text in tasks:
        name, mask = re.findall(r"(?:Name|Cpus_allowed_list):\s*(\S+)", text)
        if not name.startswith("cuda"):  # the driver's own thread, which torch wakes for a CPU too
            masks.setdefault(mask, set()).add(name)
    return {"parent": before, "own": sorted(os.sched_getaffinity(0)), "masks": masks,
            "threads": torch.get_num_threads(), "tasks": len(tasks)}  # fmt: skip


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores to share")
def test_each_rank_keeps_to_its_share_and_the_process_that_forked_it_to_none(tmp_path: Path) -> None:
    words = [*SHORT, "hardware.affinity=cores"]
    first, second = run_ranks(look, 2, str(write_run(words, tmp_path, 2)))
    allowed = sorted(os.sched_getaffinity(0))
    assert sorted(first["own"] + second["own"]) == allowed
    assert first["parent"] == second["parent"] == allowed
    assert len(first["masks"]) == len(second["masks"]) == 1


def test_threads_are_those_asked_for(tmp_path: Path) -> None:
    (one,) = run_ranks(look, 1, str(write_run([*SHORT, "hardware.threads=1"], tmp_path / "1", 1)))
    (two,) = run_ranks(look, 1, str(write_run([*SHORT, "hardware.threads=2"], tmp_path / "2", 1)))
    assert (one["threads"], two["threads"]) == (1, 2)
    assert two["tasks"] > one["tasks"]
    assert two["own"] == two["parent"]


def test_allocators_change_no_bit(tmp_path: Path) -> None:
    found = {}
    for allocator in ("system", "tuned"):
        train_ranks([*SHORT, f"hardware.allocator={allocator}"], tmp_path / allocator)
        found[allocator] = [(r["loss"], r["gradient_norm"]) for r in records(tmp_path / allocator, "train")]
    assert found["system"] == found["tuned"]


def faults(tune: bool) -> float:
    """Pages that a fresh tensor of 64 MB costs, once there was one before."""
    import resource

    from accel_cli.hardware.host import tune_malloc

    torch.set_num_threads(1)
    if tune:
        tune_malloc()
    for count in range(16):
        if count == 8:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.empty(64 << 20, dtype=torch.uint8).fill_(1)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 8


@pytest.mark.skipif(not detect().glibc, reason="needs glibc's malloc")
def test_tuned_malloc_faults_a_tensor_in_once() -> None:
    (plain,), (tuned,) = run_ranks(faults, 1, False), run_ranks(faults, 1, True)
    assert tuned < plain / 10


def test_a_preload_is_forgotten_and_the_users_own_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preload, "installed", lambda: {"jemalloc": "/lib/libjemalloc.so.2"})
    started = preload.variables("jemalloc", {"LD_PRELOAD": "/mine.so"})
    assert started["LD_PRELOAD"] == "/lib/libjemalloc.so.2:/mine.so"
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    preload.forget("jemalloc")
    assert os.environ["LD_PRELOAD"] == "/mine.so"
    assert "MALLOC_CONF" not in os.environ
    assert preload.variables("tuned", {}) == {}


OWN_MODEL = """
import json, os, subprocess
from pathlib import Path
from torch import nn
def held():
    maps = subprocess.run(["cat", "/proc/self/maps"], capture_output=True, text=True).stdout
    return {"own": LIBRARY in Path("/proc/self/maps").read_text(), "child": LIBRARY in maps,
            "environment": os.environ.get("LD_PRELOAD")}
class Net(nn.Sequential):
    def __init__(self):
        Path("held.json").write_text(json.dumps(held()))
        super().__init__(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.mark.skipif(not preload.installed(), reason="no allocator is installed that could be preloaded")
def test_the_ranks_have_the_allocator_and_what_they_start_has_not(tmp_path: Path) -> None:
    allocator = next(iter(preload.installed()))
    (tmp_path / "nets.py").write_text(OWN_MODEL.replace("LIBRARY", repr(preload.ALLOCATORS[allocator])))
    words = ["train", "model=custom", "model.factory=nets:Net", "--plugin", "nets.py", "train.epochs=null",
             "train.steps=2", f"hardware.allocator={allocator}"]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "accel_cli", *words]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert f"starting again with {allocator} preloaded" in ended.stderr
    assert json.loads((tmp_path / "held.json").read_text()) == {"own": True, "child": False, "environment": None}


def test_without_its_preload_a_rank_says_so(tmp_path: Path) -> None:
    from accel_cli.hardware.base import Hardware

    settings = plan(["model=mlp", "hardware=cpu"]).run.hardware.model_copy(update={"allocator": "jemalloc"})
    (line,) = Hardware(settings).arrange(torch.nn.Linear(2, 2))
    assert "hardware.allocator=jemalloc is not in use" in line
