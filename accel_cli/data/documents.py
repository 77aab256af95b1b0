"""Find the documents that a path names, cut them into splits, and read them in pieces."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accel_cli.data.base import SPLITS, Split, refuse

PIECE = 1 << 18
"""Bytes of a document that are read at once."""


@dataclass(frozen=True)
class Stretch:
    """Bytes ``start`` to ``end`` of a file: one document of plain text, or lines of JSON (.jsonl) with one in each."""

    path: str
    start: int
    end: int

    @property
    def is_lines(self) -> bool:
        return self.path.endswith(".jsonl")


def find_files(named: str, where: str) -> list[Stretch]:
    """A file, the files of a folder at any depth, or those that fit a glob, in sorted order; hidden ones are left out.

    Raises ConfigError where there is none, or none with anything in it.
    """
    path = os.path.expanduser(named)
    if os.path.isfile(path):
        names = [path]
    elif os.path.isdir(path):
        names = sorted(_below(path))
    else:
        names = sorted(name for name in glob.glob(path, recursive=True) if os.path.isfile(name))
        if not names:
            raise refuse(where, "no such file or folder, and no file fits it", "give a file, a folder or a glob")
    try:
        found = [Stretch(name, 0, os.stat(name).st_size) for name in names]
    except OSError as error:
        raise refuse(where, f"{error.filename} cannot be read: {error.strerror}", "check its permissions") from error
    if not any(stretch.end for stretch in found):
        raise refuse(where, "is empty", "give a file that holds text")
    return found


def _below(folder: str) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(place, name) for name in files if not name.startswith("."))


def cut_files(
    files: list[Stretch], validation_share: float, test_share: float, *, whole_characters: bool
) -> dict[Split, list[Stretch]]:
    """Train in front, validation behind it, test at the end, at the same places whatever the tokenizer.

    A border inside of lines of JSON moves to the next line, with ``whole_characters`` one inside of a character of
    UTF-8 to the next character.
    """
    total = sum(file.end for file in files)
    test = total - round(total * test_share)
    validation = test - round(total * validation_share)
    borders = [0, validation, test, total]
    parts: dict[Split, list[Stretch]] = {name: [] for name in SPLITS}
    before = 0
    for file in files:
        inside = [min(max(border - before, 0), file.end) for border in borders]
        places = [_settle(file, place, whole_characters) for place in inside]
        for name, start, end in zip(SPLITS, places, places[1:], strict=False):
            if start < end:
                parts[name].append(Stretch(file.path, start, end))
        before += file.end
    return parts


def _settle(file: Stretch, place: int, whole_characters: bool) -> int:
    if place in (0, file.end) or not (file.is_lines or whole_characters):
        return place
    with open(file.path, "rb") as opened:
        if file.is_lines:
            opened.seek(place - 1)
            opened.readline()
            return min(opened.tell(), file.end)
        opened.seek(place)
        return min(place + next((i for i, byte in enumerate(opened.read(3)) if not _continues(byte)), 3), file.end)


def read_documents(stretch: Stretch, field: str) -> Iterator[tuple[bool, bytes]]:
    """(whether a document begins here, its text or the next piece of it); empty ones are left out."""
    try:
        with open(stretch.path, "rb") as opened:
            opened.seek(stretch.start)
            if stretch.is_lines:
                yield from ((True, text) for text in _lines(opened, stretch, field) if text)
            else:
                yield from ((number == 0, piece) for number, piece in enumerate(_pieces(opened, stretch)))
    except OSError as error:
        raise refuse("data.path", f"{stretch.path} cannot be read: {error.strerror}", "check the file") from error


def _pieces(opened: Any, stretch: Stretch) -> Iterator[bytes]:
    """Cut before a line that begins with a letter, so that a tokenizer meets nearly what it would meet in the whole."""
    position, rest = stretch.start, b""
    while position < stretch.end:
        block = opened.read(min(PIECE, stretch.end - position))
        if not block:
            raise refuse("data.path", f"{stretch.path} became shorter as it was read", "run again")
        position += len(block)
        text = rest + block
        cut = len(text) if position == stretch.end else _last_border(text)
        yield text[:cut]
        rest = text[cut:]


def _last_border(text: bytes) -> int:
    place = text.rfind(b"\n", 0, -1)
    while place > 0 and text[place + 1 : place + 2].isspace():
        place = text.rfind(b"\n", 0, place)
    if place > 0:
        return place + 1
    if (space := text.rfind(b" ")) > 0:
        return space
    return len(text) - next((i for i in range(1, 4) if text[-i] >= 0xC0), 0)


def _continues(byte: int) -> bool:
    """Whether a byte of UTF-8 is not the first of its character."""
    return byte & 0xC0 == 0x80


def _lines(opened: Any, stretch: Stretch, field: str) -> Iterator[bytes]:
    while opened.tell() < stretch.end:
        start = opened.tell()
        line = opened.readline().strip()
        if not line:
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise _bad_line(stretch, start, f"no JSON ({error})", "write one object a line") from error
        if not isinstance(row, dict) or not isinstance(row.get(field), str):
            fields = row if isinstance(row, dict) else {}
            other = next((key for key, value in fields.items() if isinstance(value, str)), None)
            fix = f"try data.field={other}" if other else f'write {{"{field}": "..."}}'
            raise _bad_line(stretch, start, f"no text named {field}; has {', '.join(fields) or 'no fields'}", fix)
        # A lone half of a surrogate pair is JSON, but no character.
        yield row[field].encode("utf-8", errors="replace")


def _bad_line(stretch: Stretch, start: int, why: str, fix: str) -> Exception:
    with open(stretch.path, "rb") as opened:
        line = opened.read(start).count(b"\n") + 1
    return refuse("data.path", f"{Path(stretch.path).name}, line {line}: {why}", fix)
