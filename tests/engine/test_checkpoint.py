"""Checkpoints on a real disk: damage is found, a failed save harms nothing, and what is kept is what was asked for."""

from __future__ import annotations

import json
import os
import pickle
import random
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import Ranks, records, run_ranks, train_here, train_ranks, write_run
from safetensors.torch import load_file

from accel_cli.engine.checkpoint_files import NAMES, PIECE, digest, newest, verify, write, write_tensors
from accel_cli.errors import CheckpointError

RUN = [
    "data=digits",
    "model=mlp",
    "model.widths=[32]",
    "train.global_batch=32",
    "train.epochs=null",
    "train.steps=6",
    "train.ema=0.9",
    "metrics.every=1",
    "evaluate.every=1",
    "checkpoint.every=1",
]
FILES = ["model.safetensors", "average.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train_ranks([*RUN, "checkpoint.keep_last=3"], folder)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 0x10
    path.write_bytes(content)


def checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_found_and_the_older_one_taken(run: Path, name: str) -> None:
    path = checkpoint(run, 6) / name
    for position in random.Random(name).sample(range(path.stat().st_size), 5):
        flip(path, position)
        if name == "manifest.json" and json_is_same(path, position):
            flip(path, position)
            continue
        saved, passed = newest(run)
        assert saved.step == 5
        assert len(passed) == 1
        assert passed[0].startswith("step-00000006: ")
        flip(path, position)
    assert newest(run)[0].step == 6


def json_is_same(path: Path, position: int) -> bool:
    """A bit of the manifest that changes no hash: in a key that nobody reads, or a space made a tab's neighbour."""
    try:
        verify(path.parent)
    except CheckpointError:
        return False
    return True


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_or_missing_file_is_found(run: Path, name: str) -> None:
    path = checkpoint(run, 6) / name
    os.truncate(path, path.stat().st_size // 2)
    assert newest(run)[0].step == 5
    path.unlink()
    saved, passed = newest(run)
    assert saved.step == 5
    assert "no manifest" in passed[0] if name == "manifest.json" else f"{name} is missing" in passed[0]


def test_resume_from_the_older_one_says_so_and_replaces_the_damaged(run: Path, trained: Path) -> None:
    flip(checkpoint(run, 6) / "model.safetensors", 500)
    assert train_ranks([], run, resume=True)["steps"] == 6
    verify(checkpoint(run, 6))
    assert (checkpoint(run, 6) / "model.safetensors").read_bytes() == (
        checkpoint(trained, 6) / "model.safetensors"
    ).read_bytes()


def test_none_whole_ends_with_exit_code_4(run: Path) -> None:
    for step in (4, 5, 6):
        flip(checkpoint(run, step) / "optimizer.safetensors", 300)
    with pytest.raises(CheckpointError, match=r"no checkpoint is whole.*00006.*00005.*00004"):
        newest(run)
    train_ranks([], run, resume=True, expect=4)
    shutil.rmtree(run / "checkpoints")
    train_ranks([], run, resume=True, expect=4)


class Payload:
    def __reduce__(self) -> Any:
        return os.mkdir, ("pickle-was-read",)


def test_a_pickle_is_never_read(run: Path) -> None:
    """Also where its hash is right."""
    folder = checkpoint(run, 6)
    path = folder / "model.safetensors"
    path.write_bytes(pickle.dumps(Payload()))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][path.name] = {"bytes": path.stat().st_size, "sha256": digest(path)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "model.pt").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError, match="cannot be read"):
        newest(run)[0].tensors("model")
    train_ranks([], run, resume=True, expect=4)
    assert not Path("pickle-was-read").exists()


# What is written, with files of very different sizes: a limit on the size of a file makes each of them fail.
TENSORS = {"model": {"w": torch.ones(1_000)}, "optimizer": {"m": torch.ones(10_000)}}
STATE = {"text": "x" * 400_000}
MANIFEST = {"step": 1, "format_version": 1, "text": "x" * 4_000_000}


def write_limited(folder: str, most_bytes: int) -> str:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    try:
        write(Path(folder), 1, TENSORS, json.dumps(STATE), MANIFEST)
    except OSError as error:
        return type(error).__name__
    return ""


@pytest.mark.parametrize("most_bytes", [1_000, 10_000, 100_000, 1_000_000])
def test_a_save_that_fails_at_any_file_leaves_the_old_one(tmp_path: Path, most_bytes: int) -> None:
    write(tmp_path, 1, TENSORS, json.dumps(STATE), MANIFEST)
    before = sorted(tmp_path.iterdir())
    assert run_ranks(write_limited, 1, str(tmp_path), most_bytes) == ["OSError"]
    assert sorted(tmp_path.iterdir()) == before
    verify(tmp_path / "step-00000001")


def write_forever(folder: str) -> None:
    for step in range(1, 100_000):
        write(Path(folder), step, TENSORS, json.dumps({"step": step}), {"step": step, "format_version": 1})


def test_killed_while_saving(tmp_path: Path) -> None:
    """Whatever instant it is, the newest that is there is whole."""
    for seed in range(3):
        folder = tmp_path / str(seed) / "checkpoints"
        ranks = Ranks(write_forever, 1, str(folder))
        while not list(folder.glob("step-*")):
            time.sleep(0.005)
        time.sleep(random.Random(seed).uniform(0.0, 0.05))
        ranks.close()
        saved, passed = newest(folder.parent)
        assert passed == []
        assert saved.step == max(int(path.name[5:]) for path in folder.glob("step-*"))


def train_limited(folder: str) -> int:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    return train_here(folder)


def test_a_full_disk_is_a_warning_twice_and_the_end_the_third_time(tmp_path: Path) -> None:
    folder = write_run([*RUN, "model.widths=[256]", "evaluate.every=100"], tmp_path / "run", 1)
    assert run_ranks(train_limited, 1, str(folder)) == [7]
    failure = json.loads((folder / "ranks" / "0.failure.json").read_text())
    assert failure["type"] == "ResourceError"
    assert failure["message"].startswith("step 3 was not saved: ")
    assert "3 times in a row" in failure["message"]
    assert [r["step"] for r in records(folder, "train")] == [1, 2, 3, 4], "training goes on while one is being written"
    assert list((folder / "checkpoints").iterdir()) == []


def test_the_newest_and_the_best_are_kept_and_linked(tmp_path: Path) -> None:
    train_ranks([*RUN, "train.steps=9", "optimizer.learning_rate=0.05", "checkpoint.keep_best=2"], tmp_path)
    folder = tmp_path / "checkpoints"
    values = {r["step"]: r["validation_accuracy"] for r in records(tmp_path, "evaluation") if "validation_loss" in r}
    assert len(values) == 9
    ranked = sorted(values, key=lambda step: (values[step], step), reverse=True)
    kept = {int(path.name.removeprefix("step-")) for path in folder.glob("step-*")}
    assert kept == {8, 9, *ranked[:2]}
    assert os.readlink(folder / "latest") == "step-00000009"
    assert os.readlink(folder / "best") == f"step-{ranked[0]:08d}"
    assert {path.name for path in folder.iterdir()} == {"latest", "best", *(f"step-{step:08d}" for step in kept)}
    assert {int(step) for step in verify(folder / "step-00000009").state()["best"]} == kept


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path) -> None:
    summary = train_ranks([*RUN, "optimizer=sgd", "optimizer.learning_rate=3e38", "train.steps=20"], tmp_path, expect=5)
    assert summary["status"] == "diverged"
    for path in (tmp_path / "checkpoints").glob("step-*"):
        weights = verify(path).tensors("model")
        assert all(bool(torch.isfinite(value).all()) for value in weights.values())


def test_what_is_written_the_library_reads(tmp_path: Path) -> None:
    tensors = {str(dtype): torch.arange(5).to(dtype) for dtype in NAMES}
    tensors |= {"none": torch.zeros(0, 3), "number": torch.tensor(2.5), "large": torch.randn(3, PIECE // 8 + 1)}
    facts = write_tensors(tmp_path / "all.safetensors", tensors)
    found = load_file(tmp_path / "all.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].shape, found[name].dtype) == (tensor.shape, tensor.dtype)
        assert torch.equal(found[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))
    assert facts == {
        "bytes": (tmp_path / "all.safetensors").stat().st_size,
        "sha256": digest(tmp_path / "all.safetensors"),
    }
