"""What was exported is the trained model: in its own runtime, for any batch, on every sample."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import pytest
import torch
from export_here import exported
from ranks import train_ranks
from safetensors.torch import load_file
from torch import nn

import accel_cli
from accel_cli.config import run as run_file
from accel_cli.config.schema.export import ONNX as Schema
from accel_cli.engine.export_beside import Differences
from accel_cli.export import onnx
from accel_cli.export.base import deployed
from accel_cli.export.onnx import ONNX

Trained = Callable[[str], Path]
Exported = Callable[..., dict[str, Any]]
SAMPLES = {"validation": 270, "test": 359}
CLOSE = 1e-4


@pytest.mark.parametrize(
    ("run", "option"),
    [
        *((run, "onnx") for run in ("cnn", "mlp", "resnet", "vit", "gpt", "pruned")),
        *((run, option) for run in ("cnn", "gpt", "pruned") for option in ("torch_export", "safetensors")),
    ],
)
def test_it_gives_what_pytorch_gives(trained: Trained, export: Exported, run: str, option: str) -> None:
    report, folder = export(run, option), trained(run)
    summary = json.loads((folder / "summary.json").read_text())
    for split, found in report["splits"].items():
        assert found["largest_difference"] <= CLOSE
        assert found["equal_predictions"] >= 0.999
        assert found["not_numbers"] == 0
        assert found["samples"] == (SAMPLES[split] if run != "gpt" else found["samples"]) > 0
    metrics = report["splits"]["test"]["exported"]
    assert metrics[summary["metric"]["name"]] == pytest.approx(summary["metric"]["value"], abs=5e-3)
    assert report["bytes"] == sum((folder / "export" / option / name).stat().st_size for name in report["files"])
    assert set(report["latency"]) == {"1", "32"}
    assert not list((folder / "export").glob(".*"))


@pytest.mark.parametrize("run", ["cnn", "gpt"])
def test_the_file_alone_with_model_json_is_enough(trained: Trained, export: Exported, run: str) -> None:
    """As another program would: inputs made by what model.json says, no line of accel's."""
    export(run, "onnx")
    folder = trained(run) / "export" / "onnx"
    says = json.loads((folder / "model.json").read_text())
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    model = accel_cli.load(trained(run))
    for count in (1, 5):
        shape = (count, *says["input"]["shape"][1:])
        if run == "gpt":
            stored = numpy.arange(numpy.prod(shape)).reshape(shape) % says["input"]["vocabulary"]
            inputs = stored.astype(says["input"]["dtype"])
        else:
            stored = numpy.arange(numpy.prod(shape)).reshape(shape) % 16
            mean, std = (numpy.array(says["input"][key]).reshape(1, -1, 1, 1) for key in ("mean", "std"))
            inputs = ((stored - mean) / std).astype(says["input"]["dtype"])
        (found,) = session.run([says["output"]["name"]], {says["input"]["name"]: inputs})
        with torch.no_grad():
            wanted = model(torch.from_numpy(stored))
        assert list(found.shape[1:]) == says["output"]["shape"][1:]
        numpy.testing.assert_allclose(found, wanted.numpy(), atol=CLOSE)


def test_the_averaged_weights_are_those_that_go_out(trained: Trained, export: Exported) -> None:
    export("cnn", "safetensors")
    written = load_file(trained("cnn") / "export" / "safetensors" / "model.safetensors")
    checkpoint = trained("cnn") / "checkpoints" / "latest"
    average, live = (load_file(checkpoint / f"{name}.safetensors") for name in ("average", "model"))
    assert all(torch.equal(written[name], average[name]) for name in average)
    assert any(not torch.equal(written[name], live[name]) for name in average)


def test_a_run_trained_on_a_gpu_is_exported_on_the_host(trained: Trained, tmp_path: Path) -> None:
    run = run_file.read(trained("mlp") / "run.yaml").with_option("hardware", "cuda").with_option("precision", "fp16")
    run_file.write(run, tmp_path / "run.yaml")
    (tmp_path / "checkpoints").symlink_to(trained("mlp") / "checkpoints")
    report = exported(tmp_path, "torch_export")
    assert report["trained_in"] == "fp16"
    assert report["splits"]["test"]["largest_difference"] <= CLOSE


def test_another_checkpoint_can_be_named(tmp_path: Path) -> None:
    train_ranks(["train.steps=8", "checkpoint.every=4", "model=mlp", "model.widths=[8]"], tmp_path)
    assert exported(tmp_path, "safetensors", which="step-00000004")["checkpoint"] == "step-00000004"
    assert "no checkpoint" in exported(tmp_path, "safetensors", which="other", expect=4)["message"]
    assert json.loads((tmp_path / "export/safetensors/report.json").read_text())["checkpoint"] == "step-00000004"


def test_weights_too_large_for_one_file_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "LARGEST", 1000)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    inputs, model = torch.randn(2, 600), nn.Linear(600, 600).eval()
    exporter = ONNX(Schema(option="onnx", opset=20))
    assert [path.name for path in exporter.write(model, inputs, first)] == ["model.onnx", "model.onnx.data"]
    first.rename(second)
    torch.testing.assert_close(exporter.load(second)(inputs), model(inputs), atol=CLOSE, rtol=0)


class Quantized(nn.Module):
    def deployed(self) -> nn.Module:
        return nn.Hardsigmoid()


def test_what_training_only_imitates_is_made_real() -> None:
    plain, quantized = nn.Sequential(nn.ReLU()), nn.Sequential(nn.Sequential(Quantized()), nn.ReLU())
    assert deployed(plain) is plain
    assert [type(module) for module in deployed(quantized).modules()][2:] == [nn.Hardsigmoid, nn.ReLU]
    assert isinstance(quantized[0][0], Quantized)


def test_differences_are_counted_where_there_are_numbers() -> None:
    found = Differences("class")
    nan = float("nan")
    found.add(torch.tensor([[1.0, 4.0], [2.0, 1.0]]), torch.tensor([[1.5, 4.0], [2.0, nan]]))
    found.add(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]))
    assert found.to_dict() == {
        "largest_difference": 1.0, "relative_difference": 0.25, "equal_predictions": 2 / 3, "not_numbers": 1,
    }  # fmt: skip
    assert Differences("number").to_dict()["equal_predictions"] is None


def test_executorch(trained: Trained) -> None:
    pytest.importorskip("executorch", reason="the package executorch is not installed")
    for backend in ("xnnpack", "portable"):
        report = exported(trained("cnn"), "executorch", backend=backend)
        assert report["splits"]["test"]["largest_difference"] <= CLOSE
        assert report["facts"] == {"backend": backend, "batch": 1}
