"""Findings as compact Markdown, for a pull request: headline, tables, commands."""

from __future__ import annotations

from accel_cli.analysis.cells import escaped, markdown_table
from accel_cli.analysis.findings import Findings, Part


def markdown(found: Findings) -> str:
    first, *rest = found.sentences or ["Nothing was measured."]
    status = [f"*{escaped(found.status.words)}.*"] if found.status and found.status.tone != "good" else []
    notes = [f"- {escaped(note)}" for note in found.notes]
    blocks = [
        f"### {escaped(found.title)}",
        f"**{escaped(first)}**",
        *status,
        "\n".join(escaped(text) for text in rest),
        *map(_part, found.parts),
        "\n".join(f"<sub>{escaped(text)}</sub>" for text in found.remarks if text),
        "Missing from this report:\n\n" + "\n".join(notes) if notes else "",
        _fenced(found.commands),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _part(part: Part) -> str:
    if part.table is None or not part.table.rows:
        return ""
    return f"#### {escaped(part.title)}\n\n{markdown_table(part.table)}"


def _fenced(commands: object) -> str:
    lines = [" ".join(str(line).split()) for line in commands] if isinstance(commands, list | tuple) else []
    text = "\n".join(lines)
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}shell\n{text}\n{fence}" if lines else ""
