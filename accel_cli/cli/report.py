"""accel report: one self-contained HTML page from one or several runs."""

from __future__ import annotations

import argparse
import json

from accel_cli.analysis.report import write_report
from accel_cli.cli.resume import run_folder


def main(arguments: argparse.Namespace) -> int:
    folders = [run_folder(run) for run in arguments.runs]
    path = write_report(folders, arguments.output or folders[0] / "report.html")
    print(json.dumps({"report": str(path)}) if arguments.json else path)
    return 0
