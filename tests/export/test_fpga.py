"""An HLS project: its emulation has the model's own bits, it builds anywhere, and it says what it cannot hold."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import train_ranks
from torch import Tensor, nn

from accel_cli.cli.main import main
from accel_cli.compression.quantized import KINDS, Scheme, quantized
from accel_cli.config.plan import plan
from accel_cli.config.schema.export import FPGA as Settings
from accel_cli.errors import ConfigError
from accel_cli.export.fixed_point import Fixed

hls4ml = pytest.importorskip("hls4ml")
from accel_cli.export.emulation import Emulation  # noqa: E402
from accel_cli.export.fpga import COMMANDS, FPGA, PROJECT, channels_last  # noqa: E402

DEFAULTS: dict[str, Any] = {
    "option": "fpga", "backend": "Vitis", "part": None, "clock_period": 5.0, "io_type": "io_parallel",
    "strategy": "latency", "reuse_factor": 1,
}  # fmt: skip


class Everything(nn.Module):
    """Every operation that can be written: a skip, both poolings, an image flattened, its mean, biases or none."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0))
        self.pools = nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d((1, 2), stride=1))
        self.wide, self.narrow = nn.Linear(6 * 2 * 2, 5), nn.Linear(6, 5, bias=False)
        self.relu, self.dropout, self.head = nn.ReLU(), nn.Dropout(), nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        images = self.relu(self.first(images))
        images = torch.relu(self.second(images) + images)
        images = self.relu(self.pools(self.third(images)))
        both = self.wide(images.flatten(1)) + self.narrow(images.mean(dim=(2, 3)))
        return self.head(self.dropout(both.relu()))


def made(net: nn.Module, inputs: Tensor) -> tuple[nn.Module, Tensor]:
    """The net with quantized layers, of scales that differ by channel, with the ranges of the inputs; and these."""
    for name, module in list(net.named_modules()):
        if type(module) in KINDS:
            rows = torch.arange(len(module.weight)) % 3
            module.weight.data *= torch.exp2(-rows).view(-1, *[1] * (module.weight.dim() - 1))
            parent, _, leaf = name.rpartition(".")
            setattr(net.get_submodule(parent), leaf, quantized(module, Scheme(5, 6, power_of_two=True)))
    for module in net.modules():
        if hasattr(module, "calibrate"):
            module.register_forward_pre_hook(lambda m, seen: m.calibrate("input", *torch.aminmax(seen[0])))
    net.eval()(inputs)
    for module in net.modules():
        module._forward_pre_hooks.clear()
    return net, inputs


def everything() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(3)
    return made(Everything(), torch.randn(200, 2, 8, 8))


def perceptron() -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 3))
    return made(net, torch.randn(200, 2, 4, 4))  # type: ignore[return-value]


def write(net: nn.Module, inputs: Tensor, folder: Path, **chosen: Any) -> FPGA:
    exporter = FPGA(Settings(**DEFAULTS | chosen))
    assert exporter.write(net, inputs[:2], folder)
    return exporter


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[FPGA, Path, nn.Module, Tensor]:
    folder = tmp_path_factory.mktemp("export")
    net, inputs = everything()
    return write(net, inputs, folder), folder, net, inputs


def test_a_project_builds_on_a_clean_machine_and_has_the_bits_of_the_model(exported: Any, tmp_path: Path) -> None:
    """Somewhere else, with nothing of this environment but g++ and a shell."""
    _, folder, net, inputs = exported
    place = tmp_path / "else where"
    shutil.copytree(folder / PROJECT, place)
    here = str(folder).encode()
    assert not [path for path in place.rglob("*") if path.is_file() and here in path.read_bytes()]
    subprocess.run(["bash", "build_lib.sh"], cwd=place, env={"PATH": "/usr/bin:/bin"}, check=True, capture_output=True)
    (library,) = (place / "firmware").glob("*.so")
    found = Emulation(library, "net", 2 * 8 * 8, 3)(channels_last(inputs))
    with torch.no_grad():
        expected = net(inputs).double()
    assert torch.equal(torch.from_numpy(found), expected)
    assert expected.std() > 0.01


def test_the_emulation_predicts_as_the_trained_model_on_the_digits(tmp_path: Path, capsys: Any) -> None:
    """The recipe, made shorter: through the command line, on the whole test split."""
    folder = tmp_path / "run"
    words = ["+recipe=fpga_digits", "train.epochs=6", "model.widths=[16]", "optimizer.learning_rate=0.01"]
    assert train_ranks(words, folder, 1)["status"] == "completed"
    capsys.readouterr()
    assert main(["export", str(folder), "format=fpga", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    test = report["splits"]["test"]
    assert test["samples"] == 359
    assert test["equal_predictions"] == 1
    assert test["largest_difference"] == 0
    assert test["exported"] == pytest.approx(test["pytorch"])
    assert test["exported"]["accuracy"] > 0.7
    assert not report["latency"], "an emulation's time says nothing of the hardware's"


def test_resources_are_counted_and_said_to_be(exported: Any) -> None:
    exporter, folder, net, _ = exported
    facts = exporter.facts(folder)
    assert "not by the vendor's tool" in facts["not_synthesised"]
    assert facts["to_synthesise"].endswith(COMMANDS["Vitis"])
    weights = [module.quantized_weight() for module in net.modules() if hasattr(module, "quantized_weight")]
    assert facts["multipliers"] == sum(int(weight.count_nonzero()) for weight in weights)
    positions = (64, 64, 4 * 7, 1, 1, 1)
    products = sum(int(w.count_nonzero()) * n for w, n in zip(weights, positions, strict=True))
    assert facts["multiplications_a_sample"] == products
    assert (folder / PROJECT / "build_prj.tcl").exists()


@pytest.mark.parametrize("backend", COMMANDS)
def test_every_backend_writes_its_project(backend: str, tmp_path: Path) -> None:
    net, inputs = everything()
    chosen = {"backend": backend, "io_type": "io_stream", "strategy": "resource", "reuse_factor": 2}
    exporter = write(net, inputs, tmp_path, clock_period=4.0, part="some-part", **chosen)
    command = exporter.facts(tmp_path)["to_synthesise"].split()
    needed = "Makefile" if backend == "Quartus" else "build_prj.tcl"
    assert (tmp_path / PROJECT / needed).exists(), command
    text = (tmp_path / PROJECT / "hls4ml_config.yml").read_text()
    assert "Part: some-part" in text
    assert "ClockPeriod: 4.0" in text
    assert "IOType: io_stream" in text
    assert [path.name for path in tmp_path.iterdir()] == [PROJECT]
    counted = json.loads((tmp_path / PROJECT / "layers.json").read_text())
    others = [f"{row['layer']} {row['reuse_factor']}" for row in counted["layers"] if row["reuse_factor"] != 2]
    assert len(others) < len(counted["layers"])
    assert exporter.facts(tmp_path)["reuse_factors"] == ", ".join(["2", *others])


def test_layers_that_float_are_refused_with_what_to_train(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(ConfigError, match="compression=qat") as caught:
        write(net, torch.randn(2, 1, 2, 2), tmp_path)
    assert "1 (Linear)" in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (nn.GELU(), "1 (GELU)"),
        (nn.MaxPool1d(2), "1 (MaxPool1d)"),
        (nn.Softmax(1), "1 (Softmax)"),
        (nn.Unflatten(1, (2, 4)), "1 (Unflatten)"),
    ],
)
def test_an_operation_without_a_form_is_named(layer: nn.Module, named: str, tmp_path: Path) -> None:
    net, inputs = perceptron()
    with pytest.raises(ConfigError, match="export=fpga") as caught:
        write(nn.Sequential(net[1], layer), inputs.flatten(1), tmp_path)
    assert named in str(caught.value)


def test_a_missing_compiler_is_said_before_anything_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = ["export=fpga", "compression=qat", "compression.passes.qat.power_of_two=true"]
    assert plan(words).run.export.option == "fpga"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="g\\+\\+"):
        plan(words)


def test_a_run_in_floating_point_is_refused_with_what_to_train() -> None:
    with pytest.raises(ConfigError, match="compression.passes.qat.power_of_two=true"):
        plan(["export=fpga"])


def test_scales_of_any_size_are_refused(tmp_path: Path) -> None:
    net = nn.Sequential(quantized(nn.Linear(4, 3), Scheme(8)))
    with pytest.raises(ConfigError, match="power_of_two"):
        write(net, torch.randn(2, 4), tmp_path)


def test_a_forward_that_branches_is_refused(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return values if values.sum() > 0 else -values

    with pytest.raises(ConfigError, match="cannot be followed"):
        write(Branching(), torch.randn(2, 4), tmp_path)


@pytest.mark.parametrize(
    ("fixed", "name"),
    [
        (Fixed(4, -128, 127), "fixed<8,4>"),
        (Fixed(4, -128, 127, rounds=True), "fixed<8,4,RND_CONV,SAT>"),
        (Fixed(9, -127, 127, rounds=True), "fixed<8,-1,RND_CONV,SAT_SYM>"),
        (Fixed(-2, 0, 255, rounds=True), "ufixed<8,10,RND_CONV,SAT>"),
        (Fixed(3, -129, 5), "fixed<9,6>"),
        (Fixed(0, 0, 0), "ufixed<2,2>"),
    ],
)
def test_a_type_is_the_narrowest_that_holds_its_numbers(fixed: Fixed, name: str) -> None:
    assert fixed.name == name


def test_bounds_are_reached_and_not_passed() -> None:
    """Of a dot product, by the inputs that make it largest and smallest."""
    weight, bias = torch.tensor([[3, -2, 0], [-1, -1, -1]]), torch.tensor([5, -7])
    bounds = Fixed(2, -4, 3).products(weight, 3, bias)
    every = torch.cartesian_prod(*[torch.arange(-4, 4)] * 3)
    sums = every @ weight.T + bias
    assert (bounds.fraction, bounds.low, bounds.high) == (5, int(sums.min()), int(sums.max()))
