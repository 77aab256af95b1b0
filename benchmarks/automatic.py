"""What accel chooses by itself against torch's own settings, over five models on this machine.

    .venv/bin/python benchmarks/automatic.py                      the ratio for each model, and their geometric mean
    .venv/bin/python benchmarks/automatic.py --grid               and how far the choice is from the best of a hand grid
    .venv/bin/python benchmarks/automatic.py --model gpt --rounds 2 --seconds 0.5     a trial

plain is torch as it comes: eager, fp32, tensors as they are laid out, glibc's own allocation, optimizers in a Python
loop. auto is every lever set to auto. Each arm is a process of its own that has built its training; arms take turns, a
round at a time, and plain stands twice in a round: its ratio to itself is the floor. What trying and compiling took is
told apart: it is paid once, and counted against the length of the run when auto decides.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from compare import Ratio, interleave, ratio, table

MODELS = {
    "mlp": ["data=digits", "model=mlp"],
    "cnn": ["data=synthetic", "model=cnn"],
    "resnet": ["data=synthetic", "model=resnet", "model.blocks=[1,1,1]"],
    "gpt": ["data=stdlib_text", "data.max_bytes=400000", "model=gpt", "train.global_batch=16"],
    "vit": ["data=synthetic", "model=vit"],
}
STEPS = 50_000
"""The length that auto counts with: some minutes of the smallest model, hours of the largest."""
RUN = ["hardware=cpu", "train.epochs=null", f"train.steps={STEPS}", "evaluate.every=1000000",
       "checkpoint.every=1000000"]  # fmt: skip
PLAIN = ["precision=fp32", "compile=none", "hardware.memory_format=contiguous", "hardware.allocator=system",
         "optimizer.kernel=loop"]  # fmt: skip
AUTO = ["precision=auto", "compile=auto", "hardware.memory_format=auto", "hardware.allocator=auto",
        "optimizer.kernel=auto"]  # fmt: skip
GRID = {
    "precision": ["fp32", "bf16"],
    "compile": ["none", "full"],
    "hardware.memory_format": ["contiguous", "channels_last"],
}
WARM = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=list(MODELS))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one arm in one round")
    parser.add_argument("--grid", action="store_true", help="time every point of the grid too")
    parser.add_argument("--json", type=Path, help="write all samples and ratios here")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm:
        serve(json.loads(arguments.arm))
        return
    found = {name: compare(name, arguments) for name in arguments.model or MODELS}
    rows: list[list[object]] = [
        ["model", "plain / auto", "floor (plain / plain)", "CPU seconds", "auto chose", "paid once"]
    ]
    for name, each in found.items():
        chosen = " ".join(f"{key}={value}" for key, value in each["chosen"].items())
        rows.append([name, each["wall"], each["floor"], each["cpu"], chosen, f"{each['once']:.1f} s"])
    print(table(rows))
    print(f"geometric mean: {geometric([each['wall'] for each in found.values()])}")
    for name, each in found.items():
        losses = ", ".join(f"{kind} {loss:.4f}" for kind, loss in each["losses"].items())
        print(f"{name}: losses after the same steps: {losses}")
        if arguments.grid:
            print(f"{name}: best of {len(each['grid'])} points: {each['best']}; auto / best: {each['regret']}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


def compare(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    words = [*RUN, *MODELS[name]]
    with arms(plain=[*words, *PLAIN], auto=[*words, *AUTO], again=[*words, *PLAIN]) as found:
        steps = max(1, math.floor(arguments.seconds / min(arm.run(WARM)["wall"] for arm in found.values()) * WARM))
        samples = take_turns(found, steps, arguments.rounds, name)
        facts = {kind: arm.facts for kind, arm in found.items()}
    result: dict[str, Any] = {
        **{what: ratio(pick(samples["plain"], what), pick(samples["auto"], what)) for what in ("wall", "cpu")},
        "floor": ratio(pick(samples["again"], "wall"), pick(samples["plain"], "wall")),
        "chosen": facts["auto"]["chosen"],
        "once": facts["auto"]["seconds"] - facts["plain"]["seconds"],
        "losses": {kind: samples[kind][-1]["loss"] for kind in samples},
        "samples": samples,
    }
    return result | (grid(name, words, steps, arguments.rounds) if arguments.grid else {})


def grid(name: str, words: list[str], steps: int, rounds: int) -> dict[str, Any]:
    """Every point against auto, in turns; a point that is refused is none."""
    points: dict[str, Ratio] = {}
    with arms(auto=[*words, *AUTO]) as ours:
        for values in itertools.product(*GRID.values()):
            point = [f"{key}={value}" for key, value in zip(GRID, values, strict=True)]
            with arms(point=[*words, *point]) as found:
                if found:
                    for arm in (*ours.values(), *found.values()):
                        arm.run(WARM)
                    samples = take_turns({**ours, **found}, steps, max(3, rounds // 3), f"{name} {' '.join(point)}")
                    points[" ".join(point)] = ratio(pick(samples["auto"], "wall"), pick(samples["point"], "wall"))
    best = max(points, key=lambda point: points[point].middle)
    return {"grid": points, "best": best, "regret": points[best]}


@contextmanager
def arms(**words: list[str]) -> Iterator[dict[str, Arm]]:
    """A process for each, one built after another; those that are refused are left out."""
    found: dict[str, Arm] = {}
    try:
        for kind, own in words.items():
            found[kind] = Arm(own)
            if not found[kind].ready():
                found.pop(kind).close()
        yield found
    finally:
        for arm in found.values():
            arm.close()


def take_turns(found: dict[str, Arm], steps: int, rounds: int, name: str) -> dict[str, list[dict[str, float]]]:
    turns = {kind: partial(arm.run, steps) for kind, arm in found.items()}
    return interleave(turns, rounds, lambda text: print(f"{name}: {text}", file=sys.stderr))


class Arm:
    """A process that holds one training, and steps it when told to."""

    def __init__(self, words: list[str]) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        command = [sys.executable, __file__, "--arm", json.dumps(words)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.facts: dict[str, Any] = {}

    def ready(self) -> bool:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.facts = json.loads(line) if line else {}
        return bool(self.facts)

    def run(self, steps: int) -> dict[str, float]:
        """Wall and CPU seconds of that many steps, and the loss of the last."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer: dict[str, float] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def serve(words: list[str]) -> None:
    """The arm's own process: build, tell what was chosen, then a line of steps in, a line of seconds out."""
    from accel_cli.config.plan import plan
    from accel_cli.engine import setup
    from accel_cli.engine.settle import settle
    from accel_cli.engine.step import train_step

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    began = time.perf_counter()
    planned = plan(words)
    hardware, world = setup.enter(planned.run)
    run, measured = settle(planned.run, hardware, world, lambda text: None)
    t, decisions = setup.build(run, hardware, world, lambda text: None)
    t.train_mode()
    batches = t.loader.batches(0, t.steps)

    def steps(count: int) -> float:
        for _ in range(count):
            report = train_step(t, next(batches))
            t.step += 1
        return float(report.loss) / report.weight

    steps(1)  # makes the optimizer's state, and compiles
    kept = ("precision", "compile", "hardware.memory_format", "hardware.allocator")
    chosen = {d.key: d.value for d in [*planned.decisions, *measured, *decisions] if d.key in kept}
    print(json.dumps({"chosen": chosen, "seconds": time.perf_counter() - began}), file=answers, flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), used()
        loss = steps(int(line))
        answer = {"wall": time.perf_counter() - wall, "cpu": used() - cpu, "loss": loss}
        print(json.dumps(answer), file=answers, flush=True)


def used() -> float:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def pick(samples: list[dict[str, float]], what: str) -> list[float]:
    return [sample[what] for sample in samples]


def geometric(ratios: list[Ratio]) -> Ratio:
    """Of medians and of both bounds: the bounds are wider than 95% of the mean's own."""
    return Ratio(*(math.exp(sum(math.log(r[i]) for r in ratios) / len(ratios)) for i in range(3)))


if __name__ == "__main__":
    main()
