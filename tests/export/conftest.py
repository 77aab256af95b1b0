"""Small trained runs, each trained once for all tests that export it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from export_here import exported
from ranks import train_ranks

RUNS = {
    "cnn": ["model=cnn", "model.channels=[8,16]", "train.ema=0.9"],
    "mlp": ["model=mlp", "model.widths=[16]"],
    "resnet": ["model=resnet", "model.width=8", "model.blocks=[1,1]"],
    "vit": ["model=vit", "model.width=16", "model.depth=2", "model.heads=2", "model.patch=2"],
    "gpt": [
        "model=gpt", "model.width=16", "model.depth=2", "model.heads=2",
        "data=stdlib_text", "data.length=16", "data.max_bytes=40000",
    ],
    "pruned": ["model=resnet", "model.width=32", "model.blocks=[1,1]", "compression=prune_structured"],
}  # fmt: skip


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a run of 20 steps, by its name in ``RUNS``."""
    kept: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in kept:
            place = tmp_path_factory.mktemp(name)
            train_ranks(["train.steps=20", *RUNS[name]], place)
            kept[name] = place
        return kept[name]

    return folder


@pytest.fixture(scope="session")
def export(trained: Callable[[str], Path]) -> Callable[..., dict[str, Any]]:
    """The report of a run exported to a format, once."""
    kept: dict[tuple[str, str], dict[str, Any]] = {}

    def report(name: str, option: str, **keys: Any) -> dict[str, Any]:
        if (name, option) not in kept:
            kept[name, option] = exported(trained(name), option, **keys)
        return kept[name, option]

    return report
