"""Probe: a run's training, set up for real, that takes steps when it is told to and says how long they took."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accel_cli.config.run import Run
from accel_cli.engine.batches import augmentation
from accel_cli.engine.finish import bytes_sent
from accel_cli.engine.traffic import Traffic
from accel_cli.engine.trial import WARM, Trial
from accel_cli.world import World


class Link:
    """The probe's end of the socket through which it is told what to do, a JSON object a line each way."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("r")

    def answer(self, facts: dict[str, Any]) -> None:
        self._socket.sendall((json.dumps(facts) + "\n").encode())

    def order(self) -> dict[str, Any] | None:
        """The next one; None where nobody is there any more."""
        line = self._lines.readline()
        return json.loads(line) if line else None


class Seat:
    """A rank's place on a stage: it tells of itself, and takes a turn for each order until nobody orders any more."""

    def __init__(self, world: World, link: Path) -> None:
        os.setpgid(0, 0)  # one signal freezes this rank with all that it has started, while others are on stage
        self._world = world
        self._link = Link(link) if world.is_first else None

    def ready(self, hardware: Any, **facts: Any) -> None:
        """A collective: the facts, the processes of all ranks, and the most memory that one of them has taken."""
        told = self._world.gather((hardware.peak_memory(), hardware.peak_host_memory(), os.getpid()))
        devices = [device for device, _, _ in told if device is not None]
        peaks = {"device": max(devices, default=None), "host": max(host for _, host, _ in told)}
        self._answer({**facts, "processes": [process for _, _, process in told], "peak_memory_bytes": peaks})

    def obey(self, turn: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """A collective: ``turn`` is called with every order, on all ranks; the first one's answer is told."""
        while (order := self._world.gather(self._link.order() if self._link is not None else None)[0]) is not None:
            self._answer(turn(order))

    def _answer(self, facts: dict[str, Any]) -> None:
        if self._link is not None:
            self._link.answer(facts)


def serve(run: Run, hardware: Any, world: World, link: Path, prepare_seconds: float) -> None:
    """Set up, take the first steps, then a turn for each order; a collective. Returns when nobody orders any more.

    An order {"steps", "uncounted", "place"} is answered with the {"seconds"} of its counted steps. ``place`` is
    the share of the run that is done: where sizes grow it matters.
    """
    seat, began = Seat(world, link), time.perf_counter()
    with Trial(run, hardware, world) as trial:
        t = trial.training
        setup_seconds, first = time.perf_counter() - began, _timed(trial, 1)
        warm = min(_timed(trial, 1) for _ in range(WARM + 1))
        traffic = Traffic(t)
        for _ in traffic.steps:
            traffic.step(t, trial.batches())
        sent = bytes_sent(t, traffic.bytes, t.steps)
        seat.ready(
            hardware,
            setup_seconds=setup_seconds,
            prepare_seconds=prepare_seconds,
            first_seconds=first,
            step_seconds=warm,
            communication_bytes=None if sent is None else sent // t.steps,
            global_batch=t.work.global_batch,
        )
        augment = augmentation(run, t.description)
        grows = augment is not None and augment.grows

        def turn(order: dict[str, Any]) -> dict[str, Any]:
            if grows:
                trial.go_to(round(order["place"] * t.steps))
            for _ in range(order["uncounted"]):
                trial.step()
            return {"seconds": _timed(trial, order["steps"])}

        seat.obey(turn)


def _timed(trial: Trial, steps: int) -> float:
    """Seconds of so many steps, of the slowest rank."""
    t = trial.training
    t.hardware.synchronize()
    t.world.barrier()
    began = time.perf_counter()
    for _ in range(steps):
        trial.step()
    t.hardware.synchronize()
    t.world.barrier()
    return time.perf_counter() - began
