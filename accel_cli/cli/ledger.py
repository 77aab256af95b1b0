"""accel ledger: what each technique buys, alone and together, on the user's own run."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from typing import Any

from accel_cli.analysis.ledger import Ledger, Target
from accel_cli.analysis.ledger_table import headline, lines, progress, too_few
from accel_cli.analysis.probes import Interrupted
from accel_cli.analysis.report import write_report
from accel_cli.analysis.study import Study
from accel_cli.analysis.techniques import Techniques, compare, split
from accel_cli.cli.check import base
from accel_cli.cli.table import terminal_width
from accel_cli.cli.train import shorter
from accel_cli.errors import ConfigError, Problem
from accel_cli.launch.crew import Crew


def main(arguments: argparse.Namespace) -> int:
    target = _target(arguments.to_target)
    techniques = compare(
        arguments.techniques,
        [word for words in arguments.base for word in split(words)],
        plugins=arguments.plugin,
        config_dirs=arguments.config_dir,
        run=base(arguments.run),
        alone=arguments.alone,
        unequal_too=arguments.unequal,
    )
    view = Quiet() if arguments.json else Terminal() if sys.stderr.isatty() else Plain()
    opened = Study.open("ledger", arguments.words, run_dir=arguments.run_dir, new=arguments.new)
    with opened as study, Crew() as crew:
        if study.resumed and not arguments.json:
            print(f"going on with {shorter(study.folder)}", file=sys.stderr)
        try:
            code = _measure(arguments, study, techniques, crew, view, target)
        finally:
            view.close()
    if arguments.json:
        print(json.dumps({**study.content, "run": str(study.folder)}))
    return code


def _measure(
    arguments: argparse.Namespace, study: Study, techniques: Techniques, crew: Crew, view: Any, target: Target | None
) -> int:
    try:
        ledger = Ledger(study, techniques, crew, view, margin=arguments.margin, error=arguments.error)
        status = ledger.probe(60 * arguments.budget)
        if seeds := arguments.seeds or (3 if target else 0):
            ledger.run_whole(seeds, target)
        study.end(status)
    except Interrupted:
        study.end("interrupted")
        if not arguments.json:
            print("interrupted, nothing is lost: the same command goes on", file=sys.stderr)
        return crew.exit_code
    except BaseException:
        study.end("failed")
        raise
    view.close()
    page = write_report([study.folder], study.folder / "report.html")
    if not arguments.json:
        print("\n".join(lines(study.content, terminal_width())))
        found = "\n".join(text for text in (headline(study.content), too_few(study.content)) if text)
        print(f"\n{found}\nreport  {shorter(page)}", file=sys.stderr)
    return 0


def _target(text: str | None) -> Target | None:
    """``validation_accuracy=0.97``."""
    if text is None:
        return None
    name, _, value = text.partition("=")
    if not re.fullmatch(r"[\d.eE+-]+", value.strip()) or not name:
        raise ConfigError(Problem(f"--to-target {text}", "is no METRIC=VALUE", "try validation_accuracy=0.97"))
    return Target(name.strip() if name.startswith("validation_") else f"validation_{name.strip()}", float(value))


class Quiet:
    """Nothing, for --json."""

    def looking(self, arm: str) -> None: ...
    def rounds(self, content: dict[str, Any]) -> None: ...
    def running(self, arm: str, seed: int) -> None: ...
    def close(self) -> None: ...


class Plain(Quiet):
    """A line now and then, in a pipe."""

    EVERY = 20.0
    """Seconds from one line on rounds to the next, at least."""

    def __init__(self) -> None:
        self.told = time.monotonic()

    def looking(self, arm: str) -> None:
        print(f"first look: {arm}", file=sys.stderr, flush=True)

    def rounds(self, content: dict[str, Any]) -> None:
        if time.monotonic() - self.told >= self.EVERY:
            self.told = time.monotonic()
            print(progress(content), file=sys.stderr, flush=True)

    def running(self, arm: str, seed: int) -> None:
        print(f"whole run: {arm}, seed {seed}", file=sys.stderr, flush=True)


class Terminal(Quiet):
    """The table as it fills."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self.live = Live(console=Console(stderr=True, highlight=False), transient=True, refresh_per_second=4)
        self.live.start()
        self.table = ""

    def looking(self, arm: str) -> None:
        self._show(f"first look: {arm}")

    def rounds(self, content: dict[str, Any]) -> None:
        self.table = "\n".join(lines(content, self.live.console.width))
        self._show(progress(content))

    def running(self, arm: str, seed: int) -> None:
        self._show(f"whole run: {arm}, seed {seed}")

    def close(self) -> None:
        self.live.stop()

    def _show(self, text: str) -> None:
        from rich.text import Text

        self.live.update(Text(f"{self.table}\n{text}".lstrip()))
