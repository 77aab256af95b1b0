"""Workers that die, hang or raise: one short report, and nothing left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from accel_cli.config.schema.loader import Workers as Config
from accel_cli.errors import AccelError, ConfigError, HangError, Problem, ResourceError
from accel_cli.loader.workers import Workers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="process signals of Linux")


class Misbehaving(list):
    """Calls ``act`` at each read."""

    def __init__(self, act) -> None:
        super().__init__([(0.0, 0)] * 40)
        self.act = act

    def __getitem__(self, index):
        self.act(index)
        return super().__getitem__(index)


def config(**changes) -> Config:
    return Config(**{"option": "workers", "workers": 2, "prefetch": 1, "timeout": 30.0} | changes)


def test_a_killed_worker_is_named_with_what_to_try(make, arrays):
    loader = make(Workers, config(), arrays)
    steps = loader.batches(0, 100)
    next(steps)
    os.kill(loader._iterator._workers[1].pid, signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(ResourceError, match=r"loader worker 1 \(pid \d+\) was killed by SIGKILL") as caught:
        for _ in steps:
            pass
    assert time.monotonic() - start < 5
    assert caught.value.fix == "try loader=memory or loader.workers=0"


def test_a_worker_that_exits_is_named(make):
    with pytest.raises(ResourceError, match="ended with exit code 9"):
        next(make(Workers, config(), Misbehaving(lambda _: os._exit(9))).batches(0, 5))


def test_a_hung_worker_is_a_hang_and_is_ended(make):
    loader = make(Workers, config(timeout=0.5), Misbehaving(lambda _: time.sleep(60)))
    steps = loader.batches(0, 5)
    with pytest.raises(HangError, match=r"no batch came from 2 loader workers in 0.5 s"):
        next(steps)
    start = time.monotonic()
    loader.close()
    assert time.monotonic() - start < 3


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_the_data_set_says_which_sample(make, workers):
    def refuse(index):
        raise KeyError("lost")

    with pytest.raises(AccelError, match=r"sample \d+ of the data could not be read: KeyError: 'lost'") as caught:
        next(make(Workers, config(workers=workers), Misbehaving(refuse)).batches(0, 5))
    if workers:
        assert "in refuse" in caught.value.__notes__[0]


def test_a_refusal_from_a_worker_stays_a_refusal(make):
    problem = Problem("data.path=x", "no", "try y")

    def refuse(index):
        raise ConfigError(problem)

    with pytest.raises(ConfigError) as caught:
        next(make(Workers, config(), Misbehaving(refuse)).batches(0, 5))
    assert caught.value.problems == (problem,)


def test_workers_go_on_through_signals_to_the_group_and_the_handlers_of_the_rank_stay(make, arrays):
    before = signal.getsignal(signal.SIGCHLD)
    loader = make(Workers, config(), arrays)
    steps = loader.batches(0, 20)
    next(steps)
    assert signal.getsignal(signal.SIGCHLD) is before
    for worker in loader._iterator._workers:
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
    assert len(list(steps)) == 19
    pids = [worker.pid for worker in loader._iterator._workers]
    loader.close()
    loader.close()
    assert not any(map(alive, pids))


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "raise SystemExit(0)"])
def test_workers_end_with_their_rank_even_when_they_hang(end):
    program = f"""
        import os, sys, time, torch
        from accel_cli.config.schema.loader import Workers as Config
        from accel_cli.description import DataDescription
        from accel_cli.loader.order import Order
        from accel_cli.loader.workers import Workers

        class Slow(list):
            def __getitem__(self, index):
                if index > 3:
                    time.sleep(600)
                return 0.0, 0

        loader = Workers(
            Config(option="workers", workers=2, prefetch=2, timeout=9.0), dataset=Slow([0] * 8), seed=0, collate=None,
            description=DataDescription(input="other", target="other", input_shape=()), order=Order(0, 8, 1),
            micro_batches=1, augment=None, device=torch.device("cpu"),
        )
        loader._start(0, 8)
        print(*(worker.pid for worker in loader._iterator._workers), flush=True)
        time.sleep(0.3)
        {end}
    """
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=root, capture_output=True, text=True, timeout=60
    )
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2, done.stderr
    deadline = time.monotonic() + 3
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
