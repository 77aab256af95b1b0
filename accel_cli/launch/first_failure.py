"""One failure, reported once: which rank, what, where in the user's own code; the noise of its peers left out."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accel_cli.errors import AccelError, ConfigError, Problem, in_a_line

PEER_NOISE = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Connection refused",
    "Socket closed",
    "Read error",
    "Write error",
    "NCCL communicator was aborted",
    "remote process exited",
)
"""What a rank says when another one left it alone in a collective."""


_PREFIX = re.compile(r"^\[/[^\]]*\] ")
"""The place in torch's own C++ sources, on the machine that built it."""


WATCHDOG = b"Watchdog caught collective operation timeout"


LOST = "Lost"
"""The type of a failure that no rank of this node can tell of."""


@dataclass(frozen=True)
class Failure:
    rank: int | None
    step: int | None
    type: str
    message: str
    fix: str
    place: str | None
    exit_code: int
    problems: list[dict[str, str]] | None = None
    log: str | None = None
    traceback: str = ""
    echo: bool = False
    """Whether this rank only says that another one left it alone."""

    @property
    def spoke(self) -> bool:
        """Whether ``type`` names an exception; else the message is what became of the process."""
        return self.type not in ("Exit", "Signal", LOST) and not self.type.startswith("SIG")

    @property
    def cause(self) -> str:
        """In a line, for a table."""
        if self.problems:
            return in_a_line(Problem(**problem) for problem in self.problems)
        return f"{self.type}: {self.message}" if self.spoke else self.message

    def summary(self) -> dict[str, Any]:
        """The ``error`` of summary.json."""
        return {"rank": self.rank, "step": self.step, "type": self.type, "message": self.message, "try": self.fix}


def find(folder: Path, ended: list[dict[str, Any]]) -> Failure:
    """The failure that came first.

    ``ended`` is what the agent saw: rank, pid and exit code (negative: a signal) of ranks that ended before the run was
    done. A rank that could still speak left ranks/<rank>.failure.json; one that was killed could not, and then its
    peers' complaints about lost connections are only echoes.
    """
    spoken = []
    for path in sorted((folder / "ranks").glob("*.failure.json")):
        try:
            spoken.append(json.loads(path.read_text()))
        except (OSError, json.JSONDecodeError):
            continue
    causes = sorted((s for s in spoken if not _is_echo(s)), key=lambda s: s["time"])
    if causes:
        return _spoken(causes[0], folder)
    silent = [e for e in ended if not any(s["rank"] == e["rank"] for s in spoken)]
    if silent:
        return _silent(silent[0], folder)
    if spoken:
        return replace(_spoken(min(spoken, key=lambda s: s["time"]), folder), echo=True)
    return Failure(None, None, "Exit", "the launcher's own agent ended early", "", None, 3)


def restart_line(event: dict[str, Any], step: int | None, folder: Path | None) -> str:
    """What is told of a restart; ``folder`` is the run's where rank 0 and its checkpoints are on this node."""
    failure = Failure(**event["failure"])
    who = "" if failure.rank is None else f"rank {failure.rank} "
    what = f"failed ({failure.type}: {failure.message})" if failure.spoke else failure.message
    at = failure.step if failure.step is not None else step
    text = f"{who}{what}" + ("" if at is None else f" at step {at}") + "; restarting"
    if folder is not None:
        saved = max((path.parent.name for path in folder.glob("checkpoints/step-*/manifest.json")), default=None)
        text += " from the start, as nothing is saved yet" if saved is None else f" from step {int(saved[5:])}"
    return f"{text}, attempt {event['attempt']} of {event['attempts']}"


def told(error: AccelError) -> Failure:
    """What a launcher raised by itself, before any rank could."""
    problems = [vars(problem) for problem in error.problems] if isinstance(error, ConfigError) else None
    return Failure(None, None, type(error).__name__, error.message, error.fix, None, error.exit_code, problems)


def _is_echo(failure: dict[str, Any]) -> bool:
    return failure["problems"] is None and any(noise in failure["message"] for noise in PEER_NOISE)


def _spoken(failure: dict[str, Any], folder: Path) -> Failure:
    lines = _PREFIX.sub("", failure["message"]).strip().splitlines() or [failure["type"]]
    message = lines[0] if len(lines[0]) > 3 else " ".join(lines[:3])
    return Failure(
        failure["rank"],
        failure["step"],
        failure["type"],
        message[:400],
        failure["try"] or _try(failure["type"], failure["message"]),
        failure["place"],
        failure["exit_code"],
        failure["problems"],
        _log(folder, failure["rank"]),
        failure.get("traceback", ""),
    )


def _silent(ended: dict[str, Any], folder: Path) -> Failure:
    """A rank that ended without a word."""
    if ended["exit_code"] >= 0:
        why = f"left with exit code {ended['exit_code']} before the run was done"
        return Failure(ended["rank"], None, "Exit", why, "", None, 3, log=_log(folder, ended["rank"]))
    name = signal.Signals(-ended["exit_code"]).name
    why = f"was ended by {name}"
    fix, code = "", 3
    if name == "SIGKILL":
        why += ", perhaps by the kernel for want of memory"
        fix = "try a smaller train.micro_batch; then accel resume"
    elif name == "SIGABRT" and _timed_out(folder, ended["rank"]):
        why, code = "another rank did not answer within launch.wait", 6
    elif name in ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT"):
        why += ": compiled code crashed"
    return Failure(ended["rank"], None, name, why, fix, None, code, log=_log(folder, ended["rank"]))


def _timed_out(folder: Path, rank: int) -> bool:
    """Whether nccl's watchdog has ended this process; it can raise nothing where the rank would see it."""
    log = _log(folder, rank)
    return log is not None and WATCHDOG in Path(log).read_bytes()


def _try(kind: str, message: str) -> str:
    """A first remedy for the commonest causes."""
    if kind in ("OutOfMemoryError", "MemoryError") or "ran out of memory" in message:
        return "try train.micro_batch=auto, or train.activation_checkpointing=blocks"
    if "did not receive grad" in message or "Expected to have finished reduction" in message:
        return "some parameters took no part in the loss: try strategy.find_unused_parameters=true"
    if "mat1 and mat2 shapes" in message or "size mismatch" in message:
        return "the model's sizes do not fit the data: see accel check --deep"
    if kind == "ModuleNotFoundError":
        return "install it, or name its file or folder with --plugin"
    return ""


def _log(folder: Path, rank: int | None) -> str | None:
    path = folder / "ranks" / f"{rank}.log"
    return str(path) if rank is not None and path.exists() and path.stat().st_size else None
