"""Events: what rank 0 tells the front while it works, a JSON object a line; without a front, plain lines."""

from __future__ import annotations

import json
import os
import sys
from typing import Any


class Events:
    """``descriptor`` is the front's pipe; None prints lines for people. Never raises: a reader may leave."""

    def __init__(self, descriptor: int | None, *, active: bool) -> None:
        self.descriptor = descriptor
        self.active = active

    def emit(self, event: str, **values: Any) -> None:
        if not self.active:
            return
        try:
            if self.descriptor is not None:
                os.write(self.descriptor, (json.dumps({"event": event, **values}) + "\n").encode())
            elif line := plain(event, values):
                print(line, file=sys.stderr, flush=True)
        except (OSError, ValueError):
            self.active = False


def plain(event: str, values: dict[str, Any]) -> str:
    """One line for a pipe or a log; empty for events that only a terminal shows."""
    if event in ("say", "warning"):
        return ("warning: " if event == "warning" else "") + values["text"]
    if event == "decision":
        return f"{values['key']}={values['value']}   ({values['why']})"
    if event == "train":
        rate = values.get("samples_per_second")
        speed = f"   {rate:,.0f} samples/s" if rate else ""
        return f"step {values['step']}/{values['steps']}   loss {number(values['loss'])}{speed}"
    if event == "evaluation":
        return f"step {values['step']}   " + "   ".join(f"{k} {number(v)}" for k, v in values["metrics"].items())
    return ""


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}"
