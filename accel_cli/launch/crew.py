"""Runs beside one another and one after another, all forked from one process that has torch imported."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Self

from accel_cli.config.plan import Plan
from accel_cli.errors import INTERRUPTED
from accel_cli.launch.begin import launch
from accel_cli.launch.front import FORWARDED, Front, Outcome, View
from accel_cli.launch.local import Agent, Forked
from accel_cli.launch.terminal import Quiet

GRACE = 20.0
"""Seconds in which a run that was asked to end may save."""


class Ended(NamedTuple):
    outcome: Outcome
    in_time: bool
    """False where its time was up before it ended."""


class Crew:
    """Whoever wants many runs. A signal reaches all that go on; ``ending`` is then its number, and none should follow.

    A context manager; what it starts is gone when it closes.
    """

    def __init__(self) -> None:
        self._warm = Agent()
        self._lock = threading.Lock()
        self._fronts: set[Front] = set()
        self._previous: dict[int, Any] = {}
        self.ending: int | None = None

    def __enter__(self) -> Self:
        with contextlib.suppress(ValueError):  # a Python caller's thread: signals stay hers
            self._previous = {number: signal.signal(number, self._handle) for number in FORWARDED}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._warm.close()

    @property
    def exit_code(self) -> int:
        """Of a command that a signal has ended."""
        return INTERRUPTED if self.ending is None else FORWARDED[signal.Signals(self.ending)]

    def wait_until_warm(self) -> None:
        """Until what is started next starts at once: whoever times single runs has the import of torch before them."""
        self._warm.wait_until_warm()

    def train(
        self,
        folder: Path,
        planned: Plan,
        view: View | None = None,
        *,
        started: float,
        resume: bool = False,
        seconds: float | None = None,
        end: threading.Event | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Train one run in its folder, and wait for it; thread-safe.

        ``seconds`` is how long it may take: then it is asked to save and end, and killed if it does not. Whoever sets
        ``end`` has the same done at once. ``environment`` is the run's alone, such as the devices that it may see.
        """
        with self.front(environment) as front, _limited(front, seconds, end) as limit:
            outcome = launch(front, folder, planned, view or Quiet(), started=started, resume=resume)
        return Ended(outcome, in_time=not limit.is_set())

    @contextlib.contextmanager
    def front(self, environment: Mapping[str, str] | None = None) -> Iterator[Front]:
        """A front for one request, whatever that is."""
        with self._lock:
            if not self._warm.lives:
                self._warm.close()
                self._warm = Agent()
            front = Front(Forked(self._warm, environment))
            self._fronts.add(front)
        try:
            yield front
        finally:
            with self._lock:
                self._fronts.discard(front)
            front.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.ending = number
        for front in list(self._fronts):
            front.stop(number)


@contextlib.contextmanager
def _limited(front: Front, seconds: float | None, end: threading.Event | None) -> Iterator[threading.Event]:
    """Ask the front's run to end after so many seconds, or as soon as ``end`` is set, and end it soon after.

    The event that is yielded is set where the time was up.
    """
    passed, done, asked = threading.Event(), threading.Event(), end or threading.Event()

    def watch() -> None:
        if not asked.wait(seconds):
            passed.set()
        if not done.is_set():
            front.stop(signal.SIGTERM)
            if not done.wait(GRACE):
                front.kill()

    if seconds is None and end is None:
        yield passed
        return
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield passed
    finally:
        done.set()
        asked.set()
        thread.join()
