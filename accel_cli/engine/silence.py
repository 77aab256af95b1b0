"""What libraries print goes to a file."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def printing_to(path: Path) -> Iterator[None]:
    """Standard output and error of this process go there, also what C++ and child processes write."""
    kept = [(stream, os.dup(stream.fileno())) for stream in (sys.__stdout__, sys.__stderr__) if stream is not None]
    with path.open("ab", buffering=0) as file:
        _flush()
        for stream, _ in kept:
            os.dup2(file.fileno(), stream.fileno())
        text = os.fdopen(os.dup(file.fileno()), "w", buffering=1)
        try:
            with text, contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
                yield
        finally:
            _flush()
            for stream, descriptor in kept:
                os.dup2(descriptor, stream.fileno())
                os.close(descriptor)


def _flush() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
