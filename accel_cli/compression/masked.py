"""Masks: which weights a pass holds at zero while the rest goes on training; the options say which, and when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from accel_cli.compression.base import Pass
from accel_cli.config.schema.compression import Masked as Config
from accel_cli.config.suggest import unmatched
from accel_cli.errors import ConfigError, Problem
from accel_cli.structure import Border, Changed

NOT_WEIGHTS = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, _NormBase)
"""Modules whose tables and scales are left alone unless ``only`` names them."""
WRAPPERS = {"_orig_mod", "_checkpoint_wrapped_module"}


class Masked(Pass):
    """Masked weights are exactly zero after every step, whatever the optimizer's momentum would make of them.

    A mask only grows. It is set after an update, from this rank's part of the weights, and lies as they do; what is
    averaged for evaluation (train.ema, train.lookahead) is cut with them. Borders change nothing: zeros are weights
    like others to whatever reads the model, and a dense kernel multiplies them.
    """

    config: Config
    masked = "weights of two dimensions or more"
    """What it masks, in words."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.weights: dict[str, Tensor] = {}
        self.masks: dict[str, Tensor] = {}
        """Of uint8, 1 where a weight is held at zero: gloo sends no booleans."""
        self._averages: Mapping[Tensor, Tensor] = {}
        self._trained: dict[str, Tensor] = {}
        self._values: dict[str, Tensor] = {}
        """What ``rewind`` goes back to."""
        self._steps = 0

    def times(self, steps: int) -> dict[int, float]:
        """Updates made -> share of the weights that are masked from then on."""
        raise NotImplementedError

    def choose(self, weights: Sequence[Tensor], share: float) -> list[Tensor]:
        """This rank's part of new masks, bool, True where a weight becomes zero; the same in any layout."""
        raise NotImplementedError

    def takes(self, weight: Tensor) -> bool:
        """Whether a tensor of this shape can be masked so."""
        return weight.dim() >= 2

    def check(self, model: nn.Module, task: Any, outputs: Any) -> None:
        self.select(model)

    def select(self, model: nn.Module) -> dict[str, Tensor]:
        """What is masked, by name. Raises ConfigError for a pattern that matches nothing, and where nothing is left."""
        config, key = self.config, f"compression.passes.{self.config.option}"
        parameters = {plain(name): parameter for name, parameter in model.named_parameters()}
        patterns = [(key_, pattern) for key_ in ("only", "keep") for pattern in getattr(config, key_) or ()]
        problems = [
            unmatched(f"{key}.{name}={pattern}", pattern, list(parameters), f"{key}.{name}=[{{}}]")
            for name, pattern in patterns
            if not any(fnmatchcase(parameter, pattern) for parameter in parameters)
        ]
        if problems:
            raise ConfigError(problems)
        apart = {id(p) for m in model.modules() if isinstance(m, NOT_WEIGHTS) for p in m.parameters(recurse=False)}
        found: dict[str, Tensor] = {}
        for name, parameter in parameters.items():
            if config.only is None:
                is_meant = name.endswith("weight") and id(parameter) not in apart
            else:
                is_meant = any(fnmatchcase(name, pattern) for pattern in config.only)
            stays = any(fnmatchcase(name, pattern) for pattern in config.keep)
            if is_meant and not stays and parameter.is_floating_point() and self.takes(parameter):
                found[name] = parameter
        if not found:
            why = f"masks {self.masked}; this model has none, or none that only and keep leave"
            raise ConfigError(Problem(f"compression={config.option}", why, "try compression=none, or another model"))
        return found

    def borders(self, steps: int) -> tuple[int, ...]:
        """Before the first cut, where nothing is changed but a run can go back to, and at the end."""
        self._steps = steps
        before = min(self.times(steps)) - 1
        return (before, steps) if 0 < before < steps else (steps,)

    def attach(self, model: nn.Module) -> None:
        self.weights = self.select(model)
        self.masks = {
            name: torch.zeros_like(weight, dtype=torch.uint8, requires_grad=False)
            for name, weight in self.weights.items()
        }
        if self.config.rewind is not None:
            self._trained = {plain(name): p for name, p in model.named_parameters() if p.requires_grad}
            self._values = {name: p.detach().clone() for name, p in self._trained.items()}

    def follow(self, averages: Mapping[Tensor, Tensor]) -> None:
        self._averages = averages

    @torch.no_grad()
    def after_step(self, model: nn.Module, step: int) -> None:
        made = step + 1
        self._hold(self.weights.items())
        share = self.times(self._steps).get(made)
        if share is not None:
            found = self.choose(list(self.weights.values()), share)
            for mask, chosen in zip(self.masks.values(), found, strict=True):
                local(mask).logical_or_(chosen)
            self._cut()
        if self.config.rewind is not None and made == round(self.config.rewind * self._steps):
            for name, parameter in self._trained.items():
                local(self._values[name]).copy_(local(parameter))

    def _cut(self) -> None:
        """Bring the weights to a new mask, from where they are or from where they go back to."""
        for name, parameter in self._trained.items():
            local(parameter).copy_(local(self._values[name]))
            if parameter in self._averages:
                local(self._averages[parameter]).copy_(local(parameter))
        self._hold(self.weights.items())
        self._hold((n, self._averages[w]) for n, w in self.weights.items() if w in self._averages)

    def _hold(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        for name, tensor in tensors:
            local(tensor).masked_fill_(local(self.masks[name]).view(torch.bool), 0)

    def state(self) -> dict[str, Tensor]:
        values = {f"rewind/{name}": value for name, value in self._values.items()}
        return {**{f"mask/{name}": mask for name, mask in self.masks.items()}, **values}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """A weight that another pass has given a new shape has no mask of its own any more: its zeros are one."""
        for name, mask in self.masks.items():
            saved = tensors.get(f"mask/{name}")
            local(mask).copy_(local(self.weights[name]) == 0 if saved is None else local(saved))
        for name, value in self._values.items():
            local(value).copy_(local(tensors.get(f"rewind/{name}", self._trained[name])))

    def change(self, model: nn.Module, border: Border) -> Changed:
        """Count the zeros, in the end."""
        selected = self.select(model)
        if border.step < border.steps:
            return Changed(model, {}, notes=(f"{len(selected)} tensors are masked from here on",))
        zeros = {name: int((weight == 0).sum()) for name, weight in selected.items()}
        masked = sum(weight.numel() for weight in selected.values())
        every = sum(parameter.numel() for parameter in model.parameters())
        all_zeros = sum(int((parameter == 0).sum()) for parameter in model.parameters())
        record = {
            "masked_weights": masked, "zeros": sum(zeros.values()), "sparsity": sum(zeros.values()) / masked,
            "parameters": every, "sparsity_of_all": all_zeros / every,
        }  # fmt: skip
        notes = [
            f"{record['zeros']:,} of {masked:,} masked weights are zero ({record['sparsity']:.1%}), "
            f"{record['sparsity_of_all']:.1%} of all {every:,} parameters"
        ]
        if empty := [name for name, weight in selected.items() if zeros[name] == weight.numel()]:
            notes.append(f"nothing is left of {', '.join(empty[:5])}; scope=layer, or keep, would keep some of it")
        speed, more = self.speed(model, border)
        return Changed(model, {**record, **more}, notes=(*notes, *speed))

    def speed(self, model: nn.Module, border: Border) -> tuple[tuple[str, ...], dict[str, Any]]:
        """What zeros buy in time on this device: (notes, what to record)."""
        return ("no speed is claimed: a dense kernel multiplies zeros too, and takes as long",), {}

    def replay(self, model: nn.Module, record: dict[str, Any]) -> nn.Module:
        return model


def plain(name: str) -> str:
    """A parameter's name without the parts that torch's wrappers put in."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor: all of a plain one."""
    return getattr(tensor, "_local_tensor", tensor)
