"""A data set of one's own is decoded once a node: each sample by one rank, into memory that all of them map."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import Ranks, build_here, run_ranks, train_ranks, write_run
from torch.utils.data import Dataset

from accel_cli.engine import sharing
from accel_cli.engine.sharing import Kept, Node
from accel_cli.errors import ConfigError, ResourceError
from accel_cli.loader import stacked as stacking
from accel_cli.world import World

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
SAMPLES = 600
PROBES = 2 * stacking.PROBED + 8
"""Reads of first samples beyond one each: to learn whether they stack, what they are, and whether the model fits."""


class Counted(Dataset):
    """Writes down every read, of whatever process."""

    classes = ("a", "b", "c", "d")

    def __init__(self, samples: int, log: str, broken: int = -1) -> None:
        self.samples, self.log, self.broken = samples, log, broken

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> Any:
        with open(self.log, "a") as file:
            file.write(f"{index} {os.getpid()}\n")
        time.sleep(0.02 if index > stacking.PROBED and os.path.exists(f"{self.log}.slow") else 0)
        width = 7 if index == self.broken else 64
        return torch.arange(width, dtype=torch.float32) * (index % 9 - 4) / 64, index % 4


def make(split: str, log: str, samples: int = SAMPLES, broken: int = -1) -> Any:
    return Counted(samples if split == "train" else 40, log if split == "train" else "/dev/null", broken)


def words(folder: Path, *more: str, **args: Any) -> list[str]:
    args = {"log": str(folder / "log"), **args}
    given = ",".join(f"{name}:{value}" for name, value in args.items())
    return [
        "data=custom", "data.factory=test_sharing:make", f"data.args={{{given}}}", "model=mlp", "model.widths=[16]",
        "train.global_batch=16", "train.epochs=null", "train.steps=4", "loader=memory", "metrics.every=1",
        f"data.cache={folder / 'cache'}", "model.dropout=0.1", *more,
    ]  # fmt: skip


def reads(folder: Path) -> list[int]:
    path = folder / "log"
    found = [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def mapped(folder: str) -> tuple[str, int, int, bool]:
    """(inode, Rss, Pss) of the samples that this rank has mapped, and whether a name leads to them."""
    training = build_here(folder, ["test_sharing"])
    rows = training.loader.reader.dataset.rows[0]
    assert rows.shape == (SAMPLES, 64)
    rows.sum()
    training.world.barrier()
    maps = Path("/proc/self/smaps").read_text()
    block = re.search(r"^\S+ \S+ \S+ \S+ (\d+) +(\S*samples.*)\n((?:[A-Z]\w+:.*\n)+)", maps, re.M)
    assert block is not None
    sizes = dict(re.findall(r"(\w+): +(\d+) kB", block[3]))
    training.world.barrier()
    return block[1], int(sizes["Rss"]), int(sizes["Pss"]), "memfd" not in block[2]


@pytest.mark.parametrize("fingerprint", ["null", "first"])
def test_two_ranks_read_each_sample_once_and_share_its_memory(tmp_path: Path, fingerprint: str) -> None:
    folder = write_run(words(tmp_path, f"data.fingerprint={fingerprint}"), tmp_path / "run", 2, ["test_sharing"])
    one, two = run_ranks(mapped, 2, str(folder))
    (inode, resident, proportional, has_name), (other_inode, *_) = one, two
    assert inode == other_inode
    assert resident >= SAMPLES * 64 * 4 // 1024
    assert proportional <= 0.6 * resident
    assert has_name == (fingerprint != "null")
    found = reads(tmp_path)
    assert set(found) == set(range(SAMPLES))
    assert len(found) <= SAMPLES + PROBES
    assert len([index for index in found if index >= stacking.PROBED]) == SAMPLES - stacking.PROBED
    assert [path.name for path in (tmp_path / "cache").glob("*/*")] == (["samples"] if has_name else [])


def test_what_is_named_is_kept_until_its_name_changes(tmp_path: Path) -> None:
    first = train_ranks(words(tmp_path, "data.fingerprint=one"), tmp_path / "1", plugins=["test_sharing"])
    assert len(reads(tmp_path)) >= SAMPLES
    again = train_ranks(words(tmp_path, "data.fingerprint=one"), tmp_path / "2", plugins=["test_sharing"])
    assert len(reads(tmp_path)) <= PROBES
    assert again["loss"] == first["loss"]
    train_ranks(words(tmp_path, "data.fingerprint=two"), tmp_path / "3", plugins=["test_sharing"])
    assert len(reads(tmp_path)) >= SAMPLES
    assert len(list((tmp_path / "cache").glob("*/samples"))) == 1, "what had another name is dropped"


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_same_weights_as_read_in_the_rank(tmp_path: Path, world_size: int) -> None:
    own = train_ranks(words(tmp_path), tmp_path / "1", world_size, plugins=["test_sharing"])
    read = words(tmp_path, "loader=workers", "loader.workers=0")
    other = train_ranks(read, tmp_path / "2", world_size, plugins=["test_sharing"])
    assert (own["loss"], own["metric"]) == (other["loss"], other["metric"])


def test_a_sample_that_one_rank_cannot_stack_is_refused_by_all(tmp_path: Path) -> None:
    broken = words(tmp_path, broken=SAMPLES - 1)
    train_ranks(broken, tmp_path / "1", 2, expect=2, plugins=["test_sharing"])
    summary = train_ranks(
        [*broken, "loader=auto", "loader.workers=0"], tmp_path / "2", 1, expect=3, plugins=["test_sharing"]
    )
    assert summary["error"]["rank"] == 0, "auto went on to workers, which met the sample in a batch"


def test_a_killed_decoding_leaves_no_file_and_the_next_run_clears_what_it_kept(tmp_path: Path) -> None:
    run = words(tmp_path, "data.fingerprint=one")
    (tmp_path / "log.slow").touch()
    folder = write_run(run, tmp_path / "1", 1, ["test_sharing"])
    ranks = Ranks(build_here, 1, str(folder), ["test_sharing"])
    ends = time.monotonic() + 40
    while not list((tmp_path / "cache").glob("*.partial")) and time.monotonic() < ends:
        time.sleep(0.02)
    os.kill(ranks.processes[0].pid or 0, signal.SIGKILL)
    ranks.close()
    assert [path.suffix for path in (tmp_path / "cache").glob("decoded-*") if path.is_dir()] == [".partial"]
    (tmp_path / "log.slow").unlink()
    train_ranks(run, tmp_path / "2", plugins=["test_sharing"])
    (left,) = [path for path in (tmp_path / "cache").glob("decoded-*") if path.is_dir()]
    assert [path.name for path in left.iterdir()] == ["samples"]


def alone(tmp_path: Path, fingerprint: str, log: str = "/dev/null") -> Any:
    sharing.HELD.clear()
    world = World(0, 1, 0, 1, torch.device("cpu"))
    kept = Kept(str(tmp_path), {"factory": "f", "fingerprint": fingerprint})
    told: list[tuple[Any, ...]] = []
    node = Node(world, [fingerprint], kept, lambda *facts: told.append(facts))
    found = node.stacked(Counted(SAMPLES, log), collate=None, seed=0, option="memory")
    return found, told


def test_progress_is_told_and_a_run_beside_a_writer_has_a_copy_of_its_own(tmp_path: Path) -> None:
    expected = torch.stack([Counted(SAMPLES, "/dev/null")[i][0] for i in range(SAMPLES)])
    writer = sharing._Writer(Kept(str(tmp_path), {"factory": "f", "fingerprint": "x"}).entry((), 0), 4096)
    assert writer.open()[1] is False
    found, told = alone(tmp_path, "x")
    assert told[-1] == ("decoding samples", SAMPLES, SAMPLES)
    assert found.rows[0].equal(expected)
    assert not list(tmp_path.glob("*/samples")) or list(tmp_path.glob("*.partial"))
    writer.close()
    assert not list(tmp_path.glob("*.partial"))


def test_too_little_memory_or_disk_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 5})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(ResourceError) as full:
        alone(tmp_path, "y")
    assert "data.cache=" in full.value.fix
    monkeypatch.setattr(stacking, "memory_available", lambda: 1000)
    with pytest.raises(ConfigError, match="is free") as refused:
        alone(tmp_path, "z")
    assert refused.value.problems[0].fix == "try loader=workers"
