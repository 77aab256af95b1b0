"""Where the time of a step goes, on a host and on a device that works by itself."""

from __future__ import annotations

import time

import pytest
import torch

from accel_cli.description import DataDescription
from accel_cli.engine.clock import COUNT, FIRST, PHASES, Clock
from accel_cli.loader.finish import Finish

WORK = {"copy": 0.002, "forward": 0.004, "backward": 0.008, "optimizer": 0.002}


class Device:
    """Takes work at once, and has done it some time later."""

    def __init__(self) -> None:
        self.free = 0.0
        self.waits = 0

    def launch(self, seconds: float) -> None:
        self.free = max(self.free, time.perf_counter()) + seconds

    def synchronize(self) -> None:
        self.waits += 1
        time.sleep(max(0.0, self.free - time.perf_counter()))


def trained(data: float, steps: int = 24) -> tuple[Clock, Device]:
    """A loop that reads a batch in so many seconds while the device works, and waits for the step before the last."""
    clock, device = Clock(), Device()
    clock.watch(0, device.synchronize)
    for step in range(steps):
        clock.begin(step)
        time.sleep(data)
        clock.mark("data")
        before = device.free
        for phase, seconds in WORK.items():
            device.launch(seconds)
            clock.mark(phase)
        time.sleep(max(0.0, before - time.perf_counter()))
        clock.mark("other")
    clock.lay_out()
    return clock, device


@pytest.mark.flaky(reruns=2)
def test_launching_is_no_work() -> None:
    """Whatever the loop waits in, the phases have what the device takes; reading meanwhile costs nothing."""
    clock, device = trained(data=0.004)
    shares = clock.shares()
    assert sum(shares.values()) == pytest.approx(1, abs=0.001)
    assert shares["backward"] == pytest.approx(0.5, abs=0.1)
    assert shares["forward"] == pytest.approx(0.25, abs=0.08)
    assert shares["data"] < 0.15
    assert device.waits == COUNT * 6 + 1  # and one before them; the other steps cost nothing


@pytest.mark.flaky(reruns=2)
def test_what_the_device_waits_for_is_data() -> None:
    clock, _ = trained(data=0.03)
    shares = clock.shares()
    assert shares["data"] == pytest.approx(14 / 30, abs=0.12)
    assert shares["backward"] == pytest.approx(8 / 30, abs=0.08)


def test_a_host_is_timed_as_it_goes() -> None:
    clock = Clock()
    for _ in range(3):
        time.sleep(0.002)
        clock.mark("forward")
    before = dict(clock.seconds)
    clock.lay_out()
    assert clock.seconds == before
    assert clock.marks == {**dict.fromkeys(PHASES, 0), "forward": 3}
    assert FIRST > 0


@pytest.mark.flaky(reruns=2)
def test_time_that_is_left_out_belongs_to_no_phase() -> None:
    clock = Clock()
    began = time.perf_counter()
    time.sleep(0.02)
    clock.leave_out(time.perf_counter() - began)
    assert clock.mark("optimizer") < 0.01


def test_a_copy_is_a_step_of_its_own_where_the_device_is_not_the_host() -> None:
    description = DataDescription(input="vector", input_shape=(3,), target="class", outputs=2, train_samples=4)
    marks: list[str] = []
    for device, expected in (("meta", ["data", "copy"]), ("cpu", [])):
        marks.clear()
        finish = Finish(description, torch.device(device))
        finish.mark = marks.append
        finish((torch.zeros(4, 3), torch.zeros(4)), torch.zeros(4), torch.arange(4))
        assert marks == expected
