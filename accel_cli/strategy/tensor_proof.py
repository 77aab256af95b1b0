"""Which pairs of layers can be cut, proved by computing one rank's part and comparing it with the whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from accel_cli.strategy.tensor_layers import count_of, treats_channels_apart
from accel_cli.strategy.tensor_trace import OUTPUT, Forward, Layer, Trace, call, copied, still, tensors_of

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
"""Of the largest element; lower precisions get 0.05. A wrong cut is wrong in the first digit."""


@dataclass(frozen=True)
class Pair:
    """Layers cut by columns, and the layers cut by rows that read nothing but them (Shoeybi et al. 2019,
    arXiv 1909.08053)."""

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    norms: tuple[str, ...]
    """Norms between them that keep a rank's channels only."""
    summed: tuple[str, ...]
    """Parameters between them that are whole on every rank; each rank has a part of their gradient."""

    @property
    def layers(self) -> tuple[str, ...]:
        return self.columns + self.rows

    def __str__(self) -> str:
        return " > ".join(pattern(names) for names in (self.columns, self.rows) if names)


def pattern(names: Sequence[str]) -> str:
    """Names with ``*`` for their numbers, each once; a name that is a number stays."""
    starred = (re.sub(r"\d+", "*", name) for name in names)
    return ", ".join(dict.fromkeys(s if re.search("[A-Za-z]", s) else n for s, n in zip(starred, names, strict=True)))


def pair(model: nn.Module, found: Trace, row: str) -> Pair | None:
    """The pair whose rows ``row`` is among: closed under who reads whom. None where it reads other things too."""
    columns: set[str] = set()
    rows = {row}
    while True:
        more = {name for r in rows if r in found.sources for name in found.sources[r].layers}
        readers = {name for c in more for name in found.consumers[c]}
        if not more or OUTPUT in readers:
            return None
        if more == columns and readers == rows:
            break
        columns, rows = more, readers
    sources = [found.sources[r] for r in rows]
    if columns & rows or not all(s.clean for s in sources):
        return None
    uses = {use for s in sources for use in s.uses}
    parameters = sorted({name for name, _ in uses})
    if any({reader for p, reader in uses if p == name} != found.uses[name] for name in parameters):
        return None  # also read elsewhere, where its gradient is whole
    owners = dict.fromkeys(name.rpartition(".")[0] for name in parameters)
    norms = tuple(owner for owner in owners if treats_channels_apart(model.get_submodule(owner)))
    order = list(found.layers)
    return Pair(
        tuple(sorted(columns, key=order.index)),
        tuple(sorted(rows, key=order.index)),
        norms,
        tuple(name for name in parameters if name.rpartition(".")[0] not in norms),
    )


def misfit(model: nn.Module, found: Trace, pair: Pair, parts: int) -> str | None:
    """Why the sizes of a pair do not allow ``parts`` parts."""
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    for name in pair.layers:
        layer = found.layers[name]
        if layer.calls > 1:
            return f"{name} is called {layer.calls} times in one forward"
        if owners[id(layer.module.get_parameter("weight"))] > 1:
            return f"{name} shares its weight with another layer"
    for name in pair.columns:
        if found.layers[name].outputs % parts:
            return f"{found.layers[name].outputs} outputs of {name} do not divide by {parts}"
    for name in pair.rows:
        if found.layers[name].inputs % parts:
            return f"{found.layers[name].inputs} inputs of {name} do not divide by {parts}"
    for name in pair.norms:
        norm = model.get_submodule(name)
        if any(parameter.shape[0] % parts for parameter in norm.parameters()):
            return f"the channels of {name} do not divide by {parts}"
        if isinstance(norm, nn.GroupNorm) and norm.num_groups % parts:
            return f"{norm.num_groups} groups of {name} do not divide by {parts}"
    return None


def prove(
    model: nn.Module, found: Trace, pairs: list[Pair], parts: int, forward: Forward
) -> tuple[list[Pair], dict[Pair, str]]:
    """(the pairs whose parts are parts of the whole; why not, of the others)

    The first and the last rank's part of every pair is computed, whose rows must read what they would have been cut
    from the whole input. A layer that computes with its own fixed number of heads fails here.
    """
    kept = list(pairs)
    dropped: dict[Pair, str] = {}
    rank = 0
    while kept:
        failed = _Part(model, found, kept, parts, rank).run(forward)
        dropped |= failed
        kept = [p for p in kept if p not in failed]
        if failed:
            rank = 0
        elif rank == parts - 1:
            break
        else:
            rank = parts - 1
    return kept, dropped


def narrowed(model: nn.Module, pairs: Iterable[Pair]) -> Iterator[nn.Module]:
    """The modules of pairs that put out a part of their features only."""
    for pair in pairs:
        for name in (*pair.columns, *pair.norms):
            yield model.get_submodule(name)


def cuts(model: nn.Module, pairs: Iterable[Pair], found: Trace) -> Iterator[tuple[str, int]]:
    """(name of a parameter or buffer, the dimension along which it is cut)"""
    for pair in pairs:
        for name in pair.layers:
            kind = found.layers[name].kind
            yield f"{name}.weight", kind.outputs if name in pair.columns else kind.inputs
            if name in pair.columns and f"{name}.bias" in found.parameters:
                yield f"{name}.bias", 0
        for name in pair.norms:
            norm = model.get_submodule(name)
            for own, tensor in (*norm.named_parameters(recurse=False), *norm.named_buffers(recurse=False)):
                if tensor.dim():
                    yield f"{name}.{own}", 0


class _Part:
    """One forward as one rank would do it, with the sums over ranks taken from the trace."""

    def __init__(self, model: nn.Module, found: Trace, pairs: list[Pair], parts: int, rank: int) -> None:
        self.model, self.found, self.pairs, self.parts, self.rank = model, found, pairs, parts, rank
        self.of = {name: p for p in pairs for name in p.layers}
        self.failed: dict[Pair, str] = {}
        self.begun: list[Pair] = []

    def run(self, forward: Forward) -> dict[Pair, str]:
        values = {name: tensor.detach() for name, tensor in self.found.parameters.items()} | copied(self.model)
        for name, dimension in cuts(self.model, self.pairs, self.found):
            values[name] = self.cut(values[name], dimension)
        try:
            with torch.no_grad(), still(self.model), self.watched():
                result = call(self.model, forward, values)
        except Exception as error:  # whatever a model says about a shape that it did not expect
            self.blame(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        else:
            if not self.failed and not all(map(same, tensors_of(result), self.found.results)):
                self.blame("the model's output changes")
        return self.failed

    def cut(self, tensor: Tensor, dimension: int) -> Tensor:
        return tensor.chunk(self.parts, dimension)[self.rank].contiguous()

    @contextmanager
    def watched(self) -> Iterator[None]:
        with ExitStack() as stack:
            for layer in self.found.layers.values():
                pair = self.of.get(layer.name)
                if pair is None:
                    stack.callback(layer.module.register_forward_pre_hook(self.check(layer)).remove)
                elif layer.name in pair.columns:
                    stack.callback(layer.module.register_forward_pre_hook(self.begin(pair)).remove)
                else:
                    stack.callback(layer.module.register_forward_hook(self.end(pair, layer)).remove)
            for module in narrowed(self.model, self.pairs):
                attribute = count_of(module)
                if attribute is not None:
                    stack.callback(setattr, module, attribute, getattr(module, attribute))
                    setattr(module, attribute, getattr(module, attribute) // self.parts)
            yield

    def begin(self, pair: Pair) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            self.begun.append(pair)

        return hook

    def end(self, pair: Pair, layer: Layer) -> Callable[..., Tensor]:
        def hook(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
            if not same(arguments[0], self.cut(layer.input, layer.kind.features)):
                self.failed[pair] = f"what a rank computes for {layer.name} is not its part of the whole"
            return layer.output.clone()

        return hook

    def check(self, layer: Layer) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            if layer.calls == 1 and arguments and not same(arguments[0], layer.input):
                self.blame(f"the input of {layer.name} changes")

        return hook

    def blame(self, why: str) -> None:
        """The pair that was begun last, and those like it."""
        if self.begun:
            last = self.begun[-1]
            self.failed |= {p: why for p in self.pairs if self.shape(p) == self.shape(last)}
        else:
            self.failed |= dict.fromkeys(self.pairs, why)

    def shape(self, pair: Pair) -> Any:
        return str(pair), [tuple(self.found.layers[n].module.get_parameter("weight").shape) for n in pair.layers]


def same(one: Tensor, other: Tensor, times: float = 1.0) -> bool:
    """Whether they are equal up to rounding, ``times`` as much of it as one layer gives."""
    if one.shape != other.shape:
        return False
    tolerance = TOLERANCE.get(other.dtype, 0.05) * times * float(other.abs().max()) if other.numel() else 0.0
    return bool(((one - other).abs() <= tolerance).all())
