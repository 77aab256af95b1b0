"""Overrides laid over other overrides: the later word wins, and an option that goes takes its values along."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from accel_cli.config.names import Names
from accel_cli.config.request import LENGTHS


def key(word: str) -> str:
    """``+strategy=ddp`` -> ``strategy``."""
    return word.lstrip("+~").partition("=")[0]


def over(words: Sequence[str], changes: Iterable[str], config_dirs: Sequence[Path] = ()) -> list[str]:
    """``words`` with ``changes`` laid over them.

    Values of a group whose option changes stay only where the new option has such a key; one length of the run
    takes the place of another.
    """
    found, names = list(words), Names(config_dirs)
    for change in changes:
        named, value = key(change), change.partition("=")[2]
        is_length = named.removeprefix("train.") in LENGTHS and named.startswith("train.")
        kept = []
        for word in found:
            other = key(word)
            if other == named or (is_length and other in [f"train.{length}" for length in LENGTHS]):
                continue
            foreign = named in names.options and other.startswith(f"{named}.")
            if foreign and value not in names.keys.get(other, [value]):
                continue
            kept.append(word)
        found = [*kept, change]
    return found
