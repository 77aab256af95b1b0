"""Covering arrays: few rows in which every pair, or triple, of the factors' values meets."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence

Row = dict[str, str]
Together = frozenset[tuple[str, str]]


def cover(
    factors: Mapping[str, Sequence[str]], strength: int, allowed: Callable[[Row], bool], tries: int = 24, seed: int = 0
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
        grown = [_grow(factors, wanted, missing, strength, allowed, draw) for _ in range(tries)]
        found = [row for row in grown if row is not None]
        if not found:
            missing.remove(wanted)
            never.append(wanted)
            continue
        best = max(found, key=lambda row: len(missing & _meetings(row, strength)))
        missing -= _meetings(best, strength)
        rows.append(best)
    return rows, never


def _meetings(row: Row, strength: int) -> set[Together]:
    return {frozenset(chosen) for chosen in itertools.combinations(row.items(), strength)}


def _grow(
    factors: Mapping[str, Sequence[str]],
    wanted: Together,
    missing: set[Together],
    strength: int,
    allowed: Callable[[Row], bool],
    draw: random.Random,
) -> Row | None:
    """A whole allowed row around ``wanted``; the other factors in any order, each at the value that meets most.

    Of values that meet as much the first is taken: to be listed first is to be cheap.
    """
    row: Row = dict(sorted(wanted))
    others = [name for name in factors if name not in row]
    draw.shuffle(others)
    for name in others:

        def met(value: str, name: str = name) -> int:
            new = {(name, value)}
            rest = itertools.combinations(row.items(), strength - 1)
            return sum(frozenset({*new, *chosen}) in missing for chosen in rest)

        row[name] = max(factors[name], key=met)
    if allowed(row):
        return {name: row[name] for name in factors}
    for _ in range(8):  # one factor drawn anew
        name = draw.choice(others)
        changed = {**row, name: draw.choice(list(factors[name]))}
        if allowed(changed):
            return {name: changed[name] for name in factors}
    return None
