"""Strategy: how the model and its gradients lie over ranks. The base is one process that holds it all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors

from accel_cli.world import World

SMALL = 1 << 14
"""Elements of a gradient that is copied together with others to take their norm."""
Whole = Callable[[], tuple[nn.Module, Sequence[nn.Module]]]
"""Builds the whole model, with its weights, on the host; (it, its blocks)"""


class Strategy:
    """Every method works as it stands for one process, or for replicas of it.

    ``data``: the ranks that get different samples. ``gradient``: those whose gradients are averaged. ``losses``: those
    whose sums add up to the whole batch's. ``holds_whole``: whether the whole model has its place on every device.
    ``replicas_differ``: ranks have weights and an optimizer of their own, which a checkpoint has to keep.
    ``steps_alone``: no step waits for another rank.
    """

    holds_whole = True
    replicas_differ = False
    steps_alone = False
    after_step: tuple[Callable[[int], None], ...] = ()

    def __init__(self, config: Any, world: World) -> None:
        self.config = config
        self.world = self.data = self.gradient = self.losses = world
        self._factor: tuple[float, Tensor] | None = None

    def place(
        self, model: nn.Module, blocks: Sequence[nn.Module], example: Any, task: Any
    ) -> tuple[nn.Module, list[str]]:
        """(what this rank holds of a whole model, lines for the user); parameters keep their names in the whole.

        ``blocks`` are its like parts, in order; ``example`` is a batch of two samples. Raises ConfigError where the
        model cannot be laid out so, on every rank alike.
        """
        return model, []

    @classmethod
    def check(cls, config: Any, world: World, whole: Whole, example: Any, task: Any) -> None:
        """Raise ConfigError where ``place`` would, as far as one process tells; ``world`` has no other ranks yet."""

    def wrap(self, model: nn.Module, blocks: Sequence[nn.Module], communication: Any, precision: Any) -> nn.Module:
        """What forward is called on, from what ``place`` returned. Parameters keep their names in the bare model."""
        return model

    def gradient_sync(self, model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        """Surrounds the forward and backward of one micro-batch; gradients are exchanged at the last only."""
        return nullcontext()

    def forward_backward(self, training: Any, batches: Sequence[Any]) -> tuple[Tensor, float]:
        """Gradients of one global batch; every rank calls this with its share, cut into micro-batches.

        Returns (this rank's sum of the loss, 0-dim, on the device; weight of the global batch). A strategy averages
        gradients over ranks, so every micro-batch's sum is scaled by their number / weight: ragged, masked and uneven
        batches are right by construction.
        """
        task, model, clock = training.task, training.model, training.clock
        weight = training.weight(batches)
        gradient = training.scaler.scale(self._scalar(self.gradient.world_size / weight))
        total: Tensor | None = None
        for index, batch in enumerate(batches):
            with self.gradient_sync(model, last=index == len(batches) - 1):
                with training.precision.autocast():
                    loss = self.loss(task, model, batch).float()
                clock.mark("forward")
                backward(loss, gradient)
                clock.mark("backward")
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return total, weight

    def loss(self, task: Any, model: nn.Module, batch: Any) -> Tensor:
        """This rank's sum of the loss over a batch, 0-dim and differentiable."""
        loss: Tensor = task.loss(model, batch)[0]
        return loss

    def evaluate(self, task: Any, model: nn.Module, batch: Any) -> dict[str, tuple[Any, Any]]:
        """Metric name -> (this rank's sum over a batch, its weight), forward only; the names on every rank."""
        sums: dict[str, tuple[Any, Any]] = task.evaluate(model, batch)
        return sums

    def _scalar(self, value: float) -> Tensor:
        """The number on the device, made anew only when it changes."""
        if self._factor is None or self._factor[0] != value:
            self._factor = value, torch.full((), value, device=self.world.device)
        return self._factor[1]

    def clip(
        self, parameters: Sequence[nn.Parameter], max_norm: float | None, max_value: float | None = None
    ) -> Tensor:
        """The norm of all gradients, on the device, equal on all ranks; what is left of them keeps both limits.

        They are scaled down to ``max_norm`` first; then each number is cut off at ``max_value``, which can only make
        the norm smaller. The norm is that of the gradients as they came.
        """
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = self.norm(gradients)
        if max_norm is not None:
            scale_down(gradients, max_norm, norm)
        if max_value is not None:
            cut_off(gradients, max_value)
        return norm

    def norm(self, gradients: list[Tensor]) -> Tensor:
        """The 2-norm of all gradients together, 0-dim."""
        return squares(gradients, self.world.device).sqrt()

    def reduce_report(self, rows: Tensor) -> None:
        """Make the ``[3, steps]`` of a window (loss sums, norms, 1 where skipped) those of all ranks, in place."""
        self.losses.sum(rows[0])

    @contextmanager
    def evaluating(self, model: nn.Module) -> Iterator[None]:
        """The model holds the weights that all ranks agree on inside: to evaluate, to save, to hand on."""
        yield

    def share_buffers(self, model: nn.Module) -> None:
        """Give all ranks the buffers that are saved, such as BatchNorm's statistics, before they evaluate together."""

    def gather(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors of the whole model on rank 0's host, none sharing memory with another; {} elsewhere.

        A collective. What it returns is contiguous, as safetensors wants it.
        """
        if not self.world.is_first:
            return {}
        return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}

    def scatter(self, whole: Tensor, like: Tensor) -> Tensor:
        """This rank's part of a whole tensor, laid out as ``like``; no communication."""
        return whole

    def state(self) -> dict[str, Tensor]:
        """Tensors of the strategy's own for a checkpoint, of every rank, on rank 0; a collective."""
        return {}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what ``state`` gave, under the same strategy and world size."""

    def own_state(self) -> dict[str, Tensor]:
        """Tensors of this rank's own for a checkpoint, beside its weights and optimizer, where replicas differ."""
        return {}

    def load_own(self, tensors: dict[str, Tensor]) -> None:
        """Take back what ``own_state`` gave."""

    def bytes_sent(self, communication: Any, gradient_bytes: int, steps: int) -> int | None:
        """By this rank in ``steps`` steps; None where only looking tells."""
        return 0 if self.world.world_size == 1 else None

    def exposed_communication(self, model: nn.Module, clock: Any, seen: float) -> float:
        """Seconds in which this rank only waited for others, of all that ``clock`` has marked.

        ``seen``: the waits that Python sees, by those of a few steps (engine/traffic.py).
        """
        return seen


def backward(loss: Tensor, gradient: Tensor) -> None:
    """``loss.backward(gradient)``, of a plain 0-dim loss.

    ``Tensor.backward`` compares the two shapes by way of sympy, whose import takes 0.6 s of the first step, and 7
    microseconds of each; Megatron-LM's ``custom_backward`` calls the engine in the same way.
    """
    if type(loss) is not Tensor:
        loss.backward(gradient)
        return
    torch.autograd.Variable._execution_engine.run_backward(  # type: ignore[attr-defined]
        (loss,), (gradient,), False, False, (), allow_unreachable=True, accumulate_grad=True
    )


@torch.no_grad()
def squares(gradients: list[Tensor], device: torch.device) -> Tensor:
    """The sum of the squares of all elements of all tensors, wherever they are, 0-dim on ``device``, fp32 or wider."""
    if gradients and all(type(g) is Tensor and g.is_cpu and g.dtype is torch.float32 for g in gradients):
        return _host_squares(gradients).to(device)
    total: Tensor | None = None
    for place, there in by_device(gradients).items():
        if place.type == "cpu":  # a call for each tensor would cost more than a copy of the small ones
            small = [tensor for tensor in there if tensor.numel() <= SMALL and is_plain(tensor)]
            if len(small) > 1:
                large = [tensor for tensor in there if tensor.numel() > SMALL or not is_plain(tensor)]
                there = [_flatten_dense_tensors(small), *large]
        wide = torch.float32 if any(g.element_size() == 2 for g in there) else None
        norms = torch.stack(torch._foreach_norm(there, 2, wide)).float()
        own = norms.dot(norms).to(device)
        total = own if total is None else total + own
    return torch.zeros((), device=device) if total is None else total


def _host_squares(gradients: list[Tensor]) -> Tensor:
    """The same of plain fp32 tensors on the host: a product with itself takes half the time of torch's norm."""
    small = [gradient for gradient in gradients if gradient.numel() <= SMALL]
    vectors = [_flatten_dense_tensors(small)] if small else []
    vectors += [_in_memory_order(gradient) for gradient in gradients if gradient.numel() > SMALL]
    total = vectors[0].dot(vectors[0])
    for vector in vectors[1:]:
        total += vector.dot(vector)
    return total


def _in_memory_order(tensor: Tensor) -> Tensor:
    """All elements, one after another; filters in channels_last need no copy for it."""
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor.as_strided((tensor.numel(),), (1,))
    return tensor.reshape(-1)


@torch.no_grad()
def scale_down(gradients: list[Tensor], max_norm: float, norm: Tensor) -> None:
    """Scale gradients of this norm down to ``max_norm``, in place, as torch's clip_grads_with_norm_ does."""
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    if norm.device.type == "cpu" and float(factor) == 1.0:
        return
    for device, there in by_device(gradients).items():
        torch._foreach_mul_(there, factor.to(device))


@torch.no_grad()
def cut_off(gradients: list[Tensor], max_value: float) -> None:
    """Bring every number to within -max_value and max_value, in place; of sharded gradients each rank its own."""
    held: list[Tensor] = [getattr(gradient, "_local_tensor", gradient) for gradient in gradients]
    for there in by_device(held).values():
        torch._foreach_clamp_min_(there, -max_value)
        torch._foreach_clamp_max_(there, max_value)


def is_plain(tensor: Tensor) -> bool:
    """Whether it is no DTensor."""
    return not hasattr(tensor, "device_mesh")


def by_device(tensors: Sequence[Tensor]) -> dict[torch.device, list[Tensor]]:
    found: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        found.setdefault(tensor.device, []).append(tensor)
    return found
