"""Stopping together: a signal on any rank ends all of them after the same step, without a collective per step."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from types import FrameType

from accel_cli.errors import INTERRUPTED, SAVED_RUN_AGAIN
from accel_cli.world import World

POLL = 0.05
REGROUP = 76
"""The reason code of ranks that save and end so that all nodes can begin again together. No run ends with it."""
SIGNALS: dict[int, int] = {
    signal.SIGINT: INTERRUPTED,
    signal.SIGTERM: SAVED_RUN_AGAIN,
    signal.SIGHUP: SAVED_RUN_AGAIN,
    signal.SIGUSR1: SAVED_RUN_AGAIN,
    signal.SIGUSR2: REGROUP,
}
TIME_BUDGET = 0
"""The reason code of a run that ends by itself, on time."""


class Stop:
    """Asked before every step whether to start it.

    A signal only wakes a watcher thread. The watcher in each rank posts the last step that its rank has started
    to the store; all take the largest, and stop after it. A rank that has posted starts no further step before the
    answer is known, so that no rank waits in a collective for one that has stopped.
    """

    def __init__(self, world: World, *, seconds: float | None = None) -> None:
        self.world = world
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.reason: int | None = None
        """Exit code that the stop was asked for with; None while nobody has."""
        self.last_step: int | None = None
        self._started = -1
        self._asked: int | None = None
        self._posted = False
        self._lock = threading.Condition()
        self._closed = threading.Event()
        self._previous: dict[int, object] = {}
        self._previous_wakeup = -1
        self._store = world.store.clone() if world.store is not None else None
        self._siblings: list[int] = []

    def watch(self) -> None:
        """Take over the signals and start the watcher. To be called by all ranks."""
        if self._store is not None:
            self._siblings = [pid for host, pid in self.world.gather((os.uname().nodename, os.getpid()))
                              if host == os.uname().nodename and pid != os.getpid()]  # fmt: skip
        # Python runs a handler in the main thread only, which may be deep in a collective: the watcher reads this.
        self._wakeup, writing = os.pipe()
        os.set_blocking(writing, False)
        self._previous_wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, _ignore)
        threading.Thread(target=self._watch, name="accel-stop", daemon=True).start()

    def close(self) -> None:
        """Give the signals back and end the watcher."""
        self._closed.set()
        signal.set_wakeup_fd(self._previous_wakeup)
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}

    def before(self, step: int) -> bool:
        """Whether to stop instead of starting ``step``."""
        with self._lock:
            if not self._posted:
                self._started = step
                return False
            while self.last_step is None:
                self._lock.wait(1.0)
            if step > self.last_step:
                return True
            self._started = step
            return False

    def _watch(self) -> None:
        while not self._closed.is_set():
            if select.select([self._wakeup], [], [], POLL)[0]:
                for number in os.read(self._wakeup, 64):
                    self._asked = SIGNALS.get(number, self._asked)
            if self._asked is None and self.deadline is not None and time.monotonic() > self.deadline:
                self._asked = TIME_BUDGET
            if self._asked not in (None, TIME_BUDGET) and self._lost_sibling():
                os._exit(143)
            if self._agree():
                return

    def _lost_sibling(self) -> bool:
        """A launcher that ends its ranks because one of them died sends the same SIGTERM: nothing can be saved then."""
        return any(not _alive(pid) for pid in self._siblings)

    def _agree(self) -> bool:
        """Ask, or answer who has asked. True once all know the step to stop after."""
        if self._store is None:
            if self._asked is None:
                return False
            with self._lock:
                self.reason, self.last_step, self._posted = self._asked, self._started, True
                self._lock.notify_all()
            return True
        try:
            if self._asked is not None:
                self._store.compare_set("accel/stop", "", str(self._asked))
            if not self._store.check(["accel/stop"]):
                return False
            with self._lock:
                self._posted = True
                started = self._started
            self._store.set(f"accel/stop/{self.world.rank}", str(started))
            posted = [int(self._store.get(f"accel/stop/{rank}")) for rank in range(self.world.world_size)]
            with self._lock:
                self.reason = int(self._store.get("accel/stop"))
                self.last_step = max(posted)
                self._lock.notify_all()
        except Exception:  # the store goes down with its host: the collective that follows will tell why
            with self._lock:
                self.last_step = self._started + 1
                self._lock.notify_all()
        return True


def _ignore(number: int, frame: FrameType | None) -> None:
    """A handler there must be for the wakeup descriptor to be written."""


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
    except OSError:
        return True
