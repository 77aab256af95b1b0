"""The user's own table in a text file."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from accel_cli.data.base import Report, refuse
from accel_cli.data.cache import cache_folder, cached, fingerprint
from accel_cli.data.stored_table import StoredTable, save_table
from accel_cli.errors import ConfigError, Problem

DELIMITERS = ",;\t|"
MOST_PROBLEMS = 10
LARGEST = float(np.finfo(np.float32).max)
"""A cell beyond it would be stored as infinity; nan is refused by the same comparison."""
ROWS_BETWEEN_REPORTS = 20_000


class Csv(StoredTable):
    """A row a sample: float32 features, and one column as class (any text) or number; parsed once into the cache."""

    def entry(self, report: Report) -> Path:
        config = self.config
        path, where = Path(config.path).expanduser(), f"data.path={config.path}"
        if not path.is_file():
            raise refuse(where, "is a folder" if path.is_dir() else "no such file", "give the path of a table in text")

        def build(entry: Path) -> None:
            inputs, cells = read_table(path, config, where, report)
            if config.target_kind == "number":
                numbers = np.array(cells, dtype=np.float32)[:, None]
                save_table(entry, inputs=inputs, targets=numbers, class_names=None)
                return
            names = class_order(set(cells))
            if len(names) < 2:
                raise refuse(
                    f"data.target={config.target}",
                    f"holds one class only, {names[0]!r}",
                    "name another column, or try data.target_kind=number",
                )
            number = {name: place for place, name in enumerate(names)}
            targets = np.array([number[cell] for cell in cells], dtype=np.int64)
            save_table(entry, inputs=inputs, targets=targets, class_names=names)

        return cached(
            cache_folder(config.cache),
            name="csv",
            source={
                "path": str(path.resolve()),
                "columns": [config.target, config.target_kind, sorted(config.ignore), config.delimiter],
            },
            content=fingerprint(path.parent, [path.name]),
            # A cell takes two characters at least in the file and four bytes in the arrays.
            bytes_needed=2 * path.stat().st_size,
            build=build,
        )


def read_table(path: Path, config: Any, where: str, report: Report) -> tuple[np.ndarray, list[Any]]:
    """Features float32 [rows, columns], and the target's cells: text, or floats where it is a number.

    Raises ConfigError with up to ten problems, each with the number of its line.
    """
    rows = _rows(path, config.delimiter, where)
    header = next(rows, (0, []))[1]
    if not header:
        raise refuse(where, "is empty", "give a table whose first row names the columns")
    target, features = choose_columns(header, config, where)
    is_number = config.target_kind == "number"
    inputs, targets, problems = [], [], []
    size, read = path.stat().st_size, 0
    for count, (line, row) in enumerate(rows):
        read += sum(map(len, row)) + len(row)
        if not row:
            continue
        if len(row) != len(header):
            problems.append(
                Problem(where, f"line {line}: {len(row)} cells, the first row has {len(header)}", "make them agree")
            )
        else:
            try:
                values = [float(row[column]) for column in features]
                label: Any = float(row[target]) if is_number else row[target].strip()
                if label == "" or not all(abs(value) <= LARGEST for value in (*values, label if is_number else 0)):
                    raise ValueError
                inputs.append(values)
                targets.append(label)
            except ValueError:
                needed = [*features, target] if is_number else features
                problems += _bad_cells(row, header, needed, target, line, where)
        if len(problems) >= MOST_PROBLEMS:
            break
        if count % ROWS_BETWEEN_REPORTS == 0:
            report("read bytes of the table", min(read, size), size)
    if problems:
        raise ConfigError(problems[:MOST_PROBLEMS])
    if not inputs:
        raise refuse(where, "has no rows below the first", "give a table with samples")
    return np.array(inputs, dtype=np.float32), targets


def choose_columns(header: list[str], config: Any, where: str) -> tuple[int, list[int]]:
    """Places of the target and of the features. Raises ConfigError for names that the first row lacks, or has twice."""
    problems = [
        Problem(f"{key}={name}", f"no such column; has {', '.join(header[:12])}", _nearest(key, name, header))
        for key, name in [("data.target", config.target), *(("data.ignore", name) for name in config.ignore)]
        if name not in header
    ]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        problems.append(Problem(where, f"columns named twice: {', '.join(twice)}", "give each column its own name"))
    left_out = {config.target, *config.ignore}
    features = [place for place, name in enumerate(header) if name not in left_out]
    if not problems and not features:
        problems.append(Problem(where, "no column is left as input", "add columns, or shorten data.ignore"))
    if problems:
        raise ConfigError(problems)
    return header.index(config.target), features


def class_order(names: set[str]) -> list[str]:
    """By value where all are numbers, else by text."""
    try:
        return sorted(names, key=float)
    except ValueError:
        return sorted(names)


def _rows(path: Path, delimiter: str | None, where: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of the line that each ends on."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter or max(DELIMITERS, key=first.count), strict=True)
            for row in reader:
                yield reader.line_num, [cell.strip() for cell in row] if reader.line_num == 1 else row
    except UnicodeDecodeError as error:
        raise refuse(where, f"not UTF-8 text (byte {error.start})", "save it as UTF-8") from error
    except csv.Error as error:
        raise refuse(where, f"line {reader.line_num}: {error}", "check its quotes, or name data.delimiter") from error


def _bad_cells(
    row: list[str], header: list[str], numbers: list[int], target: int, line: int, where: str
) -> Iterator[Problem]:
    for place in numbers:
        cell = row[place].strip()
        if not _is_number(cell):
            what = f"{cell[:40]!r} is not a number" if cell else "is empty"
            fix = (
                "correct it, or try data.target_kind=class"
                if place == target
                else f"correct it, or try data.ignore=[{header[place]}]"
            )
            yield Problem(where, f"line {line}, column {header[place]}: {what}", fix)
    if target not in numbers and not row[target].strip():
        yield Problem(where, f"line {line}, column {header[target]}: is empty", "name its class, or remove the row")


def _is_number(cell: str) -> bool:
    try:
        return abs(float(cell)) <= LARGEST
    except ValueError:
        return False


def _nearest(key: str, name: str, header: list[str]) -> str:
    near = difflib.get_close_matches(name, header, n=1)
    return f"did you mean {key}={near[0]} ?" if near else f"try {key}={header[-1]}" if header else "check the first row"
