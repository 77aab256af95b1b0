"""Which precisions a device has, which are worth timing there, and why the others are not."""

from __future__ import annotations

from typing import NamedTuple

from accel_cli.config.machine import Machine, has_package

LEAST_CAPABILITY = {"tf32": (8, 0), "fp8": (8, 9), "mxfp8": (10, 0)}
"""Of an NVIDIA GPU that multiplies these in hardware."""
EXACT = "fp32"
"""The plain default: every other precision has to be faster."""


class Candidates(NamedTuple):
    options: tuple[str, ...]
    """Worth timing, the plain default first."""
    left_out: dict[str, str]
    """Any other precision -> why it is not."""


def capability(machine: Machine) -> tuple[int, int]:
    """Of the weakest GPU; (0, 0) without one."""
    return min((gpu.capability for gpu in machine.gpus), default=(0, 0))


def lacking(option: str, device: str, machine: Machine) -> str | None:
    """Why this device does not have the precision at all; None where it has."""
    least = LEAST_CAPABILITY.get(option)
    if least is None or (option == "fp8" and device == "cpu"):  # slow there, and right
        return None
    if device != "cuda":
        return f"{device} multiplies no {option}: NVIDIA GPUs do, from compute capability {least[0]}.{least[1]} on"
    if (own := capability(machine)) < least:
        return f"the GPU has compute capability {own[0]}.{own[1]}; {option} starts at {least[0]}.{least[1]}"
    return None


def candidates(device: str, machine: Machine) -> Candidates:
    """What ``precision=auto`` may choose from: nothing that trains less well in exchange for speed or memory."""
    reasons = {
        "tf32": lacking("tf32", device, machine),
        "bf16": _bf16(device, machine),
        "fp16": _fp16(device, machine),
        "fp8": _fp8(device, machine),
        "mxfp8": lacking("mxfp8", device, machine) or "its kernels were not tried on a GPU: chosen by hand only",
        "bf16_pure": "weights in bf16 lose small updates: chosen by hand only",
    }
    options = (EXACT, *(option for option, reason in reasons.items() if reason is None))
    return Candidates(options, {option: reason for option, reason in reasons.items() if reason is not None})


def _bf16(device: str, machine: Machine) -> str | None:
    if device == "cpu" and not machine.fast_bf16:
        return "this processor has no amx_bf16 or avx512_bf16: bf16 is emulated, slower than fp32"
    if device == "cuda" and capability(machine) < (8, 0):
        own = capability(machine)
        return f"the GPU has compute capability {own[0]}.{own[1]}; bf16 starts at 8.0"
    return None if device in ("cpu", "cuda", "mps", "xpu") else f"not tried on {device}"


def _fp16(device: str, machine: Machine) -> str | None:
    if device == "cpu":
        return "a processor has no fast backward in fp16"
    if device != "cuda":
        return f"loss scaling was not tried on {device}"
    if capability(machine) >= (8, 0):
        return "bf16 is as fast on this GPU, and needs no loss scaling"
    return None if capability(machine) >= (7, 0) else "the GPU has no tensor cores"


def _fp8(device: str, machine: Machine) -> str | None:
    if device == "cpu":
        return "a processor multiplies no fp8: slower than fp32"
    if reason := lacking("fp8", device, machine):
        return reason
    return None if has_package("torchao") else "the package torchao is not installed"
