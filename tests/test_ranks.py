"""The test worlds themselves."""

from __future__ import annotations

import os
import time

import pytest
import torch
from ranks import SECONDS, Ranks, run_ranks

from accel_cli.world import join, leave


def add_ranks() -> tuple[int, int, float]:
    world = join(torch.device("cpu"), "gloo", SECONDS)
    total = world.sum(torch.tensor([float(world.rank)]))
    leave()
    return world.rank, world.world_size, float(total)


def raise_in(rank: int) -> None:
    if int(os.environ["RANK"]) == rank:
        raise ValueError("as asked")


def sleep_forever() -> None:
    time.sleep(3600)


def end_at_once() -> None:
    os._exit(41)


def test_results_come_by_rank() -> None:
    assert run_ranks(add_ranks, 3) == [(0, 3, 3.0), (1, 3, 3.0), (2, 3, 3.0)]


@pytest.mark.flaky(reruns=2)
def test_a_warm_world_costs_well_under_a_second() -> None:
    run_ranks(add_ranks, 2)
    began = time.monotonic()
    run_ranks(add_ranks, 2)
    assert time.monotonic() - began < 3.0


def test_a_ranks_traceback_is_raised() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)rank 1 raised.*raise_in.*ValueError: as asked"):
        run_ranks(raise_in, 2, 1)


def test_a_rank_that_just_ends_is_told() -> None:
    with pytest.raises(RuntimeError, match="exit code 41"):
        run_ranks(end_at_once, 1)


def test_the_time_limit_kills() -> None:
    ranks = Ranks(sleep_forever, 2)
    with pytest.raises(TimeoutError):
        ranks.results(seconds=0.5)
    assert all(not process.is_alive() for process in ranks.processes)
