"""The random state that a user's data set sees: its own for each sample, never the run's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch

from accel_cli.loader.order import key


def seed_sample(seed: int, epoch: int, index: int) -> None:
    """Seed random, numpy and torch (CPU) for one reading of one sample, in any process."""
    number = key(seed, epoch, index)
    random.seed(number)
    numpy.random.seed(number & 0xFFFFFFFF)
    torch.default_generator.manual_seed(number)


@contextmanager
def restored() -> Iterator[None]:
    """Whatever the body draws or seeds, the run goes on from the random state that it had before."""
    state = get_state()
    try:
        yield
    finally:
        set_state(state)


def get_state() -> tuple[Any, ...]:
    return random.getstate(), numpy.random.get_state(), torch.default_generator.get_state()


def set_state(state: tuple[Any, ...]) -> None:
    random.setstate(state[0])
    numpy.random.set_state(state[1])
    torch.default_generator.set_state(state[2])
