"""One-edit typos of everything that can be typed: the right word is among the first three suggestions."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Iterator
from typing import Literal, get_args, get_origin

import pytest
from doors import refused

from accel_cli.config.compose import parse
from accel_cli.config.names import Names
from accel_cli.config.parts import GROUPS, SEVERAL, table
from accel_cli.config.schema.sections import SECTIONS
from accel_cli.config.validate import Part, validate

LETTERS = string.ascii_lowercase + string.digits + "_"
SAMPLE = 500
NAMES = Names()


def typos(word: str) -> set[str]:
    """Every word one insertion, deletion, replacement or swap away."""
    cuts = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    found = {a + c + b for a, b in cuts for c in LETTERS}
    found |= {a + b[1:] for a, b in cuts if b}
    found |= {a + c + b[1:] for a, b in cuts if b for c in LETTERS}
    found |= {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1}
    return {typo for typo in found if typo and typo != word}


def sample(pairs: Iterator[tuple[str, str]]) -> list[tuple[str, str]]:
    everything = sorted(set(pairs))
    return random.Random(0).sample(everything, min(SAMPLE, len(everything)))


def share_right(pairs: list[tuple[str, str]], suggestions: list[list[str]]) -> float:
    misses = [(p, s) for p, s in zip(pairs, suggestions, strict=True) if p[0] not in s[:3]]
    print(misses[:20])
    return 1 - len(misses) / len(pairs)


def suggested(fix: str) -> list[str]:
    """The words of ``did you mean a, b or c ?``."""
    match = re.fullmatch(r"did you mean (.*) \?", fix)
    return re.split(r", | or ", match[1]) if match else []


def by_name(word: str) -> list[str]:
    problems = parse([word], NAMES).problems
    return suggested(problems[0].fix) if problems else []


def test_groups() -> None:
    words = [(f"{g}={o}", f"{typo}={o}") for g in GROUPS for o in table(g) for typo in typos(g) - set(NAMES.tops)]
    pairs = sample(iter(words))
    assert share_right(pairs, [by_name(typed) for _, typed in pairs]) >= 0.95


def test_options() -> None:
    pairs = sample((f"{g}={o}", f"{g}={typo}") for g in GROUPS for o in table(g) for typo in typos(o) - set(table(g)))
    assert share_right(pairs, [by_name(typed) for _, typed in pairs]) >= 0.95


def owners() -> Iterator[tuple[str, str, str]]:
    """(group or section, option, key)"""
    for name, section in SECTIONS.items():
        yield from ((name, "", key) for key in section.model_fields)
    for group in set(GROUPS) - set(SEVERAL):
        for option, entry in table(group).items():
            yield from ((group, option, key) for key in entry.schema.model_fields if key != "option")


def by_schema(group: str, option: str, key: str, value: object) -> list[str]:
    """Suggestions of the second door for one key of a group."""
    typed = f"{group}.{key}={value}"
    schema = table(group)[option].schema if option else SECTIONS[group]
    owner = f"{group}={option}" if option else group
    part = Part(schema, owner, group, {"option": option, key: value}, {}, NAMES, {f"{group}.{key}": typed})
    return next((suggested(problem.fix) for problem, _ in validate(part)[1] if problem.where == typed), [])


def test_keys() -> None:
    rows = {(g, o, k): (g, o, k) for g, o, k in owners()}
    known = {(g, o): {k for g2, o2, k in rows if (g2, o2) == (g, o)} for g, o, _ in rows}
    everything = sorted((g, o, k, t) for g, o, k in rows for t in typos(k) - known[g, o] if t != "option")
    chosen = random.Random(0).sample(everything, SAMPLE)
    pairs = [(f"{g}.{k}=7", f"{g}.{t}=7") for g, _, k, t in chosen]
    assert share_right(pairs, [by_schema(g, o, t, 7) for g, o, _, t in chosen]) >= 0.95


def test_keys_with_a_typo_in_their_group() -> None:
    keys = [f"{g}.{k}" for g, _, k in owners()]
    pairs = sample((f"{k}=7", f"{t}.{k.partition('.')[2]}=7") for k in keys for t in typos(k.partition(".")[0])
                   if t not in NAMES.tops)  # fmt: skip
    assert share_right(pairs, [by_name(typed) for _, typed in pairs]) >= 0.95


def choices_of(annotation: object) -> set[str]:
    """Words that are a whole value, not a part of one."""
    if get_origin(annotation) is dict:
        return set()
    if get_origin(annotation) is Literal:
        return {value for value in get_args(annotation) if isinstance(value, str)}
    return {value for part in get_args(annotation) if not isinstance(part, str) for value in choices_of(part)}


def test_values() -> None:
    everything = []
    for group, option, key in owners():
        schema = table(group)[option].schema if option else SECTIONS[group]
        words = choices_of(schema.model_fields[key].annotation)
        everything += [(group, option, key, w, t) for w in sorted(words) for t in sorted(typos(w) - words)
                       if not t[0].isdigit()]  # fmt: skip
    chosen = random.Random(0).sample(everything, SAMPLE)
    pairs = [(f"{g}.{k}={w}", f"{g}.{k}={t}") for g, _, k, w, t in chosen]
    assert share_right(pairs, [by_schema(g, o, k, t) for g, o, k, _, t in chosen]) >= 0.95


@pytest.mark.parametrize(("typed", "meant"), [
    ("8trategy=ddp", "strategy=ddp"), ("train.5eed=3", "train.seed=3"),
    ("strategyy=ddp", "strategy=ddp"), ("optimizer=sdg", "optimizer=sgd"), ("train.epocs=3", "train.epochs=3"),
    ("optimzer.learning_rate=1", "optimizer.learning_rate=1"), ("train.determinism=exatc", "train.determinism=exact"),
])  # fmt: skip
def test_the_whole_way(typed: str, meant: str) -> None:
    assert meant in suggested(refused(typed)[0].fix)
