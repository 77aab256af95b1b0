"""Which layers are cut, and why not the others: from the configuration, from the model, or found by itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from accel_cli.config.suggest import did_you_mean, nearest
from accel_cli.errors import ConfigError, Problem
from accel_cli.strategy.tensor_layers import kind_of
from accel_cli.strategy.tensor_proof import Pair, misfit, pair, pattern, prove
from accel_cli.strategy.tensor_trace import Forward, Trace

COLUMNS, ROWS, GATHERED = "colwise", "rowwise", "colwise_gather_output"
SPELLINGS = {"colwise_rep": GATHERED}
"""What transformers called a style in its releases 4."""
IMPLIED = ("replicated_with_grad_allreduce", "embedding_rowwise")
"""Styles of transformers that change nothing here: the first is found by itself, an embedding stays whole."""


CONFIGURATION, MODEL, FOUND = "configuration", "model", "finder"


@dataclass
class Plan:
    source: str
    """``CONFIGURATION``, ``MODEL`` or ``FOUND``."""
    pairs: list[Pair]
    gathered: list[str]
    """Layers cut by columns whose output every rank gets whole."""
    left: dict[str, str]
    """Names or patterns of layers that stay whole -> why."""

    @property
    def parts(self) -> list[Pair]:
        """The gathered layers as well, each as a pair without rows."""
        return self.pairs + [alone(name) for name in self.gathered]

    @property
    def layers(self) -> list[str]:
        return [name for p in self.parts for name in p.layers]


def make(model: nn.Module, found: Trace, wanted: Mapping[str, str] | str, parts: int, forward: Forward) -> Plan:
    """The plan for ``parts`` ranks; ``wanted`` is ``auto``, or name pattern -> style.

    A model brings its own as an attribute ``tensor_plan`` of the same form (gpt and vit do), or as transformers'
    ``_tp_plan``. Where nothing of it fits, or there is none, pairs are searched for.

    The proof runs the forward of the trace twice or more. The model stays as it was. Raises ConfigError for a pattern
    that no module has.
    """
    if not isinstance(wanted, str):
        refuse_strangers(model, wanted)
        return given(model, found, expand(model, wanted), CONFIGURATION, parts, forward)
    for attribute in ("tensor_plan", "_tp_plan"):
        styles = expand(model, getattr(model, attribute, None) or {})
        if styles:
            plan = given(model, found, styles, MODEL, parts, forward)
            if plan.layers:
                return plan
    return search(model, found, parts, forward)


def expand(model: nn.Module, styles: Mapping[str, str]) -> dict[str, str]:
    """Module name -> style; of two patterns that match, the later holds. ``*`` stands for one part of a name."""
    names = [name for name, _ in model.named_modules()]
    found: dict[str, str] = {}
    for wanted, style in styles.items():
        for name in matching(names, wanted):
            found[name] = SPELLINGS.get(style, style)
    return found


def refuse_strangers(model: nn.Module, styles: Mapping[str, str]) -> None:
    names = [name for name, _ in model.named_modules()]
    problems = []
    for wanted in styles:
        if not matching(names, wanted):
            close = nearest(wanted, dict.fromkeys(pattern([name]) for name in names if name))
            fix = did_you_mean(close) or "see the names with print(model)"
            problems.append(Problem(f"strategy.plan.{wanted}", "no part of the model has this name", fix))
    if problems:
        raise ConfigError(problems)


def matching(names: list[str], wanted: str) -> list[str]:
    expression = re.compile(re.escape(wanted).replace(r"\*", r"[^.]+"))
    return [name for name in names if expression.fullmatch(name)]


def alone(name: str) -> Pair:
    return Pair((name,), (), (), ())


def search(model: nn.Module, found: Trace, parts: int, forward: Forward) -> Plan:
    """Every pair that can be cut; of two that share a layer the smaller, then the earlier."""
    plan = Plan(FOUND, [], [], {})
    known = dict.fromkeys(p for name in found.layers if (p := pair(model, found, name)) is not None)
    candidates = sorted(known, key=lambda p: len(p.layers))
    failed: dict[Pair, str] = {}
    for candidate in candidates:
        why = misfit(model, found, candidate, parts)
        if why:
            failed[candidate] = why
    while True:
        chosen = list(plan.pairs)
        for candidate in candidates:
            taken = {name for p in chosen for name in p.layers}
            if candidate not in failed and not taken & set(candidate.layers):
                chosen.append(candidate)
        if len(chosen) == len(plan.pairs):
            break
        plan.pairs, dropped = prove(model, found, chosen, parts, forward)
        failed |= dropped
    taken = set(plan.layers)
    plan.left = {str(p): why for p, why in failed.items() if not taken & set(p.layers)}
    return plan


def given(model: nn.Module, found: Trace, styles: dict[str, str], source: str, parts: int, forward: Forward) -> Plan:
    """What can be done of a plan that names layers and their styles."""
    plan = Plan(source, [], [], {})
    candidates: list[Pair] = []
    for name, style in styles.items():
        if style in IMPLIED or any(name in p.layers for p in candidates) or pattern([name]) in plan.left:
            continue
        why: str | None = None
        if style not in (COLUMNS, ROWS, GATHERED):
            why = f"style {style} is not known here"
        elif kind_of(model.get_submodule(name)) is None:
            why = f"a {type(model.get_submodule(name)).__name__} cannot be cut"
        elif name not in found.layers:
            why = "was not called in a forward"
        elif style == GATHERED:
            why = misfit(model, found, alone(name), parts)
            if why is None:
                plan.gathered.append(name)
        elif style == ROWS:
            candidate = pair(model, found, name)
            why = "reads more than the outputs of layers cut by columns"
            if candidate is not None:
                unlike = [n for n in candidate.columns if styles.get(n) != COLUMNS]
                unlike += [n for n in candidate.rows if styles.get(n) != ROWS]
                why = f"needs {unlike[0]} to be cut too" if unlike else misfit(model, found, candidate, parts)
                if why is None:
                    candidates.append(candidate)
        if why:
            plan.left[pattern([name])] = why
    plan.pairs, dropped = prove(model, found, candidates, parts, forward)
    plan.left |= {str(p): why for p, why in dropped.items()}
    for name, style in styles.items():
        planned = any(name in p.layers for p in candidates) or pattern([name]) in plan.left
        if style == COLUMNS and not planned:
            readers = found.consumers.get(name, set())
            plan.left[pattern([name])] = f"its output goes to {', '.join(sorted(readers)) or 'nothing'} as well"
    return plan
