"""What is told of a run while it goes on, passed on to who shows it and to who may want it to end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from accel_cli.analysis.judge import Metric


class Watched:
    """A view of one run. ``metric`` is name and mode of what is followed; None: the run's own, on validation.

    ``judge`` hears each of its values as (step, value, mode), and says whether the run should end. ``show`` hears all.
    """

    def __init__(
        self,
        metric: Metric | None,
        judge: Callable[[int, float, str], bool],
        show: Callable[[str, dict[str, Any]], None],
        is_ending: Callable[[], bool],
    ) -> None:
        self.metric, self.judge, self.show, self.is_ending = metric, judge, show, is_ending
        self.end = threading.Event()
        self.pruned = False

    def event(self, event: str, values: dict[str, Any]) -> None:
        if event == "starting" and self.is_ending():
            self.end.set()  # the signal came while this run was being made
        elif event == "start" and self.metric is None:
            self.metric = f"validation_{values['metric']}", values["mode"]
        elif event == "evaluation" and self.metric is not None and not self.pruned:
            name, mode = self.metric
            value = values["metrics"].get(name)
            if value is not None and self.judge(values["step"], value, mode):
                self.pruned = True
                self.end.set()
        self.show(event, values)

    def output(self, text: str) -> None:
        """It is in the run's own log."""

    def close(self) -> None:
        pass
