"""Layers over the devices of one process: the same training, bit for bit where the devices are alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ranks import build_here, records, run_ranks, train_here, train_ranks, write_run
from safetensors.torch import load_file

RUN = [
    "precision=fp32", "schedule=constant", "train.epochs=null", "train.steps=10", "train.global_batch=32",
    "metrics.every=1", "evaluate.every=5", "checkpoint.every=5", "train.clip_norm=0.5", "train.ema=0.9",
    "hardware.memory_format=contiguous",
]  # fmt: skip
WORK = {
    "gpt": ["data=stdlib_text", "data.length=16", "data.max_bytes=40000", "model=gpt", "model.width=16",
            "model.heads=2", "model.depth=3", "model.dropout=0.1"],
    "resnet": ["data=digits", "model=resnet", "model.width=8", "model.blocks=[1,1]"],
}  # fmt: skip
TIMES = ("seconds", "samples_per_second")


def told(folder: Path) -> list[dict[str, float]]:
    found = records(folder, "train") + records(folder, "evaluation")
    return [{k: v for k, v in record.items() if k not in TIMES} for record in found]


@pytest.mark.parametrize("work", WORK)
def test_parts_train_as_the_whole(tmp_path: Path, work: str) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_ranks([*RUN, *WORK[work]], whole)
    train_ranks([*RUN, *WORK[work], "strategy=layers", "strategy.devices=[cpu,cpu,cpu]"], parts)
    assert told(parts) == told(whole)
    for file in ("model", "optimizer", "average"):
        own, other = (load_file(f / "checkpoints" / "latest" / f"{file}.safetensors") for f in (parts, whole))
        assert own.keys() == other.keys()
        assert all(torch.equal(own[name], value) for name, value in other.items())


def test_a_run_goes_on_from_what_one_device_wrote(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_ranks([*RUN, *WORK["gpt"]], whole)
    train_ranks([*RUN, *WORK["gpt"], "train.steps=5"], parts)
    (parts / "summary.json").unlink()
    write_run([*RUN, *WORK["gpt"], "strategy=layers"], parts, 1)
    train_ranks([], parts, resume=True)
    assert records(parts, "train")[-1]["loss"] == records(whole, "train")[-1]["loss"]


def held(folder: str) -> list[list[str]]:
    training = build_here(folder)
    return [sorted({name.split(".")[0] for name, _ in s.named_parameters()}) for s in training.bare._stages]


def test_parts_are_as_named(tmp_path: Path) -> None:
    write_run([*RUN, *WORK["gpt"], "strategy=layers", "strategy.cut=[norm]"], tmp_path, 1)
    (parts,) = run_ranks(held, 1, str(tmp_path))
    assert parts == [["blocks", "position_embedding", "token_embedding"], ["head", "norm"]]


def test_too_many_devices_are_refused_with_those_that_do(tmp_path: Path) -> None:
    settings = ["data=digits", "model=mlp", "model.widths=[32]", "strategy=layers", "strategy.devices=[cpu,cpu,cpu]"]
    write_run([*RUN, *settings], tmp_path, 1)
    run_ranks(train_here, 1, str(tmp_path), False, 2)
    error = json.loads((tmp_path / "summary.json").read_text())["error"]
    assert "strategy.devices=[cpu,cpu,cpu]" in error["message"]
    assert "try strategy.devices=[cpu,cpu]" in f"{error['message']} {error['try']}"


@pytest.mark.skipif(torch.cuda.device_count() > 8, reason="there is such a device")
def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    write_run([*RUN, *WORK["gpt"], "strategy=layers", "strategy.devices=[cpu,cuda:8]"], tmp_path, 1)
    run_ranks(train_here, 1, str(tmp_path), False, 2)
    error = json.loads((tmp_path / "summary.json").read_text())["error"]
    assert "cuda:8" in error["message"]
    assert "strategy.devices=auto" in f"{error['message']} {error['try']}"
