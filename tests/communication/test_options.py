"""fp16, bf16 and powersgd: close to exact, the bytes that they say, and what they keep over odd steps."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
import torch.distributed as dist
from ranks import build_here, records, run_ranks, train_ranks, write_run
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from accel_cli.communication import half
from accel_cli.communication.powersgd import PowerSGD
from accel_cli.world import join

GPT = ["data=stdlib_text", "data.length=16", "data.max_bytes=40000", "model=gpt", "model.width=32", "model.depth=2",
       "model.heads=2", "train.global_batch=32", "optimizer.learning_rate=0.01", "schedule=constant"]  # fmt: skip
STEPS = ["train.epochs=null", "train.steps=20", "metrics.every=1", "evaluate.every=1000", "checkpoint.every=1000"]
POWERSGD = ["communication=powersgd", "communication.start_step=2"]
OPTIONS = {
    "fp16": (["communication=fp16"], 0.002),
    "bf16": (["communication=bf16"], 0.005),
    "powersgd": (POWERSGD, 0.05),
}


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], int]:
    return trained([], tmp_path_factory.mktemp("exact"))


def trained(overrides: list[str], folder: Path, world_size: int = 2) -> tuple[list[float], int]:
    """(losses of the steps, bytes said to be sent)"""
    summary = train_ranks([*GPT, *STEPS, *overrides], folder, world_size)
    return [record["loss"] for record in records(folder, "train")], summary["communication_bytes"]


@pytest.mark.parametrize("option", OPTIONS)
def test_close_to_exact(tmp_path: Path, exact: tuple[list[float], int], option: str) -> None:
    overrides, tolerance = OPTIONS[option]
    losses, sent = trained(overrides, tmp_path)
    assert losses != exact[0], "the option changed nothing"
    assert losses[-1] == pytest.approx(exact[0][-1], rel=tolerance)
    assert losses[-1] < 0.8 * losses[0]
    assert sent < 0.6 * exact[1]


def test_fp16_gradients_under_a_loss_scale(tmp_path: Path, exact: tuple[list[float], int]) -> None:
    losses, _ = trained(["precision=fp16", "communication=fp16"], tmp_path)
    assert losses[-1] == pytest.approx(exact[0][-1], rel=0.05)


def bytes_of_steps(folder: str, steps: int) -> tuple[list[int], list[int]]:
    """(bytes that this rank's sockets sent in each step, bytes that the option says it sends)"""
    t = build_here(folder)
    size = sum(p.numel() * p.element_size() for p in t.parameters)
    counted, said = [], []
    for _ in range(steps):
        t.world.barrier()
        before = sent_bytes()
        t.strategy.forward_backward(t, next(t.loader.batches(t.step, t.step + 1)))
        t.world.barrier()  # the others have what this rank sent
        counted.append(sent_bytes() - before)
        t.step += 1
        said.append(t.communication.bytes_sent(size, 2, t.step) - t.communication.bytes_sent(size, 2, t.step - 1))
    return counted, said


def sent_bytes() -> int:
    """Of all TCP connections of this process, from the kernel's tcp_info: tcpi_bytes_sent less tcpi_bytes_retrans."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            own = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        with own:
            try:
                found, again = struct.unpack_from("QQ", own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232), 200)
                total += found - again
            except (OSError, struct.error):
                continue
    return total


@pytest.mark.parametrize("option", ["exact", *OPTIONS])
def test_the_bytes_are_those_of_the_sockets(tmp_path: Path, option: str) -> None:
    overrides = OPTIONS[option][0] if option in OPTIONS else []
    folder = write_run([*GPT, *STEPS, "model.width=64", *overrides], tmp_path, 2)
    for counted, said in run_ranks(bytes_of_steps, 2, str(folder), 5):
        for own, told in zip(counted, said, strict=True):
            assert told <= own <= told * 1.03 + 2000, (counted, said)  # gloo puts a header before each message


def model(layers: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*[m for _ in range(layers) for m in (nn.Linear(48, 48), nn.Tanh())])


def stepped(hooked: nn.Module, steps: int, spoil: int | None = None) -> torch.Tensor:
    """All weights after some steps of SGD on the rank's own draws; gradients of step ``spoil`` are infinite."""
    optimizer = torch.optim.SGD(hooked.parameters(), 0.1)
    draws = torch.Generator().manual_seed(dist.get_rank())
    for step in range(steps):
        loss = hooked(torch.randn(16, 48, generator=draws)).square().mean()
        (loss * (torch.inf if step == spoil and dist.get_rank() == 0 else 1.0)).backward()
        if step != spoil:
            optimizer.step()
        optimizer.zero_grad()
    return torch.cat([p.detach().flatten() for p in hooked.parameters()])


def config(**values: Any) -> Any:
    return SimpleNamespace(**{"rank": 4, "start_step": 2, "min_compression": 2.0, **values})


def own_and_torchs() -> tuple[torch.Tensor, torch.Tensor]:
    """Weights after the same steps under accel's hook and under torch's, which needs one bucket on gloo."""
    join(torch.device("cpu"), "gloo", 30)
    own = DistributedDataParallel(model())
    communication = PowerSGD(config())
    communication.attach(own)
    theirs = DistributedDataParallel(model())
    theirs.register_comm_hook(PowerSGDState(None, 4, start_powerSGD_iter=2), powerSGD_hook)
    torch.manual_seed(numpy.random.RandomState(0).randint(1_000_000_000))  # torch draws its first factors so
    communication.factors = {name: torch.randn(48, 4) for name in ("2.weight", "0.weight")}
    return stepped(own, 12), stepped(theirs, 12)


def test_powersgd_is_torchs() -> None:
    for own, theirs in run_ranks(own_and_torchs, 2):
        torch.testing.assert_close(own, theirs, rtol=1e-3, atol=1e-5)


def many_buckets() -> torch.Tensor:
    join(torch.device("cpu"), "gloo", 30)
    hooked = DistributedDataParallel(model(10), bucket_cap_mb=0.01)
    PowerSGD(config(rank=2)).attach(hooked)
    return stepped(hooked, 30)


def test_many_buckets_arrive_in_order() -> None:
    """torch's own hook hangs here: its exchanges start from callbacks."""
    first, second = run_ranks(many_buckets, 2)
    assert torch.equal(first, second)


def spoilt(step: int | None) -> tuple[torch.Tensor, list[torch.Tensor]]:
    join(torch.device("cpu"), "gloo", 30)
    hooked = DistributedDataParallel(model())
    communication = PowerSGD(config())
    communication.attach(hooked)
    weights = stepped(hooked, 8, step)
    return weights, [*communication.errors.values(), *communication.factors.values()]


def test_an_infinite_gradient_leaves_no_trace() -> None:
    results = run_ranks(spoilt, 2, 5)
    for weights, kept in results:
        assert weights.isfinite().all()
        assert all(tensor.isfinite().all() for tensor in kept)
    assert torch.equal(results[0][0], results[1][0])


def halved(dtype: str, scale: float) -> tuple[float, float]:
    """(the gradient that two ranks with gradients of ``scale`` and 3 x ``scale`` share, the mean)"""
    layer = nn.Linear(1, 1, bias=False)
    join(torch.device("cpu"), "gloo", 30)
    hooked = DistributedDataParallel(layer)
    getattr(half, dtype)(None).attach(hooked)
    hooked(torch.full((1, 1), scale * (1 + 2 * dist.get_rank()))).backward()
    gradient = layer.weight.grad
    assert gradient is not None
    return float(gradient), 2 * scale


@pytest.mark.parametrize(("dtype", "scale"), [("FP16", 1.0), ("FP16", 16384.0), ("BF16", 1e30), ("BF16", 1e-30)])
def test_half_is_the_mean_and_overflows_no_sooner_than_a_gradient(dtype: str, scale: float) -> None:
    for found, mean in run_ranks(halved, 2, dtype, scale):
        assert found == pytest.approx(mean, rel=0.01)
