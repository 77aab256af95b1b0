"""The weights that torchvision publishes for an architecture."""

from __future__ import annotations

import torchvision
from torch import Tensor

from accel_cli.config.suggest import did_you_mean, nearest
from accel_cli.errors import ConfigError, Problem
from accel_cli.published import read


def tensors(name: str, where: str) -> dict[str, Tensor]:
    """Of ``architecture``, its default weights, or of ``architecture.WEIGHTS``. Raises ConfigError for unknown names,
    ResourceError for weights that are not on this machine and cannot be downloaded."""
    architecture, _, version = name.partition(".")
    known = torchvision.models.list_models(module=torchvision.models)
    if architecture not in known:
        fix = did_you_mean([f"transfer.weights=torchvision:{near}" for near in nearest(architecture, known)])
        fix = fix or "try transfer.weights=torchvision:resnet18"
        raise ConfigError(Problem(where, "torchvision has no such classification model", fix))
    versions = torchvision.models.get_model_weights(architecture)
    if (version := version or "DEFAULT") not in versions.__members__:
        names = ", ".join(versions.__members__) or "none"
        raise ConfigError(Problem(where, "no such published weights", f"it has {names}"))
    published = versions[version]
    return read(published.url, str(published), "name a file or run that is here in transfer.weights")
