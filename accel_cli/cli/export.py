"""accel export: a run's model in a form that other programs run, and how it compares there with PyTorch's."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accel_cli.analysis import exports
from accel_cli.cli.resume import run_folder
from accel_cli.cli.table import columns
from accel_cli.cli.train import shorter, show_failure
from accel_cli.config import rules
from accel_cli.config import run as run_file
from accel_cli.config.compose import compose
from accel_cli.config.machine import detect
from accel_cli.config.parts import table
from accel_cli.config.plan import own_plugins
from accel_cli.config.run import Run
from accel_cli.engine.folder import in_use
from accel_cli.errors import ConfigError, Problem, SecurityError
from accel_cli.launch.front import Front
from accel_cli.launch.terminal import view


def main(arguments: argparse.Namespace) -> int:
    front = Front()
    try:
        folder = run_folder(arguments.run)
        plugins = [*arguments.plugin, *own_plugins()]
        run = asked_for(folder, arguments.formats, plugins)
        request = {
            "folder": str(folder),
            "mode": "export",
            "plugins": plugins,
            "started": time.time(),
            "which": arguments.which,
            "export": run.export.model_dump(),
        }
        with in_use(folder):
            outcome = front.run(folder, request, 1, run.to_tree(), view(arguments.json))
    finally:
        front.close()
    if outcome.failure is not None:
        show_failure(folder, outcome, arguments.traceback)
        return outcome.exit_code
    found = outcome.results[0]
    print(json.dumps(found) if arguments.json else text(found))
    return 0


def asked_for(folder: Path, words: Sequence[str], plugins: list[str]) -> Run:
    """The run, with the export that ``words`` choose: ``format=onnx export.opset=18``.

    Of the rest nothing is judged: an export runs on this host, whatever the run was trained on. Raises ConfigError for
    a word about anything else, SecurityError where the run's own code is not granted.
    """
    words = [_as_override(word) for word in words]
    foreign = [word for word in words if word.lstrip("+~").partition("=")[0].partition(".")[0] != "export"]
    if foreign:
        why = "an export changes nothing of the run; only its own keys can be given"
        fix = f"leave it out; the formats are {', '.join(_formats())}"
        raise ConfigError([Problem(word, why, fix) for word in foreign])
    composed = compose(words, (), folder / "run.yaml")
    checked = run_file.check_tree(composed.tree, composed.names, composed.spelling, composed.request.spoiled)
    problems = [*composed.request.problems, *checked.problems]
    if problems or checked.run is None:
        raise ConfigError(problems)
    facts = rules.Facts(checked.run, detect(), plugins)
    if forbidden := list(rules.ungranted(facts)):
        raise SecurityError(forbidden)
    if checked.run.export.option == "none":
        where = f"accel export {shorter(folder)}"
        raise ConfigError(Problem(where, "the run names no format", f"add format=onnx, or {', '.join(_formats()[1:])}"))
    if absent := [problem for key, problem in rules.absent_packages(facts) if key.partition(".")[0] == "export"]:
        raise ConfigError(absent)
    return checked.run


def text(report: dict[str, Any]) -> str:
    """A table: PyTorch's and the exported model's."""
    header = ["", "PyTorch", str(report["format"]), ""]
    files = ", ".join(report["files"])
    lines = columns([header, *map(list, exports.rows(report))])
    return f"{shorter(Path(report['folder']))}/   {files}, model.json\n{exports.about(report)}\n\n{lines}"


def _as_override(word: str) -> str:
    return f"export={word.partition('=')[2]}" if word.startswith("format=") else word


def _formats() -> list[str]:
    return [name for name in table("export") if name != "none"]
