"""Rates of one device: matrix products, convolutions, copies, threads. Imported by the measuring process only."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from accel_cli.hardware import host

SECONDS = 0.06
"""Spent on one rate in one round."""
ROUNDS = 4
"""What is compared takes turns, so that another program's burst does not strike only one of it."""
SLOW = 0.25
"""Seconds of one large product from which on smaller ones are measured: emulated precisions take that long."""
DTYPES = {
    "fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8,
    "fp8": torch.float8_e4m3fn,
}  # fmt: skip
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
Work = Callable[[], Any]
Late = Callable[[], bool]


def matrix_rates(device: str, late: Late) -> dict[str, Any]:
    """Operations per second of square matrix products in each precision, None where unsupported; and the noise.

    ``spread`` is the quickest fp32 round over the slowest: two rates that lie closer than that are not told apart.
    """
    works: dict[str, tuple[float, Work]] = {}
    for precision, dtype in DTYPES.items():
        with contextlib.suppress(RuntimeError, NotImplementedError):  # torch's own words for what a device lacks
            side = 1024 if device == "cpu" else 4096
            if device == "cpu" and 64 * fastest(_product(256, device, dtype), device, seconds=0.01) > SLOW:
                side = 256  # only then: so small a product measures how threads wait for each other
            work = _product(side, device, dtype)
            if precision == "tf32":
                work = _rounding(work, device)
            works[precision] = (2 * side**3, work)
    rounds = in_turns(works, device, late)
    rates = {precision: max(rounds[precision]) if precision in rounds else None for precision in DTYPES}
    return {"flops_per_second": rates, "spread": max(rounds["fp32"]) / min(rounds["fp32"])}


def convolution_rates(device: str, late: Late) -> dict[str, float]:
    """Operations per second of a training step of a 3x3 convolution and a relu, images and filter in either format."""
    batch, channels, side = (16, 64, 32) if device == "cpu" else (256, 64, 56)
    operations = 3 * 2 * batch * side**2 * channels**2 * 9
    works: dict[str, tuple[float, Work]] = {}
    for name, memory_format in FORMATS.items():
        made = (torch.randn(n, channels, s, s, device=device) for n, s in ((batch, side), (channels, 3)))
        images, filters = (x.contiguous(memory_format=memory_format).requires_grad_() for x in made)
        works[name] = (operations, lambda x=images, w=filters: _convolve(x, w))  # type: ignore[misc]
    return {name: max(rounds) for name, rounds in in_turns(works, device, late).items()}


def _convolve(images: torch.Tensor, filters: torch.Tensor) -> None:
    out = functional.conv2d(images, filters, padding=1).relu_()
    out.backward(out.detach())
    images.grad = filters.grad = None


def thread_rates(cores: int, late: Late) -> dict[str, Any]:
    """Operations per second of fp32 matrix products by one thread and by as many as there are cores."""
    first, second = (torch.randn(768, 768) for _ in range(2))
    rounds: dict[int, list[float]] = {1: [], cores: []}
    for _ in range(ROUNDS):
        for threads in rounds:
            torch.set_num_threads(threads)
            rounds[threads].append(2 * 768**3 / fastest(lambda: torch.mm(first, second), "cpu"))
        if late():
            break
    torch.set_num_threads(cores)
    return {"cores": cores, "one": max(rounds[1]), "all": max(rounds[cores])}


def fill_rates() -> dict[str, float]:
    """Bytes per second of filling one tensor again, or a fresh one each time, by malloc as it is and as tuned."""
    kept = torch.empty(64 << 20, dtype=torch.uint8)
    again = kept.numel() / fastest(lambda: kept.fill_(1), "cpu")
    fresh = kept.numel() / fastest(lambda: torch.empty_like(kept).fill_(1), "cpu")
    host.tune_malloc()
    for _ in range(6):  # the heap grows by a few tensors before one fits where another was
        torch.empty_like(kept).fill_(1)
    tuned = kept.numel() / fastest(lambda: torch.empty_like(kept).fill_(1), "cpu")
    return {"again": again, "fresh": fresh, "tuned": tuned}


def copy_rate(device: str) -> float:
    """Bytes per second read and written by a copy that no processor cache holds."""
    count = (64 if device == "cpu" else 512) << 20
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * count / fastest(lambda: target.copy_(source), device)


def to_device_rates(device: str) -> dict[str, float]:
    """Bytes per second from the host, out of pinned memory and out of any."""
    source = torch.zeros(64 << 20, dtype=torch.uint8)
    target = torch.empty_like(source, device=device)
    pinned = source.pin_memory()
    return {
        "pinned": source.numel() / fastest(lambda: target.copy_(pinned, non_blocking=True), device),
        "pageable": source.numel() / fastest(lambda: target.copy_(source), device),
    }


def in_turns(works: dict[str, tuple[float, Work]], device: str, late: Late) -> dict[str, list[float]]:
    """Operations per second of each work in each round."""
    rounds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, (operations, work) in works.items():
            rounds[name].append(operations / fastest(work, device))
        if late():
            break
    return rounds


def _rounding(work: Work, device: str) -> Work:
    """The same with TF32 allowed, which torch keeps for the whole process."""
    if device == "cpu":
        raise NotImplementedError("a CPU multiplies no tf32")

    def rounded() -> None:
        torch.backends.cuda.matmul.allow_tf32 = True
        work()
        torch.backends.cuda.matmul.allow_tf32 = False

    return rounded


def _product(side: int, device: str, dtype: torch.dtype) -> Work:
    first, second = (torch.randn(side, side, device=device) for _ in range(2))
    if dtype == torch.int8:
        whole, columns = (x.mul(40).to(torch.int8) for x in (first, second))
        if device != "cpu":  # the quick kernel reads the second factor by columns
            columns = columns.t()
        return lambda: torch._int_mm(whole, columns)
    if dtype == torch.float8_e4m3fn:
        scale = torch.ones((), device=device)
        row, column = first.to(dtype), second.to(dtype).t()
        return lambda: torch._scaled_mm(row, column, scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16)
    first, second = first.to(dtype), second.to(dtype)
    out = torch.empty_like(first)
    return lambda: torch.mm(first, second, out=out)


def fastest(work: Work, device: str, seconds: float = SECONDS) -> float:
    """Seconds of the quickest of many calls: what the machine can do, not what its other users left of it."""

    def wait() -> None:
        if device != "cpu":
            torch.cuda.synchronize(device)

    work()
    wait()
    best, end = float("inf"), time.perf_counter() + seconds
    while True:
        begun = time.perf_counter()
        work()
        wait()
        now = time.perf_counter()
        best = min(best, now - begun)
        if now >= end:
            return best
