"""accel advise: try the override that a run's end names, short, and print the gain expected against the measured."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from accel_cli.errors import ConfigError, Problem


def main(arguments: argparse.Namespace) -> int:
    import yaml

    from accel_cli.analysis import tried
    from accel_cli.analysis.advice import advise
    from accel_cli.analysis.allowed import allowed
    from accel_cli.analysis.expected import Pace
    from accel_cli.cli.resume import run_folder
    from accel_cli.cli.train import shorter
    from accel_cli.config.machine import detect
    from accel_cli.engine.summary import write_json
    from accel_cli.launch.begin import command_line
    from accel_cli.launch.crew import Crew

    folder, started = run_folder(arguments.run), time.time()
    summary = _summary(folder, shorter(folder))
    settings = yaml.safe_load((folder / "run.yaml").read_text())
    row = tried.chosen(advise(summary, settings, detect().to_dict(), allowed(folder, arguments.plugin)))
    found: dict[str, Any] = {
        "format_version": 1, "kind": "advise", "command": command_line(arguments.words), "run": ".",
        "started": started, "status": "completed", **(row or {"override": None}),
    }  # fmt: skip
    if row is not None:
        pace = Pace.of(summary)
        short = tried.shortened(folder, row["override"], arguments.plugin, pace.seconds if pace else None)
        _say(arguments, f"{row['finding']}: {row['evidence']}")
        _say(
            arguments, f"trying {row['override']}: up to {tried.ROUNDS} rounds of {short.steps} steps, with and without"
        )
        with Crew() as crew:
            say = lambda text: _say(arguments, text)  # noqa: E731
            samples = tried.measure(crew, short, folder / "advise", row["expected"], 60 * arguments.budget, say)
        found |= {**tried.result(samples, row["expected"]), "steps": short.steps}
        if crew.ending is not None:
            found["status"] = "interrupted"
        found["seconds"] = round(time.time() - started, 3)
        write_json(folder / "advise.json", found)
        if crew.ending is not None:
            return crew.exit_code
    print(json.dumps({**found, "run": str(folder)}) if arguments.json else _told(found))
    return 0


def _summary(folder: Path, shown: str) -> dict[str, Any]:
    """Raises ConfigError where the run has none, or has failed."""
    try:
        summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    except (OSError, ValueError):
        raise ConfigError(Problem(shown, "has not ended yet", f"accel resume {shown}")) from None
    if summary.get("status") == "failed":
        raise ConfigError(Problem(shown, "has failed: there is no time to share out", f"accel report {shown}"))
    return summary


def _say(arguments: argparse.Namespace, text: str) -> None:
    if not arguments.json:
        print(text, file=sys.stderr, flush=True)


def _told(found: dict[str, Any]) -> str:
    if found["override"] is None:
        return "nothing to try: no override is known to make this run faster"
    expected, measured = found["expected"], found["measured"]
    held = {True: "the expectation held", False: "the expectation did not hold", None: "cannot tell"}[found["held"]]
    if expected is None:
        held = "nothing was expected"
    lines = [
        f"override   {found['override']}",
        f"expected   {'no number' if expected is None else f'{expected:.3g} times the time per sample'}",
        f"measured   {measured['value']:.3g} {_span(measured)}, {found['rounds']} rounds",
        f"verdict    {held}" + (f": a factor of {found['factor']:.2f} apart" if found["factor"] else ""),
    ]
    return "\n".join(lines)


def _span(measured: dict[str, float | None]) -> str:
    low, high = measured["low"], measured["high"]
    return f"[{'0' if low is None else f'{low:.3g}'}, {'?' if high is None else f'{high:.3g}'}]"
