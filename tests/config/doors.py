"""Words through the three doors, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from accel_cli.config.plan import Plan, plan
from accel_cli.errors import ConfigError, Problem

HIDDEN_WORDS = (
    "Value error",
    "pydantic",
    "validation error",
    "omegaconf",
    "Traceback",
    "add a +",
    "prepend",
    "NoneType",
)
"""What no message says: other libraries' jargon, and the advice to add a plus."""


def through(*words: str, config_dirs: Sequence[Path] = (), plugins: Sequence[str] = ()) -> Plan:
    return plan(words, config_dirs=config_dirs, plugins=plugins)


def refused(*words: str, code: int = 2, config_dirs: Sequence[Path] = (), plugins: Sequence[str] = ()) -> list[Problem]:
    """The problems of words that do not pass, after the checks that hold for every problem."""
    with pytest.raises(ConfigError) as caught:
        plan(words, config_dirs=config_dirs, plugins=plugins)
    problems = list(caught.value.problems)
    assert caught.value.exit_code == code, caught.value
    assert len(set(problems)) == len(problems), caught.value
    for problem in problems:
        assert problem.where, problem
        assert problem.why, problem
        assert problem.fix, problem
        assert not any(word in f"{problem.why} {problem.fix}" for word in HIDDEN_WORDS), problem
    return problems
