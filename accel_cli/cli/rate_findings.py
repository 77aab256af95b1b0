"""What doctor concludes from rates: which options pay here, with both numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from accel_cli.analysis.wording import times
from accel_cli.config.hardware_rules import bound_by, thread_limit
from accel_cli.config.machine import Machine
from accel_cli.config.parts import table

CLEAR = 1.25
"""A rate that differs by less than this factor, or by less than fp32 does from itself, tells nothing."""
BUSY = 1.5
"""From this spread of one rate on, other programs are at work."""
LOADED = 0.75
"""From this load for each core on, other programs are at work."""
DELIVERED = 0.4
"""Of what as many single threads would do together: less from all threads is not how matrix products scale, even where
two threads share a core, which halves what each does."""
PRECISIONS = ("tf32", "bf16", "fp16", "fp8")
GAINED = 1.2
"""From all threads together over one: less, and one does as well."""
UNITS = (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6))


class Finding(NamedTuple):
    """``fix`` is an override, or a command for the shell; empty where all is well."""

    finding: str
    evidence: str
    fix: str = ""


def precisions(machine: Machine, measured: Mapping[str, Any]) -> Iterator[Finding]:
    """tf32, bf16, fp16 and fp8 against fp32, on the device that hardware=auto takes."""
    device, name, rates = _device(machine, measured)
    found = rates.get("flops_per_second", {})
    base = found.get("fp32")
    for precision in [p for p in PRECISIONS if p in table("precision")] if base else ():
        if rate := found.get(precision):
            evidence = f"matrix products: {flops(rate)} against fp32's {flops(base)}"
            yield from _compared(
                rate / base, precision, f"precision={precision}", "fp32", "precision=fp32", name,
                evidence + _noise(rates, measured, machine), _clear(rates, measured, machine),
            )  # fmt: skip


def formats(machine: Machine, measured: Mapping[str, Any]) -> Iterator[Finding]:
    device, name, rates = _device(machine, measured)
    if found := rates.get("convolutions"):
        rate, base = found["channels_last"], found["contiguous"]
        yield from _compared(
            rate / base, "channels_last", "hardware.memory_format=channels_last", "contiguous",
            "hardware.memory_format=contiguous", name,
            f"convolutions: {flops(rate)} against contiguous {flops(base)}" + _noise(rates, measured, machine),
            _clear(rates, measured, machine),
        )  # fmt: skip


def _compared(
    ratio: float, what: str, pins: str, other: str, pins_other: str, name: str, evidence: str, clear: float
) -> Iterator[Finding]:
    if ratio > clear:
        yield Finding(f"{what} pays on {name}: {times(ratio)} the speed", evidence, pins)
    elif ratio * clear < 1:
        yield Finding(f"{what} on {name} is slower, {times(1 / ratio)} the time", evidence, pins_other)
    else:
        yield Finding(f"{what} on {name}: cannot tell it from {other}", evidence)


def allocators(machine: Machine, measured: Mapping[str, Any]) -> Iterator[Finding]:
    rates = measured.get("rates", {}).get("cpu", {})
    if found := rates.get("fills"):
        ratio = found["tuned"] / found["fresh"]
        if ratio > _clear(rates, measured, machine):
            evidence = (
                f"filling fresh tensors of 64 MB: {bandwidth(found['tuned'])} against {bandwidth(found['fresh'])}"
            )
            told = evidence + _noise(rates, measured, machine)
            yield Finding(
                f"memory that is kept is filled {times(ratio)} as fast as fresh memory",
                told,
                "hardware.allocator=tuned",
            )


def scaling(machine: Machine, measured: Mapping[str, Any]) -> Iterator[Finding]:
    """Threads that do not deliver: bound to one core, throttled, or in other programs' way."""
    rates = measured.get("rates", {}).get("cpu", {})
    found = rates.get("threads")
    if not found or (gained := found["all"] / found["one"]) > max(GAINED, DELIVERED * found["cores"]):
        return
    noise, limit = _noise(rates, measured, machine), bound_by() or ("OMP_THREAD_LIMIT" if thread_limit() else "")
    yield Finding(
        f"{found['cores']} threads are {times(gained)} as fast as one",
        f"matrix products: {flops(found['all'])} against {flops(found['one'])}" + noise,
        f"unset {limit}" if limit else "hardware.threads=1" if gained < GAINED and not noise else "",
    )


def _device(machine: Machine, measured: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]]:
    """The device that hardware=auto takes: torch's word for it, people's, and its rates."""
    rates = measured.get("rates", {})
    device = "cuda:0" if "cuda:0" in rates else "cpu"
    name = "this CPU" if device == "cpu" else machine.gpus[0].name if machine.gpus else device
    return device, name, rates.get(device, {})


def _clear(rates: Mapping[str, Any], measured: Mapping[str, Any], machine: Machine) -> float:
    return CLEAR * max(rates.get("spread") or 1.0, BUSY if _is_loaded(measured, machine) else 1.0)


def _is_loaded(measured: Mapping[str, Any], machine: Machine) -> bool:
    return bool(measured.get("load", 0.0) > machine.cores * LOADED)


def _noise(rates: Mapping[str, Any], measured: Mapping[str, Any], machine: Machine) -> str:
    spread = rates.get("spread") or 1.0
    if spread > BUSY:
        return f"; fp32 alone varied {times(spread)}, so other programs are at work here"
    if _is_loaded(measured, machine):
        return f"; {measured['load']:.0f} other processes wanted the {machine.cores} cores"
    return ""


def bandwidth(rate: float) -> str:
    return _told(rate, "B/s")


def flops(rate: float) -> str:
    """Operations per second as people read them."""
    return _told(rate, "FLOP/s")


def _told(rate: float, unit: str) -> str:
    prefix, size = next((known for known in UNITS if rate >= known[1]), UNITS[-1])
    return f"{rate / size:.3g} {prefix}{unit}"
