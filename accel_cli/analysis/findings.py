"""What a report says, put once for a page and for Markdown: sentences, tables of cells, figures, commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from accel_cli.analysis.markup import Html
from accel_cli.analysis.wording import Status

Form = Literal["plain", "code", "strong", "good", "warning", "bad", "quiet", "badge"]
"""How a cell looks; good, warning, bad and badge are words on a coloured ground, so that no colour speaks alone."""


class Cell(NamedTuple):
    text: str
    form: Form = "plain"
    notes: tuple[str, ...] = ()
    """Lines below it, in small print."""
    order: float | None = None
    """What its column is sorted by; None: its text."""


@dataclass(frozen=True)
class Table:
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    sortable: bool = False
    page_only: frozenset[str] = frozenset()
    """Columns that Markdown leaves out, to stay compact."""

    def without_empty_columns(self, nothing: str) -> Table:
        """Columns in which no row says anything say nothing."""
        kept = [
            place
            for place in range(len(self.header))
            if any(row[place].text not in ("", nothing) or row[place].notes for row in self.rows)
        ]
        return self._of(kept)

    def compact(self) -> Table:
        return self._of([place for place, name in enumerate(self.header) if name not in self.page_only])

    def _of(self, places: list[int]) -> Table:
        rows = [[row[place] for place in places] for row in self.rows]
        return replace(self, header=[self.header[place] for place in places], rows=rows)


@dataclass(frozen=True)
class Part:
    """A section: figures are for the page alone, the table and the remarks for both."""

    title: str
    figures: Sequence[Html] = ()
    table: Table | None = None
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Findings:
    """The first sentence is the headline."""

    title: str
    status: Status | None
    sentences: Sequence[str]
    parts: Sequence[Part] = ()
    commands: Sequence[str] = ()
    notes: Sequence[str] = ()
    """What is missing or damaged."""
    remarks: Sequence[str] = field(default=())
    """Small print below the sentences: rounds, margins, noise."""


def plain(text: str, order: float | None = None) -> Cell:
    return Cell(text, order=order)
