"""The ranges that numbers take at points of a model, over samples that it is run on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from accel_cli.compression.rounding import affine, fake

BINS = 2048
CANDIDATES = 80
"""Ranges that ``mse`` tries, as shares of the whole one."""


class Point(NamedTuple):
    """Where to look: at the ``input`` or the ``output`` of a module."""

    module: nn.Module
    kind: str
    cut: tuple[float | None, float | None] = (None, None)
    """What follows cuts to it: numbers beyond need no room."""


class Range(NamedTuple):
    low: Tensor
    high: Tensor


@torch.no_grad()
def ranges(
    points: dict[str, Point],
    run: Callable[[], Iterable[object]],
    method: str,
    percentile: float,
    bits: int,
    power_of_two: bool,
) -> dict[str, Range]:
    """The range of each point that the forwards of ``run`` reached; ``run`` may be called twice.

    ``minmax``: all numbers. ``percentile``: without so many percent of them at each end. ``mse``: the one with which
    rounding to ``bits`` moves the numbers least, by their histogram.
    """
    whole: dict[str, Range] = {}

    def widen(name: str, values: Tensor) -> None:
        low, high = torch.aminmax(values)
        if name in whole:
            low, high = torch.minimum(low, whole[name].low), torch.maximum(high, whole[name].high)
        whole[name] = Range(low, high)

    _look(points, run, widen)
    if method == "minmax":
        return whole
    counts = {name: torch.zeros(BINS, dtype=torch.int64, device=one.low.device) for name, one in whole.items()}

    def count(name: str, values: Tensor) -> None:
        low, high = whole[name]
        width = ((high - low) / BINS).clamp_min(torch.finfo(torch.float32).tiny)
        places = ((values.flatten() - low) / width).long().clamp(0, BINS - 1)
        counts[name] += torch.bincount(places, minlength=BINS)

    _look(points, run, count)
    if method == "percentile":
        return {name: _without_ends(whole[name], counts[name], percentile) for name in whole}
    return {name: _least_moved(whole[name], counts[name], bits, power_of_two) for name in whole}


def _look(points: dict[str, Point], run: Callable[[], Iterable[object]], see: Callable[[str, Tensor], None]) -> None:
    hooks = []
    for name, point in points.items():

        def before(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name, point: Point = point) -> None:
            see(name, inputs[0].float())

        def after(_: nn.Module, __: object, output: Tensor, name: str = name, point: Point = point) -> None:
            values = output.float()
            see(name, values if point.cut == (None, None) else values.clamp(*point.cut))

        module = point.module
        hooks.append(
            module.register_forward_pre_hook(before) if point.kind == "input" else module.register_forward_hook(after)
        )
    try:
        for _ in run():
            pass
    finally:
        for hook in hooks:
            hook.remove()


def _centres(whole: Range) -> Tensor:
    steps = (torch.arange(BINS, device=whole.low.device) + 0.5) / BINS
    return whole.low + (whole.high - whole.low) * steps


def _without_ends(whole: Range, counts: Tensor, percentile: float) -> Range:
    total, centres = counts.sum(), _centres(whole)
    beyond = (total.double() * (100 - percentile) / 100).long()
    from_below = counts.cumsum(0)
    low = int((from_below <= beyond).sum().clamp_max(BINS - 1))
    high = int((total - from_below > beyond).sum().clamp_max(BINS - 1))
    # The ends themselves where nothing was cut: of values cut at zero most are exactly zero.
    return Range(whole.low if low == 0 else centres[low], whole.high if high == BINS - 1 else centres[high])


def _least_moved(whole: Range, counts: Tensor, bits: int, power_of_two: bool) -> Range:
    centres, weights = _centres(whole), counts.double()
    best, least = whole, None
    for number in range(CANDIDATES, 0, -1):
        share = number / CANDIDATES
        tried = Range(whole.low * share, whole.high * share)
        moved = fake(centres, *affine(*tried, bits, power_of_two), bits) - centres
        error = float((moved.double().square() * weights).sum())
        if least is None or error < least:
            best, least = tried, error
    return best
