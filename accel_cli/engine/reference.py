"""The reference: a fixed load of plain torch and Python, none of it accel's, that tells how fast a machine is now.

A program's time on one day and on another compare only beside what the machine itself did. The parts are each of one
resource and timed apart: with other work beside it memory may slow down and arithmetic not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from accel_cli.engine.probe import Seat
from accel_cli.world import World

SIZES = {"cpu": (256, 2 << 20)}
"""Device -> the width of the matrices and the bytes of the copies; a unit of each part takes less than a millisecond.

On a busy machine copies of 8 MB, beyond a core's own cache, varied by 17% from round to round, the other parts by 5%:
they are the small part of the sum."""
OTHER_DEVICES = (2048, 256 << 20)
OPERATIONS = 100
"""Of eight numbers each: what they take is their dispatch."""
TURNS = 10_000
"""Of a loop of the interpreter alone."""
WARM = 20


class Reference:
    """``parts``: name -> a function that does one unit of it on the device."""

    def __init__(self, device: torch.device) -> None:
        width, size = SIZES.get(device.type, OTHER_DEVICES)
        generator = torch.Generator().manual_seed(0)
        self._left, self._right = (torch.rand(width, width, generator=generator).to(device) for _ in range(2))
        self._product = torch.empty_like(self._left)
        self._source = torch.ones(size // 4, device=device)
        self._target = torch.empty_like(self._source)
        self._small = torch.ones(8, device=device)
        self.parts: dict[str, Callable[[], None]] = {
            "products": self._multiply,
            "copies": self._copy,
            "operations": self._operate,
            "python": _interpret,
        }

    def _multiply(self) -> None:
        torch.mm(self._left, self._right, out=self._product)

    def _copy(self) -> None:
        self._target.copy_(self._source)

    def _operate(self) -> None:
        for _ in range(OPERATIONS):
            self._small.mul_(1.0)


def _interpret() -> None:
    held: dict[int, int] = {}
    for number in range(TURNS):
        held[number & 255] = number


def serve(hardware: Any, world: World, link: Path) -> None:
    """Answer a stage as a probe does: for an order of so many steps, the seconds of as many units of each part."""
    seat, began = Seat(world, link), time.perf_counter()
    reference = Reference(world.device)

    def turn(order: dict[str, Any]) -> dict[str, Any]:
        _timed(reference, hardware, world, order["uncounted"])
        parts = _timed(reference, hardware, world, order["steps"])
        return {"seconds": sum(parts.values()), "parts": parts}

    with torch.no_grad():
        for _ in range(WARM):
            usual = sum(_timed(reference, hardware, world, 1).values())
        setup = time.perf_counter() - began
        seat.ready(hardware, setup_seconds=setup, prepare_seconds=0.0, first_seconds=usual, step_seconds=usual)
        seat.obey(turn)


def _timed(reference: Reference, hardware: Any, world: World, units: int) -> dict[str, float]:
    """Seconds of so many units of each part, of the slowest rank; the parts take turns."""
    taken = dict.fromkeys(reference.parts, 0.0)
    world.barrier()
    for _ in range(units):
        for name, part in reference.parts.items():
            began = time.perf_counter()
            part()
            hardware.synchronize()
            taken[name] += time.perf_counter() - began
    found = world.gather(taken)
    return {name: max(one[name] for one in found) for name in taken}
