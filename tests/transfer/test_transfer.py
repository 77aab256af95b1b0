"""Transfer: what a file fills, what stays fresh, what is frozen, how fast the rest may move, what is never read."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from accel_cli.config.parts import implementation, table
from accel_cli.errors import ConfigError, SecurityError

CONFIGS = Path(__file__).parents[2] / "configs"


def make(option: str = "finetune", **overrides: Any) -> Any:
    defaults = yaml.safe_load((CONFIGS / f"transfer/{option}.yaml").read_text())
    config = table("transfer")[option].schema(option=option, **{**defaults, **overrides})
    return implementation("transfer", config)(config)


def block(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width))


class Net(nn.Module):
    def __init__(self, classes: int, width: int = 6, blocks: int = 3):
        super().__init__()
        self.stem = nn.Linear(4, width)
        self.blocks = nn.ModuleList(block(width) for _ in range(blocks))
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@pytest.fixture
def trained(tmp_path) -> Path:
    """The weights of a Net with eight classes, its statistics moved off their first values."""
    model = Net(8)
    model(torch.randn(16, 4))
    save_file(model.state_dict(), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def problem(transfer: Any, model: nn.Module) -> Any:
    with pytest.raises(ConfigError) as raised:
        transfer.apply(model)
    (found,) = raised.value.problems
    return found


def test_none_changes_nothing():
    model = Net(2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    transfer = make("none")
    assert (transfer.apply(model), transfer.rates(model), transfer.frozen_modules(model)) == ([], {}, [])
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_all_but_the_head_is_loaded_and_reported(trained):
    torch.manual_seed(1)
    model = Net(2)
    head = model.head.weight.clone()
    transfer = make(weights=str(trained))
    lines = transfer.apply(model)
    numbers = sum(v.numel() for k, v in model.state_dict().items() if not k.startswith("head."))
    assert lines[0] == f"23 of 25 tensors ({numbers:,} numbers) from {trained}"
    assert "head.weight: 8x6 in the file, 2x6 here: new" in lines
    assert "head.bias: 8 in the file, 2 here: new" in lines
    assert torch.equal(model.head.weight, head)
    assert not torch.equal(model.blocks[1][1].running_mean, torch.zeros(6))


def test_the_loaded_model_computes_what_the_trained_one_did(trained):
    model = Net(8)
    make(weights=str(trained)).apply(model)
    other = Net(8)
    make(weights=str(trained)).apply(other)
    inputs = torch.randn(3, 4)
    assert torch.equal(model.eval()(inputs), other.eval()(inputs))


@pytest.mark.parametrize("place", ["checkpoints/latest", "."])
def test_a_run_or_checkpoint_folder_is_enough(trained, tmp_path, place):
    folder = tmp_path / "runs/0712-digits"
    (folder / place).mkdir(parents=True)
    trained.rename(folder / place / "model.safetensors")
    model = Net(8)
    numbers = sum(value.numel() for value in model.state_dict().values())
    lines = make(weights=str(folder)).apply(model)
    assert lines == [f"25 of 25 tensors ({numbers} numbers) from {folder / place / 'model.safetensors'}"]


def test_a_run_folder_whose_latest_is_a_link(trained, tmp_path):
    step = tmp_path / "run/checkpoints/step-00000100"
    step.mkdir(parents=True)
    trained.rename(step / "model.safetensors")
    (step.parent / "latest").symlink_to(step.name)
    assert make(weights=str(tmp_path / "run")).apply(Net(8))[0].startswith("25 of 25 tensors")


@pytest.mark.parametrize("rename", ["module.{}", "_orig_mod.{}", "module._orig_mod.{}"])
def test_prefixes_of_wrappers_are_stripped(tmp_path, rename):
    source, model = Net(8), Net(8)
    save_file({rename.format(k): v for k, v in source.state_dict().items()}, tmp_path / "net.safetensors")
    make(weights=str(tmp_path / "net.safetensors")).apply(model)
    assert torch.equal(model.blocks[2][0].weight, source.blocks[2][0].weight)


def test_half_precision_files_fill_single_precision_models(tmp_path):
    source, model = Net(8), Net(8)
    save_file({k: v.half() for k, v in source.state_dict().items()}, tmp_path / "net.safetensors")
    make(weights=str(tmp_path / "net.safetensors")).apply(model)
    assert model.stem.weight.dtype == torch.float32
    assert torch.allclose(model.stem.weight, source.stem.weight, atol=1e-3)


def test_a_tied_tensor_is_not_new_when_the_file_has_it_once(tmp_path):
    def tied() -> nn.Module:
        model = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
        model["head"].weight = model["embedding"].weight
        return model

    source, model = tied(), tied()
    save_file({"embedding.weight": source["embedding"].weight.detach()}, tmp_path / "net.safetensors")
    transfer = make(weights=str(tmp_path / "net.safetensors"), head_rate=10.0)
    assert len(transfer.apply(model)) == 1
    assert transfer.rates(model) == {}
    assert torch.equal(model["head"].weight, source["embedding"].weight)


def test_absent_and_spare_tensors_are_reported_in_short(trained):
    lines = make(weights=str(trained)).apply(Net(8, blocks=5))
    assert "blocks.3.0.weight: not in the file: new" in lines
    assert "... and 7 more" in lines
    lines = make(weights=str(trained)).apply(Net(8, blocks=2))
    assert "blocks.2.0.weight: in the file, not here: left out" in lines


def test_on_the_meta_device_the_same_lines_are_printed_and_nothing_is_copied(trained):
    lines = make(weights=str(trained), freeze=["blocks.*"]).apply(Net(2))
    with torch.device("meta"):
        model = Net(2)
    assert make(weights=str(trained), freeze=["blocks.*"]).apply(model) == lines
    assert model.stem.weight.is_meta


def test_a_file_for_another_model_is_refused_with_the_nearest_names(trained):
    found = problem(make(weights=str(trained)), Net(2, width=5, blocks=2))
    assert found.where == f"transfer.weights={trained}"
    assert "blocks.0.0.weight 6x6 there, blocks.0.0.weight 5x5 here" in found.why
    found = problem(make(weights=str(trained)), nn.Sequential(nn.Conv2d(1, 2, 3)))
    assert "0.weight" in found.why


def test_absent_files_and_folders(trained, tmp_path):
    found = problem(make(weights=str(tmp_path / "nett.safetensors")), Net(2))
    assert found.fix == f"did you mean transfer.weights={trained} ?"
    (tmp_path / "run").mkdir()
    assert "a folder without" in problem(make(weights=str(tmp_path / "run")), Net(2)).why


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:4], lambda b: b"\xff" * 40, lambda b: b""])
def test_a_damaged_file_is_refused(trained, damage):
    trained.write_bytes(damage(trained.read_bytes()))
    model = Net(8)
    before = model.stem.weight.clone()
    assert "damaged" in problem(make(weights=str(trained)), model).fix
    assert torch.equal(model.stem.weight, before)


class Canary:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "pytorch_model.bin", "net.safetensors", "folder/model.pt"])
@pytest.mark.parametrize("form", ["torch", "plain"])
def test_pickles_are_refused_unread(tmp_path, name, form):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if form == "torch":
        torch.save({"weight": Canary(tmp_path / "ran")}, path)
    else:
        path.write_bytes(pickle.dumps({"weight": Canary(tmp_path / "ran")}))
    weights = path.parent if path.parent != tmp_path else path
    with pytest.raises(SecurityError) as raised:
        make(weights=str(weights)).apply(Net(2))
    assert "is a pickle" in raised.value.problems[0].why
    assert "save_file" in raised.value.problems[0].fix
    assert not (tmp_path / "ran").exists()


def test_the_refusals_advice_works(tmp_path):
    source = Net(8)
    torch.save(source.state_dict(), tmp_path / "net.pt")
    with pytest.raises(SecurityError) as raised:
        make(weights=str(tmp_path / "net.pt")).apply(Net(8))
    exec(raised.value.problems[0].fix.split('"')[1])
    model = Net(8)
    make(weights=str(tmp_path / "net.safetensors")).apply(model)
    assert torch.equal(model.stem.weight, source.stem.weight)


def test_frozen_parameters_and_statistics_stay(trained):
    model = Net(2)
    transfer = make(weights=str(trained), freeze=["stem.*", "blocks.0.*", "blocks.1.1.weight"])
    assert transfer.apply(model)[-1] == "frozen: 7 of 16 tensors, 90 of 206 numbers"
    frozen = transfer.frozen_modules(model)
    assert frozen == [model.blocks[0][1]]  # the second block's norm still trains its bias

    model.train()
    for module in frozen:
        module.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.randn(16, 4)).square().sum().backward()
    optimizer.step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(before[key], value)}
    assert not any(key.startswith(("stem.", "blocks.0.")) for key in moved)
    assert {"head.weight", "blocks.1.1.running_mean", "blocks.1.1.bias"} <= moved


def test_a_pattern_that_matches_nothing_names_what_may_be_meant():
    with pytest.raises(ConfigError) as raised:
        make(freeze=["blocks.0", "stm.weight", "head.*"]).apply(Net(2))
    first, second = raised.value.problems
    assert (first.where, first.fix) == ("transfer.freeze=blocks.0", "try transfer.freeze=[blocks.0.*]")
    assert second.fix.startswith("nearest: stem.weight")


def test_something_must_be_left_to_train():
    assert "nothing is left" in problem(make(freeze=["*"]), Net(2)).why


def test_applying_twice_gives_the_same(trained):
    model, transfer = Net(2), make(weights=str(trained), freeze=["stem.*"], layer_decay=0.5, head_rate=3.0)
    first = (transfer.apply(model), transfer.rates(model))
    assert (transfer.apply(model), transfer.rates(model)) == first


def test_layer_decay_falls_from_the_head_backwards(trained):
    model, transfer = Net(2), make(weights=str(trained), layer_decay=0.5, head_rate=10.0, freeze=["stem.bias"])
    transfer.apply(model)
    rates = transfer.rates(model)
    assert "stem.bias" not in rates
    assert rates["stem.weight"] == 0.5**4
    assert [rates[f"blocks.{i}.0.weight"] for i in range(3)] == [0.125, 0.25, 0.5]
    assert rates["blocks.2.1.bias"] == 0.5
    assert rates["head.weight"] == rates["head.bias"] == 10.0
    assert transfer.rates(nn.ModuleDict({"module": model}))["module.head.weight"] == 10.0


def test_layers_are_children_in_order_where_blocks_stand_in_stages():
    def stage(width: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(width, width, 3), nn.Conv2d(width, width, 3))

    staged = nn.Module()
    staged.body = nn.Module()
    staged.body.stem, staged.body.one, staged.body.two = nn.Conv2d(3, 8, 3), stage(8), stage(8)
    staged.head = nn.Linear(8, 2)
    rates = make(layer_decay=0.5).rates(staged)
    expected = {"body.stem": 0.125, "body.one.0": 0.25, "body.one.1": 0.25, "body.two.1": 0.5}
    assert {key: rates[f"{key}.weight"] for key in expected} == expected
    assert "head.weight" not in rates


def test_layers_of_a_plain_sequence():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    assert make(layer_decay=0.5).rates(model) == {"1.weight": 0.25, "1.bias": 0.25, "3.weight": 0.5, "3.bias": 0.5}


def test_without_weights_the_model_says_what_is_new():
    model = Net(2)
    model.new_parameters = ("head.weight", "head.bias")
    transfer = make(head_rate=10.0)
    assert transfer.apply(model) == ["the model's published weights; new: head.weight, head.bias"]
    assert transfer.rates(model) == {"head.weight": 10.0, "head.bias": 10.0}


def test_without_weights_nothing_is_claimed():
    (line,) = make().apply(Net(2))
    assert line.startswith("no weights given")
    found = problem(make(head_rate=10.0), Net(2))
    assert found.where == "transfer.head_rate=10.0"
