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

# Widths that no number of ranks divides, and some smaller than it: every way to deal them out is uneven.
ODD = ["data=digits", "model=mlp", "model.widths=[7,5,3,1]", "train.global_batch=32", "train.ema=0.9"]
TEXT = [
    "data=stdlib_text", "data.length=16", "data.max_bytes=40000", "model=gpt", "model.width=16", "model.depth=2",
    "model.heads=2", "train.global_batch=16",
]  # fmt: skip
RUN = ["train.epochs=null", "train.steps=4", "metrics.every=1", "evaluate.every=100", "checkpoint.every=100"]
LAYOUTS = {
    "single": (1, ["strategy=single"]),
    "ddp-2": (2, ["strategy=ddp"]),
    "ddp-4": (4, ["strategy=ddp"]),
    "fsdp-2": (2, ["strategy=fsdp"]),
    "fsdp-4": (4, ["strategy=fsdp"]),
    "hsdp-4": (4, ["strategy=hsdp"]),
}
WORK = {"odd": (ODD, tuple(LAYOUTS)), "gpt": (TEXT, tuple(LAYOUTS))}


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
    checkpoint.Checkpoints(training, path / "again", "again").save(state)


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


CASES = [(work, a, b) for work, (_, layouts) in WORK.items() for a, b in itertools.pairwise([*layouts, *layouts[::-1]])]


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
