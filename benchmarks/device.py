"""What accel adds to a step on a GPU, and what each lever gives there: arms that stay, and take turns.

    .venv/bin/python benchmarks/device.py                                   ResNet-18 on 3x32x32 at batch 512, bf16
    .venv/bin/python benchmarks/device.py --lever precision=fp32 --lever precision=tf32 --lever compile=full
    .venv/bin/python benchmarks/device.py --model wide --lever "precision=fp8 compile=full"
    .venv/bin/python benchmarks/device.py --hardware cpu --model cnn --rounds 2 --steps 4 --warm 4      a trial

hand   the loop of benchmarks/engine.py with accel's guard, in the same precision, all samples on the device
accel  the real `accel train` with loader=device, its records and events; a lever is the same with words more

Every arm is one process that has built, chosen its kernels and compiled before the first round; all of them are there
at once, and one at a time steps. The clock waits for the device before and after. Hand and accel are proven equal by
their last weights: on a GPU within a few times what the hand loop differs from itself, whose sums have no order there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import arms
import torch
from arms import Held, Sample
from compare import interleave, merged
from engine import LIKE_TORCH, MODELS, PLUGIN, QUIET, prepare, told_weights
from safetensors.torch import load_file

SLACK = 4.0
"""Times what the hand loop differs from itself, up to which accel's weights count as equal."""
CLOSE = 1e-6
"""Of the largest weight: what they may differ by in any case."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(MODELS), default="resnet18")
    parser.add_argument("--hardware", default="cuda")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="bf16", help="of hand and accel")
    parser.add_argument("--lever", action="append", default=[], metavar="WORDS", help="one more arm of accel")
    parser.add_argument("--steps", type=int, default=40, help="of one turn")
    parser.add_argument("--warm", type=int, default=40, help="steps before the first turn")
    arms.options(parser, rounds=10)
    given = parser.parse_args()
    noise = arms.Noise()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        measure(given, Path(folder), stack, noise)


def measure(given: argparse.Namespace, folder: Path, stack: ExitStack, noise: arms.Noise) -> None:
    known, each = MODELS[given.model], given.steps
    given.steps, given.clip = given.warm + each * given.rounds, None
    facts = prepare(folder, known["words"], known["every"], given, last=given.warm + each,
                    device=given.hardware, precision=given.precision)  # fmt: skip
    hand = [sys.executable, str(arms.HERE / "engine_arm.py"), "hand"]
    commands = {"hand": hand, "accel": [], "hand again": hand, **{words: [] for words in given.lever}}
    held: dict[str, Held] = {}
    places = {name: folder / str(number) for number, name in enumerate(commands)}
    for name, command in commands.items():
        at = arms.folder(places[name])
        words = [] if name == "accel" else name.split()
        made = [*command, str(at)] if command else accel(given, at, known["every"], words, given.warm + each)
        held[name] = Held(made, given.threads, at)
        stack.callback(held[name].close)
    missing: dict[str, str] = {}
    for name in list(held):
        try:
            first = held[name].answer()
            if first.get("parameters", facts["parameters"]) != facts["parameters"]:
                raise SystemExit(f"unequal work: {name} has {first['parameters']} parameters; the ratios are void")
        except arms.Failed as error:
            missing[name] = str(error)
            held.pop(name).close()
    found = interleave({name: partial(turn, arm, each) for name, arm in held.items()}, given.rounds, arms.say)
    for arm in held.values():
        arm.let_go()
    for arm in held.values():
        arm.finish()
    equal = proof({name: places[name] for name in held if name in ("hand", "hand again", "accel")})
    title = (
        f"{given.model} on {device_name(given.hardware)}: {facts['parameters']} parameters, batch "
        f"{facts['samples'] // given.steps}, {given.precision}, {given.rounds} turns of {each} steps"
    )
    lines = arms.rows(found, "hand", unit=1e3 / each, unit_name="ms/step", facts=equal)
    arms.show(title, lines)
    if levers := {name: samples for name, samples in found.items() if name == "accel" or name in given.lever}:
        arms.show("each lever beside accel", arms.rows(levers, "accel", unit=1e3 / each, unit_name="ms/step"))
    for name, samples in found.items():
        rate = facts["samples"] / given.steps * each / sorted(arms.pick(samples, "wall"))[len(samples) // 2]
        print(f"{name}: {rate:,.0f} samples per second")
    verdicts = arms.judge(found, "accel", "hand", "hand again", 1.05)
    arms.close(given, verdicts, missing, {"samples": found, "equal": equal, "facts": facts}, noise)


def turn(arm: Held, steps: int) -> Sample:
    """Told at once: a lease on a machine may end before the report."""
    found = arm.run()
    arms.say(f"    {found['wall'] / steps * 1e3:.4g} ms a step")
    return found


def accel(given: argparse.Namespace, at: Path, every: int, lever: list[str], last: int) -> list[str]:
    """The command line itself, with the model and the samples of the loop by hand."""
    where = f"folder:{at}"
    words = [
        *QUIET, *given.words, "data=custom", "data.factory=inside:data", f"data.args={{{where}}}", "loader=device",
        "model=custom", "model.factory=inside:model", f"model.args={{{where},first:{given.warm},last:{last}}}",
        f"train.steps={given.steps}", *LIKE_TORCH, f"metrics.every={every}", "checkpoint.every=1000000",
        f"hardware={given.hardware}", f"precision={given.precision}", f"hardware.threads={given.threads}", *lever,
    ]  # fmt: skip
    return [*arms.ACCEL, "train", "--json", "--run-dir", str(at / "run"), *PLUGIN, *merged(words)]


def proof(places: dict[str, Path]) -> dict[str, str]:
    """How the last weights of the arms lie beside the hand loop's; unequal work voids all."""
    weights: dict[str, dict[str, torch.Tensor]] = {}
    for name, at in places.items():
        run = at / "run" / "checkpoints" / "latest" / "model.safetensors"
        found: Sample = told_weights(load_file(run) if run.exists() else torch.load(at / "weights.pt"))
        weights[name] = found["weights"]
    theirs = weights["hand"]
    largest = max(float(value.abs().max()) for value in theirs.values())

    def apart(name: str) -> float:
        own = weights[name]
        if own.keys() != theirs.keys():
            raise SystemExit(f"unequal work: {name} has other tensors than hand; the ratios are void")
        return max(float((own[key].double() - theirs[key].double()).abs().max()) for key in theirs) / largest

    floor = apart("hand again") if "hand again" in weights else 0.0
    told = {}
    for name in places:
        far = apart(name)
        if not far <= max(SLACK * floor, CLOSE):
            raise SystemExit(f"unequal work: {name} is {far:.1e} of the largest weight apart, hand again {floor:.1e}")
        told[name] = "the same bits" if far == 0.0 else f"within {far:.0e} of the largest weight"
    return told


def device_name(hardware: str) -> str:
    return torch.cuda.get_device_name() if hardware == "cuda" else hardware


if __name__ == "__main__":
    main()
