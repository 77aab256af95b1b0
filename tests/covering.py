"""Covering arrays: few rows in which every pair, or triple, of the factors' values meets."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence

Row = dict[str, str]
Together = frozenset[tuple[str, str]]


def cover(
    factors: Mapping[str, Sequence[str]], strength: int, allowed: Callable[[Row], bool], tries: int = 40, seed: int = 0
) -> tuple[list[Row], list[Together]]:
    """(rows in which every ``strength`` values meet, those that meet in no allowed row).

    Greedy (Cohen et al. 1997, AETG): each row is grown around what is still to be met, the best of some tries is taken.
    """
    draw = random.Random(seed)
    missing = {
        frozenset(zip(names, values, strict=True))
        for names in itertools.combinations(factors, strength)
        for values in itertools.product(*(factors[name] for name in names))
    }
    rows: list[Row] = []
    never: list[Together] = []
    while missing:
        wanted = min(missing, key=sorted)
        harmless = _harmless(factors, wanted, allowed)
        if harmless is None:
            missing.remove(wanted)
            never.append(wanted)
            continue
        grown = [_grow(factors, wanted, missing, strength, draw) for _ in range(tries)]
        found = [row for row in grown if allowed(row)] or [harmless]
        best = max(found, key=lambda row: len(missing & _meetings(row, strength)))
        missing -= _meetings(best, strength)
        rows.append({name: best[name] for name in factors})
    return rows, never


def _harmless(factors: Mapping[str, Sequence[str]], wanted: Together, allowed: Callable[[Row], bool]) -> Row | None:
    """``wanted`` among first values, but for one other factor at most."""
    row = {name: values[0] for name, values in factors.items()} | dict(wanted)
    for name in factors:
        for value in factors[name]:
            if name not in dict(wanted) and allowed({**row, name: value}):
                return {**row, name: value}
    return None


def _meetings(row: Row, strength: int) -> set[Together]:
    return {frozenset(chosen) for chosen in itertools.combinations(row.items(), strength)}


def _grow(
    factors: Mapping[str, Sequence[str]], wanted: Together, missing: set[Together], strength: int, draw: random.Random
) -> Row:
    """A whole row around ``wanted``; the other factors in any order, each at the value that meets most.

    Of values that meet as much the first is taken: to be listed first is to be cheap.
    """
    row: Row = dict(sorted(wanted))
    others = [name for name in factors if name not in row]
    draw.shuffle(others)
    for name in others:

        def met(value: str, name: str = name) -> int:
            rest = itertools.combinations(row.items(), strength - 1)
            return sum(frozenset({(name, value), *chosen}) in missing for chosen in rest)

        row[name] = max(factors[name], key=met)
    return row
