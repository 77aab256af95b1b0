"""accel tune: the fastest settings that fit and keep the metric, as a recipe and as one line."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from accel_cli.analysis.metric_floor import parse
from accel_cli.analysis.probes import Interrupted
from accel_cli.analysis.study import Study
from accel_cli.analysis.techniques import key_of, on_this_machine
from accel_cli.analysis.tune import OBJECTIVES, Request, Tune
from accel_cli.cli.check import base
from accel_cli.cli.train import shorter
from accel_cli.cli.tune_table import headline, lines
from accel_cli.config.compose import axis_of
from accel_cli.config.names import Names
from accel_cli.config.suggest import did_you_mean, nearest
from accel_cli.errors import ConfigError, Problem
from accel_cli.launch.crew import Crew

OWN = ("objective", "floor")
"""Words of tune's own, written as overrides are."""


def main(arguments: argparse.Namespace) -> int:
    request = read(arguments)
    on_this_machine(request.plan().run)
    view = Quiet() if arguments.json else Terminal() if sys.stderr.isatty() else Quiet(sys.stderr)
    opened = Study.open("tune", arguments.words, run_dir=arguments.run_dir, new=arguments.new)
    with opened as study, Crew() as crew:
        if study.resumed:
            view.say(f"going on with {shorter(study.folder)}")
        try:
            study.end(Tune(study, request, crew, view.say).run())
        except Interrupted:
            study.end("interrupted")
            view.say("interrupted, nothing is lost: the same command goes on")
            return crew.exit_code
        except BaseException:
            study.end("failed")
            raise
        finally:
            view.close()
    if arguments.json:
        print(json.dumps({**study.content, "run": str(study.folder)}))
    else:
        print("\n".join(lines(study.content)))
        print(f"\n{headline(study.content, shorter(study.folder))}", file=sys.stderr)
    return 0


def read(arguments: argparse.Namespace) -> Request:
    """Take apart the words: tune's own, axes of values to try, and the run. Raises ConfigError with all problems."""
    own: dict[str, str] = {}
    axes: dict[str, list[str]] = {}
    words: list[str] = []
    problems: list[Problem] = []
    names = Names(arguments.config_dir)
    for word in arguments.overrides:
        name = key_of(word)
        if name in OWN:
            own[name] = word
        elif "." not in name and name not in names.tops and (near := nearest(name, OWN, 1)):
            value = word.partition("=")[2]
            problems.append(Problem(word, "no such word", did_you_mean([f"{near[0]}={value}"])))
        else:
            values = _values(word, names)
            words.append(values[0])
            if len(values) > 1:
                axes[name] = values
    objective = own.get("objective", "objective=throughput").partition("=")[2]
    if objective not in OBJECTIVES:
        fix = did_you_mean([f"objective={near}" for near in nearest(objective, OBJECTIVES)])
        problems.append(Problem(own["objective"], "no such objective", fix or f"one of: {', '.join(OBJECTIVES)}"))
    floor: Any = "auto"
    try:
        floor = parse(own["floor"]) if "floor" in own else "auto"
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    request = Request(
        words, objective, floor, axes, 60 * arguments.budget, arguments.seeds, arguments.max_slowdown,
        arguments.plugin, arguments.config_dir, base(arguments.run),
    )  # fmt: skip
    stopping = request.plan().run.stopping.option
    if objective == "time_to_target" and stopping != "target":
        fix = "add stopping=target stopping.target=0.97, or try objective=throughput"
        raise ConfigError(Problem("objective=time_to_target", f"stopping={stopping}: there is no target", fix))
    return request


def _values(word: str, names: Names) -> list[str]:
    """The word once for each of its values."""
    found = axis_of(word, names)
    if isinstance(found, str):
        return [word]
    if not found.values:
        raise ConfigError(Problem(word, "is an interval: tune tries values", f"try {found.key}=0.1,0.2,0.3"))
    return [f"{found.key}={value}" for value in found.values]


class Quiet:
    """Lines to a file, or nothing at all for --json."""

    def __init__(self, file: Any = None) -> None:
        self.file = file

    def say(self, text: str) -> None:
        if self.file is not None:
            print(text, file=self.file, flush=True)

    def close(self) -> None: ...


class Terminal(Quiet):
    """One line that says what goes on."""

    def __init__(self) -> None:
        from rich.console import Console

        self.status = Console(stderr=True, highlight=False).status("planning")
        self.status.start()

    def say(self, text: str) -> None:
        from rich.text import Text

        self.status.update(Text(text))

    def close(self) -> None:
        self.status.stop()
