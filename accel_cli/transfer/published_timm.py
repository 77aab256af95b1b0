"""The weights that timm publishes for an architecture."""

from __future__ import annotations

import timm
from torch import Tensor

from accel_cli.config.suggest import did_you_mean, nearest
from accel_cli.errors import ConfigError, Problem, ResourceError


def tensors(name: str, where: str) -> dict[str, Tensor]:
    """Of ``architecture`` or ``architecture.tag``. Raises ConfigError for unknown names, ResourceError for weights that
    are not on this machine and cannot be downloaded."""
    architecture, _, tag = name.partition(".")
    tags = timm.list_pretrained(architecture) if timm.is_model(architecture) else []
    if not tags or (tag and name not in tags):
        near = nearest(name, tags or timm.list_pretrained())
        fix = did_you_mean([f"transfer.weights=timm:{each}" for each in near])
        raise ConfigError(Problem(where, "timm has no such weights", fix or "try transfer.weights=timm:resnet18"))
    try:
        return dict(timm.create_model(name, pretrained=True).state_dict())
    except (OSError, RuntimeError) as error:
        message = f"cannot get the published weights of {name}: {error}"
        raise ResourceError(message, "get its model.safetensors elsewhere, then try transfer.weights=<it>") from error
