"""The law of layouts: a checkpoint written under any strategy is read under any other, bit for bit."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest
import torch
from ranks import compose, run_ranks, train_ranks
from safetensors.torch import load_file

from accel_cli.config import run as run_file
from accel_cli.engine import checkpoint, checkpoint_files, setup

# Widths that no number of ranks divides, some smaller than it; of 6 columns a tensor rank has 3, its shards 2 and 1.
ODD = ["data=digits", "model=mlp", "model.widths=[7,6,3,1,5]", "train.global_batch=32", "train.ema=0.9"]
TEXT = [
    "data=stdlib_text", "data.length=16", "data.max_bytes=40000", "model=gpt", "model.width=16", "model.depth=2",
    "model.heads=2", "train.global_batch=16",
]  # fmt: skip
RUN = ["train.epochs=null", "train.steps=4", "metrics.every=1", "evaluate.every=100", "checkpoint.every=100"]
LAYOUTS = {
    "single": (1, ["strategy=single"]),
    "fsdp-4": (4, ["strategy=fsdp"]),
    "ddp-2": (2, ["strategy=ddp"]),
    "fsdp-2": (2, ["strategy=fsdp"]),
    "ddp-4": (4, ["strategy=ddp"]),
    "tensor-2": (2, ["strategy=tensor"]),
    "pipeline-2": (2, ["strategy=pipeline"]),
    "interleaved-2": (2, ["strategy=pipeline", "strategy.schedule=interleaved"]),
    "hsdp-4": (4, ["strategy=hsdp"]),
    "shard-tensor-4": (4, ["strategy=mesh", "strategy.shard=2", "strategy.tensor=2"]),
    "tensor-pipeline-4": (4, ["strategy=mesh", "strategy.shard=1", "strategy.tensor=2", "strategy.pipeline=2"]),
    "diloco-2": (2, ["strategy=diloco", "strategy.steps=2", "strategy.compression=none"]),
}
"""From one to the next the state of the one is read by the other."""
WORK = {"odd": (ODD, tuple(name for name in LAYOUTS if name != "diloco-2")), "gpt": (TEXT, tuple(LAYOUTS))}


def held(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Every tensor of the newest checkpoint that does not belong to a layout."""
    files = ("model", "optimizer", "average")
    newest = (folder / "checkpoints" / "latest").resolve()
    return {
        name: load_file(newest / f"{name}.safetensors") for name in files if (newest / f"{name}.safetensors").exists()
    }


def read_and_write(folder: str) -> None:
    """Restore the newest checkpoint and save what was restored, untouched."""
    path = Path(folder)
    run = run_file.read(path / "run.yaml")
    hardware, world = setup.enter(run)
    training, _ = setup.build(run, hardware, world, print)
    saved, _ = checkpoint_files.newest(path)
    state = checkpoint.restore(training, saved)
    checkpoints = checkpoint.Checkpoints(training, path / "again", "again")
    checkpoints.save(state)
    checkpoints.finish()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """A run of four steps under every layout."""
    found = {}
    for work, (overrides, layouts) in WORK.items():
        for layout in layouts:
            ranks, strategy = LAYOUTS[layout]
            folder = tmp_path_factory.mktemp("written") / layout
            train_ranks([*RUN, *overrides, *strategy], folder, ranks)
            found[work, layout] = folder
    return found


CASES = [(work, a, b) for work, (_, layouts) in WORK.items() for a, b in itertools.pairwise([*layouts, layouts[0]])]


@pytest.mark.parametrize(("work", "writer", "reader"), sorted(set(CASES)))
def test_what_one_layout_wrote_another_reads_and_writes_again(
    tmp_path: Path, written: dict[tuple[str, str], Path], work: str, writer: str, reader: str
) -> None:
    ranks, strategy = LAYOUTS[reader]
    folder = tmp_path / "run"
    shutil.copytree(written[work, writer], folder, symlinks=True)
    run_file.write(compose([*RUN, *WORK[work][0], *strategy], ranks), folder / "run.yaml")
    before = held(folder)
    run_ranks(read_and_write, ranks, str(folder))
    after = held(folder / "again")
    assert before.keys() == after.keys()
    assert "average" in before or work != "odd"
    for file, tensors in before.items():
        assert tensors.keys() == after[file].keys()
        for name, value in tensors.items():
            assert torch.equal(value, after[file][name]), f"{file}: {name}"
