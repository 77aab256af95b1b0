"""PowerSGD: a gradient matrix travels as the product of two thin ones, and what that loses joins the next step's."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.futures import Future

from accel_cli.communication.base import Communication
from accel_cli.communication.low_rank import columns, compressed_bytes, orthonormal


@dataclass
class Opened:
    """A bucket of gradients whose first exchange is under way."""

    buffer: Tensor
    whole: list[Tensor]
    """Gradients that are sent as they are: views into the buffer."""
    matrices: dict[str, tuple[Tensor, Tensor]]
    """Parameter name -> (its gradient, a view; the same as a matrix, with what earlier steps lost)."""
    sent: Tensor
    work: Any
    done: Future[Tensor]


Held = tuple[str, Tensor, Tensor, Tensor]
"""Of one parameter: its name, its gradient, that as a matrix with what earlier steps lost, a basis of its columns."""


class PowerSGD(Communication):
    """Vogels et al. 2019, arXiv 1905.13727, with error feedback and warm start, as a hook of DistributedDataParallel.

    M of rank i is sent as P = mean(M Q), made orthonormal, and Q' = mean(M^T P); all ranks then hold P Q'^T, add the
    rest, M - P Q'^T, to their next gradient, and start from Q'. torch's own hook starts its second and third exchange
    from callbacks, whose order differs between ranks: with several buckets on gloo it hangs. Here every exchange
    starts in backward's thread: a bucket's first one as it is ready, the second once, for all, after the last bucket.

    What is remembered belongs to a parameter, not to a bucket, so that buckets may be laid out anew. A step whose
    numbers are not finite is forgotten, as the engine skips it: errors and factors stay what they were. Errors are in
    units of the gradients that they came from: when a loss scale doubles, one step's errors weigh half.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.steady_from = config.start_step
        self.step = 0
        self.errors: dict[str, Tensor] = {}
        self.factors: dict[str, Tensor] = {}
        self.names: dict[nn.Parameter, str] = {}
        self.group: dist.ProcessGroup | None = None
        self._opened: list[Opened] = []

    def attach(self, model: nn.Module) -> None:
        bare: Any = model.module
        self.names = {p: name for name, p in bare.named_parameters() if p.requires_grad}
        self.group = model.process_group  # type: ignore[assignment]
        model.register_comm_hook(None, lambda _, bucket: self.exchange(bucket))  # type: ignore[operator]

    @torch.no_grad()
    def exchange(self, bucket: dist.GradBucket) -> Future[Tensor]:
        """The future of the mean of a bucket over all ranks. Buckets come in one order, the same on all ranks."""
        if self.step < self.config.start_step:
            self.step += bucket.is_last()
            return self._mean(bucket.buffer())
        done = self._open(bucket)
        if bucket.is_last():
            self._close()
            self.step += 1
        return done

    def _mean(self, buffer: Tensor) -> Future[Tensor]:
        work: Any = dist.all_reduce(buffer.div_(dist.get_world_size(self.group)), group=self.group, async_op=True)
        mean: Future[Tensor] = work.get_future().then(lambda found: found.value()[0])
        return mean

    def _open(self, bucket: dist.GradBucket) -> Future[Tensor]:
        whole: list[Tensor] = []
        matrices: dict[str, tuple[Tensor, Tensor]] = {}
        products: list[Tensor] = []
        for parameter, gradient in zip(bucket.parameters(), bucket.gradients(), strict=True):
            name = self.names[parameter]  # type: ignore[index]
            if not self._columns(gradient.shape):
                whole.append(gradient)
                continue
            matrix = gradient.flatten(1)
            # A fresh tensor: its place in memory, and so the last bit of a product, must not follow the bucket's.
            matrix = matrix + self.errors[name] if name in self.errors else matrix.clone()
            matrices[name] = gradient, matrix
            products.append(matrix @ self._factor(name, matrix))
        sent = torch.cat([part.flatten() for part in (*whole, *products)]).div_(dist.get_world_size(self.group))
        work = dist.all_reduce(sent, group=self.group, async_op=True)
        device = bucket.buffer().device
        done: Future[Tensor] = Future(devices=[device] if device.type == "cuda" else None)
        self._opened.append(Opened(bucket.buffer(), whole, matrices, sent, work, done))
        return done

    def _close(self) -> None:
        opened, self._opened = self._opened, []
        held: list[Held] = []
        factors: list[Tensor] = []
        for each in opened:
            each.work.wait()
            sizes = [t.numel() for t in each.whole]
            sizes += [m.shape[0] * self._columns(m.shape) for _, m in each.matrices.values()]
            parts = list(each.sent.split(sizes))
            for gradient, part in zip(each.whole, parts, strict=False):
                gradient.copy_(part.view_as(gradient))
            products = parts[len(each.whole) :]
            for (name, (gradient, matrix)), product in zip(each.matrices.items(), products, strict=True):
                basis = orthonormal(product.view(matrix.shape[0], -1))
                held.append((name, gradient, matrix, basis))
                factors.append(matrix.T @ basis)
        if factors:
            self._finish(held, factors, [each.sent for each in opened])
        for each in opened:
            each.done.set_result(each.buffer)

    def _finish(self, held: list[Held], factors: list[Tensor], first: list[Tensor]) -> None:
        """Exchange the factors, and put the products in the place of the gradients."""
        sent = torch.cat([factor.flatten() for factor in factors]).div_(dist.get_world_size(self.group))
        dist.all_reduce(sent, group=self.group)
        finite = torch.stack([each.sum(dtype=torch.float32) for each in (*first, sent)]).isfinite().all()
        means = sent.split([factor.numel() for factor in factors])
        for (name, gradient, matrix, basis), factor, mean in zip(held, factors, means, strict=True):
            mean = mean.view_as(factor).to(factor.dtype, copy=True)
            product = basis @ mean.T
            gradient.copy_(product.view_as(gradient))
            lost = matrix - product
            before = self.errors.get(name)
            self.errors[name] = torch.where(finite, lost, torch.zeros_like(lost) if before is None else before)
            self.factors[name] = torch.where(finite, mean, self.factors[name])

    def _factor(self, name: str, matrix: Tensor) -> Tensor:
        """The last step's, or for the first a random one: [columns of the matrix, rank], the same on all ranks."""
        if name not in self.factors:
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            drawn = torch.randn(matrix.shape[1], self._columns(matrix.shape), generator=generator)
            self.factors[name] = drawn.to(matrix)
        factor = self.factors[name]
        # Only its directions matter; of the length of a gradient, the product would be of that length squared.
        return factor / torch.linalg.vector_norm(factor, dim=0).clamp_min(torch.finfo(factor.dtype).tiny)

    def _columns(self, shape: Sequence[int]) -> int:
        return columns(shape, self.config.rank, self.config.min_compression)

    def bytes_per_step(self, gradient_bytes: int, world_size: int) -> int:
        """Once ``start_step`` has passed."""
        if not self.names:
            return super().bytes_per_step(gradient_bytes, world_size)
        sent = compressed_bytes(list(self.names), self.config.rank, self.config.min_compression)
        return super().bytes_per_step(sent, world_size)

    def bytes_sent(self, gradient_bytes: int, world_size: int, steps: int) -> int:
        exact = min(steps, self.config.start_step)
        whole = super().bytes_per_step(gradient_bytes, world_size)
        return exact * whole + (steps - exact) * self.bytes_per_step(gradient_bytes, world_size)

    def state(self) -> dict[str, Tensor]:
        """``step``, ``factor/<parameter>`` and ``error/<rank>/<parameter>``; each rank lost something else."""
        if self.group is None:
            return {}
        rank, world_size = dist.get_rank(self.group), dist.get_world_size(self.group)
        found = {"step": torch.tensor(self.step)}
        for name, factor in self.factors.items():
            found[f"factor/{name}"] = factor.detach().to("cpu", copy=True)
        for name, error in self.errors.items():
            each = [torch.empty_like(error) for _ in range(world_size)] if rank == 0 else None
            dist.gather(error, each, group=self.group, group_dst=0)
            found.update({f"error/{other}/{name}": lost.cpu() for other, lost in enumerate(each or [])})
        return found if rank == 0 else {}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Factors of another rank than is configured now are left out: they are only where a step starts from."""
        if self.group is None:
            return
        own = f"error/{dist.get_rank(self.group)}/"
        self.step = int(tensors["step"])
        for parameter, name in self.names.items():
            if (error := tensors.get(own + name)) is not None:
                self.errors[name] = error.to(parameter.device, copy=True)
            factor = tensors.get(f"factor/{name}")
            if factor is not None and factor.shape[1] == self._columns(parameter.shape):
                self.factors[name] = factor.to(parameter.device, copy=True)
