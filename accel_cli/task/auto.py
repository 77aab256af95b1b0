"""The task that the data's targets call for."""

from __future__ import annotations

from typing import Any

from accel_cli.config.parts import implementation
from accel_cli.description import DataDescription
from accel_cli.task.base import Task, resolve


def auto(config: Any, description: DataDescription) -> Task:
    """Make the task that ``resolve`` names, with the keys of task=auto."""
    return implementation("task", config.model_copy(update={"option": resolve(description)}))(config, description)
