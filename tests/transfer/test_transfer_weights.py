"""What trained weights are found for a model, and that what does not fit is told."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from test_transfer import Net, make
from torch import nn

from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, ResourceError


def saved(folder: Path, model: nn.Module, beginning: str = "", **manifest: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({beginning + name: t for name, t in model.state_dict().items()}, folder / "model.safetensors")
    if manifest:
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def digits(names: tuple[str, ...]) -> DataDescription:
    return DataDescription(input="vector", target="class", input_shape=(4,), classes=len(names), class_names=names)


@pytest.mark.parametrize(
    ("there", "here", "line"),
    [
        ("backbone.", "", "names in the file begin with backbone. and are read without it"),
        ("model.encoder.", "", "names in the file begin with model.encoder. and are read without it"),
        ("", "encoder", "encoder. was put before names in the file"),
    ],
)
def test_another_beginning_of_all_names_is_found_and_told(tmp_path: Path, there: str, here: str, line: str) -> None:
    source, model = Net(8), Net(2)
    lines = make(weights=str(saved(tmp_path, source, there))).apply(nn.ModuleDict({here: model}) if here else model)
    assert torch.equal(model.stem.weight, source.stem.weight)
    assert lines[0].startswith("23 of 25 tensors")
    assert lines[1] == line
    assert any("8x6 in the file, 2x6 here: new" in text for text in lines)


def test_a_few_names_that_agree_by_chance_are_no_match(tmp_path: Path) -> None:
    source = nn.ModuleDict({"other": nn.ModuleDict({n: nn.Linear(4, 6) for n in ("stem", "a", "b", "c", "d")})})
    with pytest.raises(ConfigError, match="no tensor has the name and shape"):
        make(weights=str(saved(tmp_path, source))).apply(Net(2))


@pytest.mark.parametrize(("names", "told"), [(("a", "b"), False), (("a", "c"), True), (("a", "b", "c"), False)])
def test_other_classes_in_the_same_number_are_told(tmp_path: Path, names: tuple[str, ...], told: bool) -> None:
    weights = str(saved(tmp_path, Net(2), description=digits(("a", "b")).to_dict()))
    lines = make(weights=weights).apply(Net(len(names)), digits(names))
    found = [line for line in lines if line.startswith("warning: as many classes, but others: a, b there, a, c here")]
    assert bool(found) is told
    assert make(weights=weights).apply(Net(2))[0].startswith("25 of 25")


def test_a_changed_structure_is_told_and_what_fits_is_taken(tmp_path: Path) -> None:
    source = Net(2)
    source.blocks[1][0] = nn.Linear(6, 4)
    structure = [
        {"part": "prune_structured", "step": 5, "record": {}},
        {"part": "low_rank", "step": 7, "record": None},
    ]
    lines = make(weights=str(saved(tmp_path, source, structure=structure))).apply(Net(2))
    assert (
        "their model's structure had been changed by prune_structured at step 5: tensors of other shapes are new"
        in lines
    )
    assert "blocks.1.0.weight: 4x6 in the file, 6x6 here: new" in lines


def test_a_stem_of_other_channels_is_new_and_told(tmp_path: Path) -> None:
    source, model = (nn.Sequential(nn.Conv2d(n, 4, 3), nn.Conv2d(4, 4, 3)) for n in (3, 1))
    transfer = make(weights=str(saved(tmp_path, source)), head_rate=3.0)
    assert "0.weight: 4x3x3x3 in the file, 4x1x3x3 here: new" in transfer.apply(model)
    assert transfer.rates(model) == {"0.weight": 3.0}
    assert torch.equal(model[1].weight, source[1].weight)


def test_what_a_run_ended_as_comes_before_its_last_checkpoint(tmp_path: Path) -> None:
    finished, latest = Net(2), Net(2)
    saved(tmp_path / "checkpoints/finished", finished)
    saved(tmp_path / "checkpoints/latest", latest)
    model = Net(2)
    make(weights=str(tmp_path)).apply(model)
    assert torch.equal(model.stem.weight, finished.stem.weight)


def test_published_weights_of_torchvision_lie_in_torchs_own_folder(tmp_path, monkeypatch) -> None:
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    source, model = torchvision.models.squeezenet1_1(), torchvision.models.squeezenet1_1(num_classes=2)
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    torch.save(source.state_dict(), folder / "it.pth")
    digest = hashlib.sha256((folder / "it.pth").read_bytes()).hexdigest()[:8]
    (folder / "it.pth").rename(folder / f"net-{digest}.pth")
    monkeypatch.setattr(type(published), "url", f"https://nowhere/net-{digest}.pth")
    lines = make(weights="torchvision:squeezenet1_1.IMAGENET1K_V1").apply(model)
    assert lines[0].endswith("from torchvision:squeezenet1_1.IMAGENET1K_V1")
    assert "classifier.1.weight: 1000x512x1x1 in the file, 2x512x1x1 here: new" in lines
    assert torch.equal(model.features[0].weight, source.features[0].weight)


def test_published_weights_of_timm_are_under_timms_names(monkeypatch) -> None:
    import timm

    own = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: own("resnet10t", num_classes=7))
    model = own("resnet10t", num_classes=2)
    assert "fc.weight: 7x512 in the file, 2x512 here: new" in make(weights="timm:resnet10t.c3_in1k").apply(model)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("torchvision:resnet81", "did you mean transfer.weights=torchvision:resnet18"),
        ("torchvision:resnet18.V9", "it has IMAGENET1K_V1, DEFAULT"),
        ("timm:resnet18.nothing", "transfer.weights=timm:resnet18"),
        ("timm:resnet18x", "transfer.weights=timm:resnet18"),
    ],
)
def test_names_that_nobody_publishes(weights: str, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make(weights=weights).apply(Net(2))
    (problem,) = raised.value.problems
    assert problem.where == f"transfer.weights={weights}"
    assert expected in problem.fix


@pytest.mark.parametrize("weights", ["torchvision:squeezenet1_1", "timm:resnet10t.c3_in1k"])
def test_without_a_network_it_says_what_to_do(tmp_path: Path, monkeypatch: Any, weights: str) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ResourceError) as raised:
        make(weights=weights).apply(Net(2))
    assert "transfer.weights" in raised.value.fix
