"""Activation checkpointing changes memory, and nothing of what is learned."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks import records, train_ranks

RUN = [
    "data=stdlib_text", "data.length=16", "data.max_bytes=40000", "model=gpt", "model.width=16", "model.depth=2",
    "model.heads=2", "model.dropout=0.1", "train.global_batch=16", "train.epochs=null", "train.steps=5",
    "metrics.every=1", "evaluate.every=1000",
]  # fmt: skip


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return losses(tmp_path_factory.mktemp("none"), "none")


def losses(folder: Path, mode: str) -> list[float]:
    train_ranks([*RUN, f"train.activation_checkpointing={mode}"], folder)
    return [record["loss"] for record in records(folder, "train")]


@pytest.mark.parametrize("mode", ["blocks", "selective"])
def test_what_is_computed_again_is_the_same(tmp_path: Path, expected: list[float], mode: str) -> None:
    assert len(expected) == 5
    assert losses(tmp_path, mode) == expected
