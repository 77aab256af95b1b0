"""What is computed once against what is computed in every step, taking turns.

    .venv/bin/python benchmarks/transfer.py features    an epoch of a model frozen but for its head / on features
    .venv/bin/python benchmarks/transfer.py teacher     a step with a teacher's cached outputs / one without
    .venv/bin/python benchmarks/transfer.py probe --images FOLDER   eight classes of CIFAR-10, then two

features: seconds of an epoch, its validation included, of the same head of the same resnet on the same images in the
same order, and how far the losses of the first epoch are apart. What computing the features once took is told beside.
teacher: a step of a resnet; and, with a teacher that computes anew in each step, as well. The floor is the denominator
against itself.
probe: test accuracy on two classes of a net that was trained on the other eight, of its head alone and of all of it,
against the same net from scratch: the same few samples, steps and batches, and for every arm the rate that is best on
validation. Each seed leaves two other classes out and draws other samples.
Every arm is a training of this process; on one thread, the default, seconds are those that it computed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from compare import Ratio, interleave, merged, ratio, table, verdict

from accel_cli.api import train
from accel_cli.config import factory
from accel_cli.config.plan import plan
from accel_cli.engine import setup
from accel_cli.engine.evaluate import evaluate
from accel_cli.engine.step import train_step

IMAGES = ["hardware=cpu", "data=synthetic", "data.samples=400", "train.global_batch=64", "evaluate.batch=64",
          "hardware.memory_format=contiguous"]  # fmt: skip
RESNET = [*IMAGES, "model=resnet", "model.width=32", "model.blocks=[1,1,1]"]
STUDENT = [*IMAGES, "model=resnet", "model.width=16", "model.blocks=[1,1]"]
FROZEN = "transfer.freeze=[stem.*,blocks.*]"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PAIRS = (("automobile", "horse"), ("deer", "truck"), ("bird", "ship"), ("cat", "airplane"), ("dog", "frog"))
"""Classes that are left out in pretraining: those of seed 0, 1, ...; then again."""
RATES = (0.003, 0.01, 0.03)
LEAST = 20.0
"""Times that an epoch on cached features is faster."""
MOST = 1.05
"""Of a step with a teacher's cached outputs, against one without."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("features", "teacher", "probe"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10, help="of one arm in one round, of the part teacher")
    parser.add_argument("--seeds", type=int, default=5, help="of the part probe")
    parser.add_argument("--samples", type=int, default=10, help="of each class to train on, of the part probe")
    parser.add_argument("--images", type=Path, help="folder that holds train/<class>/* of CIFAR-10, for the part probe")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        trained = Path(folder) / "trained"
        if given.part == "probe":
            probe(Path(folder), given)
            return
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


def probe(folder: Path, given: argparse.Namespace) -> None:
    found: dict[str, list[float]] = {}
    seen: dict[str, set[str]] = {}
    for seed in range(given.seeds):
        pair = PAIRS[seed % len(PAIRS)]
        trained = folder / str(seed)
        eight = few(given.images, seed, [name for name in CLASSES if name not in pair], 900, 300, 64)
        summary = train([*eight, "train.steps=250", "optimizer.learning_rate=0.005"], run_dir=trained, plugins=[PLUGIN])
        print(f"seed {seed}: {summary['metric']['value']:.3f} on eight classes; then {' or '.join(pair)}", flush=True)
        begun = few(given.images, seed, pair, 600, given.samples, 2 * given.samples)
        begun = [*begun, "train.steps=40", f"transfer.weights={trained}"]
        arms = {
            "scratch": [*begun[:-1]],
            "linear_probe": [*begun, "transfer=linear_probe"],
            "finetune": [*begun, "transfer=finetune"],
        }
        for name, words in arms.items():
            tried = [Arm([*words, f"optimizer.learning_rate={rate}"]) for rate in RATES]
            scores = [arm.scores() for arm in tried]
            best = max(
                range(len(RATES)), key=lambda n: (scores[n]["validation_accuracy"], -scores[n]["validation_loss"])
            )
            found.setdefault(name, []).append(scores[best]["test_accuracy"])
            seen.setdefault(name, set()).update(type(arm.training.data).__name__ for arm in tried)
    rows: list[list[object]] = [["arm", "test accuracy", "std", "least", "n", "ahead of scratch in", "trained on"]]
    for name, values in found.items():
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        ahead = sum(a > b for a, b in zip(values, found["scratch"], strict=True))
        inputs = "cached features" if seen[name] == {"Features"} else "images"
        rows.append([name, f"{statistics.mean(values):.3f}", f"{spread:.3f}", f"{min(values):.3f}", len(values),
                     f"{ahead} of {len(values)}" if name != "scratch" else "", inputs])  # fmt: skip
    print(table(rows))


PLUGIN = str(Path(__file__).with_name("few_images.py"))


def few(images: Path, seed: int, classes: Sequence[str], of: int, samples: int, batch: int) -> list[str]:
    """A small net on so many samples of each of these classes."""
    arguments = f"{{root:{images.resolve()},classes:[{','.join(classes)}],of:{of},train:{samples},seed:{seed}}}"
    return ["hardware=cpu", "model=cnn", "model.channels=[16,32,64]", "data=custom", "data.factory=few_images:Images",
            f"data.args={arguments}", f"train.global_batch={batch}", "train.epochs=null", f"train.seed={seed}",
            "hardware.memory_format=contiguous", "evaluate.every=1000", "checkpoint.every=1000"]  # fmt: skip


def clock() -> float:
    """Seconds that one thread has computed, which neighbours don't lengthen; of several, seconds that have passed."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


class Arm:
    """A training, stepped by hand."""

    def __init__(self, words: list[str]) -> None:
        run = plan(merged([*words, f"hardware.threads={torch.get_num_threads()}"]), plugins=[PLUGIN]).run
        factory.grant([PLUGIN])
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

    def scores(self) -> dict[str, float]:
        """After all its steps."""
        for _ in range(self.training.steps):
            self.step()
        return {**evaluate(self.training, "validation"), **evaluate(self.training, "test")}

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
