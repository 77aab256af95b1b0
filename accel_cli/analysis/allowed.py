"""Whether a run may have an override: the three doors, asked before it is advised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from accel_cli.analysis.techniques import split
from accel_cli.config.plan import plan
from accel_cli.errors import AccelError


def allowed(folder: Path, plugins: Sequence[str]) -> Callable[[str], bool]:
    """A function of an override's words: whether names, types and rules let the run of this folder have them.

    Without torch; some 0.2 s a question.
    """

    def allows(override: str) -> bool:
        try:
            plan(split(override), plugins=plugins, base=folder / "run.yaml")
        except AccelError:
            return False
        return True

    return allows
