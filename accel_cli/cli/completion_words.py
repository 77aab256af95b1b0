"""accel completion words: what the word under the cursor can become. Reads files; imports no torch, no Hydra."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from accel_cli.cli.override_words import Typed, Words

MANY = 300
"""Entries of a folder that are looked into."""
LISTS = {
    "groups": "every group",
    "options": "every option",
    "recipes": "whole runs",
    "rules": "what cannot go together",
}


def main(words: Sequence[str]) -> int:
    """``[--meanings] -- WORD...``, the words after ``accel`` up to the cursor: a line each for what fits the last."""
    has_meanings = bool(words) and words[0] == "--meanings"
    words = words[1:] if has_meanings else words
    words = words[1:] if words and words[0] == "--" else words
    try:
        found = complete(words or [""])
    except Exception:  # a shell waits for this: silence is better than any traceback
        return 0
    with contextlib.suppress(BrokenPipeError):
        for text, meaning in found.items():
            sys.stdout.write(f"{text}\t{meaning}\n" if has_meanings and meaning else f"{text}\n")
        sys.stdout.flush()
    return 0


def complete(words: Sequence[str]) -> Words:
    """What the last of ``words`` can become. Nothing where only the shell knows (files)."""
    from accel_cli.cli.main import parser

    *before, current = words
    top = parser()
    verbs = next(action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    if not before:
        meanings = {action.dest: action.help or "" for action in verbs._choices_actions}
        return _fitting(_flags(top) if current.startswith("-") else meanings, current)
    own = verbs.choices.get(before[0])
    if own is None:
        return {}
    for action in own._actions:
        if before[-1] in action.option_strings and action.nargs != 0:
            return _fitting(_values(action, before, current), current)
    if current.startswith("-"):
        return _fitting(_flags(own), current)
    given = len(_positionals(own, before[1:]))
    for action in own._actions:
        if not action.option_strings and (action.nargs in ("*", "+") or given == 0):
            return _fitting(_values(action, before, current), current)
    return {}


def _fitting(found: Words, current: str) -> Words:
    return {text: meaning for text, meaning in found.items() if text.startswith(current)}


def _flags(own: argparse.ArgumentParser) -> Words:
    return {flag: action.help or "" for action in own._actions for flag in action.option_strings if flag[:2] == "--"}


def _positionals(own: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    taking = {flag for action in own._actions if action.nargs != 0 for flag in action.option_strings}
    return [
        word
        for previous, word in zip(["", *words], words, strict=False)
        if not word.startswith("-") and previous not in taking
    ]


def _values(action: argparse.Action, before: Sequence[str], current: str) -> Words:
    """Of a flag or a positional argument, by its own name in the parser."""
    if action.choices:
        return dict.fromkeys(map(str, action.choices), "")
    if action.dest in ("run", "runs"):
        return dict.fromkeys(run_folders(current), "")
    typed = Typed(before)
    if action.dest in ("overrides", "techniques"):
        return typed.overrides(current)
    if action.dest == "formats":
        return Typed([word.replace("format=", "export=", 1) for word in before]).formats(current)
    if action.dest == "explain":
        return typed.keys(current) if "." in current else typed.tops()
    if action.dest == "what":
        return {**LISTS, **dict.fromkeys(typed.groups, "its options")}
    return {}


def run_folders(current: str) -> Iterator[str]:
    """Paths of runs that begin with ``current``, and folders on the way to some."""
    parent = current[: current.rfind("/") + 1]
    for name, path in _inner(Path(parent or ".").expanduser()):
        if not name.startswith(current[len(parent) :]):
            continue
        if (path / "run.yaml").is_file():
            yield parent + name
            continue
        runs = [inner for inner, folder in _inner(path) if (folder / "run.yaml").is_file()]
        if runs and not current:
            yield from (f"{name}/{inner}" for inner in runs)
        elif runs or any(True for _ in _inner(path)):
            yield f"{parent}{name}/"


def _inner(folder: Path) -> list[tuple[str, Path]]:
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())
    except OSError:
        return []
    return [(path.name, path) for path in entries[-MANY:]]
