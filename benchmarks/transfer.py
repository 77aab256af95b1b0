"""What is computed once against what is computed in every step, taking turns.

    .venv/bin/python benchmarks/transfer.py features    an epoch of a model frozen but for its head / on features
    .venv/bin/python benchmarks/transfer.py teacher     a step with a teacher's cached outputs / one without

features: seconds of an epoch, its validation included, of the same head of the same resnet on the same images in the
same order, and how far the losses of the first epoch are apart. What computing the features once took is told beside.
teacher: a step of a resnet; and, with a teacher that computes anew in each step, as well. The floor is the denominator
against itself. Every arm is a training of this process; on one thread, the default, seconds are those that it computed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from compare import Ratio, interleave, merged, ratio, table, verdict

from accel_cli.api import train
from accel_cli.cli.plan import plan
from accel_cli.engine import setup
from accel_cli.engine.evaluate import evaluate
from accel_cli.engine.step import train_step

IMAGES = ["hardware=cpu", "data=synthetic", "data.samples=400", "train.global_batch=64", "evaluate.batch=64",
          "hardware.memory_format=contiguous"]  # fmt: skip
RESNET = [*IMAGES, "model=resnet", "model.width=32", "model.blocks=[1,1,1]"]
STUDENT = [*IMAGES, "model=resnet", "model.width=16", "model.blocks=[1,1]"]
FROZEN = "transfer.freeze=[stem.*,blocks.*]"
LEAST = 20.0
"""Times that an epoch on cached features is faster."""
MOST = 1.05
"""Of a step with a teacher's cached outputs, against one without."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("features", "teacher"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10, help="of one arm in one round, of the part teacher")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        trained = Path(folder) / "trained"
        train(merged([*RESNET, "train.epochs=null", "train.steps=4"]), run_dir=trained)
        {"features": features, "teacher": teacher}[given.part](trained, given)


def features(trained: Path, given: argparse.Namespace) -> None:
    words = [*RESNET, f"transfer.weights={trained}", "train.epochs=1000"]
    whole = Arm([*words, "transfer=finetune", FROZEN])
    head = Arm([*words, "transfer=frozen_features"])
    again = Arm([*words, "transfer=frozen_features"])
    pairs = zip(whole.losses(), head.losses(), strict=True)
    apart = max(abs(a - b) / abs(a) for a, b in pairs)
    arms = {"whole": whole.epoch, "head": head.epoch, "head again": again.epoch}
    found = interleave(arms, given.rounds)
    faster, floor = ratio(found["whole"], found["head"]), ratio(found["head again"], found["head"])
    told = "holds" if faster.low >= LEAST else "broken" if faster.high < LEAST else "cannot tell"
    rows = [
        ["whole / head", "floor", f"at least {LEAST:g}", "losses apart", "epoch, s", "once, s"],
        [faster, floor, told, f"{apart:.1e}", f"{min(found['head']):.4f}", f"{head.building - again.building:.1f}"],
    ]
    print(table(rows))


def teacher(trained: Path, given: argparse.Namespace) -> None:
    key = "compression.passes.distill"
    words = [*STUDENT, "train.epochs=1000"]
    taught = [*words, "compression=distill", f"{key}.teacher={trained}", f"{key}.checkpoint=latest"]
    trainings = {
        "plain": Arm(words),
        "plain again": Arm(words),
        "cached": Arm(taught),
        "online": Arm([*taught, f"{key}.cache=false"]),
    }
    arms: dict[str, Callable[[], float]] = {name: (lambda a=a: a.steps(given.steps)) for name, a in trainings.items()}  # type: ignore[misc]
    found = interleave(arms, given.rounds)
    floor: Ratio = ratio(found["plain again"], found["plain"])
    rows: list[list[object]] = [["step", "ms", "against plain", f"at most {MOST}"]]
    for name in arms:
        against = ratio(found[name], found["plain"])
        limit = verdict(against, floor, MOST) if name == "cached" else ""
        rows.append([name, f"{min(found[name]) * 1e3:.2f}", against, limit])
    print(table(rows))


def clock() -> float:
    """Seconds that one thread has computed, which neighbours don't lengthen; of several, seconds that have passed."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


class Arm:
    """A training, stepped by hand."""

    def __init__(self, words: list[str]) -> None:
        run = plan(merged([*words, f"hardware.threads={torch.get_num_threads()}"])).run
        began = clock()
        self.training, _ = setup.build(run, *setup.enter(run), lambda line: None)
        self.building = clock() - began
        self.training.train_mode()
        self._batches: Iterator[list[Any]] = self.training.loader.batches(0, self.training.steps)

    def step(self) -> Any:
        report = train_step(self.training, next(self._batches))
        self.training.step += 1
        return report

    def losses(self) -> list[float]:
        """Of the steps of one epoch."""
        return [float(self.step().loss) for _ in range(self._length)]

    def epoch(self) -> float:
        """Seconds of one, with its validation."""
        began = clock()
        self.losses()
        evaluate(self.training, "validation")
        return clock() - began

    def steps(self, count: int) -> float:
        """Seconds of a step."""
        began = clock()
        for _ in range(count):
            self.step()
        return (clock() - began) / count

    @property
    def _length(self) -> int:
        return -(-int(self.training.description.train_samples or 0) // self.training.work.global_batch)


if __name__ == "__main__":
    main()
