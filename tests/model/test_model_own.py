"""The models of this repository: shapes, sizes, learning, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from accel_cli.config.parts import table
from accel_cli.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"

SMALL = {
    "mlp": {"widths": [16]},
    "cnn": {"channels": [8, 16]},
    "resnet": {"blocks": [1, 1], "width": 8},
    "vit": {"width": 16, "depth": 2, "heads": 2},
    "gpt": {"width": 16, "depth": 2, "heads": 2},
}
ACCEPTED = [
    *[("mlp", kind) for kind in ("digits", "colour", "wide", "depth_map", "rows", "prices")],
    *[(name, kind) for name in ("cnn", "resnet", "vit") for kind in ("digits", "colour", "wide", "depth_map")],
    ("gpt", "text"),
]


def shape(description, count: int = 4) -> tuple[int, ...]:
    if description.target == "next_token":
        return (count, *description.input_shape, description.vocabulary)
    return (count, description.classes or description.outputs)


@pytest.mark.parametrize("group", ["model", "transfer"])
def test_every_key_of_an_option_has_a_field_and_a_meaning(group):
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (CONFIGS / group).glob("*.yaml")}
    assert files.keys() == table(group).keys()
    for option, defaults in files.items():
        schema = table(group)[option].schema
        assert set(defaults) == set(schema.model_fields) - {"option"}
        assert all(field.description for name, field in schema.model_fields.items() if name != "option")
        assert all(field.is_required() for field in schema.model_fields.values())
        schema(option=option, **defaults)


@pytest.mark.parametrize(("option", "kind"), ACCEPTED)
def test_output_fits_the_target(models, data, option, kind):
    description = getattr(data, kind)
    output = models.build(option, description, **SMALL[option])(data.inputs(description))
    assert output.shape == shape(description)
    assert output.isfinite().all()


@pytest.mark.parametrize(("option", "kind"), ACCEPTED)
def test_builds_without_storage(models, data, option, kind):
    description = getattr(data, kind)
    real = models.build(option, description, **SMALL[option])
    with torch.device("meta"):
        model = models.build(option, description, **SMALL[option])
        output = model(data.inputs(description, device="cpu").to("meta"))
    assert output.is_meta
    assert output.shape == shape(description)
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in real.state_dict().items()}


@pytest.mark.parametrize(("option", "kind"), [(name, "text" if name == "gpt" else "digits") for name in SMALL])
def test_overfits_one_batch(models, data, option, kind):
    description = getattr(data, kind)
    model = models.build(option, description, **SMALL[option])
    inputs = data.inputs(description, 8)
    targets = inputs.roll(-1, 1) if kind == "text" else torch.arange(8)
    assert models.overfit(model, inputs, targets, steps=60, rate=0.02) < 0.1


@pytest.mark.parametrize("option", ["cnn", "resnet"])
def test_group_normalisation_leaves_no_batch_normalisation(models, data, option):
    model = models.build(option, data.digits, normalisation="group", **SMALL[option]).train()
    images = data.inputs(data.digits)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    assert torch.allclose(model(images)[:1], model(images[:1]), atol=1e-5)


def count(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameter_counts(models, data):
    assert count(models.build("mlp", data.digits)) == 64 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10
    assert count(models.build("mlp", data.digits, widths=[])) == 64 * 10 + 10
    assert count(models.build("cnn", data.digits)) == 9 * (32 + 32 * 64 + 64 * 128) + 2 * (32 + 64 + 128) + 1290
    with torch.device("meta"):  # the counts that are usually quoted for the CIFAR form
        assert count(models.build("resnet", data.colour, width=64)) == 11_173_962
        assert count(models.build("resnet", data.colour, width=64, depth=34)) == 21_282_122
    block = 12 * 128 * 128 + 2 * 128
    tied = 65 * 128 + 16 * 128 + 4 * block + 128
    assert count(models.build("gpt", data.text, weight_tying=True)) == tied
    assert count(models.build("gpt", data.text, weight_tying=False)) == tied + 65 * 128
    assert count(models.build("vit", data.digits)) == 4 * (block + 11 * 128) + 4 * 128 + 17 * 128 + 256 + 1290


def test_the_same_seed_gives_the_same_weights(models, data):
    for option, kind in (("vit", "digits"), ("gpt", "text"), ("resnet", "digits")):
        weights = []
        for _ in range(2):
            torch.manual_seed(3)
            weights.append(models.build(option, getattr(data, kind), **SMALL[option]).state_dict())
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_gpt_sees_no_later_token(models, data):
    model = models.build("gpt", data.text, **SMALL["gpt"]).eval()
    tokens = data.inputs(data.text)
    changed = tokens.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 65
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9:], after[:, 9:])


def test_gpt_takes_a_part_of_the_window(models, data):
    model = models.build("gpt", data.text, **SMALL["gpt"]).eval()
    tokens = data.inputs(data.text)
    assert torch.allclose(model(tokens[:, :5]), model(tokens)[:, :5], atol=1e-6)
    shifted = model(tokens[:, :5], torch.arange(5, 10))
    assert not torch.allclose(shifted, model(tokens[:, :5]), atol=1e-4)


def test_gpt_begins_near_the_uniform_guess(models, data):
    logits = models.build("gpt", data.text)(data.inputs(data.text))
    assert logits.std() < 0.5
    deviations = {name: p.std().item() for name, p in models.build("gpt", data.text).named_parameters()}
    assert deviations["blocks.0.expand.weight"] == pytest.approx(0.02, rel=0.05)
    assert deviations["blocks.0.contract.weight"] == pytest.approx(0.02 / 8**0.5, rel=0.05)


def test_dropout_acts_in_training_only(models, data):
    for option, kind in (("mlp", "digits"), ("cnn", "digits"), ("vit", "digits"), ("gpt", "text")):
        description = getattr(data, kind)
        model = models.build(option, description, dropout=0.5, **SMALL[option])
        inputs = data.inputs(description)
        assert not torch.equal(model(inputs), model(inputs))
        model.eval()
        assert torch.equal(model(inputs), model(inputs))


@pytest.mark.parametrize(
    ("option", "kind", "overrides", "where", "fix"),
    [
        ("gpt", "colour", {}, "model=gpt", "try model=cnn"),
        ("gpt", "rows", {}, "model=gpt", "try model=mlp"),
        ("gpt", "reviews", {}, "model=gpt", "try model=transformers model.architecture=distilbert"),
        ("mlp", "text", {}, "model=mlp", "try model=gpt"),
        ("cnn", "text", {}, "model=cnn", "try model=gpt"),
        ("cnn", "rows", {}, "model=cnn", "try model=mlp"),
        ("vit", "anything", {}, "model=vit", "try model=custom"),
        ("vit", "digits", {"heads": 5}, "model.heads=5", "try model.heads=4"),
        ("gpt", "text", {"heads": 3}, "model.heads=3", "try model.heads=2"),
        ("vit", "digits", {"patch": 3}, "model.patch=3", "try model.patch=2"),
        ("vit", "wide", {"patch": 8}, "model.patch=8", "try model.patch=4"),
        ("resnet", "digits", {"blocks": [2, 1, 1, 1, 1]}, "model.blocks=[2,1,1,1,1]", "try model.blocks=[2,1,1,1]"),
    ],
)
def test_a_wrong_meeting_says_what_to_type(models, data, option, kind, overrides, where, fix):
    with pytest.raises(ConfigError) as raised:
        models.build(option, getattr(data, kind), **overrides)
    (problem,) = raised.value.problems
    assert problem.where == where
    assert problem.fix.startswith(fix)


@pytest.mark.parametrize("option", ["mlp", "cnn"])
def test_the_defaults_learn_the_digits(models, data, option):
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    images = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8)
    images = (images - images.mean()) / images.std()
    labels, order = torch.tensor(labels), torch.randperm(len(images))
    test, train = order[:360], order[360:]
    model = models.build(option, data.digits)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    epochs = 8
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - epoch / epochs)
        for batch in train[torch.randperm(len(train))].split(64):
            torch.nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
            optimizer.zero_grad()
    accuracy = (model.eval()(images[test]).argmax(1) == labels[test]).float().mean().item()
    assert accuracy >= 0.965
