"""What benchmarks against peers share: an arm is a process that does the work, and marks the part of it that counts."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import select
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from compare import Ratio, ratio, table, verdict

HERE = Path(__file__).resolve().parent
HARNESS = "BENCHMARK_HARNESS"
"""Variable with the process id of whoever started the arms: what is below it, and above an arm, is the arm's tree."""
ORDERS, ANSWERS = "orders", "answers"
"""Pipes in the folder of an arm that stays."""
TICKS = os.sysconf("SC_CLK_TCK")
EQUAL_WAITING = True
"""Whether all arms' OpenMP threads wait as accel's do (accel_cli/launch/local.py); by themselves they spin longer."""
ACCEL = [sys.executable, "-m", "accel_cli"]
Sample = dict[str, Any]
FEWEST = 5
"""Rounds of which an interval says something."""
FEW = f"cannot tell: fewer than {FEWEST} rounds"


class Failed(Exception):
    """An arm that did not come to its end; the text is why."""


# In an arm's process


class Window:
    """Wall and CPU seconds between the end of step ``first`` and that of step ``last``, written to ``place``.

    The CPU's are those of all processes of the arm: its workers, and whatever started it below the harness.
    """

    def __init__(self, place: Path, first: int, last: int) -> None:
        self.place, self.first, self.last = place, first, last
        self.more: dict[str, Any] = {}
        self.cpu_before = 0.0
        self.wait: Callable[[], None] = lambda: None
        """Until the device has done what it was told."""

    def after(self, step: int) -> None:
        """After step number ``step``, from 0."""
        if step + 1 == self.first:
            self.begin()
        elif step + 1 == self.last:
            self.end()

    def begin(self) -> None:
        self.wait()
        self.cpu_before = tree_seconds()
        self._wall = time.perf_counter()

    def end(self) -> None:
        self.wait()
        wall = time.perf_counter() - self._wall
        cpu = tree_seconds() - self.cpu_before
        self.more |= {"wall": wall, "cpu": cpu, "ended": time.time()}
        self.write()

    def write(self, **more: Any) -> None:
        self.more |= more
        self.place.write_text(json.dumps(self.more))


class Turns(Window):
    """The same again and again, of ``last`` - ``first`` steps each: the arm stays, and waits until it is told to go on.

    ``Held`` is its other end.
    """

    def __init__(self, place: Path, first: int, last: int) -> None:
        super().__init__(place, first, last)
        self.orders = (place.parent / ORDERS).open()
        self.answers = (place.parent / ANSWERS).open("w")

    def after(self, step: int) -> None:
        passed = step + 1 - self.first
        if passed >= 0 and passed % (self.last - self.first) == 0:
            self.end() if passed else self.write()
            self.orders.readline()
            self.begin()

    def write(self, **more: Any) -> None:
        self.more |= more
        print(json.dumps(self.more), file=self.answers, flush=True)


def window(place: Path, first: int, last: int) -> Window:
    """What the harness has prepared for: one window, or turns."""
    return (Turns if (place.parent / ORDERS).exists() else Window)(place, first, last)


def tree_seconds() -> float:
    """CPU seconds so far of the arm's tree, living and reaped; what the harness started counts as its top.

    This process is told to the microsecond, the others to the kernel's tick.
    """
    own = os.getpid()
    top = own
    while (parent := _parent(top)) > 1 and str(parent) != os.environ.get(HARNESS):
        top = parent
    if HARNESS not in os.environ:
        top = own
    seconds, waiting = 0.0, [top]
    while waiting:
        process = waiting.pop()
        waiting += _children(process)
        if process == own:
            used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
            seconds += sum(each.ru_utime + each.ru_stime for each in used)
        else:
            seconds += sum(map(int, _stat(process)[11:15])) / TICKS
    return seconds


def _stat(process: int) -> list[str]:
    """proc(5)'s fields from the third on; zeros for one that has gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["0"] * 50


def _parent(process: int) -> int:
    return int(_stat(process)[1])


def _children(process: int) -> list[int]:
    found: list[int] = []
    try:
        for task in Path(f"/proc/{process}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except OSError:
        pass
    return found


# In the harness


def environment(threads: int) -> dict[str, str]:
    """What all arms of a benchmark are started with."""
    path = [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    number = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    if EQUAL_WAITING:
        number["GOMP_SPINCOUNT"] = os.environ.get("GOMP_SPINCOUNT", "20000")
    return {**kept, **number, HARNESS: str(os.getpid()), "PYTHONPATH": os.pathsep.join(filter(None, path))}


def run(command: Sequence[str], threads: int, cwd: Path, timeout: float = 1800.0) -> Sample:
    """Run a command to its end: wall seconds and CPU seconds of it and all that it waited for. Raises Failed."""
    began = time.time()
    with (cwd / "output.txt").open("w+") as output:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment(threads), stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        usage = _wait(process, timeout)
        if process.returncode:
            output.seek(0)
            last = " | ".join(line.strip() for line in output.read().strip().splitlines()[-6:])
            raise Failed(f"exit {process.returncode}: {last[-1500:]}")
    return {"began": began, "whole_wall": time.time() - began, "whole_cpu": usage}


class Held:
    """An arm's process that stays, from its start on: every ``run`` lets it take its next steps.

    For a device on which building, choosing kernels and compiling take longer than what is measured.
    """

    def __init__(self, command: Sequence[str], threads: int, cwd: Path) -> None:
        for name in (ORDERS, ANSWERS):
            os.mkfifo(cwd / name)
        # Opened before the arm does, which would wait for it, and without waiting for the arm.
        self.answers = os.fdopen(os.open(cwd / ANSWERS, os.O_RDONLY | os.O_NONBLOCK))
        self.orders = os.fdopen(os.open(cwd / ORDERS, os.O_RDWR), "w")
        self.output = cwd / "output.txt"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                command, cwd=cwd, env=environment(threads), stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def answer(self, timeout: float = 600.0) -> Sample:
        """What it tells next; at first, that it is ready. Raises Failed."""
        ends = time.monotonic() + timeout
        while time.monotonic() < ends and self.process.poll() is None:
            if select.select([self.answers], [], [], 0.2)[0] and (line := self.answers.readline()):
                return dict(json.loads(line))
            time.sleep(0.01)  # a pipe that nobody has opened yet reads as ended
        raise Failed(f"no answer within {timeout:g} s, or ended: {self.output.read_text()[-1500:]}")

    def run(self) -> Sample:
        print(file=self.orders, flush=True)
        return self.answer()

    def let_go(self) -> None:
        """Let it come to its end, which ``finish`` waits for."""
        print(file=self.orders, flush=True)

    def finish(self) -> None:
        if _wait_for(self.process, 120.0):
            raise Failed(f"exit {self.process.returncode}: {self.output.read_text()[-1500:]}")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _wait_for(process: subprocess.Popen[Any], timeout: float) -> int:
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        raise Failed(f"did not end within {timeout:g} s") from None


def _wait(process: subprocess.Popen[Any], timeout: float) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        process.wait(timeout)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)  # its own session: nothing else is in it
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise Failed(f"took more than {timeout:g} s") from None
        raise
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def windowed(command: Sequence[str], threads: int, cwd: Path, window: Path) -> Sample:
    """The same, with what the arm's window says."""
    window.unlink(missing_ok=True)
    whole = run(command, threads, cwd)
    if not window.exists():
        raise Failed("ended without its measurement")
    return {**whole, **json.loads(window.read_text())}


def folder(path: Path) -> Path:
    """A new, empty one."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def chosen(arms: dict[str, Callable[[], Sample]], wanted: Iterable[str] | None) -> dict[str, Callable[[], Sample]]:
    """The arms of these names, or all; exits on a name that is none."""
    names = list(wanted or arms)
    if unknown := [name for name in names if name not in arms]:
        raise SystemExit(f"no such arm: {', '.join(unknown)}; there are {', '.join(arms)}")
    return {name: arms[name] for name in arms if name in names}


def that_work(
    arms: dict[str, Callable[[], Sample]], peers: Iterable[str], missing: dict[str, str]
) -> dict[str, Callable[[], Sample]]:
    """All arms but the peers that fail at a first try, which are added to ``missing`` with the reason."""
    for name in [name for name in peers if name in arms]:
        say(f"trying {name}")
        try:
            arms[name]()
        except Failed as error:
            missing[name] = str(error)
            arms = {other: arm for other, arm in arms.items() if other != name}
    return arms


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def pick(samples: Sequence[Sample], what: str) -> list[float]:
    return [sample[what] for sample in samples]


def rows(
    found: dict[str, list[Sample]],
    reference: str,
    *,
    unit: float,
    unit_name: str,
    facts: dict[str, str] | None = None,
) -> list[list[object]]:
    """A row for each arm: ratios to the reference, absolute figures (seconds x ``unit``), ``facts`` of each arm."""
    head: list[object] = ["arm", f"wall / {reference}", f"CPU / {reference}", f"wall, {unit_name}", f"CPU, {unit_name}"]
    body: list[list[object]] = []
    for name, samples in found.items():
        ratios = [ratio(pick(samples, what), pick(found[reference], what)) for what in ("wall", "cpu")]
        figures = [f"{statistics.median(pick(samples, what)) * unit:.4g}" for what in ("wall", "cpu")]
        body.append([name, *ratios, *figures, *([facts.get(name, "")] if facts else [])])
    return [[*head, *(["equal work"] if facts else [])], *body]


def judge(found: dict[str, list[Sample]], arm: str, reference: str, again: str | None, limit: float) -> list[str]:
    """A line for wall and one for CPU: whether ``arm`` takes at most ``limit`` times what the reference takes.

    ``again`` is the reference's second place in a round: its ratio to the first is the floor of what can be told.
    """
    if arm not in found or reference not in found:
        return [f"{arm} / {reference}: not measured"]
    lines = []
    for what, name in (("wall", "wall"), ("cpu", "CPU")):
        own = ratio(pick(found[arm], what), pick(found[reference], what))
        floor = Ratio(1.0, 1.0, 1.0)
        if again in found:
            floor = ratio(pick(found[again], what), pick(found[reference], what))
        if again in found and abs(limit - 1) < 0.2:
            said = verdict(own, floor, limit) if len(found[arm]) >= FEWEST else FEW
        else:
            said = by_bounds(own, limit, len(found[arm]))
        lines.append(f"{arm} / {reference}, {name}: {own}, floor {floor}; at most {limit:g}: {said}")
    return lines


def by_bounds(own: Ratio, limit: float, rounds: int) -> str:
    """For a limit that is far from 1, where the interval alone decides."""
    if rounds < FEWEST:
        return FEW
    return "holds" if own.high <= limit else "broken" if own.low > limit else "cannot tell"


def close(
    arguments: argparse.Namespace, lines: Sequence[str], missing: dict[str, str], kept: dict[str, Any], noise: Noise
) -> None:
    """The end of every report: verdicts, what is missing, versions; and the file of samples."""
    for line in lines:
        print(line)
    for name, why in missing.items():
        print(f"not measured: {name}: {why}")
    about = {**machine(), **noise.told()}
    print("; ".join(f"{key} {value}" for key, value in about.items()))
    if arguments.json:
        whole = {**kept, "verdicts": list(lines), "missing": missing, "about": about}
        arguments.json.write_text(json.dumps(whole, indent=1, default=str))


class Noise:
    """What else this machine did meanwhile: its load, and the share of time that a hypervisor took (steal)."""

    def __init__(self) -> None:
        self.before = self._ticks()

    @staticmethod
    def _ticks() -> list[int]:
        try:
            return list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
        except OSError:
            return [0] * 8

    def told(self) -> dict[str, str]:
        passed = [after - before for after, before in zip(self._ticks(), self.before, strict=True)]
        steal = passed[7] / sum(passed) if sum(passed) else 0.0
        return {"load": f"{os.getloadavg()[0]:.1f}", "steal": f"{100 * steal:.1f}%"}


def machine() -> dict[str, str]:
    import torch

    commit = subprocess.run(["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {
        "commit": commit.stdout.strip() or "unknown",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
    }


def options(parser: argparse.ArgumentParser, *, rounds: int, threads: int | None = None) -> None:
    """The options that every benchmark has; a benchmark that is told to end takes its arms with it."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--rounds", type=int, default=rounds, help=f"every arm once a round, in turns ({rounds})")
    parser.add_argument("--arm", action="append", metavar="NAME", help="this arm only; may be repeated")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="environments made by benchmarks/peers.py")
    parser.add_argument("--threads", type=int, default=threads or cores, help="of one process, in every arm")
    parser.add_argument("--json", type=Path, help="write all samples here")


def show(title: str, lines: Sequence[Sequence[object]]) -> None:
    print(f"\n{title}")
    print(table(lines))
