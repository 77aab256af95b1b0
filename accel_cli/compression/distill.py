"""Distillation: learn what a trained model says of each sample, beside its target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from accel_cli.compression.base import Pass
from accel_cli.compression.features import NAME, Channels, ProjectedTap, Tap, channels, compare, distance
from accel_cli.config.schema.compression import Distill as Config
from accel_cli.errors import ConfigError, Problem
from accel_cli.structure import Border, Changed

KEY = "compression.passes.distill"
IGNORED = -100
"""A target token that counts nothing."""
WIDTH = {"class": "classes", "next_token": "vocabulary", "number": "outputs"}
"""Of a description: how many numbers a target of this kind takes."""
Says = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, tuple[Tensor, ...]]]
"""(inputs [n, ...], epochs [n], indices [n]) -> what the teacher gives for them [n, ...], and its inner features."""


class Taught(NamedTuple):
    """The targets of a training batch, and the teacher's outputs and inner features for its samples."""

    targets: Any
    outputs: Tensor
    features: tuple[Tensor, ...] = ()


class Distill(Pass):
    """(1 - share) x the task's loss + share x T^2 x KL(teacher / T || student / T), by softmax over classes or tokens.

    Hinton et al. 2015, arXiv:1503.02531. Where numbers are predicted, the second term is the task's own loss against
    the teacher's: a squared error. To this is added feature_weight x the distance of inner features (features.py); the
    projections of hints are modules of the student from the first step to the last. Evaluation is the task's.
    """

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._taps: ProjectedTap | None = None

    def check(self, model: nn.Module, task: Any, outputs: Any) -> None:
        self._compare(model, self._teacher(task, outputs), task, outputs.example)

    def borders(self, steps: int) -> tuple[int, ...]:
        return (0, steps) if self.config.features == "hint" else ()

    def change(self, model: nn.Module, border: Border) -> Changed:
        if border.step == border.steps:
            delattr(model, NAME)
            return Changed(model, {}, notes=("the projections of hints are gone",))
        teacher = self._teacher(border.task, border.outputs)
        found = self._compare(model, teacher, border.task, border.example)
        sizes = [[channels(own), channels(other)] for own, other in found]
        model = self.replay(model, {"projections": sizes})
        numbers = sum(parameter.numel() for parameter in getattr(model, NAME).parameters())
        note = f"{len(sizes)} projections of {numbers:,} parameters to the teacher's features, until training ends"
        return Changed(model, {"projections": sizes}, notes=(note,))

    def replay(self, model: nn.Module, record: dict[str, Any]) -> nn.Module:
        if "projections" not in record:
            delattr(model, NAME)
            return model
        place = next(model.parameters())
        made = {str(n): Channels(own, other) for n, (own, other) in enumerate(record["projections"])}
        model.add_module(NAME, nn.ModuleDict(made).to(place.device))
        return model

    def attach(self, model: nn.Module) -> None:
        if self.config.features is not None:
            self._taps = ProjectedTap(model, [own for own, _ in self.config.pairs], f"{KEY}.layers")

    def teach(self, task: Any, augment: Any, outputs: Any) -> tuple[Any, Any]:
        """Raises ConfigError for a teacher of another target, ResourceError where its outputs do not fit the disk."""
        config, teacher = self.config, self._teacher(task, outputs)
        if config.cache:
            table = outputs.keep(
                "outputs of the teacher",
                teacher.model,
                teacher.of_batch,
                "train",
                views=config.views,
                where=f"{KEY}.teacher={config.teacher}",
                otherwise=f"{KEY}.cache=false",
            )
            self.views = config.views
            device = outputs.device

            def says(inputs: Tensor, epochs: Tensor, indices: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
                return table.rows(epochs, indices).to(device, non_blocking=True), ()
        else:
            tap = Tap(teacher.model, [other for _, other in config.pairs], f"{KEY}.layers")

            def says(inputs: Tensor, epochs: Tensor, indices: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
                return teacher.of_inputs(inputs), tuple(tap.seen)

        return Lesson(task, config, self._taps), Teaching(augment, says)

    def _teacher(self, task: Any, outputs: Any) -> Any:
        key = f"{KEY}.teacher={self.config.teacher}"
        if task.target not in WIDTH:
            why = f"softens classes, tokens and numbers; task={task.config.option} has a loss of its own"
            raise ConfigError(Problem("compression=distill", why, "try compression=none"))
        if not (isinstance(outputs.example, (tuple, list)) and isinstance(outputs.example[0], Tensor)):
            why = f"reads pairs of inputs and targets; this data gives a {type(outputs.example).__name__}"
            raise ConfigError(Problem("compression=distill", why, "let the data give (inputs, targets)"))
        teacher = outputs.teacher(self.config, KEY)
        if not teacher.speaks and self.config.share > 0:
            why = "published weights know classes of their own, not this data's: only their features can be learnt"
            fix = f"try {KEY}.share=0 with {KEY}.features=hint, or a run on this data"
            raise ConfigError(Problem(f"{KEY}.share={self.config.share:g}", why, fix))
        check(teacher.description, outputs.description, WIDTH[task.target], key)
        return teacher

    @torch.no_grad()
    def _compare(self, model: nn.Module, teacher: Any, task: Any, batch: Any) -> list[tuple[Tensor, Tensor]]:
        """(the student's, the teacher's) features of a batch, layer by layer. Raises ConfigError where they differ."""
        if self.config.features is None:
            return []
        key = f"{KEY}.layers"
        names = list(zip(*self.config.pairs, strict=True))
        taps = [Tap(m, own, key) for m, own in zip((model, teacher.model), names, strict=True)]
        task.forward(model, batch)
        teacher.of_inputs(batch[0])
        for tap in taps:
            tap.close()
        found = list(zip(taps[0].seen, taps[1].seen, strict=True))
        for (own, other), features in zip(self.config.pairs, found, strict=True):
            compare(features[0], features[1], str(self.config.features), f"{key}=[{own}:{other}]")
        return found


def check(theirs: Any, ours: Any, width: str, key: str) -> None:
    """Raise ConfigError where two descriptions of data are not of the same inputs and targets."""
    facts = ("input", "input_shape", "target", width, "class_names")
    for fact in facts:
        own, other = getattr(ours, fact), getattr(theirs, fact)
        if own != other and not (fact == "class_names" and None in (own, other)):
            why = f"was trained on data whose {fact} is {other}; this data's is {own}"
            raise ConfigError(Problem(key, why.replace("_", " "), "name a run on the same kind of data"))


class Teaching:
    """The run's augmentation, then the teacher's outputs for what came of it, beside the targets."""

    def __init__(self, augment: Any, says: Says) -> None:
        self._augment = augment
        self._says = says

    def keys(self, epochs: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        return (epochs, indices) if self._augment is None else self._augment.keys(epochs, indices)

    def __call__(
        self,
        inputs: Tensor,
        targets: Any,
        epochs: Tensor,
        indices: Tensor,
        step: int,
        normalise: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Any]:
        if self._augment is not None:
            inputs, targets = self._augment(inputs, targets, epochs, indices, step, normalise)
        elif normalise is not None:
            inputs = normalise(inputs)
        return inputs, Taught(targets, *self._says(inputs, epochs, indices))


class Lesson:
    """A task whose loss, for batches that hold a teacher's outputs, is in part the distance from those."""

    def __init__(self, task: Any, config: Config, taps: ProjectedTap | None = None) -> None:
        """``taps``: the student's features of the latest forward pass, where those are learnt too."""
        self._task = task
        self._temperature = config.temperature
        self._share = config.share
        self._kind = config.features
        self._feature_weight = config.feature_weight
        self._taps = taps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def forward(self, model: Any, batch: Any) -> Tensor:
        output: Tensor = self._task.forward(model, plain(batch))
        return output

    def weight(self, batch: Any) -> float:
        return float(self._task.weight(plain(batch)))

    def loss(self, model: Any, batch: Any) -> tuple[Tensor, float]:
        return self.loss_of(self.forward(model, batch), batch)

    def loss_of(self, output: Tensor, batch: Any) -> tuple[Tensor, float]:
        total, weight = self._task.loss_of(output, plain(batch))
        if not is_taught(batch):
            return total, weight
        inputs, (targets, taught, features) = batch
        if self._share:
            if self._task.target == "number":
                other = self._task.loss_of(output, (inputs, taught))[0]
            else:
                other = self._divergence(output, taught, targets)
            total = (1 - self._share) * total + self._share * other
        if self._taps is not None and self._kind is not None:
            apart = [distance(self._kind, *pair) for pair in zip(self._taps.seen, features, strict=True)]
            total = total + (weight * self._feature_weight) * torch.stack(apart).sum()
        return total, weight

    def _divergence(self, output: Tensor, taught: Tensor, targets: Any) -> Tensor:
        """Summed over samples, or tokens that count, in fp32; gradients keep their size at any temperature."""
        t, width = self._temperature, taught.shape[-1]
        own = functional.log_softmax(output[..., :width].float() / t, dim=-1)
        wanted = functional.log_softmax(taught.float() / t, dim=-1)
        if self._task.target == "next_token" and self._task.varying_weight:
            counted = targets != IGNORED
            own, wanted = own[counted], wanted[counted]
        return t * t * functional.kl_div(own, wanted, reduction="sum", log_target=True)


def is_taught(batch: Any) -> bool:
    return isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[1], Taught)


def plain(batch: Any) -> Any:
    """The batch as the task knows it."""
    return (batch[0], batch[1].targets) if is_taught(batch) else batch
