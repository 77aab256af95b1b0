"""Inner features of a student and its teacher: taking them, bringing them to one shape, how far they are apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from accel_cli.config.suggest import nearest
from accel_cli.errors import ConfigError, Problem

NAME = "hints"
"""The module of projections, inside the student while it trains."""


class Tap:
    """The outputs of some modules of a model, as its latest forward pass has left them."""

    def __init__(self, model: nn.Module, names: Sequence[str], key: str) -> None:
        """Raises ConfigError for a name that the model lacks."""
        self.seen: list[Tensor] = [torch.empty(0)] * len(names)
        self._model = model
        self._handles = [submodule(model, n, key).register_forward_hook(self._take(i)) for i, n in enumerate(names)]

    def _take(self, index: int) -> Any:
        def take(module: nn.Module, inputs: Any, output: Any) -> None:
            self.seen[index] = self.made(index, output)

        return take

    def made(self, index: int, output: Any) -> Any:
        return output

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


class ProjectedTap(Tap):
    """Of a student: only while it trains, and through its projection, so that this is part of its forward pass."""

    def made(self, index: int, output: Any) -> Any:
        if not self._model.training:
            return self.seen[index]
        projections = getattr(self._model, NAME, None)
        return output if projections is None else projections[str(index)](output)


class Channels(nn.Linear):
    """A linear map of the channels: of [n, c, h, w] along the second dimension, of others along the last."""

    def forward(self, features: Tensor) -> Tensor:
        if features.dim() != 4:
            return super().forward(features)
        return functional.conv2d(features, self.weight[:, :, None, None], self.bias)


def submodule(model: nn.Module, name: str, key: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        names = [n for n, _ in model.named_modules() if n]
        near = nearest(name, names) or names[:8]
        fix = f"it has {', '.join(near)}"
        raise ConfigError(Problem(f"{key}={name}", "the model has no module of this name", fix)) from None


def channels(features: Tensor) -> int:
    return features.shape[1] if features.dim() == 4 else features.shape[-1]


def compare(own: Any, other: Any, kind: str, where: str) -> None:
    """Raise ConfigError where two features cannot be compared."""
    for whose, features in (("student", own), ("teacher", other)):
        if not isinstance(features, Tensor):
            why = f"the {whose}'s module gives a {type(features).__name__}, no tensor"
            raise ConfigError(Problem(where, why, "name a module inside it"))
    shapes = f"{list(own.shape[1:])} of the student, {list(other.shape[1:])} of the teacher"
    if own.dim() != other.dim() or own.dim() not in (2, 3, 4) or (own.dim() == 3 and own.shape[1] != other.shape[1]):
        raise ConfigError(Problem(where, f"features of different kinds: {shapes}", "name modules that give the same"))
    if kind == "attention" and own.dim() == 2:
        why = f"attention is over places, and these features have none: {shapes}"
        raise ConfigError(Problem(where, why, "try compression.passes.distill.features=hint"))


def distance(kind: str, own: Tensor, other: Tensor) -> Tensor:
    """Mean over samples, 0-dim, in fp32.

    hint: half the mean square between projected features and the teacher's (Romero et al. 2014, arXiv 1412.6550).
    attention: half the square between maps of length 1, of the channels' mean squares (Zagoruyko and Komodakis 2016,
    arXiv 1612.03928). The teacher's images are pooled to the student's size.
    """
    own, other = own.float(), other.float()
    if kind == "attention":
        own, other = ((x.square().mean(1 if x.dim() == 4 else -1)) for x in (own, other))
        if own.dim() == 3 and own.shape != other.shape:
            other = functional.adaptive_avg_pool2d(other[:, None], (own.shape[1], own.shape[2]))[:, 0]
        own, other = (functional.normalize(x.flatten(1), dim=1) for x in (own, other))
        return (own - other).square().sum(1).mean() / 2
    if own.dim() == 4 and own.shape[2:] != other.shape[2:]:
        other = functional.adaptive_avg_pool2d(other, (own.shape[2], own.shape[3]))
    return (own - other).square().mean() / 2
