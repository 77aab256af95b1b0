"""What accel's engine adds to a training step, beside a loop by hand, HF Accelerate and Lightning (goal G1).

    .venv/bin/python benchmarks/engine.py --model mlp                         784-128-10 at batch 64
    .venv/bin/python benchmarks/engine.py --model resnet                      ResNet-18 on 3x32x32 at batch 128
    .venv/bin/python benchmarks/engine.py --model mlp --peers DIR             with the peers of benchmarks/peers.py
    .venv/bin/python benchmarks/engine.py --model mlp --rounds 2 --steps 60 --warm 10     a trial

Every sample is a process of its own: it imports, builds, warms up, and is timed between two steps, the CPU seconds of
all its processes with it. All arms take the same model object, the same kernel of the optimizer over the same groups
and the same batches of tensors in memory, so that their last weights are the same bits, which the table tells.

hand        a loop as one writes it, with accel's guard: a non-finite gradient changes no weight (found_inf)
unguarded   the same without the guard; dataloader, accelerate and the Lightning arms have none either
accel       the real `accel train`: schedule, records, events, early stopping, a checkpoint section that waits
dataloader  the loop on DataLoader(TensorDataset)
lightning   barebones, its own setting for measuring itself; lightning_full has CSVLogger and the progress bar

Equal footing: accel runs with hardware.allocator=system, hardware.memory_format=contiguous and the arms' threads, and
all arms' OpenMP threads wait as accel's do. --as-shipped leaves accel its own choices, and the others theirs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import arms
import peers
import torch
from arms import Sample
from compare import interleave, merged, ratio
from safetensors.torch import load_file

from accel_cli.config.parts import implementation
from accel_cli.config.plan import plan
from accel_cli.engine.setup import seed_everything
from accel_cli.loader.finish import Finish
from accel_cli.loader.order import Order
from accel_cli.optimizer.groups import parameter_groups

MODELS: dict[str, dict[str, Any]] = {
    "mlp": {
        "words": ["model=mlp", "model.widths=[128]", "data=synthetic", "data.shape=vector", "data.features=784",
                  "data.samples=8192", "train.global_batch=64", "optimizer=adamw"],
        "steps": 2500, "warm": 500, "every": 50, "limit": 1.05,
    },
    "resnet": {
        "words": ["model=resnet", "data=synthetic", "data.samples=4096", "train.global_batch=128", "optimizer=sgd",
                  "optimizer.learning_rate=0.05"],
        "steps": 36, "warm": 6, "every": 10, "limit": 1.01,
    },
    "resnet18": {
        "words": ["model=resnet", "model.width=64", "data=synthetic", "data.samples=8192", "train.global_batch=512",
                  "optimizer=sgd", "optimizer.learning_rate=0.05"],
        "every": 10,
    },
    "wide": {
        "words": ["model=mlp", "model.widths=[4096,4096,4096,4096]", "data=synthetic", "data.shape=vector",
                  "data.features=4096", "data.samples=16384", "train.global_batch=8192", "optimizer=adamw"],
        "every": 10,
    },
    "cnn": {
        "words": ["model=cnn", "data=digits", "train.global_batch=64", "optimizer=adamw"],
        "steps": 2000, "warm": 200, "every": 10, "limit": 1.05,
    },
}  # fmt: skip
ON_A_CPU = [name for name, known in MODELS.items() if "limit" in known and name != "cnn"]
CLASSES = {"adamw": "AdamW", "sgd": "SGD"}
PEERS = {"accelerate": "accelerate", "lightning": "lightning", "lightning_full": "lightning"}
LIMIT_OF_EXTRA = 0.1
"""Of what accel adds to the loop, over what Lightning adds."""
QUIET = ["evaluate.every=1000000", "schedule=constant", "stopping=early", "hardware=cpu", "precision=fp32",
         "hardware.affinity=none", "train.epochs=null"]  # fmt: skip
LIKE_TORCH = ["hardware.allocator=system", "hardware.memory_format=contiguous"]
PLUGIN = ["--plugin", str(arms.HERE / "inside.py")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=ON_A_CPU, default="mlp")
    parser.add_argument("--steps", type=int, help="of a sample, those that warm up included")
    parser.add_argument("--warm", type=int, help="steps before the clock starts")
    parser.add_argument("--clip", type=float, help="clip gradients to this norm, in all arms")
    parser.add_argument("--as-shipped", action="store_true", help="accel and the others each as they come")
    arms.options(parser, rounds=10)
    given = parser.parse_args()
    known = MODELS[given.model]
    given.steps, given.warm = given.steps or known["steps"], known["warm"] if given.warm is None else given.warm
    if not 0 < given.warm < given.steps:
        parser.error(f"--warm {given.warm}: it takes 1 to {given.steps - 1} of {given.steps} steps")
    arms.EQUAL_WAITING = not given.as_shipped
    noise = arms.Noise()
    with tempfile.TemporaryDirectory() as folder:
        measure(given, Path(folder), noise)


def measure(given: argparse.Namespace, folder: Path, noise: arms.Noise) -> None:
    known = MODELS[given.model]
    facts = prepare(folder, known["words"], known["every"], given)
    extra = [*([] if given.as_shipped else LIKE_TORCH), f"metrics.every={known['every']}"]
    if given.clip:
        extra.append(f"train.clip_norm={given.clip}")
    if given.threads:
        extra.append(f"hardware.threads={given.threads}")
    pythons, missing = peers.find(given.peers, sorted(set(PEERS.values())))
    turns: dict[str, Callable[[], Sample]] = {
        "hand": partial(by_other, "hand", sys.executable, folder, given.threads),
        "accel": partial(by_accel, "accel", [*extra, "checkpoint.every=1000000"], folder, given),
        "hand again": partial(by_other, "hand", sys.executable, folder, given.threads),
        "unguarded": partial(by_other, "unguarded", sys.executable, folder, given.threads),
        "dataloader": partial(by_other, "dataloader", sys.executable, folder, given.threads),
        **{
            arm: partial(by_other, arm, pythons[peer], folder, given.threads)
            for arm, peer in PEERS.items()
            if peer in pythons
        },
    }
    turns = arms.that_work(arms.chosen(turns, given.arm), PEERS, missing)
    found = interleave(turns, given.rounds, arms.say)
    report(given, facts, folder, found, missing, noise)


def prepare(folder: Path, words: list[str], every: int, given: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """Write what every arm begins with, and return what the report tells of it."""
    run = plan(merged([*QUIET, *words, f"train.steps={given.steps}"])).run
    data = implementation("data", run.data)(run.data, run.train.seed)
    description = data.describe()
    rows = torch.arange(description.train_samples)
    stored = data.split("train").batch(rows)
    inputs, targets = Finish(description, torch.device("cpu"))(stored, rows, rows)
    order = Order(run.train.seed, len(rows), run.train.global_batch, 0, 1)
    hardware = implementation("hardware", run.hardware)(run.hardware)
    seed_everything(hardware, run.train.seed)
    model = implementation("model", run.model)(run.model, description)
    option = run.optimizer.option
    keys = ("momentum", "nesterov") if option == "sgd" else ()
    settings: dict[str, Any] = {"lr": run.optimizer.learning_rate, **{k: getattr(run.optimizer, k) for k in keys}}
    if option == "adamw":
        settings |= {"betas": (run.optimizer.beta1, run.optimizer.beta2), "eps": run.optimizer.epsilon}
    groups = [
        {"params": group["names"], "weight_decay": group["weight_decay"]}
        for group in parameter_groups(model, run.optimizer, {})
    ]
    whole = {
        "model": model, "inputs": inputs.contiguous(), "targets": targets, "every": every,
        "order": torch.stack([order.share(step)[1] for step in range(given.steps)]),
        "optimizer": CLASSES[option], "settings": settings, "groups": groups, "threads": given.threads,
        "first": given.warm, "last": given.steps, "clip": getattr(given, "clip", None), **more,
    }  # fmt: skip
    torch.save(whole, folder / "given.pt")
    settings_words = [f"optimizer={option}", f"optimizer.learning_rate={run.optimizer.learning_rate}"]
    given.words = [
        *settings_words,
        f"train.global_batch={run.train.global_batch}",
        f"data.classes={description.classes}",
    ]
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "samples": run.train.global_batch * given.steps,
        "steps": given.steps - given.warm,
    }


def by_other(kind: str, python: str, folder: Path, threads: int, place: str = "") -> Sample:
    """A loop of engine_arm.py, in the Python that has it."""
    at = arms.folder(folder / (place or kind))
    command = [python, str(arms.HERE / "engine_arm.py"), kind, str(at)]
    found = arms.windowed(command, threads, at, at / "window.json")
    return found | told_weights(torch.load(at / "weights.pt"))


def by_accel(name: str, extra: list[str], folder: Path, given: argparse.Namespace) -> Sample:
    """The command line itself, with the model and the samples of the others."""
    at = arms.folder(folder / name)
    where = f"folder:{at}"
    words = [
        "data=custom", "data.factory=inside:data", f"data.args={{{where}}}", "loader=memory", "model=custom",
        "model.factory=inside:model", f"model.args={{{where},first:{given.warm},last:{given.steps}}}",
        f"train.steps={given.steps}",
    ]  # fmt: skip
    command = [*arms.ACCEL, "train", "--json", "--run-dir", str(at / "run"), *PLUGIN]
    command += merged([*QUIET, *given.words, *words, *extra])
    found = arms.windowed(command, given.threads, at, at / "window.json")
    summary = json.loads((at / "run" / "summary.json").read_text())
    weights = told_weights(load_file(at / "run" / "checkpoints" / "latest" / "model.safetensors"))
    return {**found, **weights, "samples": summary["samples"]}


def told_weights(state: dict[str, torch.Tensor]) -> Sample:
    return {"weights": {name: value.clone() for name, value in state.items()}}


def proof(found: dict[str, list[Sample]], reference: str) -> dict[str, str]:
    """How each arm's last weights are to the reference's; they are taken out of the samples. Unequal work voids all."""
    weights = {name: [sample.pop("weights") for sample in samples] for name, samples in found.items()}
    theirs = weights[reference][0]
    largest = max(float(value.abs().max()) for value in theirs.values())
    told = {}
    for name, each in weights.items():
        if any(own.keys() != theirs.keys() for own in each):
            raise SystemExit(f"unequal work: {name} has other tensors than {reference}; the ratios are void")
        apart = max(float((own[key] - theirs[key]).abs().max()) for own in each for key in theirs) / largest
        if not apart <= 1e-2:
            raise SystemExit(
                f"unequal work: {name}'s weights differ by {apart:.1e} of the largest; the ratios are void"
            )
        told[name] = "the same bits" if apart == 0.0 else f"within {apart:.0e} of the largest weight"
    return told


def report(
    given: argparse.Namespace,
    facts: dict[str, Any],
    folder: Path,
    found: dict[str, list[Sample]],
    missing: dict[str, str],
    noise: arms.Noise,
) -> None:
    reference = "hand" if "hand" in found else next(iter(found))
    equal = proof(found, reference)
    for sample in found.get("accel", []):
        if (sample["samples"], sample["parameters"]) != (facts["samples"], facts["parameters"]):
            raise SystemExit(f"unequal work: accel saw {sample['samples']} samples, {sample['parameters']} parameters")
    for name, samples in found.items():
        if version := samples[0].get("version"):
            equal[name] += f"; {version}"
    unit = 1e6 / facts["steps"]
    title = (
        f"{given.model}: {facts['parameters']} parameters, {facts['samples']} samples, {facts['steps']} steps timed, "
        f"{given.threads} threads{', as shipped' if given.as_shipped else ''}"
    )
    lines = arms.rows(found, reference, unit=unit, unit_name="us/step", facts=equal)
    arms.show(title, lines)
    verdicts = arms.judge(found, "accel", reference, "hand again", MODELS[given.model]["limit"])
    verdicts += extra_cost(found, reference)
    arms.close(given, verdicts, missing, {"samples": found, "equal": equal, "facts": facts}, noise)


def extra_cost(found: dict[str, list[Sample]], reference: str) -> list[str]:
    """What accel adds to the loop by hand over what Lightning adds to it without the guard, which it has not."""
    lines = []
    base = "unguarded" if "unguarded" in found else reference
    for peer in ("lightning", "lightning_full", "accelerate"):
        if peer not in found or "accel" not in found or "hand again" not in found:
            continue
        for what in ("wall", "cpu"):
            own = differences(found["accel"], found[reference], what)
            theirs = differences(found[peer], found[base], what)
            if statistics.median(theirs) <= 0 or min(theirs) <= 0:
                lines.append(f"extra cost, accel / {peer}, {what}: cannot tell: {peer} adds less than the noise")
                continue
            share = ratio(own, theirs)
            noise = ratio([abs(d) for d in differences(found["hand again"], found[reference], what)], theirs)
            lines.append(
                f"extra cost, accel / {peer}, {what}: {share}, floor {noise}; at most {LIMIT_OF_EXTRA}: "
                + (arms.by_bounds(share, LIMIT_OF_EXTRA, len(own)) if noise.middle < LIMIT_OF_EXTRA else "cannot tell")
            )
    return lines


def differences(one: list[Sample], other: list[Sample], what: str) -> list[float]:
    return [a[what] - b[what] for a, b in zip(one, other, strict=True)]


if __name__ == "__main__":
    main()
