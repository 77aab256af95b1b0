"""Threads: in order, without touching what the run draws; errors as they are, hangs ended, nothing left."""

import random
import threading
import time

import numpy
import pytest
import torch
from test_batches import same

from accel_cli.config.schema.loader import Threads as Config
from accel_cli.errors import AccelError, ConfigError, HangError
from accel_cli.loader.memory import Memory
from accel_cli.loader.threads import Threads


class Acting(list):
    """Calls ``act`` at each read."""

    def __init__(self, act, samples: int = 40) -> None:
        super().__init__([(float(i), 0) for i in range(samples)])
        self.act = act

    def __getitem__(self, index):
        self.act(index)
        return super().__getitem__(index)


def config(**changes) -> Config:
    return Config(**{"option": "threads", "threads": 3, "prefetch": 2, "timeout": 30.0} | changes)


def team() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("loader-")]


def test_batches_come_in_order_whichever_is_ready_first(make):
    uneven = Acting(lambda index: time.sleep(0.004 * (index % 7 == 0)), 64)
    wanted = list(make(Memory, "memory", uneven).batches(0, 12))
    assert same(list(make(Threads, config(), uneven).batches(0, 12)), wanted)


def test_they_read_beside_one_another_and_no_further_ahead_than_asked(make):
    reading, most, read = set(), [], []

    def act(index):
        reading.add(threading.get_ident())
        most.append(len(reading))
        time.sleep(0.005)
        reading.discard(threading.get_ident())
        read.append(index)

    loader = make(Threads, config(), Acting(act, 400))
    before = len(read)
    steps = loader.batches(0, 50)
    next(steps)
    time.sleep(0.4)
    assert max(most) > 1
    assert len(read) - before <= 4 * (3 * 2 + 2), (
        "3 threads, 2 micro-batches of 4 each ahead, and those that were taken"
    )


def test_no_generator_of_the_run_is_touched(make, arrays, kinds):
    loader = make(Threads, config(), kinds.Items(arrays), augmented=True)
    seen = []
    for _ in loader.batches(0, 8):
        seen.append((torch.rand(()).item(), random.random(), numpy.random.rand()))
    for generator in (torch.manual_seed, random.seed, numpy.random.seed):
        generator(3)
    drawn = [(torch.rand(()).item(), random.random(), numpy.random.rand()) for _ in range(8)]
    for generator in (torch.manual_seed, random.seed, numpy.random.seed):
        generator(3)
    beside = [
        (torch.rand(()).item(), random.random(), numpy.random.rand())
        for _ in make(Threads, config(), kinds.Items(arrays), augmented=True).batches(0, 8)
    ]
    assert beside == drawn


@pytest.mark.parametrize("own", [False, True])
def test_a_data_set_that_draws_is_refused(make, arrays, kinds, own):
    generator = numpy.random.default_rng(0)
    pairs = [(torch.zeros(3), 0)] * 40
    drawn = Acting(lambda index: pairs.__setitem__(index, (torch.tensor(generator.random(3)), 0)))
    drawn.__class__ = type("Own", (Acting,), {"__getitem__": lambda self, i: (self.act(i), pairs[i])[1]})
    with pytest.raises(ConfigError, match=r"drawn .*random generators are shared by threads") as caught:
        make(Threads, config(), drawn if own else kinds.Drawn(arrays))
    assert caught.value.problems[0].fix == "try loader=workers"


def test_an_error_is_raised_as_it_is_with_the_sample_in_its_turn(make):
    def act(index):
        if index > 30 and threading.current_thread() is not threading.main_thread():
            raise KeyError("lost")

    wanted = make(Memory, "memory", Acting(lambda index: None))
    good = next(s for s in range(10) if (wanted.order.share(s)[1] > 30).any())
    loader = make(Threads, config(), Acting(act))
    steps = loader.batches(0, 20)
    for _ in range(good):
        next(steps)
    with pytest.raises(AccelError, match=r"sample 3\d of the data could not be read: KeyError: 'lost'") as caught:
        next(steps)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_hung_read_is_a_hang_with_a_fix(make):
    def act(index):
        if threading.current_thread() is not threading.main_thread():
            time.sleep(5)

    steps = make(Threads, config(timeout=0.3), Acting(act)).batches(0, 5)
    start = time.monotonic()
    with pytest.raises(HangError, match=r"no batch came from 3 loader threads in 0.3 s") as caught:
        next(steps)
    assert time.monotonic() - start < 3
    assert caught.value.fix == "try loader=workers or loader.timeout=1.2"


def test_closing_ends_them_and_an_abandoned_read_ahead_is_dropped(make, arrays):
    others = set(team())
    loader = make(Threads, config(), arrays)
    wanted = list(make(Memory, "memory", arrays).batches(3, 6))
    steps = loader.batches(0, 40)
    next(steps)
    assert len(set(team()) - others) == 3
    assert same(list(loader.batches(3, 6)), wanted)
    assert len(set(team()) - others) == 3
    threads = torch.get_num_threads()
    loader.close()
    loader.close()
    assert not set(team()) - others
    assert torch.get_num_threads() == threads
