"""accel completion: the script that teaches a shell accel's words."""

from __future__ import annotations

import argparse
import json
from importlib.resources import files


def main(arguments: argparse.Namespace) -> int:
    text = script(arguments.shell)
    print(json.dumps({"shell": arguments.shell, "script": text}) if arguments.json else text, end="")
    return 0


def script(shell: str) -> str:
    """bash, zsh or fish: each asks ``accel completion words`` at every press of the key."""
    return files("accel_cli.cli").joinpath("shells", f"accel.{shell}").read_text(encoding="utf-8")
