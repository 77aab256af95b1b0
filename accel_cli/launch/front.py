"""The front: hands a run to the agent, shows what it hears, owns the signals and the exit code."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from accel_cli.engine import summary
from accel_cli.errors import INTERRUPTED, NO_TIME_TO_SAVE, SAVED_RUN_AGAIN
from accel_cli.launch import first_failure, local
from accel_cli.launch.first_failure import Failure
from accel_cli.launch.here import Here

TICK = 0.1
FORWARDED = {
    signal.SIGINT: INTERRUPTED,
    signal.SIGTERM: SAVED_RUN_AGAIN,
    signal.SIGHUP: SAVED_RUN_AGAIN,
    signal.SIGUSR1: SAVED_RUN_AGAIN,
}


class View(Protocol):
    """What the terminal shows; ``accel_cli.launch.terminal`` has one for people and one for pipes."""

    def event(self, event: str, values: dict[str, Any]) -> None: ...
    def output(self, text: str) -> None: ...
    def close(self) -> None: ...


@dataclass
class Outcome:
    exit_code: int
    failure: Failure | None = None
    leads: bool = True
    """Whether rank 0, and with it what came of the run, is on this node."""
    results: list[dict[str, Any]] = field(default_factory=list)
    """The ``result`` events, such as an evaluation's metrics."""
    export: Outcome | None = None
    """Of the export that followed a training; None where none was asked for."""


class Front:
    """One agent, and the runs that it is handed one after another.

    ``agent`` is another than an agent of its own where several fronts work beside each other: then who made them owns
    the signals.
    """

    def __init__(self, agent: local.Forked | None = None) -> None:
        self.agent = agent or local.Agent()
        self._owns_signals = agent is None
        self.ranks: dict[int, int] = {}
        self.signals: list[int] = []
        self.killed = False
        self.buffer = b""

    def close(self) -> None:
        """Nothing is left behind: the agent ends, and with it its ranks."""
        self.agent.close()

    def kill(self) -> None:
        """End what runs at once."""
        self.killed = True
        self.agent.kill()

    @contextlib.contextmanager
    def elsewhere(self) -> Iterator[None]:
        """The run is another launcher's, which looks at ``signals`` and ``killed``: no agent is needed."""
        self.ranks, self.signals = {}, []
        self.agent.kill()
        with self._signals():
            yield

    def run(
        self,
        folder: Path,
        request: dict[str, Any],
        processes: int,
        settings: dict[str, Any],
        view: View,
        place: Here | None = None,
    ) -> Outcome:
        """Run one request to its end. The outcome's exit code is the contract's, whatever happened.

        ``place`` is this node among several; None on one machine.
        """
        leads = place is None or place.first
        message = {
            "request": request,
            "processes": processes,
            "settings": settings,
            "here": None if place is None else asdict(place),
            "max_restarts": settings["launch"]["max_restarts"] if request["mode"] == "train" else 0,
        }
        ranks_folder = folder / "ranks"
        ranks_folder.mkdir(exist_ok=True)
        for stale in ranks_folder.glob("*.failure.json"):
            stale.unlink()
        live = ranks_folder / "0.log"
        position = live.stat().st_size if live.exists() else 0
        self.ranks, self.signals = {}, []
        outcome: Outcome | None = None
        view.event("starting", {})
        with self._signals():
            self.agent.send(message)
            results: list[dict[str, Any]] = []
            failing, last = False, None
            for event, values in self._events():
                if event == "failing":
                    position, failing = _show_new(live, position, view, values["position"]), True
                elif not failing and leads:
                    position = _show_new(live, position, view)
                if event == "failing":
                    continue
                if event == "rank":
                    self.ranks[values["rank"]] = values["pid"]
                    if self.signals:
                        self._forward(self.signals[-1])
                elif event == "restarting":
                    view.event("warning", {"text": first_failure.restart_line(values, last, folder if leads else None)})
                    self.ranks, failing = {}, False
                    position = live.stat().st_size if live.exists() else 0
                elif event == "ended":
                    outcome = self._outcome(folder, values, settings, request, leads)
                    break
                elif event == "result":
                    results.append(values)
                elif event:
                    last = values["step"] if event == "train" else last
                    view.event(event, values)
            if not failing and leads:
                _show_new(live, position, view)
            if outcome is None:
                outcome = self._outcome(folder, None, settings, request, leads)
            outcome.results, outcome.leads = results, leads
        view.close()
        return outcome

    def _events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Events as they come, and ("", {}) at every tick; ends with the agent."""
        while True:
            ready, _, _ = select.select([self.agent.events], [], [], TICK)
            if not ready:
                yield "", {}
                continue
            chunk = os.read(self.agent.events, 1 << 16)
            if not chunk:
                return
            *lines, self.buffer = (self.buffer + chunk).split(b"\n")
            events = [json.loads(line) for line in lines]
            # First of all how far a failing rank's own output goes: its traceback is in the file by now.
            for values in sorted(events, key=lambda values: bool(values["event"] != "failing")):
                yield values.pop("event"), values

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        previous = {}
        with contextlib.suppress(ValueError):  # a Python caller's thread: signals stay hers
            if self._owns_signals:
                previous = {number: signal.signal(number, self.stop) for number in FORWARDED}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def stop(self, number: int, frame: FrameType | None = None) -> None:
        """The first signal asks the ranks to save and stop; a second Ctrl-C ends everything at once."""
        self.signals.append(number)
        if self.signals.count(signal.SIGINT) > 1 or not self.ranks:
            self.agent.kill()
        else:
            self._forward(number)

    def _forward(self, number: int) -> None:
        for pid in self.ranks.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _outcome(
        self,
        folder: Path,
        ended: dict[str, Any] | None,
        settings: dict[str, Any],
        request: dict[str, Any],
        leads: bool,
    ) -> Outcome:
        """``ended`` is what the agent said last: a code, and a failure or None; it is None where the agent is gone."""
        path = folder / "summary.json"
        fresh = path.exists() and path.stat().st_mtime >= request["started"]
        if request["mode"] != "train" or not leads:
            if ended is not None and ended["failure"] is None:
                return Outcome(ended["code"])
        elif fresh and (written := json.loads(path.read_text()))["status"] != "failed":
            return Outcome(written["exit_code"])
        if self.signals:
            code = INTERRUPTED if signal.SIGINT in self.signals else NO_TIME_TO_SAVE
            failure = Failure(None, None, "Signal", "the run was ended before it could save", "", None, code)
            status = "interrupted"
        else:
            told = ended["failure"] if ended is not None else None
            failure = Failure(**told) if told is not None else first_failure.find(folder, [])
            code, status = failure.exit_code, "diverged" if failure.exit_code == 5 else "failed"
        if request["mode"] == "train" and leads and failure.problems is None:
            written = summary.failed(folder, settings, failure.summary(), code, status)
            written["wall_seconds"] = round(time.time() - request["started"], 3)
            summary.write_json(path, written)
        return Outcome(code, failure)


def _show_new(path: Path, position: int, view: View, end: int | None = None) -> int:
    """Rank 0's own output, as it comes; up to ``end``, behind which a traceback may follow."""
    try:
        size = path.stat().st_size if end is None else end
    except OSError:
        return position
    if size <= position:
        return position
    with path.open("rb") as file:
        file.seek(position)
        text = file.read(size - position)
    view.output(text.decode(errors="replace"))
    return size
