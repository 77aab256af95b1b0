"""Arms on one stage: real ranks, timed in turns, frozen meanwhile, gone afterwards."""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from accel_cli.analysis.probes import AGAIN, Failed, Probe, Stage, usual_of
from accel_cli.config.plan import Plan, plan
from accel_cli.launch.crew import Crew

SLEEPER = """
import time
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10, delay=0.0, fails=False):
        super().__init__()
        self.layer = nn.Linear(64, classes)
        self.delay, self.fails = delay, fails

    def forward(self, x):
        time.sleep(self.delay)
        if self.fails:
            raise ValueError("my own bug")
        return self.layer(x.flatten(1))
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("stage")
    (folder / "sleeper.py").write_text(SLEEPER)
    with contextlib.chdir(folder):
        yield folder


@pytest.fixture(scope="module")
def crew(here: Path) -> Iterator[Crew]:
    with Crew() as made:
        yield made


def sleeper(*words: str) -> Plan:
    base = ["model=custom", "model.factory=sleeper:Net", "train.global_batch=32"]
    return plan([*base, *words], plugins=["sleeper.py"])


def test_a_round_times_every_arm_that_runs(crew: Crew, here: Path) -> None:
    arms = {
        "baseline": sleeper("model.args={delay: 0.01}"),
        "slower": sleeper("model.args={delay: 0.04}"),
        "broken": sleeper("model.args={fails: true}"),
        "two": sleeper("model.args={delay: 0.01}", "+strategy=ddp", "launch.processes=2"),
    }
    stage = Stage(crew, arms, here / "arms")
    looks = stage.look()
    assert looks["broken"].cause == "ValueError: my own bug"
    assert looks["two"].facts["communication_bytes"] > 0
    assert looks["baseline"].facts["peak_memory_bytes"]["host"] > 1 << 20
    found = stage.round()
    assert set(found) == {"baseline", AGAIN, "slower", "two"}
    assert found["baseline"] == pytest.approx(found[AGAIN], rel=0.6)
    assert found["slower"] / found["baseline"] > 2
    assert set(stage.round(["slower"])) == {"baseline", AGAIN, "slower"}


def test_who_is_not_on_stage_is_frozen_and_whoever_has_left_is_gone(crew: Crew, here: Path) -> None:
    planned = sleeper("+strategy=ddp", "launch.processes=2")
    probe = Probe(crew, planned, here / "arm", like=here / "arm")
    processes = list(probe.facts["processes"])

    def states() -> list[str]:
        said = subprocess.run(
            ["ps", "-o", "state=", "-p", ",".join(map(str, processes))], capture_output=True, text=True
        )
        return [line.strip()[0] for line in said.stdout.splitlines()]

    def become(wanted: list[str]) -> bool:
        """The kernel stops a process when it next runs."""
        return any(states() == wanted or time.sleep(0.05) for _ in range(100))

    assert become(["T", "T"])
    assert probe.turn(3, 0.5) > 0
    assert become(["T", "T"])
    probe.close()
    assert any(all(state == "Z" for state in states()) or time.sleep(0.05) for _ in range(100))


def test_an_arm_that_dies_on_stage_says_why(crew: Crew, here: Path) -> None:
    probe = Probe(crew, sleeper(), here / "other", like=here / "other")
    subprocess.run(["kill", "-9", str(probe.facts["processes"][0])], check=True)
    with pytest.raises(Failed, match="SIGKILL"):
        probe.turn(3, 0.5)
    probe.close()


def test_what_a_turn_takes_neither_drifts_nor_bursts_with_the_machine() -> None:
    """A machine that goes from fast to half as fast meanwhile, and a quarter of turns that take three times as long."""
    draw = random.Random(0)
    machine = [1 + turn / 15 for turn in range(16)]

    def turns(seconds: float) -> list[float]:
        bursts = draw.sample([3.0] * 4 + [1.0] * 12, 16)
        return [seconds * speed * burst for speed, burst in zip(machine, bursts, strict=True)]

    slower = usual_of(turns(1.1), machine) / usual_of(turns(1.0), machine)
    assert slower == pytest.approx(1.1)
