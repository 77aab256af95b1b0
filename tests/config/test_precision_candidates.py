"""What precision=auto may choose from on each device."""

from __future__ import annotations

from dataclasses import replace

import pytest

from accel_cli.config.machine import GPU, Machine
from accel_cli.config.parts import table
from accel_cli.config.precision_candidates import candidates

PLAIN = Machine(cores=2, memory_bytes=8 << 30)


def with_gpus(*capabilities: tuple[int, int]) -> Machine:
    return replace(PLAIN, gpus=tuple(GPU("a", 80 << 30, capability) for capability in capabilities))


@pytest.mark.parametrize(
    ("device", "machine", "options"),
    [
        ("cpu", PLAIN, ("fp32",)),
        ("cpu", replace(PLAIN, cpu_flags=frozenset({"avx512_bf16"})), ("fp32", "bf16")),
        ("cuda", with_gpus((6, 1)), ("fp32",)),
        ("cuda", with_gpus((7, 5)), ("fp32", "fp16")),
        ("cuda", with_gpus((8, 0)), ("fp32", "tf32", "bf16")),
        ("cuda", with_gpus((9, 0)), ("fp32", "tf32", "bf16", "fp8")),
        ("cuda", with_gpus((9, 0), (8, 0)), ("fp32", "tf32", "bf16")),
        ("mps", PLAIN, ("fp32", "bf16")),
        ("tpu", PLAIN, ("fp32",)),
    ],
)
def test_the_plain_default_comes_first_and_the_rest_have_a_reason(
    device: str, machine: Machine, options: tuple[str, ...]
) -> None:
    found = candidates(device, machine)
    assert found.options == options
    assert set(found.options) | set(found.left_out) == {*table("precision")} - {"auto"}
    assert all(found.left_out.values())
