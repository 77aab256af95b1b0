"""float8 by torchao: close to bf16, under every way to cut a model, and a word about what it did."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import compose, records, train_ranks
from safetensors import safe_open
from torch import nn

from accel_cli.errors import ConfigError
from accel_cli.precision.fp8 import FP8
from accel_cli.precision.fp8_size import PUBLISHED, expected, outlook, pays_from
from accel_cli.precision.mxfp8 import MXFP8

GPT = ["data=stdlib_text", "data.length=16", "data.max_bytes=8000", "model=gpt", "model.width=32", "model.depth=2",
       "model.heads=2", "model.dropout=0", "train.global_batch=16", "optimizer.learning_rate=0.01", "schedule=constant",
       "train.epochs=null", "train.steps=6", "metrics.every=1", "evaluate.every=1000"]  # fmt: skip
ROWS = ["precision=fp8", "precision.recipe=rowwise"]
CPU = torch.device("cpu")


def losses(folder: Path, overrides: list[str], world_size: int = 1) -> list[float]:
    train_ranks([*GPT, *overrides], folder, world_size)
    return [record["loss"] for record in records(folder, "train")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float], list[float]]:
    """(a run in bf16, its losses, the losses in fp8)"""
    folder = tmp_path_factory.mktemp("whole")
    return folder / "bf16", losses(folder / "bf16", ["precision=bf16"]), losses(folder / "fp8", ["precision=fp8"])


def test_close_to_bf16(tmp_path: Path, whole: Any) -> None:
    _, bf16, tensorwise = whole
    rowwise = losses(tmp_path, ROWS)
    for found in (tensorwise, rowwise):
        assert found != bf16, "nothing was multiplied in fp8"
        assert found == pytest.approx(bf16, rel=0.01)
        assert found[-1] < 0.9 * found[0]
    assert tensorwise != rowwise


LAYOUTS = {
    "ddp": (["strategy=ddp", "precision=fp8"], 2),
    "fsdp": (["strategy=fsdp", "precision=fp8", "train.activation_checkpointing=selective"], 2),
    "gathered": (["strategy=fsdp", "precision=fp8", "precision.gather=fp8"], 2),
    "tensor": (["strategy=tensor", "precision=fp8"], 2),
    "pipeline": (["strategy=pipeline", "precision=fp8"], 2),
    "context": (["strategy=context", "precision=fp8"], 2),
    "compiled": (["compile=full", "compile.backend=aot_eager", "precision=fp8"], 1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_trains_as_one_process(tmp_path: Path, whole: Any, layout: str) -> None:
    """A part of a matrix has a scale of its own, so the losses are close and no more."""
    overrides, world_size = LAYOUTS[layout]
    assert losses(tmp_path, overrides, world_size) == pytest.approx(whole[2], rel=0.01)


def test_a_checkpoint_holds_the_same_names_and_types(tmp_path: Path, whole: Any) -> None:
    losses(tmp_path, ["strategy=fsdp", "precision=fp8", "precision.gather=fp8"], 2)
    forms = []
    for run in (whole[0], tmp_path):
        with safe_open(run / "checkpoints" / "latest" / "model.safetensors", "pt") as file:
            forms.append(
                {name: (file.get_tensor(name).shape, file.get_tensor(name).dtype) for name in sorted(file.keys())}
            )
    assert forms[0] == forms[1]


def fp8(**values: Any) -> FP8:
    run = compose(["precision=fp8"], 1).with_values("precision", **values)
    return FP8(run.precision, CPU)


def layers() -> nn.Module:
    body = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32))
    return nn.ModuleDict({"body": body, "more": nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20)),
                          "head": nn.Linear(32, 10)})  # fmt: skip


def test_it_says_which_layers_it_converts_and_why_not_the_others() -> None:
    model = layers()
    lines = fp8().convert(model, 16)
    assert lines[:3] == [
        "2 of 5 linear layers multiply in fp8",
        "in bf16: more.*: 20x20 are no multiples of 16",
        "in bf16: head: 10x32 are no multiples of 16",
    ]
    assert type(model["head"]) is nn.Linear
    assert type(model["body"][0]) is not nn.Linear
    assert fp8(min_size=64).reason("x", nn.Linear(64, 32)) == "32x64 is smaller than precision.min_size=64"


@pytest.mark.parametrize(
    ("model", "values", "why", "fix"),
    [
        (nn.Sequential(nn.Linear(64, 10)), {}, "0: 10x64 are no multiples of 16", "try precision=bf16"),
        (nn.Linear(64, 64), {}, "it: 64x64 is the model itself", "try precision=bf16"),
        (nn.Sequential(nn.Conv2d(1, 16, 3)), {}, "the model has no linear layer", "try precision=bf16"),
        (layers(), {"min_size": 128}, "smaller than precision.min_size=128", "try precision.min_size=16, or"),
    ],
)
def test_a_model_without_such_a_layer_is_refused(model: nn.Module, values: Any, why: str, fix: str) -> None:
    with pytest.raises(ConfigError) as raised:
        fp8(**values).convert(model, 16)
    (problem,) = raised.value.problems
    assert why in problem.why
    assert problem.fix.startswith(fix)


def test_a_part_that_fp8_cannot_take_is_refused_on_every_rank(tmp_path: Path) -> None:
    summary = train_ranks([*GPT, "model.width=16", "strategy=tensor", "precision=fp8"], tmp_path, 2, expect=2)
    assert "a rank's part of" in json.dumps(summary["error"])


def test_from_what_size_on_it_pays() -> None:
    assert [round(expected(elements), 2) for elements in PUBLISHED] == [0.80, 1.39]
    assert expected(16) == 0.80
    assert 1.0 <= expected(pays_from() ** 2) < 1.05
    small, large = nn.Linear(768, 512), nn.Linear(8192, 8192, device="meta")
    assert outlook(nn.Sequential(small)) == (0.80, (
        "largest matrix 512x768: expected 0.8x or less the speed of bf16; "
        "fp8 pays from about 2944x2944 on (torchao, on an H100)"
    ))  # fmt: skip
    found = outlook(nn.Sequential(small, large))
    assert found is not None
    assert found[1] == "largest matrix 8192x8192: expected 1.3x the speed of bf16"
    assert outlook(nn.ReLU()) is None


def test_mxfp8_as_torchao_emulates_it() -> None:
    """The GPUs that have it are not at hand: this is the same code on torchao's own arithmetic."""
    torch.manual_seed(0)
    plain, inputs = layers()["body"], torch.randn(20, 64)
    precision = MXFP8(compose([], 1).with_option("precision", "mxfp8").precision, CPU)
    mx = copy.deepcopy(plain)
    assert precision.convert(mx, 20)[0] == "2 of 2 linear layers multiply in mxfp8"
    found = []
    for model in (plain, mx):
        with precision.autocast():
            output = model(inputs)
        output.float().square().mean().backward()
        found.append([output.float(), *(p.grad for p in model.parameters())])
    assert list(mx.state_dict()) == list(plain.state_dict())
    for own, theirs in zip(found[1], found[0], strict=True):
        assert own.dtype == torch.float32
        assert 0 < float((own - theirs).detach().norm() / theirs.detach().norm()) < 0.2
    with precision.placing():
        assert torch.equal(mx(inputs), plain(inputs))
