"""Models of timm, by name."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from accel_cli.config.schema.model import Timm
from accel_cli.config.suggest import did_you_mean, nearest
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem, ResourceError
from accel_cli.model.base import on_meta, outputs, probe, require


def build(config: Timm, description: DataDescription) -> nn.Module:
    """Images [n, channels, height, width] -> [n, classes or outputs]; timm fits head and stem to the data.

    With pretrained, ``model.new_parameters`` names the head. On the meta device no weights are read.
    Raises ConfigError for unknown names and arguments and for images that the architecture cannot take,
    ResourceError where published weights cannot be had.
    """
    require(config, description, inputs=("image",), targets=("class", "number"))
    where = f"model.architecture={config.architecture}"
    name, _, tag = config.architecture.partition(".")
    tags = timm.list_pretrained(name) if tag else []
    if not timm.is_model(name) or (tag and config.architecture not in tags):
        known = tags or timm.list_models()
        fix = did_you_mean([f"model.architecture={n}" for n in nearest(config.architecture, known)])
        raise ConfigError(Problem(where, "timm has no such model", fix or "try model.architecture=resnet18"))
    arguments = {
        "num_classes": outputs(config, description),
        "in_chans": description.input_shape[0],
        **image_size(config, description),
        **config.args,
    }

    def construct(*, pretrained: bool) -> nn.Module:
        try:
            return timm.create_model(config.architecture, pretrained=pretrained, **arguments)
        except (TypeError, ValueError, AssertionError) as error:
            why = f"{config.architecture}: {error}"
            raise ConfigError(Problem(f"model.args={config.args}", why, "try model.args={}")) from error

    with torch.device("meta"):
        twin = construct(pretrained=False)
    probe(config, twin, description, where=where, fix="try model=resnet, or larger images")
    if on_meta():
        return twin
    if not config.pretrained:
        return construct(pretrained=False)
    try:
        model = construct(pretrained=True)
    except (OSError, RuntimeError) as error:
        message = f"cannot get the published weights of {config.architecture}: {error}"
        file = "get its model.safetensors elsewhere, then try model.pretrained=false transfer=finetune"
        raise ResourceError(message, f"{file} transfer.weights=<that file>") from error
    head: Any = model.pretrained_cfg["classifier"]  # type: ignore[index]
    heads = (head,) if isinstance(head, str) else tuple(head)
    model.new_parameters = tuple(  # type: ignore[assignment]
        key for key, _ in model.named_parameters() if key.startswith(tuple(f"{h}." for h in heads))
    )
    return model


def image_size(config: Timm, description: DataDescription) -> dict[str, tuple[int, ...]]:
    """The img_size that architectures of a fixed image size must be told."""
    published = timm.get_pretrained_cfg(config.architecture)
    if published is None or not published.fixed_input_size:
        return {}
    return {"img_size": tuple(description.input_shape[1:])}
