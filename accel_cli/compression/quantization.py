"""What quantization after training and during it share: which layers, folded norms, calibrated ranges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from accel_cli.compression import folding
from accel_cli.compression.base import Pass
from accel_cli.compression.calibration import Point, Range, ranges
from accel_cli.compression.flow import CUTS, PASSES, Flow, Value
from accel_cli.compression.quantized import KINDS, Scheme, quantized
from accel_cli.config.schema.compression import Quantization as Config
from accel_cli.config.suggest import unmatched
from accel_cli.errors import ConfigError, Problem
from accel_cli.structure import Border, Changed

UNCUT = (None, None)


class Quantization(Pass):
    """Linear layers and convolutions of one and two dimensions; embeddings, norms and attention itself stay."""

    config: Config
    timed = False

    @property
    def key(self) -> str:
        return f"compression.passes.{self.config.option}"

    def scheme(self, layer: nn.Module) -> Scheme:
        """How a layer is to be rounded, but for its output."""
        raise NotImplementedError

    def says(self) -> str:
        """What the numbers become, for the user."""
        raise NotImplementedError

    def check(self, model: nn.Module, task: Any, outputs: Any) -> None:
        self._layers(model)

    @torch.no_grad()
    def change(self, model: nn.Module, border: Border) -> Changed:
        """Raises ConfigError where no layer can be quantized, and for one whose inputs are not finite."""
        before = dict(model.named_parameters())

        def forward() -> Any:
            return border.task.forward(model, border.example)

        self._layers(model)
        folded = folding.fold(model, forward)
        candidates = self._layers(model)
        flow = Flow(model, lambda module: type(module) in KINDS).watch(forward)
        schemes = {name: self.scheme(layer) for name, layer in candidates.items() if name in flow.calls}
        if not schemes:
            why = "no linear layer or convolution is called as a module by this model's forward"
            raise ConfigError(Problem(f"compression={self.config.option}", why, "try compression=none"))
        static = any(scheme.activations == "static" for scheme in schemes.values())
        cuts, cutters = _rounded_outputs(flow, candidates, schemes) if static else ({}, [])
        found = self._calibrate(model, border, schemes, cuts, _sources(flow, schemes, cuts)) if static else {}
        for name in cuts:
            schemes[name] = replace(schemes[name], rounds_output=True)
        record = {
            "folded": [list(pair) for pair in folded],
            "cutters": cutters,
            "layers": {name: scheme.to_dict() for name, scheme in schemes.items()},
        }
        _build(model, record)
        for name, one in found.items():
            layer, _, kind = name.rpartition(".")
            model.get_submodule(layer).calibrate(kind, *one)  # type: ignore[operator]
        afresh = {f"{layer}.{name}" for layer, _ in folded for name in ("weight", "bias")}
        kept = {
            name: torch.arange(parameter.numel()).view(parameter.shape)
            for name, parameter in model.named_parameters()
            if name in before and name not in afresh
        }
        return Changed(model, record, kept, self._notes(schemes, candidates, folded))

    def replay(self, model: nn.Module, record: dict[str, Any]) -> nn.Module:
        folding.shape(model, record["folded"])
        _build(model, record)
        return model

    def _layers(self, model: nn.Module) -> dict[str, nn.Module]:
        """Those that can be quantized and shall be."""
        every = {name: module for name, module in model.named_modules() if type(module) in KINDS and name}
        if not every:
            why = "this model has no linear layer and no convolution"
            raise ConfigError(Problem(f"compression={self.config.option}", why, "try compression=none"))
        problems = [
            replace(
                unmatched(f"{self.key}.keep={pattern}", pattern, list(every), f"{self.key}.keep=[{{}}]"),
                why="matches no layer",
            )
            for pattern in self.config.keep
            if not any(fnmatchcase(name, pattern) for name in every)
        ]
        if problems:
            raise ConfigError(problems)
        ignored = self.config.keep
        found = {name: one for name, one in every.items() if not any(fnmatchcase(name, glob) for glob in ignored)}
        if not found:
            why = f"leaves out all {len(every)} layers: nothing would be quantized"
            raise ConfigError(Problem(f"{self.key}.keep=[{','.join(ignored)}]", why, f"try {self.key}.keep=[]"))
        return found

    def _calibrate(
        self,
        model: nn.Module,
        border: Border,
        schemes: dict[str, Scheme],
        cuts: dict[str, tuple[float | None, float | None]],
        sources: dict[str, str],
    ) -> dict[str, Range]:
        """The range of every ``layer.input`` and ``layer.output`` that is rounded."""
        points = {
            **{f"{name}.input": Point(model.get_submodule(name), "input") for name in schemes if name not in sources},
            **{f"{name}.output": Point(model.get_submodule(name), "output", cut) for name, cut in cuts.items()},
        }

        def run() -> Iterator[Tensor]:
            for batch in border.batches(self.config.samples):
                yield border.task.forward(model, batch)

        one, config = next(iter(schemes.values())), self.config
        found = ranges(points, run, config.ranges, config.percentile, one.activation_bits, one.power_of_two)
        for name, (low, high) in found.items():
            if not bool((low.isfinite() & high.isfinite()).all()):
                layer, _, kind = name.rpartition(".")
                why = f"the {kind} of {layer} is not finite for some training samples: it has no range"
                raise ConfigError(Problem(f"compression={config.option}", why, f"try {self.key}.keep=[{layer}]"))
        return found | {f"{name}.input": found[f"{source}.output"] for name, source in sources.items()}

    def _notes(self, schemes: dict[str, Scheme], every: dict[str, Any], folded: list[Any]) -> tuple[str, ...]:
        lines = [f"{len(schemes)} layers compute with {self.says()}"]
        if folded:
            lines.append(f"{len(folded)} BatchNorms became part of the layer before them")
        if unreached := sorted(every.keys() - schemes.keys()):
            lines.append(f"not called as modules, so left as they are: {', '.join(unreached)}")
        lines.append(
            "here they are rounded in floating point, which takes longer; accel export RUN format=onnx has the integers"
        )
        return tuple(lines)


def _build(model: nn.Module, record: dict[str, Any]) -> None:
    for name in record["cutters"]:
        model.set_submodule(name, nn.Identity())
    for name, scheme in record["layers"].items():
        model.set_submodule(name, quantized(model.get_submodule(name), Scheme(**scheme)))


def _rounded_outputs(
    flow: Flow, layers: dict[str, nn.Module], schemes: dict[str, Scheme]
) -> tuple[dict[str, tuple[float | None, float | None]], list[str]]:
    """Convolutions whose output is to be rounded, with what cuts it next; and modules that need not cut it any more.

    A runtime's integer convolution gives integers, so its output has to be rounded somewhere: by the one quantized
    layer that reads it, through a ReLU or not, or else here. Rounded to a range that begins at zero it is cut as well.
    Fixed-point layers do without: where they are computed, sums are as wide as they need.
    """
    cuts: dict[str, tuple[float | None, float | None]] = {}
    cutters = []
    for name, scheme in schemes.items():
        if isinstance(layers[name], nn.Linear) or scheme.power_of_two:
            continue
        readers = flow.outputs[name].readers
        only = readers[0] if len(readers) == 1 and flow.calls[name] == 1 else None
        cuts[name] = UNCUT
        if isinstance(only, str) and only in schemes:
            del cuts[name]
        elif isinstance(only, Value) and only.operation in CUTS:
            if only.operation != "relu6" and len(only.readers) == 1 and only.readers[0] in schemes:
                del cuts[name]
                continue
            cuts[name] = CUTS[only.operation]
            if only.within is not None and flow.calls[only.within] == 1:
                cutters.append(only.within)
    return cuts, cutters


def _sources(flow: Flow, schemes: dict[str, Scheme], cuts: dict[str, Any]) -> dict[str, str]:
    """Layers whose input is another's rounded output, moved about at most: rounding it again shall change nothing."""
    found = {}
    for name in schemes:
        value = flow.inputs[name]
        while value.of is not None:
            is_cut = value.operation in CUTS and cuts.get(value.of.layer or "", UNCUT) != UNCUT
            if value.operation not in PASSES and not is_cut:
                break
            value = value.of
        if value.layer in cuts and flow.calls[name] == 1:
            found[name] = value.layer
    return found  # type: ignore[return-value]
