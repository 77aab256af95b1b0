"""Quantization: numbers are rounded as the formula says, gradients pass, a runtime computes the same in integers."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ranks import compose, train_ranks
from test_resume import assert_equal_runs, back_to
from torch import Tensor, nn
from torch.nn import functional

from accel_cli.compression import folding
from accel_cli.compression.calibration import Point, ranges
from accel_cli.compression.quantized import QuantizedLinear, Scheme, quantized
from accel_cli.compression.rounding import next_power_of_two
from accel_cli.config.parts import implementation
from accel_cli.errors import ConfigError
from accel_cli.export.base import deployed
from accel_cli.structure import Border, Changed

SHORT = [
    "data=digits", "train.epochs=null", "train.steps=10", "train.global_batch=32", "metrics.every=1",
    "evaluate.every=5", "checkpoint.every=1", "checkpoint.keep_last=100",
]  # fmt: skip
CNN = ["model=cnn", "model.channels=[64,64,64]"]
NETS = {
    "cnn": CNN,
    "resnet": ["model=resnet", "model.width=64", "model.blocks=[1,1]"],
    "mlp": ["model=mlp", "model.widths=[256,256]"],
    "vit": ["model=vit", "model.width=64", "model.depth=2", "model.heads=4", "model.patch=2"],
}
INTEGER = {"QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulNBits"}
FLOATING = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(name: str, words: list[str], *more: str) -> tuple[nn.Module, Border, Any]:
    """A model that has learnt a little, a border of it, and the pass; inputs are digits."""
    options = [word if "=" not in word else f"compression.passes.{name}.{word}" for word in more]
    run = compose([*SHORT, *words, f"compression={name}", *options], 1)
    data = implementation("data", run.data)(run.data, 0)
    run = run.with_option("task", "classification")
    torch.manual_seed(0)
    model = implementation("model", run.model)(run.model, data.describe())
    task = implementation("task", run.task)(run.task, data.describe())
    images, classes = (torch.as_tensor(each) for each in digits())
    if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
        for first in range(0, 256, 32):
            functional.cross_entropy(model(images[first : first + 32]), classes[first : first + 32]).backward()
            optimizer.step()
            optimizer.zero_grad()
    border = Border(
        5, 10, task, (images[:2], classes[:2]),
        lambda samples: ((images[first : first + 64], classes[first : first + 64]) for first in range(0, samples, 64)),
    )  # fmt: skip
    return model.eval(), border, implementation("compression", run.compression[name])(run.compression[name])


def digits() -> tuple[Any, Any]:
    from sklearn.datasets import load_digits

    found = load_digits()
    return ((found.images[:, None] - 4.9) / 6).astype("float32")[:512], found.target[:512]


def session(model: nn.Module, inputs: Tensor, folder: Path) -> tuple[Any, Path, Counter[str]]:
    """The model as ONNX Runtime runs it, its file, and the operators that it was optimized to."""
    path, optimized = folder / "model.onnx", folder / "optimized.onnx"
    shapes = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(
        model, (inputs[:2],), str(path), dynamo=True, dynamic_shapes=shapes, verbose=False, external_data=False
    )
    slim = onnx.load(path)
    for node in slim.graph.node:
        del node.metadata_props[:]  # the exporter's stack traces, longer than the weights of a small model
    del slim.graph.value_info[:]
    onnx.save(slim, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.optimized_model_filepath = str(optimized)
    found = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(batch: Tensor) -> Tensor:
        return torch.from_numpy(found.run(None, {found.get_inputs()[0].name: batch.numpy()})[0])

    return run, path, Counter(node.op_type for node in onnx.load(optimized).graph.node)


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_are_rounded_by_the_formula(bits: int, power_of_two: bool) -> None:
    torch.manual_seed(0)
    layer = quantized(nn.Conv2d(3, 5, 3), Scheme(bits, activations="none", power_of_two=power_of_two))
    weight, levels = layer.weight.detach().numpy(), 2 ** (bits - 1) - 1
    scale = np.abs(weight).reshape(5, -1).max(1) / np.float32(levels)
    if power_of_two:
        scale = 2 ** np.ceil(np.log2(scale)).astype(np.float32)
    rounded = np.clip(np.round(weight / scale[:, None, None, None]), -levels, levels) * scale[:, None, None, None]
    assert np.allclose(layer.weight_scale().numpy(), scale, rtol=1e-6)
    assert np.allclose(layer.quantized_weight().detach().numpy(), rounded, rtol=1e-6)
    assert len(np.unique(layer.integer_weight().numpy())) <= 2 * levels + 1


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("bits", [2, 8, 16])
@pytest.mark.parametrize("range_", [(-1.3, 2.9), (0.4, 7.0), (-5.0, -1.0), (0.0, 0.0)])
def test_inputs_are_rounded_by_the_formula(range_: tuple[float, float], bits: int, power_of_two: bool) -> None:
    layer = quantized(nn.Linear(50, 1), Scheme(8, bits, power_of_two=power_of_two))
    layer.calibrate("input", *torch.tensor(range_))
    scale, zero = float(layer.input_scale), int(layer.input_zero_point)
    low, high, top = min(range_[0], 0), max(range_[1], 0), 2**bits - 1
    assert 0 <= zero <= top
    if power_of_two:
        assert scale == 2 ** np.round(np.log2(scale))
        assert zero == (0 if low == 0 else 2 ** (bits - 1))
        assert -zero * scale <= low + 1e-6
        assert high - 1e-6 <= (top - zero) * scale
    elif low < high:
        assert scale == pytest.approx((high - low) / top, rel=1e-6)
    values = torch.linspace(-10, 10, 50)
    expected = (np.clip(np.round(values.numpy() / scale) + zero, 0, top) - zero) * scale
    assert np.allclose(layer.quantized_input(values).numpy(), expected, atol=1e-6 + scale * 1e-3)


def test_a_power_of_two_is_exact() -> None:
    powers = 2.0 ** torch.arange(-60, 60)
    assert torch.equal(next_power_of_two(powers), powers)
    assert torch.equal(next_power_of_two(powers * 1.0001), powers * 2)


def test_gradients_pass_straight_through() -> None:
    layer = quantized(nn.Linear(4, 3), Scheme(3, 4))
    layer.calibrate("input", torch.tensor(-1.0), torch.tensor(1.0))
    inputs = torch.tensor([[-3.0, -0.5, 0.3, 5.0]], requires_grad=True)
    layer(inputs).sum().backward()
    rounded = layer.quantized_weight().detach()
    within = torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    assert torch.allclose(inputs.grad, rounded.sum(0) * within)
    assert torch.allclose(layer.weight.grad, layer.quantized_input(inputs.detach()).expand(3, 4))


def test_a_layer_of_groups() -> None:
    torch.manual_seed(0)
    plain = nn.Linear(70, 8)
    layer = quantized(plain, Scheme(4, activations="none", group_size=32))
    padded = functional.pad(plain.weight.detach(), (0, 26)).reshape(24, 32)
    scale = padded.abs().amax(1) / 7
    expected = ((padded / scale[:, None]).round() * scale[:, None]).reshape(8, 96)[:, :70]
    inputs = torch.randn(5, 70)
    assert torch.allclose(layer.quantized_weight(), expected, atol=1e-6)
    assert torch.allclose(layer.deployed()(inputs), layer(inputs), atol=1e-5)
    assert layer.stored_bytes == 8 * 96 // 2 + 24 * 4 + 8 * 4


@pytest.mark.parametrize("bias", [False, True])
def test_norms_become_part_of_layers(bias: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, bias=bias), nn.BatchNorm2d(6), nn.ReLU(), nn.BatchNorm2d(6), nn.Flatten(),
        nn.Linear(24, 4, bias=bias), nn.BatchNorm1d(4, affine=False),
    )  # fmt: skip
    inputs = torch.randn(8, 2, 4, 4)
    for _ in range(3):
        model(inputs * 3 + 1)
    model.eval()
    before = model(inputs)
    assert folding.fold(model, lambda: model(inputs)) == [("0", "1"), ("5", "6")]
    assert isinstance(model[3], nn.BatchNorm2d)
    assert torch.allclose(model(inputs), before, atol=1e-5)


def test_a_norm_whose_layer_does_more_stays() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.norm(self.layer(inputs)) + functional.linear(inputs, self.layer.weight)

    model = Twice()
    model(torch.randn(9, 4) * 3 + 1)
    model.eval()
    inputs = torch.randn(2, 4)
    before, weight = model(inputs), model.layer.weight.clone()
    assert folding.fold(model, lambda: model(inputs)) == []
    assert torch.equal(model(inputs), before)
    assert torch.equal(model.layer.weight, weight)
    assert model.layer.bias is None


def test_ranges() -> None:
    torch.manual_seed(0)
    values = torch.cat([torch.randn(100_000), torch.tensor([-50.0, 80.0])])
    layer = nn.Identity()

    def found(method: str, percentile: float = 99.9) -> tuple[float, float]:
        batches = lambda: (layer(part) for part in values.split(10_000))  # noqa: E731
        low, high = ranges({"it": Point(layer, "input")}, batches, method, percentile, 4, False)["it"]
        return float(low), float(high)

    assert found("minmax") == (-50, 80)
    assert np.allclose(found("percentile"), np.percentile(values, [0.1, 99.9]), atol=0.1)
    assert found("percentile", 100) == (-50, 80)

    def moved(low: float, high: float) -> float:
        layer = quantized(nn.Linear(1, 1), Scheme(8, 4))
        layer.calibrate("input", torch.tensor(low), torch.tensor(high))
        return float((layer.quantized_input(values) - values).square().mean())

    assert moved(*found("mse")) < 0.2 * moved(-50, 80)


@pytest.mark.parametrize(
    ("net", "name", "more"),
    [
        ("cnn", "ptq", ["mode=static"]),
        ("vit", "ptq", ["mode=dynamic"]),
        ("mlp", "ptq", ["mode=weight_only", "bits=4"]),
        ("resnet", "qat", ["power_of_two=true"]),
    ],
)
def test_a_change_is_made_again(net: str, name: str, more: list[str]) -> None:
    model, border, option = made(name, NETS[net], *more)
    with torch.no_grad():
        before = model(border.example[0])
    parameters = dict(model.named_parameters())
    changed = option.change(model, border)
    again = option.replay(made(name, NETS[net])[0], json.loads(json.dumps(changed.record))).eval()
    assert [(n, v.shape, v.dtype) for n, v in again.state_dict().items()] == [
        (n, v.shape, v.dtype) for n, v in changed.model.state_dict().items()
    ]
    again.load_state_dict(changed.model.state_dict())
    with torch.no_grad():
        after = changed.model(border.example[0])
        assert torch.equal(again(border.example[0]), after)
    assert not torch.equal(after, before)
    assert float((after - before).abs().max()) < (0.3 if "bits=4" in more else 0.1) * float(before.abs().max())
    folded = {f"{layer}.{kind}" for layer, _ in changed.record["folded"] for kind in ("weight", "bias")}
    assert changed.kept is not None
    assert changed.kept.keys() == {n for n, _ in changed.model.named_parameters() if n in parameters} - folded


def test_what_the_convolutions_of_a_block_round() -> None:
    model, border, option = made("ptq", NETS["resnet"])
    changed = option.change(model, border)
    rounded = {name for name, scheme in changed.record["layers"].items() if scheme["rounds_output"]}
    assert rounded == {"stem.0", "blocks.0.second", "blocks.1.second", "blocks.1.shortcut.0"}
    assert changed.record["cutters"] == ["stem.2"]  # the stem's ReLU is in its range
    layers = dict(changed.model.named_modules())
    assert torch.equal(layers["stem.0"].output_scale, layers["blocks.0.first"].input_scale)
    assert int(layers["stem.0"].output_zero_point) == 0


@pytest.mark.parametrize(
    ("net", "name", "more", "operators"),
    [
        ("cnn", "ptq", [], {"QLinearConv": 3, "NhwcMaxPool": 2, "QGemm": 1}),
        ("resnet", "ptq", [], {"QLinearConv": 6, "QGemm": 1}),
        ("mlp", "ptq", [], {"QGemm": 3}),
        ("vit", "ptq", [], {}),
        ("mlp", "ptq", ["mode=dynamic"], {"DynamicQuantizeMatMul": 3}),
        ("mlp", "ptq", ["mode=weight_only", "bits=4"], {"MatMulNBits": 3}),
        ("cnn", "ptq", ["mode=weight_only"], {}),
    ],
)
def test_a_runtime_computes_in_integers(
    net: str, name: str, more: list[str], operators: dict[str, int], tmp_path: Path
) -> None:
    model, border, option = made(name, NETS[net], *more)
    inputs = torch.as_tensor(digits()[0])
    (tmp_path / "fp32").mkdir()
    _, whole, _ = session(model, inputs, tmp_path / "fp32")
    changed: Changed = option.change(model, border)
    model = changed.model.eval()
    ready = deployed(model)
    run, path, found = session(ready, inputs, tmp_path)
    with torch.no_grad():
        expected, plain = model(inputs), ready(inputs)
    actual = run(inputs)
    step = float(expected.abs().max()) / 127
    for output in (plain, actual):
        assert float((output - expected).abs().max()) < 4 * step
        assert float(((output - expected).abs() < step).float().mean()) > 0.97
        assert float((output.argmax(1) == expected.argmax(1)).float().mean()) > 0.99
    assert {operator: found[operator] for operator in operators} == operators
    if "mode=weight_only" not in more:
        layers = changed.record["layers"].values()
        assert sum(found[each] for each in INTEGER) == sum(each["activations"] != "none" for each in layers)
        # Attention's products of activations stay, and convolutions of a range not known beforehand.
        assert sum(found[each] for each in FLOATING) <= (5 if net == "vit" else 0)
    assert path.stat().st_size <= (0.36 if net == "vit" else 0.3) * whole.stat().st_size


def test_few_bits_are_the_same_numbers_in_a_runtime(tmp_path: Path) -> None:
    model, border, option = made("qat", CNN, "weight_bits=4", "activation_bits=5", "power_of_two=true")
    model = option.change(model, border).model.eval()
    inputs = torch.as_tensor(digits()[0])
    run, _, _ = session(deployed(model), inputs, tmp_path)
    with torch.no_grad():
        expected = model(inputs)
    assert float(((run(inputs) - expected).abs() < float(expected.abs().max()) / 16).float().mean()) > 0.97
    for layer in model.modules():
        if isinstance(layer, QuantizedLinear):
            assert len(layer.integer_weight().unique()) <= 15


def test_what_cannot_be_quantized_says_so() -> None:
    model, border, option = made("ptq", CNN, "keep=['heads']")
    with pytest.raises(ConfigError, match=r"ptq.keep=heads\s+matches no layer\s+nearest: head"):
        option.check(model, border.task, None)
    model, border, option = made("qat", CNN, "keep=['*']")
    with pytest.raises(ConfigError, match="all 4 layers"):
        option.change(model, border)
    with pytest.raises(ConfigError, match="no linear layer"):
        option.check(nn.Sequential(nn.ReLU()), border.task, None)
    model, border, option = made("ptq", CNN)
    with torch.no_grad():
        model.stages[1][1].weight[0] = torch.inf
    with pytest.raises(ConfigError, match="is not finite for some training samples"):
        option.change(model, border)


def test_ignored_layers_stay() -> None:
    model, border, option = made("ptq", CNN, "keep=['stages.0.*','head']")
    changed = option.change(model, border)
    assert set(changed.record["layers"]) == {"stages.1.0", "stages.2.0"}


@pytest.mark.parametrize(
    ("words", "world_size"),
    [
        (CNN, 1),
        (["strategy=ddp", *CNN], 2),
        (["strategy=fsdp", *NETS["vit"]], 2),
        (["precision=bf16", "train.ema=0.9", *CNN], 1),
    ],
)
def test_killed_at_any_step_it_ends_the_same(tmp_path: Path, words: list[str], world_size: int) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    words = [*SHORT, *words, "compression=qat", "compression.passes.qat.start=0.5"]
    summary = train_ranks(words, straight, world_size)
    row = summary["compression"][0]
    assert row["step"] == 5
    assert row["after"]["bytes"] < 0.3 * row["before"]["bytes"]
    for step in (4, 5, 8):
        shutil.rmtree(killed, ignore_errors=True)
        back_to(step, straight, killed)
        train_ranks([], killed, world_size, resume=True)
        assert_equal_runs(killed, straight)


def test_after_training(tmp_path: Path) -> None:
    summary = train_ranks([*SHORT, *CNN, "train.steps=40", "compression=ptq"], tmp_path)
    row = summary["compression"][0]
    assert row["step"] == 40
    assert row["after"]["bytes"] < 0.3 * row["before"]["bytes"]
    assert abs(row["after"]["metric"] - row["before"]["metric"]) < 0.02
    manifest = json.loads((tmp_path / "checkpoints" / "finished" / "manifest.json").read_text())
    assert manifest["structure"][0]["part"] == "ptq"
