"""Did you mean: the names nearest to a mistyped one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from accel_cli.errors import Problem


def distance(first: str, second: str) -> int:
    """Edits (insert, delete, replace, swap of neighbours) between two words: optimal string alignment."""
    previous2: list[int] = []
    previous = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        current = [i]
        for j, b in enumerate(second, 1):
            cost = min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (a != b))
            if i > 1 and j > 1 and a == second[j - 2] and first[i - 2] == b:
                cost = min(cost, previous2[j - 2] + 1)
            current.append(cost)
        previous2, previous = previous, current
    return previous[-1]


def nearest(word: str, candidates: Iterable[str], count: int = 3) -> list[str]:
    """Up to ``count`` candidates close enough to be meant, best first; a shared beginning breaks ties."""

    def shared(candidate: str) -> int:
        return next((i for i, (a, b) in enumerate(zip(word, candidate, strict=False)) if a != b), 99)

    word = word[:80]
    limit = max(1, len(word) // 3)
    able = {c for c in candidates if abs(len(c) - len(word)) <= limit or (len(word) > 2 and c.startswith(word))}
    ranked = sorted((distance(word.lower(), c.lower()), -shared(c), c) for c in able)
    if ranked:
        limit = min(limit, 2 * max(1, ranked[0][0]))
    return [c for d, _, c in ranked if d <= limit or (len(word) > 2 and c.startswith(word))][:count]


def did_you_mean(found: list[str]) -> str:
    """``did you mean a, b or c ?``, or nothing."""
    if not found:
        return ""
    words = found[0] if len(found) == 1 else f"{', '.join(found[:-1])} or {found[-1]}"
    return f"did you mean {words} ?"


def unmatched(where: str, pattern: str, names: Sequence[str], typed: str, kind: str = "parameter") -> Problem:
    """The problem of a glob that no name of this kind matches, with the pattern or the names that may have been meant.

    ``typed`` is what one would type, with {} for the pattern.
    """
    wider = next(
        (p for p in (f"{pattern}.*", f"{pattern}*", f"*{pattern}*") if any(fnmatchcase(n, p) for n in names)), ""
    )
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4) or names[:3]
    fix = f"try {typed.format(wider)}" if wider else f"nearest: {', '.join(near)}"
    return Problem(where, f"matches no {kind}", fix)
