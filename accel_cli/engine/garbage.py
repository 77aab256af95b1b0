"""Garbage: Python looks for reference cycles between steps, and only among what training has made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG = 64
"""Steps between two looks at what is new. A cycle may hold tensors, so it may not wait for long."""


@contextmanager
def kept_out_of_steps() -> Iterator[None]:
    """Left alone, a collection comes in the middle of a step, and a full one walks all that torch brought: 0.1 s.

    Until the end, what is there now is never walked, and only ``collect`` collects.
    """
    was_on = gc.isenabled()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()


def collect(step: int, *, everything: bool) -> None:
    """Between two steps: what is new, every so often; all that is not frozen where training stands still anyway."""
    if everything:
        gc.collect()
    elif step % YOUNG == 0:
        gc.collect(1)
