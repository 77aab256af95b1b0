"""model=timm: any architecture by name, fitted to the data."""

from __future__ import annotations

import pytest
import torch

from accel_cli.errors import ConfigError, ResourceError

pytest.importorskip("timm", reason="the extra timm is not installed")


@pytest.mark.parametrize("architecture", ["resnet18", "test_vit", "test_convnext.r160_in1k"])
def test_output_fits_the_data(models, data, architecture):
    model = models.build("timm", data.colour, architecture=architecture)
    assert model(data.inputs(data.colour)).shape == (4, 10)


@pytest.mark.parametrize("architecture", ["vit_tiny_patch16_224", "convnext_atto", "mobilenetv3_small_050"])
def test_builds_without_storage(models, data, architecture):
    with torch.device("meta"):
        model = models.build("timm", data.colour, architecture=architecture)
        assert model(torch.empty(2, 3, 32, 32)).shape == (2, 10)
    assert all(parameter.is_meta for parameter in model.parameters())


def test_overfits_one_batch_of_one_channel(models, data):
    model = models.build("timm", data.digits, architecture="test_resnet")
    assert models.overfit(model, data.inputs(data.digits, 8), torch.arange(8), steps=20, rate=0.01) < 0.1


@pytest.mark.parametrize(
    ("kind", "overrides", "where", "expected"),
    [
        ("colour", {"architecture": "resnet81"}, "model.architecture=resnet81", "did you mean model.architecture=res"),
        ("colour", {"architecture": "resnet18.mine"}, "model.architecture=resnet18.mine", "timm has no such model"),
        ("colour", {"architecture": "hf-hub:a/b"}, "model.architecture=hf-hub:a/b", "timm has no such model"),
        ("colour", {"args": {"widht": 3}}, "model.args={'widht': 3}", "widht"),
        ("text", {}, "model=timm", "try model=gpt"),
    ],
)
def test_a_wrong_choice_says_what_to_type(models, data, kind, overrides, where, expected):
    with pytest.raises(ConfigError) as raised:
        models.build("timm", getattr(data, kind), **overrides)
    (problem,) = raised.value.problems
    assert problem.where == where
    assert expected in f"{problem.why} {problem.fix}"


def test_absent_weights_name_the_way_around(models, data, monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ResourceError) as raised:
        models.build("timm", data.colour, pretrained=True)
    assert "transfer=finetune transfer.weights=" in raised.value.fix
