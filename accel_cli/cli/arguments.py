"""What the parsers of all verbs share: accel's own errors, kinds of values, and flags that many have."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

from accel_cli.errors import ConfigError, Problem


class Parser(argparse.ArgumentParser):
    """argparse, with accel's own error format and a suggestion for a mistyped verb or flag."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(_parse_problem(self, message))


def positive(text: str) -> float:
    """A number above 0, for argparse."""
    return _within(text, float, lambda value: 0 < value < math.inf, "a number above 0")


def share(text: str) -> float:
    """Between 0 and 1; ``5%`` is 0.05."""

    def read(text: str) -> float:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)

    return _within(text, read, lambda value: 0 < value < 1, "between 0 and 1, or between 0% and 100%")


def count(text: str) -> int:
    return int(_within(text, int, lambda value: value >= 1, "a whole number, 1 or more"))


def _within(text: str, kind: Callable[[str], float], holds: Callable[[float], bool], what: str) -> float:
    with contextlib.suppress(ValueError):
        if holds(value := kind(text)):
            return value
    raise argparse.ArgumentTypeError(f"{text} is not {what}")


def _parse_problem(parser: argparse.ArgumentParser, message: str) -> Problem:
    from accel_cli.config.suggest import did_you_mean, nearest

    if "invalid choice: " in message:
        word = message.split("invalid choice: ")[1].split("'")[1]
        known = [c for a in parser._actions for c in (a.choices or ())]
        what = "no such verb" if parser.prog == "accel" else "not one of its choices"
        return Problem(
            word, what, did_you_mean(nearest(word, map(str, known))) or f"one of: {', '.join(map(str, known))}"
        )
    if message.startswith("unrecognized arguments: "):
        word = message.removeprefix("unrecognized arguments: ").split()[0]
        if not word.startswith("-"):
            return Problem(word, f"is one word too many for {parser.prog}", f"see {parser.prog} --help")
        flags = [flag for action in parser._actions for flag in action.option_strings]
        return Problem(word, "no such flag", did_you_mean(nearest(word, flags)) or f"see {parser.prog} --help")
    if message.startswith("argument "):
        flag, _, why = message.removeprefix("argument ").partition(": ")
        return Problem(flag, why, f"see {parser.prog} --help")
    missing = message.removeprefix("the following arguments are required: ")
    return Problem(parser.prog, message if missing == message else f"needs {missing}", f"see {parser.prog} --help")


def parallel(text: str) -> int | None:
    """As many as fit, None, for auto."""
    return None if text == "auto" else count(text)


class Shared(NamedTuple):
    """Parents of verbs' parsers."""

    common: Parser
    code: Parser
    """Code of the user's own."""
    composing: Parser
    """A run, from overrides."""
    study: Parser
    """A folder that is gone on with."""


def shared() -> Shared:
    common = Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print the result as one JSON object on stdout")
    common.add_argument("--traceback", action="store_true", help="show what lies under a message")

    code = Parser(add_help=False)
    code.add_argument(
        "--plugin", action="append", default=[], metavar="NAME", help="a module, file or folder of your own to import"
    )
    composing = Parser(add_help=False, parents=[common, code])
    composing.add_argument(
        "overrides", nargs="*", default=[], metavar="OVERRIDE", help="such as strategy=ddp or train.epochs=3"
    )
    composing.add_argument(
        "--config-dir", action="append", default=[], type=Path, metavar="DIR", help="your own options and recipes"
    )
    composing.add_argument(
        "--run", type=Path, metavar="RUN", help="begin from another run's run.yaml instead of the defaults"
    )
    study = Parser(add_help=False)
    study.add_argument("--run-dir", type=Path, metavar="DIR", help="its folder; default runs/<time>-<verb>")
    study.add_argument("--new", action="store_true", help="begin another, though one of this line is unfinished")
    return Shared(common, code, composing, study)
