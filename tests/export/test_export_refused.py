"""A model that a format cannot hold: the message names the operation and its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import own_models
import pytest
from export_here import exported
from ranks import train_ranks

SOURCE = Path(own_models.__file__)


def line_of(mark: str, nth: int = 0) -> str:
    """``own_models.py:<line>`` of the nth line with this remark."""
    found = [place for place, text in enumerate(SOURCE.read_text().splitlines(), 1) if f"# {mark}" in text]
    return f"{SOURCE.name}:{found[nth]}"


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    def folder(name: str) -> Path:
        found = tmp_path_factory.mktemp(name)
        words = ["model=custom", f"model.factory=own_models:{name}", "train.steps=2"]
        train_ranks(words, found, plugins=["own_models"])
        return found

    return folder


@pytest.mark.parametrize(
    ("name", "option", "said", "fix"),
    [
        ("Branch", "onnx", ["aten.item", line_of("the branch")], "torch.where"),
        ("Triangular", "onnx", ["aten.linalg_lu", line_of("the product")], "export=torch_export"),
        ("Foreign", "onnx", ["accel_test.thrice", line_of("the custom operation", 1)], "export=torch_export"),
        ("Untraceable", "torch_export", ["accel_test.twice", line_of("the custom operation")], "register_fake"),
        ("OneByOne", "torch_export", ["one batch size"], "x.shape[0]"),
    ],
)
def test_it_names_the_operation(
    run_of: Callable[[str], Path], name: str, option: str, said: list[str], fix: str
) -> None:
    folder = run_of(name)
    failure = exported(folder, option, expect=2, plugins=["own_models"])
    (problem,) = failure["problems"]
    assert problem["where"] == f"export={option}"
    assert all(word in problem["why"] for word in said), problem["why"]
    assert fix in problem["fix"]
    assert not list((folder / "export").iterdir())


def test_an_output_with_logits_is_exported_as_those(run_of: Callable[[str], Path]) -> None:
    folder = run_of("Speaking")
    for option in ("onnx", "safetensors"):
        report = exported(folder, option, plugins=["own_models"])
        assert report["splits"]["test"]["largest_difference"] <= 1e-4
