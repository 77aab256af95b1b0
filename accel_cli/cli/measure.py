"""Rates of this machine's devices, as JSON lines: python -m accel_cli.cli.measure, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

SECONDS = 0.1
"""Spent on one rate in one round."""
ROUNDS = 4
"""The precisions take turns, so that another program's burst does not strike only one of them."""
SLOW = 0.25
"""Seconds of one large product from which on smaller ones are measured: emulated precisions take that long."""
LAST = 8.0
"""Seconds after the start beyond which no further round is begun."""
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
STARTED = time.perf_counter()


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def main() -> None:
    """Write {"doing"} before and {"measured", ...} after each rate; {"versions"} first."""
    say(doing="importing torch")
    try:
        import torch  # only here: the verb that starts this must stay without it
    except Exception as error:  # a broken installation can raise anything
        say(error=f"torch cannot be imported: {type(error).__name__}: {error}")
        return
    from accel_cli.config.machine import detect

    has_cuda = torch.cuda.is_available()
    say(
        versions={"torch": torch.__version__, "cuda": torch.version.cuda, "cuda_usable": has_cuda},
        capability=torch.backends.cpu.get_cpu_capability(),
        import_seconds=round(time.perf_counter() - STARTED, 2),
    )
    torch.set_num_threads(detect().cores)
    devices = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count() if has_cuda else 0))]
    for device in devices:
        with torch.inference_mode():
            say(doing=f"matrix products on {device}")
            say(measured="matrix", device=device, **matrix_rates(torch, device))
            say(doing=f"copying memory on {device}")
            say(measured="copy", device=device, bytes_per_second=copy_rate(torch, device))


def _late() -> bool:
    return time.perf_counter() - STARTED > LAST


def matrix_rates(torch: Any, device: str) -> dict[str, Any]:
    """Operations per second of square matrix products in each precision, None where unsupported; and the noise.

    ``spread`` is the quickest fp32 round over the slowest: two rates that lie closer than that are not told apart.
    """
    works = {}
    for precision, name in PRECISIONS.items():
        with contextlib.suppress(RuntimeError):  # torch's own word for a dtype that a device lacks
            side = 1024 if device == "cpu" else 4096
            work = _product(torch, side, device, getattr(torch, name))
            if device == "cpu" and _fastest(work, device, torch, seconds=0) > SLOW:
                side = 256  # not from the start: so small a product measures how threads wait for each other
                work = _product(torch, side, device, getattr(torch, name))
            works[precision] = (2 * side**3, work)
    rounds: dict[str, list[float]] = {precision: [] for precision in works}
    for _ in range(ROUNDS):
        for precision, (operations, work) in works.items():
            rounds[precision].append(operations / _fastest(work, device, torch))
        if _late():
            break
    rates = {precision: max(rounds[precision]) if precision in rounds else None for precision in PRECISIONS}
    return {"flops_per_second": rates, "spread": max(rounds["fp32"]) / min(rounds["fp32"])}


def _product(torch: Any, side: int, device: str, dtype: Any) -> Callable[[], Any]:
    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(first)
    return lambda: torch.mm(first, second, out=out)


def copy_rate(torch: Any, device: str) -> float:
    """Bytes per second read and written by a copy that no processor cache holds."""
    count = (64 if device == "cpu" else 512) << 20
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * count / _fastest(lambda: target.copy_(source), device, torch)


def _fastest(work: Callable[[], Any], device: str, torch: Any, seconds: float = SECONDS) -> float:
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


if __name__ == "__main__":
    main()
