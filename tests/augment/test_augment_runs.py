"""Every option trains, resumes bit for bit, and gives two ranks the losses of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ranks import records, train_ranks
from test_resume import assert_equal_runs, back_to

from accel_cli.config.parts import table

SHORT = ["train.global_batch=32", "train.epochs=null", "train.steps=6", "metrics.every=1", "checkpoint.every=2",
         "evaluate.every=3", "checkpoint.keep_last=10"]  # fmt: skip
IMAGES = ["data=digits", "model=cnn", "model.channels=[4,8]", "model.normalisation=group", "optimizer=sgd", *SHORT]
TOKENS = ["data=stdlib_text", "data.length=32", "data.max_bytes=60000", "model=gpt", "model.width=16", "model.depth=1",
          "model.heads=2", *SHORT]  # fmt: skip
CHOSEN: dict[str, list[str]] = {
    option: [*(TOKENS if option == "sequence_length_warmup" else IMAGES), f"augment={option}"]
    for option in table("augment")
    if option != "none"
}
CHOSEN["several"] = [
    *IMAGES, "augment=[alternating_flip,crop,mixup,cutmix,cutout,progressive_resize]",
    "augment.transforms.mixup.probability=0.5", "augment.transforms.cutmix.probability=0.5",
    "augment.transforms.crop.padding=1", "task.label_smoothing=0.1", "loader=workers",
]  # fmt: skip
CHOSEN["sequence_length_warmup"] += ["augment.transforms.sequence_length_warmup.share=1.0"]
TOGETHER = ["mixup", "several", "sequence_length_warmup"]


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in records(folder, "train")]


@pytest.mark.parametrize("name", CHOSEN)
def test_it_resumes_bit_for_bit(tmp_path: Path, name: str) -> None:
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    train_ranks(CHOSEN[name], straight)
    back_to(4, straight, resumed)
    assert train_ranks([], resumed, resume=True)["steps"] == 6
    assert_equal_runs(resumed, straight, 6)
    assert all(0 < loss < 10 for loss in losses(straight))


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("more", [[], ["train.micro_batch=4"]], ids=["whole", "micro-batches"])
def test_two_ranks_have_the_losses_of_one(tmp_path: Path, name: str, more: list[str]) -> None:
    found: list[Any] = []
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        train_ranks([*CHOSEN[name], *more], folder, ranks)
        found.append(losses(folder))
    assert found[1] == pytest.approx(found[0], rel=1e-5)
