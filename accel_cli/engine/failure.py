"""A failure as a rank tells it: the exit code that it stands for, and the user's own line that it came from."""

from __future__ import annotations

import contextlib
import os
import re
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from accel_cli.engine.summary import failed, write_json
from accel_cli.errors import AccelError, ConfigError, DivergedError

OUT_OF_RESOURCE = (12, 24, 28, 122)
"""ENOMEM, EMFILE, ENOSPC, EDQUOT"""
CPU_WANTED = re.compile(r"DefaultCPUAllocator.*tried to allocate (\d+) bytes", re.S)
"""What torch says of memory that the kernel did not give."""


def describe(error: BaseException, rank: int, step: int | None) -> dict[str, Any]:
    """What the front shows of an exception, and what ranks/<rank>.failure.json holds."""
    code = exit_code(error)
    message = str(getattr(error, "message", None) or error) or type(error).__name__
    if code == 7 and (wanted := CPU_WANTED.search(message)):
        message = f"ran out of memory: {int(wanted[1]):,} bytes more were asked for"
    if code == 6 and not isinstance(error, AccelError):
        message = f"another rank did not answer within launch.wait: {message}"
    return {
        "rank": rank,
        "step": step,
        "type": type(error).__name__,
        "message": message,
        "try": getattr(error, "fix", ""),
        "place": user_place(error.__traceback__),
        "exit_code": code,
        "problems": [asdict(p) for p in error.problems] if isinstance(error, ConfigError) else None,
        "time": time.monotonic(),
        "traceback": "".join(traceback.format_exception(error)),
    }


def leave(folder: Path, failure: dict[str, Any]) -> None:
    """Put a failure where the front looks for it; a folder that cannot be written to is nothing to add a failure to."""
    with contextlib.suppress(OSError):
        (folder / "ranks").mkdir(exist_ok=True)
        write_json(folder / "ranks" / f"{failure['rank']}.failure.json", failure)


def end_without_front(folder: Path, settings: dict[str, Any], failure: dict[str, Any]) -> None:
    """Write the summary of a failed run that torchrun started; otherwise the front does."""
    status = "diverged" if failure["type"] == DivergedError.__name__ else "failed"
    error = {key: failure[key] for key in ("rank", "step", "type", "message", "try")}
    with contextlib.suppress(OSError):
        write_json(folder / "summary.json", failed(folder, settings, error, failure["exit_code"], status))


def exit_code(error: BaseException) -> int:
    """The contract's code for an exception that ended a rank."""
    if isinstance(error, AccelError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    text = str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return 7
    if isinstance(error, OSError) and error.errno in OUT_OF_RESOURCE:
        return 7
    if "Timed out waiting" in text or "Watchdog caught collective operation timeout" in text:
        return 6
    if isinstance(error, torch.distributed.DistError) and "timed out" in text.lower():
        return 6
    return 3


def user_place(trace: TracebackType | None) -> str | None:
    """``file:line`` of the innermost frame that is neither accel's, nor a library's."""
    libraries = (str(Path(__file__).parents[1]), os.sep + "site-packages" + os.sep, os.path.dirname(os.__file__), "<")
    own = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(trace)
        if not any(library in frame.filename for library in libraries)
    ]
    return own[-1] if own else None
