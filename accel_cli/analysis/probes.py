"""Arms on one stage: settings whose steps are timed in turns, each in processes of its own, set up anew every round."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import select
import signal
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accel_cli.config import cores
from accel_cli.config import run as run_file
from accel_cli.config.machine import detect, memory_available
from accel_cli.config.plan import Plan
from accel_cli.errors import AccelError, HangError
from accel_cli.launch.crew import Crew
from accel_cli.launch.front import Outcome
from accel_cli.launch.terminal import Quiet

AGAIN = "again"
"""The name under which the first arm's second place in a round is found: what it differs by is noise."""
TURN = 0.05
"""Seconds that a turn of the first arm takes, about: short, so that a drift of the machine meets all arms alike."""
TURNS = 16
"""Of each arm in a round."""
UNCOUNTED = 0.25
"""Steps of a turn that no clock sees, as a share of those that it does: they fill caches, use what was read ahead."""
LONGEST_SILENCE = 600.0
"""Seconds without an answer after which an arm counts as hanging."""
SHARE_OF_MEMORY = 0.8
CONTEXT = 1 << 30
"""Bytes of a device's memory that a process takes before it has a tensor."""


class Failed(Exception):
    """An arm that could not take its turn; the text is the cause."""

    def __init__(self, cause: str, exit_code: int) -> None:
        super().__init__(cause)
        self.exit_code = exit_code

    def of_baseline(self) -> AccelError:
        """Without it nothing can be compared."""
        error = AccelError(f"the baseline does not run: {self}", "try accel train with its settings")
        error.exit_code = self.exit_code
        return error


class Interrupted(Exception):
    """A signal has ended all arms."""


@dataclass
class Look:
    """What the first look at an arm told; ``cause`` says why there is none."""

    cause: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def one_off_seconds(self) -> dict[str, float]:
        """``compile`` is what the first step took beyond a usual one, kernels and buffers included."""
        beyond = max(0.0, self.facts["first_seconds"] - self.facts["step_seconds"])
        return {
            "prepare": round(self.facts["prepare_seconds"], 3),
            "setup": round(self.facts["setup_seconds"], 3),
            "compile": round(beyond, 3),
        }


class Stage:
    """``arms``: name -> what it runs; the first is what the others are compared with. Their run folders are kept.

    Crew and folder are whoever's who makes it.
    """

    def __init__(self, crew: Crew, arms: Mapping[str, Plan], folder: Path, seed: int = 0) -> None:
        self.crew, self.arms, self.folder = crew, dict(arms), folder
        self.looks: dict[str, Look] = {}
        self.first_turns: list[float] = []
        """Seconds that the first arm took in each turn of the last round, the geometric mean of its two places."""
        self._first = next(iter(arms))
        self._draw = random.Random(seed)
        self._places = {name: f"{place:02d}" for place, name in enumerate(arms)}

    def look(self, say: Callable[[str], None] = lambda name: None) -> dict[str, Look]:
        """Start every arm once, alone: what it needs, and whether it runs at all. Costs nothing where it was done.

        Raises AccelError where the first does not run.
        """
        for name in self.arms:
            if name in self.looks:
                continue
            say(name)
            try:
                with self._start(name) as probe:
                    self.looks[name] = Look(facts=probe.facts)
            except Failed as error:
                if name == self._first:
                    raise error.of_baseline() from None
                self.looks[name] = Look(cause=str(error))
        return self.looks

    def round(self, names: Sequence[str] | None = None) -> dict[str, float]:
        """Seconds a step of each of these arms (those that run) and of the first one ``again``, set up anew.

        An arm that fails is left out, with the cause in its look. Raises AccelError where it is the first, Interrupted.
        """
        wanted = [name for name in self.arms if not self.looks[name].cause and (names is None or name in names)]
        found: dict[str, float] = {}
        for group in self._groups([name for name in wanted if name != self._first]):
            taken = self._together([self._first, AGAIN, *group])
            scale = 1.0
            if found:  # another moment: its baseline tells how fast the machine was then
                scale = math.sqrt(found[self._first] * found[AGAIN] / (taken[self._first] * taken[AGAIN]))
            found |= {name: seconds * scale for name, seconds in taken.items() if name not in found}
        return found

    def _groups(self, names: list[str]) -> list[list[str]]:
        """As many at a time as memory holds beside the first arm's two; at least one."""
        needs = {name: _memory(self.looks[name]) for name in [self._first, *names]}
        free = _free(self.looks[self._first])
        groups: list[list[str]] = [[]]
        for name in names:
            used = 2 * needs[self._first] + sum(needs[other] for other in groups[-1])
            if groups[-1] and used + needs[name] > SHARE_OF_MEMORY * free:
                groups.append([])
            groups[-1].append(name)
        return groups

    def _together(self, places: list[str]) -> dict[str, float]:
        with contextlib.ExitStack() as stack:
            probes = self._set_up(stack, places)
            usual = self.looks[self._first].facts["step_seconds"]
            period = max(self._period(name) for name in probes)
            steps = period * max(1, min(400, round(TURN / usual / period)))
            taken: dict[str, list[float]] = {name: [] for name in probes}
            order = list(probes)
            for turn in range(TURNS):
                for name in order if turn % 2 == 0 else order[::-1]:
                    if name not in taken:
                        continue
                    try:
                        taken[name].append(probes[name].turn(steps, (turn + 0.5) / TURNS))
                    except Failed as error:
                        self._drop(name, error)
                        del taken[name]
            both = zip(taken[self._first], taken[AGAIN], strict=True)
            self.first_turns = [math.sqrt(first * again) for first, again in both]
            return {name: usual_of(seconds, self.first_turns) / steps for name, seconds in taken.items()}

    def _period(self, name: str) -> int:
        """Steps after which an arm's work repeats: replicas that agree now and then do so once a turn, or often."""
        return int(getattr(self.arms[self._first if name == AGAIN else name].run.strategy, "steps", 1))

    def _set_up(self, stack: contextlib.ExitStack, places: list[str]) -> dict[str, Probe]:
        """In random order, as many at a time as there are cores: who comes first gets other pages."""
        order = self._draw.sample(places, len(places))

        def start(name: str) -> tuple[str, Probe | None]:
            try:
                return name, stack.enter_context(self._start(name))
            except Failed as error:
                self._drop(name, error)
                return name, None

        with ThreadPoolExecutor(cores.usable()) as threads:
            return {name: probe for name, probe in threads.map(start, order) if probe is not None}

    def _drop(self, name: str, error: Failed) -> None:
        if self.crew.ending is not None:
            raise Interrupted
        if name in (self._first, AGAIN):
            raise error.of_baseline() from None
        self.looks[name].cause = str(error)

    @contextlib.contextmanager
    def _start(self, name: str) -> Iterator[Probe]:
        arm = self._first if name == AGAIN else name
        place = AGAIN if name == AGAIN else self._places[arm]
        probe = Probe(self.crew, self.arms[arm], self.folder / place, like=self.folder / self._places[arm])
        try:
            yield probe
        finally:
            probe.close()


class Probe:
    """The ranks of one arm: set up, with the first steps behind them, and frozen while others are on stage."""

    mode = "probe"

    def __init__(self, crew: Crew, planned: Plan, folder: Path, like: Path) -> None:
        """Returns when it is ready. ``like`` is the folder that has the run's decisions. Raises Failed, Interrupted."""
        self.crew, self.planned, self.folder = crew, planned, folder
        self._write(like)
        self._place = tempfile.TemporaryDirectory(prefix="accel-")  # a socket's path may have a hundred letters
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self._place.name}/link")
        self._listener.listen(1)
        self._outcome: Outcome | None = None
        self._socket: socket.socket | None = None
        self._processes: list[int] = []
        self._front: Any = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        try:
            self._wait_for(self._listener)
            self._socket, _ = self._listener.accept()
            self._answers = self._socket.makefile("r")
            self.facts = self._answer()
        except BaseException:
            self.close()
            raise
        self._processes = self.facts["processes"]
        if crew.ending is not None:
            self.close()
            raise Interrupted
        self._signal(signal.SIGSTOP)

    def turn(self, steps: int, place: float) -> float:
        """Seconds of so many steps; ``place`` is the share of the run at which they are taken."""
        self._signal(signal.SIGCONT)
        order = {"steps": steps, "uncounted": math.ceil(UNCOUNTED * steps), "place": place}
        try:
            assert self._socket is not None
            self._socket.sendall((json.dumps(order) + "\n").encode())
            self.answered = self._answer()
            return float(self.answered["seconds"])
        except OSError:
            raise self._failure() from None
        finally:
            self._signal(signal.SIGSTOP)

    def close(self) -> None:
        """End it at once: it holds nothing that anyone wants."""
        if self._front is not None:
            self._front.agent.kill()
        self._thread.join()
        if self._socket is not None:
            self._socket.close()
        self._listener.close()
        self._place.cleanup()

    def _write(self, like: Path) -> None:
        """The run folder of the arm: its settings, and what was decided for it at the first look."""
        self.folder.mkdir(parents=True, exist_ok=True)
        run_file.write(self.planned.run, self.folder / "run.yaml")
        decided = like / "decisions.json"
        if like != self.folder and decided.exists():
            (self.folder / "decisions.json").write_text(decided.read_text())

    def _run(self) -> None:
        request = {
            "folder": str(self.folder), "mode": self.mode, "plugins": self.planned.plugins, "started": time.time(),
            "link": f"{self._place.name}/link",
        }  # fmt: skip
        run = self.planned.run
        with self.crew.front() as self._front:
            self._outcome = self._front.run(self.folder, request, run.launch.processes, run.to_tree(), Quiet())

    def _wait_for(self, what: Any) -> None:
        """Until there is something to read, or the ranks have ended."""
        ends = time.monotonic() + LONGEST_SILENCE
        while not select.select([what], [], [], 0.05)[0]:
            if not self._thread.is_alive():
                raise self._failure()
            if time.monotonic() > ends:
                raise Failed(f"no answer for {LONGEST_SILENCE:g} s", HangError.exit_code)

    def _answer(self) -> dict[str, Any]:
        self._wait_for(self._socket)
        line = self._answers.readline()
        if not line:
            raise self._failure()
        return dict(json.loads(line))

    def _failure(self) -> Exception:
        """Why the ranks have gone."""
        self._signal(signal.SIGCONT)
        self._thread.join(10.0)
        if self.crew.ending is not None:
            return Interrupted()
        failure = self._outcome.failure if self._outcome is not None else None
        return Failed("the processes ended", 3) if failure is None else Failed(failure.cause, failure.exit_code)

    def _signal(self, number: int) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process, number)


def usual_of(turns: Sequence[float], first_turns: Sequence[float]) -> float:
    """What a turn takes, by the median of its ratios to the turns that the first arm took beside it.

    A machine whose speed wanders meets both alike, and the median lets bursts pass. On two cores with noisy neighbours,
    over 6 setups of 8 rounds, the baseline's two places differed by 4.2%; by the second quickest turns of each, 8.7%,
    by their means 4.4%. With more neighbours, on purpose: 3.2, 6.3 and 4.4%.
    """
    ratios = [turn / first for turn, first in zip(turns, first_turns, strict=True)]
    return statistics.median(first_turns) * statistics.median(ratios)


def _memory(look: Look) -> int:
    """Bytes that an arm may take, of the device's memory where it has one of its own."""
    peaks = look.facts["peak_memory_bytes"]
    return int(peaks["device"] + CONTEXT if peaks["device"] else peaks["host"] * len(look.facts["processes"]))


def _free(look: Look) -> int:
    on_device = look.facts["peak_memory_bytes"]["device"] and detect().gpus
    return detect().gpus[0].memory_bytes if on_device else memory_available()
