"""The command line's words, taken apart: which options, which values, which recipes; and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accel_cli.config.code import CODE_KEYS, code_key, has_resolver
from accel_cli.config.names import Names
from accel_cli.config.parts import SEVERAL
from accel_cli.errors import ConfigError, Problem, SecurityError

LENGTHS = ("epochs", "steps", "samples")
"""The keys of train that state the length of a run: whoever states one means it instead of the others."""


_DIGIT_FIRST = re.compile(r"(^|\.)\d")


@dataclass(frozen=True)
class Word:
    """One override as Hydra's grammar reads it."""

    text: str
    key: str
    """Without + and ~."""
    written: str
    """The value as typed."""
    value: Any
    package: str | None = None
    is_delete: bool = False
    sweep_values: tuple[str, ...] | None = None
    """The first points of a sweep; None for one value."""


@dataclass
class Request:
    """What was asked for."""

    choices: dict[str, list[str]] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    """Full key -> the override as typed."""
    recipes: list[Path] = field(default_factory=list)
    deleted: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    """Of names and grammar."""
    spoiled: set[str] = field(default_factory=set)
    """Groups and keys that a problem is about: what holds for them instead says nothing about what was meant."""
    forbidden: bool = False
    """Whether a problem is one of running code."""
    spelling: dict[str, str] = field(default_factory=dict)
    """Group or full key -> the override as typed."""

    @contextmanager
    def collecting(self, *about: str) -> Iterator[None]:
        """Keep the problems of a ConfigError raised inside, as of ``about``."""
        try:
            yield
        except ConfigError as error:
            self.problems.extend(error.problems)
            self.forbidden |= isinstance(error, SecurityError)
            self.spoiled.update(about)

    def refuse(self, problem: Problem, *about: str) -> None:
        self.problems.append(problem)
        self.spoiled.update(about)


def take_apart(words: Sequence[Word | ConfigError], names: Names) -> Request:
    """Put every word where it belongs, and collect what is wrong with the others."""
    request = Request()
    for word in words:
        before = len(request.problems)
        with request.collecting():
            if isinstance(word, ConfigError):
                raise _misspelt(word, names)
            _take(word, request, names)
        if len(request.problems) > before:
            request.spoiled.update(_about(word, names))
    stated = [key for key in LENGTHS if f"train.{key}" in request.values]
    if any(not request.values[f"train.{key}"].endswith("=null") for key in stated):
        request.values.update({f"train.{key}": f"train.{key}=null" for key in LENGTHS if key not in stated})
    return request


def _about(word: Word | ConfigError, names: Names) -> Iterator[str]:
    text = word.text if isinstance(word, Word) else word.problems[0].where
    key = text.partition("=")[0].lstrip("+~/")
    yield key
    if key.partition(".")[0] not in names.tops:
        yield from (meant.partition("=")[0] for meant in names.meant(key, text.partition("=")[2]))


def _misspelt(error: ConfigError, names: Names) -> ConfigError:
    """A word outside the grammar because its key is no name, such as 8chedule=step: that key is what is wrong."""
    text = error.problems[0].where
    key, equals, _ = text.partition("=")
    key = key.lstrip("+~")
    if equals and re.fullmatch(r"\w[\w.]*", key) and (key.split(".")[0] not in names.tops or _DIGIT_FIRST.search(key)):
        return ConfigError(names.unknown_key(key, text))
    return error


def _take(word: Word, request: Request, names: Names) -> None:
    key, text = word.key, word.text
    refuse_code(word)
    if key.partition(".")[0] == "hydra":
        fix = "leave it out; accel train --help has --run-dir, -m and --cfg job"
        raise ConfigError(Problem(text, "hydra's own settings are not accel's", fix))
    if word.package is not None:
        raise ConfigError(Problem(text, "a package (@) is not part of a name", f"try {key}={word.written}"))
    if word.sweep_values is not None:
        fix = f"add -m, or try {key}={next(iter(word.sweep_values), '...')}"
        raise ConfigError(Problem(text, "several values, and this is one run", fix))
    if key == "recipe":
        _take_recipe(word, request, names)
    elif key in names.options:
        _take_choice(word, request, names)
    else:
        _take_value(word, request, names)


def refuse_code(word: Word) -> None:
    """Raises SecurityError for words that would have code run by name, ConfigError for resolvers."""
    found = next((part for part in word.key.split(".") if part in CODE_KEYS), None) or code_key(word.value)
    if found:
        fix = "use a factory: model.factory=my_file:MyNet --plugin my_file.py"
        raise SecurityError(Problem(word.text, f"{found} would run code by name", fix))
    if has_resolver(word.text):
        raise ConfigError(Problem(word.text, "resolvers are not supported; ${train.seed} is", "write the value itself"))


def _take_recipe(word: Word, request: Request, names: Names) -> None:
    for name in _strings(word.value):
        if name.endswith((".yaml", ".yml")) or "/" in name:
            request.recipes.append(Path(name).expanduser())
        elif name in names.recipes:
            request.recipes.append(names.recipes[name])
        else:
            raise ConfigError(names.unknown("recipe", name, names.recipes, word.text))
    request.spelling["recipe"] = word.text


def _take_choice(word: Word, request: Request, names: Names) -> None:
    group, text = word.key, word.text
    known = names.options[group]
    if group in request.choices:
        why = f"{group} is chosen twice: {request.spelling[group]} {text}"
        raise ConfigError(Problem(text, why, "keep one of them"))
    if word.is_delete:
        if "none" not in known:
            raise ConfigError(Problem(text, f"a run needs one {group}", f"try {group}={names.defaults[group]}"))
        chosen = ["none"]
    else:
        chosen = _strings(word.value)
    if group not in SEVERAL and isinstance(word.value, list):
        first = next((name for name in chosen if name in known), names.defaults[group])
        raise ConfigError(Problem(text, f"{group} takes one option, not a list", f"try {group}={first}"))
    problems = [names.unknown(group, name, known, text) for name in chosen if name not in known]
    if problems:
        raise ConfigError(problems)
    alone = [name for name in dict.fromkeys(chosen) if name != "none" or len(set(chosen)) == 1]
    if len(alone) != len(chosen):
        why = "the same option twice" if len(set(chosen)) != len(chosen) else "none goes with no other option"
        raise ConfigError(Problem(text, why, f"try {group}=[{','.join(alone)}]"))
    request.choices[group] = chosen or ["none"]
    request.spelling[group] = text


def _take_value(word: Word, request: Request, names: Names) -> None:
    key, text = word.key, word.text
    before = request.values.get(key) or request.deleted.get(key)
    if before:
        raise ConfigError(Problem(text, f"{key} is given twice: {before} {text}", "keep one of them"))
    if problem := names.key_problem(key, text):
        raise ConfigError(problem)
    if word.is_delete:
        if key.count(".") < 2 or key in names.keys:
            raise ConfigError(Problem(text, "a run needs every key", f"leave it out, or set {key}=..."))
        request.deleted[key] = text
    else:
        request.values[key] = text
        request.spelling[key] = text


def _strings(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return ["null" if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in values]
