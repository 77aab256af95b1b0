"""Long sequences: each rank holds a slice of every sequence, and of attention the whole sequence for some heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from accel_cli.errors import ConfigError, Problem
from accel_cli.strategy.context_attention import ATTENTION, Attention, Exchange, Misfit

SAMPLES = 2
"""Of the example."""


class Context:
    """The slices lie between the first block and the last: what comes before sees the whole sequence.

    So does what comes after, unless the targets are next tokens, whose loss is a sum over positions: then each rank has
    logits and targets of its slice. Any model will do whose blocks mix positions in scaled_dot_product_attention only:
    one forward of the example, whole and in slices, tells.
    """

    def __init__(self, config: Any, mesh: DeviceMesh, device: torch.device) -> None:
        self.config = config
        self.exchange = Exchange(mesh.get_group(), device)
        self.cuts_targets = False

    def place(
        self, model: nn.Module, blocks: Sequence[nn.Module], example: Any, task: Any
    ) -> tuple[nn.Module, list[str]]:
        if not blocks:
            fix = "name the layers that repeat: try train.blocks=[encoder.layers.*]"
            raise ConfigError(Problem(self._where, "found no blocks to cut a sequence between", fix))
        trained = model.training
        model.eval()
        try:
            lines = self._cut(model, blocks, example, task)
        except Misfit as misfit:
            raise self._refusal(f"{misfit.why}, for {self.exchange.size} ranks", misfit.most) from misfit
        model.train(trained)
        return model, lines

    @torch.no_grad()
    def _cut(self, model: nn.Module, blocks: Sequence[nn.Module], example: Any, task: Any) -> list[str]:
        probe = Probe(self.exchange)
        for block in blocks:
            block.forward = probe.inside(block.forward)  # type: ignore[method-assign]
        watched = [block.register_forward_pre_hook(probe.watch, with_kwargs=True) for block in blocks]
        whole = task.forward(model, example)
        for handle in watched:
            handle.remove()
        if not probe.order or probe.first is None:
            why = "no block calls torch's scaled_dot_product_attention: there are no heads to share out"
            raise ConfigError(Problem(self._where, why, f"let the model call it, or {self._without}"))

        probe.attend = probe.compare
        for block in probe.order:
            block.register_forward_pre_hook(self._cutting(probe.dimensions[block]), with_kwargs=True)
        follows = task.target == "next_token" and whole.dim() == 3 and whole.shape[1] == probe.length
        self.cuts_targets = follows
        if not follows:
            probe.order[-1].register_forward_hook(self._gathering(probe.dimension))
        try:
            part = task.forward(model, example)
        except (RuntimeError, ValueError, IndexError) as error:
            why = f"the model does not run on a slice of a sequence: {' '.join(str(error).split())[:160]}"
            raise ConfigError(Problem(self._where, why, self._without)) from error
        wanted = self.exchange.cut(whole, 1) if follows else whole
        self._judge(probe, differs(part, wanted))
        probe.attend = self.exchange.attend
        return [
            f"every sequence of {probe.length} positions lies in {self.exchange.size} slices; "
            f"a rank attends with {probe.heads // self.exchange.size} of {probe.heads} heads"
        ]

    def _judge(self, probe: Probe, output: bool) -> None:
        """Refuse on every rank what is wrong on one: the first slice is right whatever the model does."""
        verdict = torch.tensor([probe.differs, output], dtype=torch.int32, device=self.exchange.device)
        dist.all_reduce(verdict, dist.ReduceOp.MAX, group=self.exchange.group)
        attention, output = verdict.bool().tolist()
        if attention:
            why = "queries and keys of a slice are not those of the whole sequence: a block counts positions itself"
            fix = f"compute positions before the blocks and hand them in, or {self._without}"
            raise ConfigError(Problem(self._where, why, fix))
        if output:
            why = "the output of slices is not that of the whole sequence: positions are mixed outside of attention"
            raise ConfigError(Problem(self._where, why, self._without))

    def _cutting(self, dimensions: Sequence[int | None]) -> Callable[..., Any]:
        def cut(block: nn.Module, inputs: Any, named: Any) -> Any:
            values, form = tree_flatten((inputs, named))
            for index, dimension in enumerate(dimensions):
                if dimension is not None:
                    values[index] = self.exchange.cut(values[index], dimension)
            return tree_unflatten(values, form)

        return cut

    def _gathering(self, dimension: int) -> Callable[..., Any]:
        def gather(block: nn.Module, inputs: Any, output: Any) -> Any:
            values, form = tree_flatten(output)
            values[0] = self.exchange.gather(values[0], dimension)
            return tree_unflatten(values, form)

        return gather

    def loss(self, task: Any, model: nn.Module, batch: Any) -> Tensor:
        """This rank's part of the loss sum: of its slice, or an equal share of the whole."""
        if self.cuts_targets:
            output = task.forward(model, batch)
            loss: Tensor = task.loss_of(output, self.own_targets(output, batch))[0]
            return loss
        return task.loss(model, batch)[0] / self.exchange.size  # type: ignore[no-any-return]

    def evaluate(self, task: Any, model: nn.Module, batch: Any) -> dict[str, tuple[Any, Any]]:
        """Sums over this rank's slice; where every rank sees the whole batch, that, weighed alike."""
        sums: dict[str, tuple[Any, Any]]
        if self.cuts_targets:
            output = task.forward(model, batch)
            sums = task.measure(output, self.own_targets(output, batch))
        else:
            sums = task.evaluate(model, batch)
        return sums

    def own_targets(self, output: Tensor, batch: Any) -> Any:
        """The batch with every [n, length, ...] cut to the positions of ``output`` [n, slice, ...]."""
        length = output.shape[1] * self.exchange.size

        def own(value: Any) -> Any:
            carries = isinstance(value, Tensor) and value.dim() > 1 and value.shape[1] == length
            return self.exchange.cut(value, 1) if carries else value

        return tree_map(own, batch)

    @property
    def _where(self) -> str:
        return f"strategy={self.config.option}"

    @property
    def _without(self) -> str:
        return "try strategy=ddp" if self.config.option == "context" else "try strategy.context=1"

    def _refusal(self, why: str, most: int) -> ConfigError:
        key = "launch.processes" if self.config.option == "context" else "strategy.context"
        return ConfigError(Problem(self._where, why, f"try {key}={most}" if most > 1 else self._without))


class Probe:
    """What a forward pass shows: the blocks in their order, what carries the sequence, the first queries and keys."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.attend: Callable[..., Tensor] = self.record
        self.order: list[nn.Module] = []
        self.dimensions: dict[nn.Module, list[int | None]] = {}
        self.length, self.dimension, self.heads = 0, 1, 0
        self.first: list[Tensor] | None = None
        self.differs = False

    def inside(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*inputs: Any, **named: Any) -> Any:
            with Attention(self.attend):
                return forward(*inputs, **named)

        return run

    def watch(self, block: nn.Module, inputs: Any, named: Any) -> None:
        """Which dimension of each of a block's arguments is the sequence's. The first tensor is the stream."""
        values = tree_leaves((inputs, named))
        stream = next(index for index, value in enumerate(values) if isinstance(value, Tensor))
        found: list[int | None] = [None] * len(values)
        if not self.order:
            shape = values[stream].shape
            self.dimension = 0 if len(shape) == 3 and shape[0] != SAMPLES and shape[1] == SAMPLES else 1
            self.length = shape[self.dimension]
            found[stream] = self.dimension
        for index, value in enumerate(values):
            if index != stream and isinstance(value, Tensor):
                found[index] = self._carries(value)
        self.order.append(block)
        self.dimensions[block] = found

    def _carries(self, value: Tensor) -> int | None:
        """Attention sees the whole sequence, so its masks [..., length, length] stay whole."""
        shape, length = value.shape, self.length
        if shape[-2:] == (length, length):
            return None
        order = (1, 0, value.dim() - 2)
        return next((n for n in order if 0 <= n < value.dim() and shape[n] == length), None)

    def record(self, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> Tensor:
        """Attention over the whole sequence."""
        if self.first is None:
            self.heads = query.shape[-3] if query.dim() > 3 else 1
            query_, key_, *_ = self.exchange.fitting(query, key, value, named.get("enable_gqa", False))
            self.first = [self.exchange.own_heads(x) for x in (query_, key_)]
        return ATTENTION(query, key, value, *rest, **named)

    def compare(self, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> Tensor:
        """Attention of slices."""
        if self.first:
            query_, key_, *_ = self.exchange.fitting(query, key, value, named.get("enable_gqa", False))
            self.differs = differs(self.exchange.to_heads(query_, key_), self.first)
            self.first = []
        return self.exchange.attend(query, key, value, *rest, **named)


def differs(found: Any, wanted: Any) -> bool:
    """Whether any number is not the same to half of its type's digits, of the largest."""
    pairs = zip(tree_leaves(found), tree_leaves(wanted), strict=True)
    return any(_apart(a, b) for a, b in pairs if isinstance(a, Tensor) and a.is_floating_point())


def _apart(found: Tensor, wanted: Tensor) -> bool:
    if found.shape != wanted.shape:
        return True
    tolerance = 3 * torch.finfo(found.dtype).eps ** 0.5
    return bool((found - wanted).abs().max() > tolerance * wanted.abs().max())
