"""An export as a worker makes it, in a process of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ranks import run_ranks

from accel_cli.config import tree
from accel_cli.worker import Request, work


def exported(
    folder: Path, option: str, *, expect: int = 0, plugins: Sequence[str] = (), which: str = "latest", **keys: Any
) -> dict[str, Any]:
    """The report, or of an export that is refused its failure."""
    values = {**tree.read_yaml(tree.options("export")[option]), "option": option, **keys}
    run_ranks(export_here, 1, str(folder), values, expect, list(plugins), which)
    path = folder / "export" / option / "report.json" if expect == 0 else folder / "ranks" / "0.failure.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def export_here(folder: str, values: dict[str, Any], expect: int, plugins: list[str], which: str) -> None:
    request = Request(
        folder=folder, mode="export", export=values, plugins=plugins, which=which, started=time.time()
    )  # fmt: skip
    code = work(request, None)
    assert code == expect, f"exit code {code}"
