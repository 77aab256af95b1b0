"""model=torchvision: any architecture by name, and weights that are not there."""

from __future__ import annotations

import hashlib

import pytest
import torch

from accel_cli import published
from accel_cli.errors import ConfigError, ResourceError
from accel_cli.model import torchvision as option


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("resnet18", "digits"), ("mobilenet_v3_small", "colour"), ("squeezenet1_1", "colour"), ("resnet18", "depth_map")],
)
def test_output_fits_the_data(models, data, architecture, kind):
    description = getattr(data, kind)
    model = models.build("torchvision", description, architecture=architecture)
    assert model(data.inputs(description)).shape == (4, description.classes or description.outputs)


@pytest.mark.parametrize("architecture", ["vit_b_16", "googlenet", "swin_t", "densenet121", "convnext_tiny"])
def test_builds_without_storage(models, data, architecture):
    with torch.device("meta"):
        model = models.build("torchvision", data.colour, architecture=architecture)
        assert model(torch.empty(2, 3, 32, 32)).shape == (2, 10)
    assert all(parameter.is_meta for parameter in model.parameters())


def test_overfits_one_batch(models, data):
    model = models.build("torchvision", data.digits, architecture="shufflenet_v2_x0_5")
    assert models.overfit(model, data.inputs(data.digits, 8), torch.arange(8), steps=6, rate=0.01) < 0.5


def test_parameter_count(models, data):
    with torch.device("meta"):
        model = models.build("torchvision", data.colour)
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_689_512 - 1000 * 513 + 10 * 513


@pytest.mark.parametrize(
    ("kind", "overrides", "where", "expected"),
    [
        ("colour", {"architecture": "resnet81"}, "model.architecture=resnet81", "did you mean model.architecture=res"),
        ("digits", {"architecture": "alexnet"}, "model.architecture=alexnet", "cannot take image 1x8x8"),
        ("wide", {"architecture": "vit_b_16"}, "model.architecture=vit_b_16", "try model=vit"),
        ("colour", {"args": {"widht": 3}}, "model.args={'widht': 3}", "widht"),
        ("colour", {"weights": "IMAGENET"}, "model.weights=IMAGENET", "IMAGENET1K_V1, DEFAULT"),
        ("text", {}, "model=torchvision", "try model=gpt"),
    ],
)
def test_a_wrong_choice_says_what_to_type(models, data, kind, overrides, where, expected):
    with torch.device("meta"), pytest.raises(ConfigError) as raised:
        models.build("torchvision", getattr(data, kind), **overrides)
    (problem,) = raised.value.problems
    assert problem.where == where
    assert expected in f"{problem.why} {problem.fix}"


def test_absent_weights_say_where_to_put_them(models, data, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there: the same answer on every machine
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ResourceError) as raised:
        models.build("torchvision", data.colour, architecture="squeezenet1_1", weights="DEFAULT")
    place = tmp_path / "hub/checkpoints/squeezenet1_1-b8a52dc0.pth"
    assert f"squeezenet1_1-b8a52dc0.pth at {place}" in raised.value.fix
    place.write_bytes(b"not what was published")
    with pytest.raises(ResourceError, match="is damaged"):
        models.build("torchvision", data.colour, architecture="squeezenet1_1", weights="DEFAULT")


def test_absent_weights_do_not_hinder_a_check(models, data, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with torch.device("meta"):
        model = models.build("torchvision", data.colour, weights="DEFAULT")
    assert model.new_parameters == ("fc.weight", "fc.bias")
    assert not any(tmp_path.iterdir())


def test_published_tensors_are_read_where_they_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    torch.save({"weight": torch.arange(3.0)}, folder / "fresh.pth")
    digest = hashlib.sha256((folder / "fresh.pth").read_bytes()).hexdigest()[:8]
    (folder / "fresh.pth").rename(folder / f"net-{digest}.pth")
    url = f"https://download.pytorch.org/models/net-{digest}.pth"
    assert published.read(url, "net", "try another")["weight"].tolist() == [0, 1, 2]


def test_first_and_last_layer_are_fitted_to_trained_weights():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 7)
    )
    kernel = model[0].weight.detach().clone()
    grey = torch.rand(2, 1, 5, 5)
    expected = torch.nn.functional.conv2d(grey.expand(-1, 3, -1, -1), kernel, model[0].bias)
    fresh = option.fit(model, 1, 2, replace_head=True)
    assert fresh == ("3.weight", "3.bias")
    assert torch.allclose(model[0](grey), expected, atol=1e-6) is False  # the bias is fresh
    assert torch.allclose(model[0].weight, kernel.sum(1, keepdim=True))
    assert model(grey).shape == (2, 2)
