"""accel report: one self-contained HTML page, or Markdown, about runs or about a ledger, sweep, tune or bench."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from accel_cli.analysis.report import markdown_text, write_report
from accel_cli.analysis.result import KINDS, kind_of
from accel_cli.cli.resume import run_folder


def main(arguments: argparse.Namespace) -> int:
    folders = [_folder(path) for path in arguments.runs]
    if arguments.markdown and arguments.output is None:
        text = markdown_text(folders)
        print(json.dumps({"markdown": text}) if arguments.json else text, end="\n" if arguments.json else "")
        return 0
    path = write_report(folders, arguments.output or folders[0] / "report.html", as_markdown=arguments.markdown)
    print(json.dumps({"report": str(path)}) if arguments.json else path)
    return 0


def _folder(path: Path) -> Path:
    """Of a study or of a run, given itself or its main file. Raises ConfigError where it is neither."""
    parent = path.parent if path.name in [f"{kind}.json" for kind in KINDS] else path
    return parent.resolve() if kind_of(parent) else run_folder(path)
