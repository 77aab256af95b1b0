"""Rates of this machine's devices, as JSON lines: python -m accel_cli.cli.measure, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

LAST = 7.0
"""Seconds after the start beyond which no further round is begun."""
LINK_SECONDS = 4.0
"""Two ranks that have not met and measured by then are given up."""
LINK_BYTES = 8 << 20
IMPLAUSIBLE = 1e12
STARTED = time.perf_counter()


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def late() -> bool:
    return time.perf_counter() - STARTED > LAST


def main() -> None:
    """Write {"doing"} before and {"measured", ...} after each rate; {"versions"} first."""
    say(doing="importing torch")
    try:
        import torch  # only here: the verb that starts this must stay without it
    except Exception as error:  # a broken installation can raise anything
        say(error=f"torch cannot be imported: {type(error).__name__}: {error}")
        return
    from accel_cli.cli import rates
    from accel_cli.config.machine import detect

    import_seconds = round(time.perf_counter() - STARTED, 2)
    machine = detect()
    threads = torch.get_num_threads()
    say(doing="a link between two ranks")
    links = {name: found for name in _backends(machine) if (found := link(name)) is not None}
    has_cuda = torch.cuda.is_available()
    say(
        versions={"torch": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip,
                  "cuda_usable": has_cuda},
        capability=torch.backends.cpu.get_cpu_capability(),
        import_seconds=import_seconds,
        threads=threads,
        links=links,
    )  # fmt: skip
    torch.set_num_threads(machine.cores)
    devices = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count() if has_cuda else 0))]
    for device in devices:
        with torch.inference_mode():
            say(doing=f"matrix products on {device}")
            say(measured="matrix", device=device, **rates.matrix_rates(device, late))
            if device == "cpu" and machine.cores > 1:
                say(doing="threads")
                say(measured="threads", device=device, threads=rates.thread_rates(machine.cores, late))
            if device == "cpu":
                say(measured="fill", device=device, fills=rates.fill_rates())
            say(doing=f"copying memory on {device}")
            say(measured="copy", device=device, bytes_per_second=rates.copy_rate(device))
            if device != "cpu":
                say(measured="to_device", device=device, to_device=rates.to_device_rates(device))
        say(doing=f"convolutions on {device}")
        say(measured="convolution", device=device, convolutions=rates.convolution_rates(device, late))
    say(took=round(time.perf_counter() - STARTED, 2))


def _backends(machine: Any) -> list[str]:
    return ["gloo", *(["nccl"] if len(machine.gpus) > 1 else [])]


def link(backend: str) -> dict[str, float | None] | None:
    """The all-reduce of two forked ranks: seconds of a small one, bytes per second of a large one; None if it failed.

    Before any tensor operation and before CUDA is touched: neither survives a fork.
    """
    from accel_cli.launch.loopback import Loopback

    store, (reading, writing) = Loopback(), os.pipe()
    children = []
    for number in range(2):
        child = os.fork()
        if child == 0:
            signal.alarm(round(LINK_SECONDS))
            os._exit(_rank(number, backend, store.port, writing))
        children.append(child)
    os.close(writing)
    said = b""
    while chunk := os.read(reading, 4096):
        said += chunk
    os.close(reading)
    for child in children:
        os.waitpid(child, 0)
    return json.loads(said) if said else None


def _rank(number: int, backend: str, port: int, writing: int) -> int:
    import torch

    from accel_cli.communication.link import measure
    from accel_cli.launch.loopback import HOST
    from accel_cli.world import join

    names = {"RANK": number, "WORLD_SIZE": 2, "LOCAL_RANK": number, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": HOST,
             "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "doctor", "TORCHELASTIC_USE_AGENT_STORE": "True"}  # fmt: skip
    os.environ.update({name: str(value) for name, value in names.items()})
    torch.set_num_threads(1)
    try:
        device = torch.device("cpu") if backend == "gloo" else torch.device("cuda", number)
        if backend != "gloo":
            torch.cuda.set_device(device)
        found = measure(join(device, backend, LINK_SECONDS), LINK_BYTES)
    except Exception:  # whatever it was: without a link there is no rate
        return 1
    if number == 0:
        rate = found.rate if found.rate < IMPLAUSIBLE else None  # the small one was held up for longer than the large
        os.write(writing, json.dumps({"seconds": found.latency, "bytes_per_second": rate}).encode())
    return 0


if __name__ == "__main__":
    main()
