"""Load what a run has chosen: the one place where a name becomes an import."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # completion reads names at every TAB, and has no use for pydantic
    from accel_cli.config.schema.base import Entry, Option, Section

GROUPS = (
    "hardware", "strategy", "communication", "precision", "compile", "optimizer", "schedule", "data", "loader",
    "augment", "model", "task", "transfer", "compression", "stopping", "tracking", "export", "launch",
)  # fmt: skip
SEVERAL = {"augment": "transforms", "compression": "passes", "tracking": "trackers"}
"""Groups that take several options, in order, and the key that holds them."""


def table(group: str) -> dict[str, Entry]:
    """The options of a group. Importing a table imports schema only, never an implementation."""
    return importlib.import_module(f"accel_cli.config.schema.{group}").OPTIONS


def own_keys(group: str) -> type[Section] | None:
    """The schema of the keys that a group of several options has beside them, such as compression.floor."""
    return getattr(importlib.import_module(f"accel_cli.config.schema.{group}"), "OWN", None)


def implementation(group: str, option: Option) -> Any:
    """The class or function that implements the chosen option."""
    return load(table(group)[option.option].implementation)


def load(place: str) -> Any:
    """What ``module:name`` names: for what a run has chosen, since all parts at once would cost seconds."""
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)
