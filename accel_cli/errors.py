"""What can go wrong, and the exit code that says so.

AccelError                 3   training code failed
|- ConfigError             2   bad command or configuration: a list of problems, each with what to type instead
|- CheckpointError         4   no usable checkpoint
|- DivergedError           5   the numbers are no longer numbers
|- HangError               6   a rank stopped answering
|- ResourceError           7   out of disk, memory, ports, network
`- SecurityError           8   refused: it would run code that the command line did not name
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

DONE, REGRESSION, SAVED_RUN_AGAIN, INTERRUPTED, NO_TIME_TO_SAVE = 0, 1, 75, 130, 143
WIDEST = 160
"""Characters of a line with where, why and what to type."""
LONGEST = 240
"""Characters of one cell: a value of a megabyte is not worth repeating."""


@dataclass(frozen=True)
class Problem:
    """One thing that cannot work, why not, and the override to type instead.

    ``where`` is the user's own spelling where there is one (``strategy=ddp``), else the full key.
    ``fix`` is a clause that starts with a verb: ``try launch.processes=2`` or ``did you mean precision=fp16 ?``.
    """

    where: str
    why: str
    fix: str = ""


class AccelError(Exception):
    """A failure whose message is fit to be read by a user; the traceback is not needed to act on it."""

    exit_code = 3

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


class CheckpointError(AccelError):
    exit_code = 4


class DivergedError(AccelError):
    exit_code = 5


class HangError(AccelError):
    exit_code = 6


class ResourceError(AccelError):
    exit_code = 7


class ConfigError(AccelError):
    """All problems found, at once."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem] | Problem) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__(format_problems(self.problems))


class SecurityError(ConfigError):
    exit_code = 8


def in_a_line(problems: Iterable[Problem]) -> str:
    """For a table."""
    return "; ".join(f"{p.where} {p.why}" + (f": {p.fix}" if p.fix else "") for p in problems)


def format_problems(problems: Iterable[Problem]) -> str:
    """Three columns: where, why, what to type; as wide as their longest cell up to a limit.

    What to type goes below where a row would be longer than ``WIDEST``.
    """
    rows = list(dict.fromkeys(Problem(*(_clean(cell) for cell in (p.where, p.why, p.fix))) for p in problems))
    where_width = min(max((len(p.where) for p in rows), default=0), 44)
    why_width = min(max((len(p.why) for p in rows), default=0), 72)
    lines = [f"{len(rows)} problem" + ("" if len(rows) == 1 else "s")]
    for p in rows:
        line = f"  {p.where:<{where_width}}   {p.why:<{why_width}}"
        apart = len(line) + 3 + len(p.fix) > WIDEST
        lines += [line.rstrip(), f"  {'':<{where_width}}   {p.fix}"] if apart else [f"{line}   {p.fix}".rstrip()]
    return "\n".join(line.rstrip() for line in lines)


def _clean(cell: str) -> str:
    """One printable line; a long one loses its middle."""
    cell = "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in cell)
    return cell if len(cell) <= LONGEST else f"{cell[: LONGEST - 60]} ... {cell[-50:]}"
