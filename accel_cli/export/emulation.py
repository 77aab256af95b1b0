"""The C++ of an HLS project, compiled for this processor, and called."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import numpy

from accel_cli.errors import AccelError

SHOWN = 5
"""Lines of the compiler that a message repeats; all of them are in the export's log."""


def build(project: Path) -> Path:
    """The library that build_lib.sh makes; the weights' place is written into it, so it is made anew for each place."""
    done = subprocess.run(["bash", "build_lib.sh"], cwd=project, capture_output=True, text=True)
    libraries = sorted((project / "firmware").glob("*.so"))
    if done.returncode or not libraries:
        print(done.stdout, done.stderr)
        said = [line for line in done.stderr.splitlines() if "error" in line][:SHOWN] or ["it says nothing"]
        raise AccelError("g++ could not build the emulation: " + "; ".join(said), f"cd {project} && bash build_lib.sh")
    return libraries[0]


class Emulation:
    """[n, ...] float64, rounded to the input's type on the way in -> [n, outputs] float64, exactly."""

    def __init__(self, library: Path, name: str, inputs: int, outputs: int) -> None:
        self.function: Any = getattr(ctypes.CDLL(str(library)), f"{name}_double")
        self.inputs, self.outputs = inputs, outputs
        self(numpy.zeros((1, inputs)))  # reads the weights, while they are where they were

    def __call__(self, values: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
        rows = numpy.ascontiguousarray(values, dtype=numpy.float64).reshape(-1, self.inputs)
        found = numpy.zeros((len(rows), self.outputs))
        for row, answer in zip(rows, found, strict=True):
            self.function(row.ctypes.data_as(ctypes.c_void_p), answer.ctypes.data_as(ctypes.c_void_p))
        return found
