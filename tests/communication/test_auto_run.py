"""A run with communication=auto: on loopback, over a slow link, and after a resume."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ranks import run_ranks, train_here, train_ranks, write_run

LINK = Path(__file__).parents[2] / "scripts" / "link"
RUN = [
    "data=stdlib_text", "data.length=16", "data.max_bytes=40000", "model=gpt", "model.width=64", "model.depth=2",
    "model.heads=2", "train.global_batch=16", "train.epochs=null", "train.steps=4", "evaluate.every=1000",
    "checkpoint.every=2", "checkpoint.keep_last=10", "communication=auto", "communication.start_step=1",
]  # fmt: skip
CLONE_NEWNET = 0x40000000


def decision(folder: Path) -> dict[str, Any]:
    (found,) = (d for d in json.loads((folder / "decisions.json").read_text()) if d["key"] == "communication")
    return dict(found)


def option_saved(folder: Path) -> str:
    return str(json.loads((folder / "checkpoints" / "latest" / "manifest.json").read_text())["communication"])


def test_loopback_leaves_gradients_alone_and_a_resume_keeps_what_was_decided(tmp_path: Path) -> None:
    train_ranks(RUN, tmp_path, 2)
    found = decision(tmp_path)
    assert (found["value"], option_saved(tmp_path)) == ("exact", "exact")
    assert set(found["measurements"]["step_seconds"]) == {"exact", "bf16", "powersgd"}
    (tmp_path / "decisions.json").write_text(json.dumps([{**found, "value": "powersgd"}]))
    (tmp_path / "summary.json").unlink()
    for path in (tmp_path / "checkpoints").glob("step-00000004/*"):
        path.unlink()
    train_ranks([], tmp_path, 2, resume=True)
    assert decision(tmp_path)["value"] == "powersgd"
    assert option_saved(tmp_path) == "powersgd"


def test_one_rank_alone_decides_nothing(tmp_path: Path) -> None:
    train_ranks(RUN, tmp_path)
    assert not [d for d in json.loads((tmp_path / "decisions.json").read_text()) if d["key"] == "communication"]
    assert option_saved(tmp_path) == "exact"


@pytest.fixture
def slow_link() -> Iterator[str]:
    """The name of a pair of hosts of scripts/link, joined at 20 Mbit/s."""
    name = f"auto{os.getpid()}"
    environment = {**os.environ, "LINK": name}
    made = subprocess.run([LINK, "up", "20mbit"], env=environment, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(made.stderr.strip())
    yield name
    subprocess.run([LINK, "down"], env=environment, check=True)


def train_on_host(folder: str, link: str) -> int:
    """One rank on a host of its own: this process moves into a network namespace."""
    rank = int(os.environ["RANK"])
    with open(f"/run/netns/{link}{'AB'[rank]}") as host:
        assert ctypes.CDLL(None, use_errno=True).setns(host.fileno(), CLONE_NEWNET) == 0
    os.environ.update(
        MASTER_ADDR="10.77.0.1",
        MASTER_PORT="29500",
        LOCAL_RANK="0",
        LOCAL_WORLD_SIZE="1",
        TORCHELASTIC_USE_AGENT_STORE="False",
        GLOO_SOCKET_IFNAME="wire",
    )
    return train_here(folder, expect=0)


def test_a_slow_link_gets_fewer_bytes(tmp_path: Path, slow_link: str) -> None:
    folder = write_run(RUN, tmp_path, 2)
    assert run_ranks(train_on_host, 2, str(folder), slow_link) == [0, 0]
    found = decision(folder)
    assert found["value"] == option_saved(folder) == "powersgd", found
    assert found["measurements"]["bytes_per_second"] < 20e6 / 8 * 2
