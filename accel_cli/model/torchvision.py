"""Classification models of torchvision, by name."""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from accel_cli.config.schema.model import Torchvision
from accel_cli.config.suggest import did_you_mean, nearest
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem
from accel_cli.model.base import described, on_meta, outputs, probe, require
from accel_cli.published import read

WITHOUT_AUXILIARY = {"aux_logits": False, "init_weights": True}
PRESET = {"googlenet": WITHOUT_AUXILIARY, "inception_v3": WITHOUT_AUXILIARY}
"""Arguments without which these two put out tuples in training."""


def build(config: Torchvision, description: DataDescription) -> nn.Module:
    """Images [n, channels, height, width] -> [n, classes or outputs]; first and last layer are fitted to the data.

    With weights, ``model.new_parameters`` names what they did not fill, and ``model.trained_moments`` are the (mean,
    std) of their images' colours, from 0 to 1. On the meta device they are not read.
    Raises ConfigError for unknown names and arguments and for images that the architecture cannot take,
    ResourceError where the weights are not on this machine and cannot be downloaded.
    """
    require(config, description, inputs=("image",), targets=("class", "number"))
    where = f"model.architecture={config.architecture}"
    known = torchvision.models.list_models(module=torchvision.models)
    if config.architecture not in known:
        fix = did_you_mean([f"model.architecture={n}" for n in nearest(config.architecture, known)])
        raise ConfigError(Problem(where, "torchvision has no such classification model", fix or "try resnet18"))
    published = find_weights(config) if config.weights else None
    count = outputs(config, description)
    arguments = {**PRESET.get(config.architecture, {}), **square(config, description, published), **config.args}

    def construct() -> nn.Module:
        classes = len(published.meta["categories"]) if published else count
        try:
            model = torchvision.models.get_model(config.architecture, weights=None, num_classes=classes, **arguments)
        except (TypeError, ValueError, AssertionError) as error:
            why = f"{config.architecture}: {error}"
            raise ConfigError(Problem(f"model.args={config.args}", why, "try model.args={}")) from error
        if published and not on_meta():
            fill(model, read(published.url, str(published), "try model.weights=null"), str(published))
        fresh = fit(model, description.input_shape[0], count, replace_head=published is not None)
        if published:
            model.new_parameters = fresh
            moments = published.transforms()
            model.trained_moments = (list(moments.mean), list(moments.std))
        return model

    model = construct()
    with torch.device("meta"):
        twin = construct()
    probe(config, twin, description, where=where, fix="try model=resnet, or larger images")
    return model


def square(config: Torchvision, description: DataDescription, published: Any) -> dict[str, int]:
    """The image_size that torchvision's vision transformers must be told."""
    _, height, width = description.input_shape
    if not config.architecture.startswith("vit_"):
        return {}
    if height != width:
        why = f"needs square images; the data has {described(description)}"
        raise ConfigError(Problem(f"model.architecture={config.architecture}", why, "try model=vit"))
    return {"image_size": published.meta["min_size"][0] if published else height}


def find_weights(config: Torchvision) -> Any:
    """The published weights of this name for the architecture. Raises ConfigError with the names that exist."""
    known = torchvision.models.get_model_weights(config.architecture)
    name = str(config.weights).split(".")[-1]
    if name not in known.__members__:
        names = ", ".join(known.__members__) or "none"
        fix = f"it has {names}; a file of your own: transfer=finetune transfer.weights=<file>"
        raise ConfigError(Problem(f"model.weights={config.weights}", "no such published weights", fix))
    return known[name]


def fill(model: nn.Module, tensors: dict[str, Tensor], name: str) -> None:
    """Load by name; what only auxiliary heads use is left out. Raises ConfigError where a tensor does not fit."""
    wanted = model.state_dict()
    try:
        model.load_state_dict({key: value for key, value in tensors.items() if key in wanted})
    except RuntimeError as error:
        why = f"do not fit the model: {str(error).splitlines()[-1].strip()}"
        raise ConfigError(Problem(f"model.weights={name}", why, "try model.args={}")) from error


def fit(model: nn.Module, channels: int, count: int, *, replace_head: bool) -> tuple[str, ...]:
    """Give the first convolution ``channels`` inputs and, where asked, the last layer ``count`` fresh outputs.

    Returns the names of the fresh parameters. A first convolution keeps its weights: summed over the colours
    for one channel, else repeated and scaled, as timm does.
    """
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    name, stem = next((n, m) for n, m in layers if isinstance(m, nn.Conv2d))
    if stem.in_channels != channels:
        model.set_submodule(name, like(stem, in_channels=channels))
        with torch.no_grad():
            repeats = -(-channels // stem.in_channels)
            weight = stem.weight.repeat(1, repeats, 1, 1)[:, :channels] * stem.in_channels / channels
            if channels == 1:
                weight = stem.weight.sum(dim=1, keepdim=True)
            model.get_submodule(name).weight.copy_(weight)  # type: ignore[operator,union-attr]
    if not replace_head:
        return ()
    name, head = layers[-1]
    if isinstance(head, nn.Conv2d):
        model.set_submodule(name, like(head, out_channels=count))
    else:
        model.set_submodule(name, nn.Linear(head.in_features, count, bias=head.bias is not None))
    return tuple(f"{name}.{key}" for key, _ in model.get_submodule(name).named_parameters())


def like(layer: nn.Conv2d, **changes: int) -> nn.Conv2d:
    """A fresh convolution with the same settings but for ``changes``."""
    settings: dict[str, Any] = {
        key: getattr(layer, key)
        for key in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    }
    return nn.Conv2d(**{**settings, **changes}, bias=layer.bias is not None)
