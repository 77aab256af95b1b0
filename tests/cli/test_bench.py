"""Law: the gate closes on a real slowdown, and on nothing else."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from accel_cli.analysis.bench import (
    FASTER,
    PARTS,
    REGRESSION,
    WITHIN,
    Samples,
    by_part,
    fewest_rounds,
    floor_of,
    is_sharp,
    slowdown_of,
    verdict,
)
from accel_cli.analysis.probes import AGAIN
from accel_cli.analysis.statistics import CANNOT_TELL, Interval

WORKER = """
import os
import torch
from torch import nn

class Net(nn.Module):
    '''Multiplies so many times for nothing; a variable says how many, so that the settings stay the same.'''

    def __init__(self, classes=10):
        super().__init__()
        self.layer, self.square = nn.Linear(64, classes), torch.rand(256, 256)

    def forward(self, x):
        for _ in range(int(os.environ["PRODUCTS"])):
            self.square @ self.square
        return self.layer(x.flatten(1))
"""
WORDS = ["model=custom", "model.factory=work:Net", "--plugin", "work.py", "hardware=cpu", "hardware.threads=1"]


def bench(folder: Path, *words: str, products: int = 20) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "accel_cli", "bench", *WORDS, "--error", "0.2", "--json", *words],
        cwd=folder, capture_output=True, text=True, timeout=120, env={**environment(), "PRODUCTS": str(products)},
    )  # fmt: skip


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bench")
    (made / "work.py").write_text(WORKER)
    saved = bench(made, "--save", "baseline.json", "--budget", "0.1")
    assert saved.returncode == 0, saved.stderr
    assert set(json.loads((made / "baseline.json").read_text())["samples"]) == {"run", AGAIN, *PARTS}
    return made


def test_work_that_takes_longer_is_found(folder: Path) -> None:
    ended = bench(folder, "--against", "baseline.json", "--max-slowdown", "5%", "--budget", "1", products=40)
    found = json.loads(ended.stdout)
    assert (ended.returncode, found["verdict"]) == (1, REGRESSION), found
    assert found["ratio"]["low"] > 1.05
    assert found["status"] == "settled"
    assert json.loads((Path(found["run"]) / "bench.json").read_text())["samples"] == found["samples"]


def test_the_same_run_passes(folder: Path) -> None:
    ended = bench(folder, "--against", "baseline.json", "--budget", "0.1")
    found = json.loads(ended.stdout)
    assert ended.returncode == 0, found
    assert found["verdict"] != REGRESSION
    assert set(found["machine"]) == set(found["by_part"]) == set(PARTS)


def test_what_is_no_baseline_of_this_run_is_refused(folder: Path) -> None:
    kept = json.loads((folder / "baseline.json").read_text())
    other = {**kept, "place": {**kept["place"], "cpu": "another"}}
    (folder / "other.json").write_text(json.dumps(other))
    (folder / "short.json").write_text(json.dumps({**kept, "samples": {k: v[:3] for k, v in kept["samples"].items()}}))
    (folder / "damaged.json").write_text("{")
    for words, why in {
        ("--against", "other.json"): "is of another run: cpu ",
        ("--against", "baseline.json", "train.global_batch=32"): "train.global_batch=32 for 64",
        ("--against", "short.json"): "holds 3 rounds; --error 0.2 needs 6",
        ("--against", "damaged.json"): "is no baseline of accel bench",
        ("--against", "absent.json"): "cannot be read: No such file or directory",
        (): "needs one of --save and --against",
    }.items():
        refused = bench(folder, *words)
        assert refused.returncode == 2
        assert why in refused.stderr


def samples(draw: random.Random, count: int, noise: float, slower: float = 1.0, **machine: float) -> Samples:
    """A run of equal parts on a machine some of whose parts are slower; every round has a speed of its own."""
    made: Samples = {name: [] for name in ("run", AGAIN, *PARTS)}
    speeds = {part: machine.get(part, 1.0) for part in PARTS}
    for _ in range(count):
        speed = math.exp(draw.gauss(0, 0.3))
        for name in made:
            seconds = speeds[name] if name in speeds else slower * sum(speeds.values()) / len(speeds)
            made[name].append(speed * seconds * math.exp(draw.gauss(0, noise)))
    return made


def judged(new: Samples, old: Samples, most: float = 0.05) -> str:
    ratio = slowdown_of(new, old, 0.001)
    return verdict(ratio, floor_of(new, 0.001), most, by_part(new, old))


@pytest.mark.parametrize(
    ("slower", "noise", "said"),
    [(1.0, 0.005, WITHIN), (1.1, 0.005, REGRESSION), (0.8, 0.005, FASTER), (1.055, 0.02, CANNOT_TELL)],
)
def test_a_machine_of_changing_speed_cancels(slower: float, noise: float, said: str) -> None:
    draw = random.Random(3)
    old, new = samples(draw, 40, noise), samples(draw, 40, noise, slower)
    assert judged(new, old) == said
    assert is_sharp(old, 0.001, 0.05) is (noise < 0.01)


def test_a_machine_that_is_another_is_no_regression() -> None:
    """A run that is arithmetic only, on a machine whose arithmetic alone has become slower."""
    draw: Any = random.Random(4)
    old, new = samples(draw, 40, 0.005), samples(draw, 40, 0.005, products=1.5)
    new["run"], new[AGAIN] = ([1.3 * value for value in new[name]] for name in ("run", AGAIN))
    assert slowdown_of(new, old, 0.001).low > 1.05
    assert judged(new, old) == CANNOT_TELL


def test_false_alarms_are_as_rare_as_was_asked_for() -> None:
    """Looking after every round, and stopping at the first that closes the gate."""
    draw, alarms, trials = random.Random(5), 0, 300
    for _ in range(trials):
        old, new = samples(draw, 20, 0.05), samples(draw, 30, 0.05, slower=1.05)
        looks = ({name: values[:count] for name, values in new.items()} for count in range(8, 31))
        alarms += any(slowdown_of(look, old, 0.1).low > 1.05 for look in looks)
    assert alarms / trials <= 0.1


def test_too_few_rounds_say_nothing() -> None:
    draw, least = random.Random(6), fewest_rounds(0.001)
    old = samples(draw, least, 0.001)
    assert slowdown_of(samples(draw, least - 1, 0.001, slower=3), old, 0.001).low == 0
    assert slowdown_of(samples(draw, least, 0.001, slower=3), old, 0.001).low > 2
    assert verdict(Interval(1.0, 0.0, math.inf), Interval(1.0, 0.0, math.inf), 0.05, {"python": 9.0}) == CANNOT_TELL
