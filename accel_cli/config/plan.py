"""From words to a checked run: the three doors, in order, with every problem at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from accel_cli.config import compose, rules, tree
from accel_cli.config import run as run_file
from accel_cli.config.compose import Composed
from accel_cli.config.decide import FOLLOWS, Decision, decide, decided_in, settled_before
from accel_cli.config.machine import detect
from accel_cli.config.partition import machine_of
from accel_cli.config.run import Run
from accel_cli.errors import ConfigError, Problem, SecurityError

OWN_FILE = "accel.yaml"


@dataclass(frozen=True)
class Plan:
    """A run that passed names, types and rules; no rank has been started for it."""

    run: Run
    composed: Composed
    decisions: list[Decision]
    warnings: list[str]
    plugins: list[str]


def plan(
    overrides: Sequence[str],
    *,
    config_dirs: Sequence[Path] = (),
    plugins: Sequence[str] = (),
    base: Path | None = None,
) -> Plan:
    """Compose, check and decide. Raises ConfigError (exit 2) or SecurityError (exit 8)."""
    granted = [*plugins, *own_plugins()]
    composed = compose.compose(overrides, config_dirs, base)
    request = composed.request
    checked = run_file.check_tree(composed.tree, composed.names, composed.spelling, request.spoiled)
    problems = [*request.problems, *checked.problems]
    spoiled = request.spoiled | checked.spoiled
    if checked.run is None:
        raise ConfigError(problems)
    earlier = decided_in(base.parent) if base is not None else {}
    try:
        machine = machine_of(checked.run, detect())
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from None
    run, decisions = decide(settled_before(checked.run, earlier), machine)
    facts = rules.Facts(run, machine, granted)
    spoiled |= {derived for key in spoiled for derived in FOLLOWS.get(key.partition(".")[0], ())}
    forbidden = list(rules.ungranted(facts, spoiled))
    problems += [*forbidden, *rules.refusals(facts, spoiled)]
    if forbidden or request.forbidden:
        raise SecurityError(problems)
    if problems:
        raise ConfigError(problems)
    return Plan(run, composed, decisions, rules.warnings(facts), granted)


def reread(folder: Path, plugins: Sequence[str]) -> Plan:
    """The run of a folder as its run.yaml says it, before this machine's rules."""
    run = run_file.read(folder / "run.yaml")
    granted = [*plugins, *own_plugins()]
    warnings = rules.judge(rules.Facts(run, machine_of(run, detect()), granted))
    return Plan(run, None, [], warnings, granted)  # type: ignore[arg-type]


def own_plugins() -> list[str]:
    """``plugins`` of the user's own accel.yaml in the working directory."""
    path = Path(OWN_FILE)
    if not path.exists():
        return []
    content = tree.read_yaml(path)
    plugins = content.pop("plugins", [])
    if content or not isinstance(plugins, list) or not all(isinstance(name, str) for name in plugins):
        why = f"knows one key, plugins: a list of names; not {', '.join(map(str, content)) or 'this'}"
        raise ConfigError(Problem(OWN_FILE, why, "write plugins: [my_pkg]"))
    return plugins
