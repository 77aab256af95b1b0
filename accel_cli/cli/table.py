"""Aligned columns and colours for a terminal; the same text without colours for a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def coloured() -> bool:
    """Whether standard output is a terminal that shows colours, and the user has not asked for none."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def paint(text: str, style: str) -> str:
    """``text`` in a style of ``CODES`` on a terminal, else as it is."""
    return f"\033[{CODES[style]}m{text}\033[0m" if style and text and coloured() else text


def columns(rows: Sequence[Sequence[str]], styles: Sequence[Sequence[str]] | None = None, indent: str = "") -> str:
    """Rows of cells, each column as wide as its widest cell; ``styles`` names one for each cell, "" for none."""
    if not rows:
        return ""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        last = max((place for place, cell in enumerate(row) if cell), default=0)
        cells = [*cells[:last], row[last]]
        if styles is not None:
            cells = [paint(cell, style) for cell, style in zip(cells, styles[number], strict=False)]
        lines.append(indent + "  ".join(cells).rstrip())
    return "\n".join(lines)
