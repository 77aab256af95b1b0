"""Streams: the same samples on all ranks, restarted at their end, skipped forward on resume."""

import random

import pytest
import torch
from torch.utils.data import IterableDataset

from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError
from accel_cli.loader.memory import Memory
from accel_cli.loader.order import Order
from accel_cli.loader.workers import Workers

VECTORS = DataDescription(input="vector", target="class", input_shape=(1,))


class Counting(IterableDataset):
    """0 .. samples - 1, shuffled by the global generator, each with a draw made as it is read."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.epochs = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __iter__(self):
        order = list(range(self.samples))
        random.shuffle(order)
        for number in order:
            yield torch.tensor([float(number)]), int(torch.randint(1000, ()))


def batches(make, dataset, first, last, kind=Memory, config="memory", **options):
    return list(make(kind, config, dataset, description=VECTORS, **options).batches(first, last))


def values(steps):
    return [list(zip(x[:, 0].tolist(), y.tolist(), strict=True)) for x, y in ((joined(s)) for s in steps)]


def joined(step):
    return torch.cat([x for x, _ in step]), torch.cat([y for _, y in step])


def test_epochs_follow_each_other_and_each_holds_everything_once(make):
    stream = Counting(11)
    seen = sum(values(batches(make, stream, 0, 5)), [])
    assert sorted(x for x, _ in seen[:11]) == sorted(x for x, _ in seen[11:22]) == list(range(11))
    assert stream.epochs == [0, 1, 2, 3]
    assert seen[:11] != seen[11:22]


@pytest.mark.parametrize("first", [0, 1, 3, 6])
def test_a_resumed_run_meets_what_it_would_have_met(make, first):
    wanted = values(batches(make, Counting(11), 0, 8))
    torch.manual_seed(first)
    assert values(batches(make, Counting(11), first, 8, Workers, "2")) == wanted[first:]


def test_going_on_and_going_back_give_the_same(make):
    wanted = values(batches(make, Counting(11), 0, 8))
    loader = make(Memory, "memory", Counting(11), description=VECTORS)
    next(loader.batches(0, 9))
    assert values(loader.batches(1, 4)) == wanted[1:4]
    assert values(loader.batches(0, 8)) == wanted


def test_ranks_share_the_global_batch(make):
    whole = values(batches(make, Counting(11), 0, 5))
    ranks = []
    for rank in (0, 1):
        torch.manual_seed(rank)
        ranks.append(values(batches(make, Counting(11), 0, 5, rank=rank, world=2)))
    assert [one + two for one, two in zip(*ranks, strict=True)] == whole


def test_the_random_state_of_the_run_stays(make):
    before = random.getstate(), torch.get_rng_state().tolist()
    batches(make, Counting(11), 2, 5)
    assert (random.getstate(), torch.get_rng_state().tolist()) == before


def test_an_empty_stream_is_refused(make):
    with pytest.raises(ConfigError, match="gave no samples"):
        batches(make, Counting(0), 0, 1)


def test_a_stream_has_no_order():
    with pytest.raises(ValueError, match="stream"):
        Order(0, None, 4).share(0)
