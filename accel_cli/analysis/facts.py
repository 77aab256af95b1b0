"""Plain questions about one run: its summary.json, its settings and its machine."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

from accel_cli.analysis.expected import Pace
from accel_cli.analysis.wording import as_number


@dataclass(frozen=True)
class Facts:
    """What a run's summary.json, run.yaml and machine say, with plain questions about them."""

    summary: dict[str, Any]
    settings: dict[str, Any]
    machine: dict[str, Any]

    def share(self, *parts: str) -> float:
        """Of the run's time; 0 where it is not known."""
        shares = self.summary.get("time_share") or {}
        return sum(finite(shares.get(part)) for part in parts)

    def setting(self, key: str) -> Any:
        """By dotted key; a group's own name gives its option."""
        value: Any = self.settings
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return value.get("option") if isinstance(value, dict) else value

    def number(self, key: str) -> float:
        """From the summary; 0 where it is not known."""
        return finite(self.summary.get(key))

    def on(self, device: str) -> bool:
        return str(self.summary.get("device") or "").startswith(device)

    @property
    def gpus(self) -> list[dict[str, Any]]:
        return list(self.machine.get("gpus") or ())

    @property
    def capability(self) -> tuple[int, ...]:
        return tuple(self.gpus[0].get("capability") or ()) if self.gpus else ()

    @property
    def precision(self) -> str:
        return str(self.summary.get("precision") or self.setting("precision"))

    @property
    def step_milliseconds(self) -> float | None:
        return as_number((self.summary.get("step_milliseconds") or {}).get("median"))

    @property
    def pace(self) -> Pace | None:
        return Pace.of(self.summary)

    @property
    def what_ifs(self) -> list[dict[str, Any]]:
        rows = self.summary.get("what_if")
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    def measured(self, part: str) -> bool:
        """Whether the run has looked at what another setting would make of this part."""
        return any(row.get("part") == part for row in self.what_ifs)

    @property
    def steps(self) -> int:
        return int(self.number("steps"))

    @property
    def best_step(self) -> int | None:
        value = as_number((self.summary.get("metric") or {}).get("best_step"))
        return None if value is None else int(value)

    @property
    def fits_more_gpus(self) -> bool:
        batch = self.number("global_batch")
        return self.setting("strategy") == "single" and len(self.gpus) > 1 and batch % len(self.gpus) == 0


def finite(value: Any) -> float:
    number = as_number(value)
    return number if number is not None and isfinite(number) else 0
