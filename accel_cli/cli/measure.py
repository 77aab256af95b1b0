"""Rates of this machine's devices, as JSON lines: python -m accel_cli.cli.measure, in a process of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

SECONDS = 0.3
"""Spent on one rate."""
LAST = 8.5
"""Seconds after the start beyond which no further rate is begun."""
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
            for precision in PRECISIONS:
                if _late():
                    say(skipped=f"{precision} on {device}: no time left")
                    continue
                say(doing=f"matrix products, {precision} on {device}")
                rate = matrix_rate(torch, device, precision)
                say(measured="matrix", device=device, precision=precision, flops_per_second=rate)
            if not _late():
                say(doing=f"copying memory on {device}")
                say(measured="copy", device=device, bytes_per_second=copy_rate(torch, device))


def _late() -> bool:
    return time.perf_counter() - STARTED > LAST


def matrix_rate(torch: Any, device: str, precision: str) -> float | None:
    """Floating-point operations per second of square matrix products; the best of several. None where unsupported."""
    dtype = getattr(torch, PRECISIONS[precision])
    try:
        side = 4096
        if device == "cpu":
            probe = _fastest(_product(torch, 256, device, dtype), device, torch, seconds=0.05)
            side = 1024 if probe < 1e-3 else 256
        return 2 * side**3 / _fastest(_product(torch, side, device, dtype), device, torch)
    except RuntimeError:  # torch's own word for a dtype that a device lacks
        return None


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
