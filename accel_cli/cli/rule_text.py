"""The rules in words that hold for every run: what depends on the run stands as <name>."""

from __future__ import annotations

from typing import Any

from accel_cli.config.facts import Rule
from accel_cli.config.machine import GPU, Machine
from accel_cli.config.rule_table import RULES


class Blank:
    """Stands for facts that only a run has: ``facts.run.train.global_batch`` reads ``<global_batch>``."""

    def __init__(self, name: str = "") -> None:
        self._name = name

    def __getattr__(self, name: str) -> Blank:
        if name.startswith("__"):
            raise AttributeError(name)
        return Blank(self._name if name == "option" else name)

    def __str__(self) -> str:
        return f"<{self._name}>"

    def __format__(self, spec: str) -> str:
        return str(self)

    def __iter__(self) -> Any:
        return iter([str(self)])

    def _unknown(self, other: object) -> Blank:
        return Blank("number")

    __add__ = __sub__ = __mul__ = __floordiv__ = __truediv__ = __mod__ = _unknown
    __radd__ = __rsub__ = __rmul__ = __rfloordiv__ = __rtruediv__ = __rmod__ = _unknown


class _Facts(Blank):
    machine = Machine(2, 1 << 34, (GPU("a GPU", 1 << 34, (8, 0)),) * 2)
    """An example, for rules that count: two cores, two GPUs."""


def row(rule: Rule) -> dict[str, str]:
    """What a rule says, without a run."""
    return {
        "id": rule.id,
        "level": rule.level,
        "text": rule.text,
        "where": _text(rule.where, ""),
        "why": _text(rule.why, rule.text),
        "fix": _text(rule.fix, ""),
    }


def _text(text: Any, otherwise: str) -> str:
    if isinstance(text, str):
        return text
    try:
        return str(text(_Facts()))
    except Exception:  # a text that needs real facts: any error, since its author may do anything with them
        return otherwise


def rows() -> list[dict[str, str]]:
    return [row(rule) for rule in RULES]
