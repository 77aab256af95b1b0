"""Aligned columns and colours for a terminal; the same text without colours for a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from shutil import get_terminal_size
from textwrap import wrap

GAP = "  "
LEAST_ROOM = 24
"""Characters that a cell needs beside others; with less it stands below them."""
BELOW = 6
CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def coloured() -> bool:
    """Whether standard output is a terminal that shows colours, and the user has not asked for none."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def paint(text: str, style: str) -> str:
    """``text`` in a style of ``CODES`` on a terminal, else as it is."""
    return f"\033[{CODES[style]}m{text}\033[0m" if style and text and coloured() else text


def terminal_width() -> int | None:
    """Of standard output; None where that is no terminal."""
    return get_terminal_size().columns if sys.stdout.isatty() else None


def columns(rows: Sequence[Sequence[str]], styles: Sequence[Sequence[str]] | None = None, indent: str = "") -> str:
    """Rows of cells, each column as wide as its widest cell; ``styles`` names one for each cell, "" for none.

    On a terminal, what is too long of a row's last cell goes on below itself, or all of it below the row.
    """
    if not rows:
        return ""
    room = terminal_width()
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        last = max((place for place, cell in enumerate(row) if cell), default=0)
        start = len(indent) + sum(width + len(GAP) for width in widths[:last])
        first, more, start = _laid_out(row[last], start, room, len(indent) + BELOW)
        cells = [*cells[:last], first]
        style = [*(styles[number] if styles is not None else []), *[""] * len(row)]
        painted = [paint(cell, name) for cell, name in zip(cells, style, strict=False)]
        lines.append(indent + GAP.join(painted).rstrip())
        lines += [" " * start + paint(part, style[last]) for part in more]
    return "\n".join(lines)


def _laid_out(text: str, start: int, room: int | None, below: int) -> tuple[str, list[str], int]:
    """(what stands in the row, the lines below it, the column where these begin), of a text that begins at ``start``.

    ``room`` is the width of the terminal.
    """
    if room is None or start + len(text) <= room:
        return text, [], start
    if room - start >= LEAST_ROOM:
        first, *more = wrap(text, room - start, break_on_hyphens=False)
        return first, more, start
    return "", wrap(text, max(room - below, LEAST_ROOM), break_on_hyphens=False), below
