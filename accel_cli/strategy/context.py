"""Long sequences: each rank holds a slice of every sequence, and of attention the whole sequence for some heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from accel_cli.errors import ConfigError, Problem
from accel_cli.strategy.context_attention import Exchange, Misfit
from accel_cli.strategy.context_probe import Probe, differs


class ContextParallel:
    """The slices lie between the first block and the last: what comes before sees the whole sequence.

    So does what comes after, unless the targets are next tokens, whose loss is a sum over positions: then each rank has
    logits and targets of its slice, where the model's end allows that. Any model will do whose blocks mix positions in
    scaled_dot_product_attention only: one forward of the example, whole and in slices, tells.
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
            raise self._refusal(misfit.why, misfit.most) from misfit
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
        positions = task.target == "next_token" and whole.dim() == 3 and whole.shape[1] == probe.length
        wrong = self._wrong(probe, task, model, example, self.exchange.cut(whole, 1)) if positions else ""
        self.cuts_targets = positions and wrong is None
        if not self.cuts_targets:
            probe.order[-1].register_forward_hook(self._gathering(probe.dimension))
            wrong = self._wrong(probe, task, model, example, whole)
        if wrong is not None:
            raise ConfigError(Problem(self._where, wrong, self._without))
        probe.attend, probe.first = self.exchange.attend, None
        kept = "logits and targets too" if self.cuts_targets else "whole again after the last block"
        return [
            f"every sequence of {probe.length} positions lies in {self.exchange.size} slices, {kept}; "
            f"a rank attends with {probe.heads // self.exchange.size} of {probe.heads} heads"
        ]

    def _wrong(self, probe: Probe, task: Any, model: nn.Module, example: Any, wanted: Any) -> str | None:
        """What is wrong with a forward of slices, on any rank: the first slice may be right where others are not."""
        error = ""
        try:
            output = differs(task.forward(model, example), wanted)
        except (RuntimeError, ValueError, IndexError) as raised:
            error, output = " ".join(str(raised).split())[:160], True
        verdict = torch.tensor([probe.differs, output], dtype=torch.int32, device=self.exchange.device)
        dist.all_reduce(verdict, dist.ReduceOp.MAX, group=self.exchange.group)
        attention, output = verdict.bool().tolist()
        if attention:
            why = "queries and keys of a slice are not those of the whole sequence: a block counts positions itself"
            fix = f"compute positions before the blocks and hand them in, or {self._without}"
            raise ConfigError(Problem(self._where, why, fix))
        if error:
            return f"the model does not run on a slice of a sequence: {error}"
        return "the output of slices differs: positions are mixed outside of attention" if output else None

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
