"""What a checkpoint every so many steps costs, in `accel train` and in a loop with torch.save (goal G10).

    .venv/bin/python benchmarks/checkpoint.py --model resnet              ResNet-18 at batch 128, SGD
    .venv/bin/python benchmarks/checkpoint.py --model cnn                 the default run's net at batch 64, AdamW
    .venv/bin/python benchmarks/checkpoint.py --model cnn --rounds 1 --steps 60     a trial

Every sample is a whole training, timed from the end of step `every` to the end of the last: all between steps is in
it, with one checkpoint for every `every` steps. What a background process of accel's spends is in the CPU seconds.
blocked is what one checkpoint kept the loop from going on: accel's own clock, and the time around torch.save.
All four have to end with the same weights, bit for bit: saving changes nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import arms
import torch
from arms import Sample
from compare import interleave, ratio
from engine import LIKE_TORCH, MODELS, by_accel, by_other, prepare, proof

LIMIT = 1.03
LIMIT_OF_BLOCKED = 0.10
STEPS = {"resnet": 120, "cnn": 2000, "mlp": 2000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(MODELS), default="resnet")
    parser.add_argument("--every", type=int, default=20, help="steps between two checkpoints (20)")
    parser.add_argument("--steps", type=int, help="of a sample, a multiple of --every")
    arms.options(parser, rounds=8)
    given = parser.parse_args()
    given.steps = given.steps or STEPS[given.model]
    given.warm = given.every
    if given.steps % given.every or given.steps < 2 * given.every:
        parser.error(f"--steps {given.steps}: it takes a multiple of --every {given.every}, two of them at least")
    noise = arms.Noise()
    with tempfile.TemporaryDirectory() as folder:
        measure(given, Path(folder), noise)


def measure(given: argparse.Namespace, folder: Path, noise: arms.Noise) -> None:
    known = MODELS[given.model]
    facts = {}
    for place, every in (("none", 0), ("saved", given.every)):
        (folder / place).mkdir()
        facts = prepare(folder / place, known["words"], known["every"], given, save_every=every)
    common = [*LIKE_TORCH, f"metrics.every={known['every']}", f"hardware.threads={given.threads}"]

    def accel(place: str, every: int) -> Sample:
        found = by_accel("accel", [*common, f"checkpoint.every={every}"], folder / place, given)
        return found | {"blocked": found["phases"]["checkpoint"]}

    def hand(place: str) -> Sample:
        found = by_other("hand", sys.executable, folder / place, given.threads)
        return found | {"blocked": sum(found.get("blocked", []))}

    turns: dict[str, Callable[[], Sample]] = {
        "accel": partial(accel, "none", 10_000_000),
        "accel saving": partial(accel, "saved", given.every),
        "accel again": partial(accel, "none", 10_000_000),
        "hand": partial(hand, "none"),
        "hand saving": partial(hand, "saved"),
    }
    found = interleave(arms.chosen(turns, given.arm), given.rounds, arms.say)
    equal = proof(found, "hand" if "hand" in found else next(iter(found)))
    saves = (given.steps - given.every) // given.every
    title = (
        f"{given.model}: {facts['parameters']} parameters, a checkpoint every {given.every} steps, {saves} in the "
        f"{facts['steps']} steps that are timed, {given.threads} threads"
    )
    for name in ("accel", "hand"):
        shown = {arm: samples for arm, samples in found.items() if arm.startswith(name)}
        if shown:
            reference = name if name in shown else next(iter(shown))
            lines = arms.rows(shown, reference, unit=1e3 / facts["steps"], unit_name="ms/step", facts=equal)
            arms.show(title, lines)
    verdicts = arms.judge(found, "accel saving", "accel", "accel again", LIMIT)
    if "hand" in found and "hand saving" in found:
        for what in ("wall", "cpu"):
            own = ratio(arms.pick(found["hand saving"], what), arms.pick(found["hand"], what))
            verdicts.append(f"hand saving / hand, {what}: {own}")
    verdicts += blocked(found, saves)
    arms.close(given, verdicts, {}, {"samples": found, "facts": facts}, noise)


def blocked(found: dict[str, list[Sample]], saves: int) -> list[str]:
    """What one checkpoint takes of the loop's time, by the clock inside."""
    lines = [
        f"blocked by one checkpoint, {name}: "
        f"{1e3 * statistics.median(arms.pick(found[name], 'blocked')) / saves:.2f} ms"
        for name in ("accel saving", "hand saving")
        if name in found
    ]
    if len(lines) == 2:
        own = ratio(arms.pick(found["accel saving"], "blocked"), arms.pick(found["hand saving"], "blocked"))
        said = arms.by_bounds(own, LIMIT_OF_BLOCKED, len(found["accel saving"]))
        lines.append(f"blocked, accel / torch.save: {own}; at most {LIMIT_OF_BLOCKED:g}: {said}")
    return lines


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
