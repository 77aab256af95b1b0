"""Tables of cells as HTML, and as Markdown that a pull request shows."""

from __future__ import annotations

import re

from accel_cli.analysis.findings import Cell, Table
from accel_cli.analysis.markup import Html, element, join
from accel_cli.analysis.wording import NOTHING

BADGES = {"good": "good", "warning": "warning", "bad": "bad", "badge": "plain"}
SPECIAL = re.compile(r"[\\`*<>|~#]|(?<!\w)_|_(?!\w)|\](?=[(\[:])")
"""What Markdown would read as its own; brackets only where they would make a link."""


def html_table(table: Table, css: str | None = None) -> Html:
    """Scrolls sideways in a narrow window; the head of a sortable one is made of buttons."""
    head = [
        element("th", element("button", text, type="button") if table.sortable and text else text, scope="col")
        for text in table.header
    ]
    rows = [element("tr", *map(_cell, row)) for row in table.rows]
    names = " ".join(name for name in ("cells", css, "sortable" if table.sortable else None) if name)
    inner = join(element("thead", element("tr", *head)) if any(table.header) else None, element("tbody", *rows))
    return element("div", element("table", inner, class_=names), class_="scroll")


def markdown_table(table: Table) -> str:
    table = table.compact().without_empty_columns(NOTHING)
    lines = [table.header, ["---"] * len(table.header)]
    texts = ["| " + " | ".join(line if line == "---" else escaped(line) for line in row) + " |" for row in lines]
    return "\n".join([*texts, *("| " + " | ".join(map(_marked, row)) + " |" for row in table.rows)])


def escaped(text: str) -> str:
    """One line that Markdown shows as it is written."""
    return SPECIAL.sub(r"\\\g<0>", " ".join(text.split())).replace("@", "@\u200b")  # calls nobody by name


def code(text: str) -> str:
    """A code span, whatever backticks are in it; a table's bars are escaped even there."""
    flat = " ".join(text.split())
    fence = "`" * (max((len(run) for run in re.findall("`+", flat)), default=0) + 1)
    space = " " if "`" in flat else ""
    return f"{fence}{space}{flat}{space}{fence}".replace("|", "\\|") if flat else ""


def _cell(cell: Cell) -> Html:
    if cell.form in BADGES:
        shown: Html | str = element("span", cell.text, class_=f"badge {BADGES[cell.form]}")
    elif cell.form in ("code", "strong"):
        shown = element(cell.form, cell.text) if cell.text else ""
    elif cell.form == "quiet":
        shown = element("span", cell.text, class_="quiet")
    else:
        shown = cell.text
    notes = [element("div", note, class_="quiet note") for note in cell.notes]
    return element("td", shown, *notes, data_order=None if cell.order is None else f"{cell.order:.9g}")


def _marked(cell: Cell) -> str:
    text = code(cell.text) if cell.form == "code" else escaped(cell.text)
    if cell.form in ("bad", "warning", "strong") and text:
        text = f"**{text}**"
    return "<br>".join([text, *(f"<sub>{escaped(note)}</sub>" for note in cell.notes)])
