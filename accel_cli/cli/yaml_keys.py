"""Keys and their comments from the lines of our YAML files: enough for completion, without a YAML library."""

from __future__ import annotations

import re
from pathlib import Path

_KEY = re.compile(r"^( *)([A-Za-z_]\w*):(?:\s+([^#]*?))?\s*(?:#\s*(.*))?$")
_CHOICE = re.compile(r"^\s*-\s*(?:override\s+)?/?(\w+):\s*([^#]*?)\s*(?:#.*)?$")
_PACKAGE = re.compile(r"^#\s*@package\s+(\S+)")


def keys(path: Path, prefix: str = "") -> dict[str, str]:
    """Full key -> the comment beside it. ``prefix`` is where the file stands, unless it names a package itself."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    for place, line in enumerate(lines):
        if match := _PACKAGE.match(line):
            prefix = match[1]
        match = _KEY.match(line)
        if match is None:
            continue
        indent, name, value, comment = len(match[1]), match[2], match[3], match[4]
        while parents and parents[-1][0] >= indent:
            parents.pop()
        if not value and _next_indent(lines, place) > indent:
            parents.append((indent, name))
        else:
            full = ".".join([*filter(None, [prefix]), *(parent for _, parent in parents), name])
            found[full] = comment or ""
    return found


def choices(path: Path) -> dict[str, str]:
    """Group -> option, of a defaults list."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return {match[1]: match[2] for line in lines if (match := _CHOICE.match(line))}


def starts_from(path: Path) -> str:
    """The option of accel's that a user's own file names, else the one of its own name."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((match[3] for line in lines if (match := _KEY.match(line)) and match[2] == "option"), path.stem)


def _next_indent(lines: list[str], place: int) -> int:
    following = (line for line in lines[place + 1 :] if line.strip() and not line.lstrip().startswith("#"))
    line = next(following, "")
    return len(line) - len(line.lstrip(" "))
