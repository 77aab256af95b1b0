"""Whatever is typed, a run or a refusal comes out, within a second."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from accel_cli.config.compose import parse
from accel_cli.config.names import Names
from accel_cli.config.plan import plan
from accel_cli.config.run import Run
from accel_cli.errors import ConfigError, format_problems

NAMES = Names()
KEYS = some.sampled_from(
    [*NAMES.keys, *NAMES.tops, "model.args.x", "augment.transforms", "nothing", "train.", "..", ""]
)
SIGNS = some.sampled_from(["", "+", "++", "~", "~~", "+/", "@", " "])
VALUES = some.one_of(
    some.text(max_size=30),
    some.text("[]{}(),:'\"\\$=~@ ab1.-\n", max_size=20),
    some.sampled_from([o for options in NAMES.options.values() for o in options]),
    some.sampled_from(
        ["null", "nan", "1e999", "0", "-1", "true", "???", "${train.seed}", "${train}", "[]", "{}", "'", "[" * 500]
    ),
    some.integers().map(str),
    some.floats().map(str),
)
WORDS = some.one_of(some.text(max_size=30), some.builds("{}{}={}".format, SIGNS, KEYS, VALUES))


@settings(max_examples=400, deadline=1000)
@given(word=WORDS)
def test_the_first_door(word: str) -> None:
    request = parse([word], NAMES)
    assert all(problem.where is not None and problem.why and problem.fix for problem in request.problems)


@pytest.mark.slow
@settings(max_examples=80, deadline=5000, suppress_health_check=[HealthCheck.too_slow])
@given(words=some.lists(WORDS, min_size=1, max_size=3))
def test_all_doors(words: list[str]) -> None:
    found = outcome(words)
    if isinstance(found, Run):
        return
    assert found.exit_code in (2, 8)
    assert all(problem.why and problem.fix for problem in found.problems), found
    assert all(line.isprintable() for line in format_problems(found.problems).splitlines())


def outcome(words: list[str]) -> Run | ConfigError:
    try:
        return plan(words).run
    except ConfigError as error:
        return error
